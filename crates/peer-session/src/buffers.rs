//! Buffers that the sessions of a node share: a quiet session keeps none.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::machine::Memory;

/// Read at a time.
const READ: usize = 256 * 1024;
/// Kept of each kind for the next session that has something to do: about as many as work at the same time.
const KEPT: usize = 8;

/// Messages smaller than this are the allocator's: it has such memory at hand, while larger blocks go back to the system
/// and come again page by page, which costs more than all the rest of receiving a message.
const RECYCLED: usize = 32 * 1024;
/// Bytes of messages' memory kept for the next ones.
const RECYCLED_BYTES: usize = 16 << 20;

#[derive(Default)]
struct Kept {
    read: Vec<Vec<u8>>,
    write: Vec<Vec<u8>>,
    /// By capacity.
    messages: Vec<Vec<u8>>,
    message_bytes: usize,
}

/// The buffers of a node's sessions. Cheap to clone; clones share. It keeps at most eight to read into (256 KiB each),
/// eight to write from (at most 1 MiB each) and 16 MiB for messages to come; a session has one to read and one to write
/// only while there is something in it.
#[derive(Clone, Default)]
pub struct Buffers(Arc<Mutex<Kept>>);

impl Buffers {
    /// None yet.
    pub fn new() -> Buffers {
        Buffers::default()
    }

    fn with<T>(&self, act: impl FnOnce(&mut Kept) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// One to read into, of fixed length. What it holds is somebody's old ciphertext or plain text, and is overwritten.
    pub(crate) fn read(&self) -> Vec<u8> {
        self.with(|kept| kept.read.pop()).unwrap_or_else(|| vec![0; READ])
    }

    pub(crate) fn give_read(&self, buffer: Vec<u8>) {
        self.with(|kept| {
            if kept.read.len() < KEPT {
                kept.read.push(buffer);
            }
        });
    }

    /// An empty one to write into.
    pub(crate) fn write(&self) -> Vec<u8> {
        self.with(|kept| kept.write.pop()).unwrap_or_default()
    }

    pub(crate) fn give_write(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        self.with(|kept| {
            if kept.write.len() < KEPT && buffer.capacity() > 0 {
                kept.write.push(buffer);
            }
        });
    }
}

impl Memory for Buffers {
    fn take(&mut self, total: usize) -> Vec<u8> {
        if total < RECYCLED {
            return Vec::new();
        }
        self.with(|kept| {
            let fit = kept.messages.partition_point(|buffer| buffer.capacity() < total);
            // One with much more room would hold what nobody reserved.
            if kept.messages.get(fit).is_none_or(|buffer| buffer.capacity() > total + total / 4) {
                return Vec::new();
            }
            let buffer = kept.messages.remove(fit);
            kept.message_bytes -= buffer.capacity();
            buffer
        })
    }

    fn whole(&mut self, message: Vec<u8>) -> Bytes {
        if message.len() < RECYCLED {
            return message.into();
        }
        Bytes::from_owner(Recycled { message, buffers: self.clone() })
    }
}

/// A message's memory, which comes back when the last reference to it is gone.
struct Recycled {
    message: Vec<u8>,
    buffers: Buffers,
}

impl AsRef<[u8]> for Recycled {
    fn as_ref(&self) -> &[u8] {
        &self.message
    }
}

impl Drop for Recycled {
    fn drop(&mut self) {
        let mut message = std::mem::take(&mut self.message);
        message.clear();
        self.buffers.with(|kept| {
            if kept.message_bytes + message.capacity() <= RECYCLED_BYTES {
                kept.message_bytes += message.capacity();
                let place = kept.messages.partition_point(|buffer| buffer.capacity() < message.capacity());
                kept.messages.insert(place, message);
            }
        });
    }
}

impl std::fmt::Debug for Buffers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Buffers")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_messages_memory_serves_the_next_of_its_size_and_no_smaller_one() {
        let mut buffers = Buffers::new();
        let message = |buffers: &mut Buffers, len: usize| {
            let mut memory = buffers.take(len);
            let at = memory.as_ptr();
            memory.resize(len, 1);
            (buffers.whole(memory), at)
        };
        let (first, _) = message(&mut buffers, 100_000);
        let at = first.as_ptr();
        let kept = first.slice(5..10);
        drop(first);
        assert_eq!(buffers.take(100_000).capacity(), 0, "somebody still reads it");
        drop(kept);
        assert_eq!(buffers.take(70_000).capacity(), 0, "too large for this one");
        let (second, reused) = message(&mut buffers, 90_000);
        assert_eq!((second.as_ptr(), reused, second.len()), (at, at, 90_000));
        drop(second);
        drop((0..10).map(|_| message(&mut buffers, 4 << 20)).collect::<Vec<_>>());
        assert!(buffers.with(|kept| kept.message_bytes) <= RECYCLED_BYTES);
    }
}

//! Messages on a stream: each is its length as a big-endian u32, and its bytes.

use bytes::{BufMut, Bytes, BytesMut};

use super::{StreamFailed, StreamReader, StreamWriter};
use crate::codec::Codec;

/// Why there is no next message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The stream failed.
    #[error(transparent)]
    Stream(#[from] StreamFailed),
    /// The stream ended within a message.
    #[error("the stream ended within a message")]
    Short,
    /// The peer says that the message has more bytes than are wanted.
    #[error("a message of {bytes} bytes, and at most {limit} are wanted")]
    TooLarge {
        /// What it says.
        bytes: usize,
        /// What is wanted.
        limit: usize,
    },
    /// A value that does not encode or decode.
    #[error("no value: {0}")]
    Value(String),
}

impl StreamWriter {
    /// Queues a message, and waits for room.
    ///
    /// # Errors
    /// [`FrameError`].
    pub async fn send(&mut self, message: impl Into<Bytes>) -> Result<(), FrameError> {
        let message = message.into();
        let limit = u32::MAX as usize;
        let length = u32::try_from(message.len()).map_err(|_| FrameError::TooLarge { bytes: message.len(), limit })?;
        let mut head = BytesMut::with_capacity(4);
        head.put_u32(length);
        self.write(head).await?;
        Ok(self.write(message).await?)
    }

    /// Queues a value as a message.
    ///
    /// # Errors
    /// [`FrameError`].
    pub async fn send_value<T, C: Codec<T>>(&mut self, codec: &C, value: &T) -> Result<(), FrameError> {
        self.send(codec.encode(value).map_err(FrameError::Value)?).await
    }
}

impl StreamReader {
    /// The next message, of at most `limit` bytes; `None` at the end. The length that the peer claims is judged before
    /// memory is taken, and memory follows what does come. After an error the stream is of no use.
    ///
    /// # Errors
    /// [`FrameError`].
    pub async fn recv(&mut self, limit: usize) -> Result<Option<Bytes>, FrameError> {
        let Some(head) = self.exactly(4).await? else { return Ok(None) };
        let bytes = head.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
        if bytes > limit {
            return Err(FrameError::TooLarge { bytes, limit });
        }
        self.exactly(bytes).await?.ok_or(FrameError::Short).map(Some)
    }

    /// The next value; `None` at the end. Its message has at most `limit` bytes.
    ///
    /// # Errors
    /// [`FrameError`].
    pub async fn recv_value<T, C: Codec<T>>(&mut self, codec: &C, limit: usize) -> Result<Option<T>, FrameError> {
        let Some(message) = self.recv(limit).await? else { return Ok(None) };
        codec.decode(message).map(Some).map_err(FrameError::Value)
    }

    /// Just so many bytes; `None` if the stream ended before them.
    async fn exactly(&mut self, len: usize) -> Result<Option<Bytes>, FrameError> {
        if len == 0 {
            return Ok(Some(Bytes::new()));
        }
        let mut bytes = BytesMut::new();
        while let Some(mut piece) = self.read().await? {
            let wanted = len - bytes.len();
            if piece.len() > wanted {
                self.keep(piece.split_off(wanted));
            }
            if piece.len() == len {
                return Ok(Some(piece));
            }
            bytes.extend_from_slice(&piece);
            if bytes.len() == len {
                return Ok(Some(bytes.freeze()));
            }
        }
        if bytes.is_empty() { Ok(None) } else { Err(FrameError::Short) }
    }

    /// What was read and belongs to the next message.
    fn keep(&mut self, rest: Bytes) {
        self.first = rest;
    }
}

//! Encrypted records: u16 length ‖ AEAD ciphertext, sealed and opened in the caller's buffers.

use bytes::BytesMut;
use zeroize::Zeroizing;

use crate::cipher::{CipherState, Forged, TAG_LEN};

/// Longest ciphertext of a record.
pub const MAX_RECORD: usize = u16::MAX as usize;
/// Longest plain text of a record.
pub const MAX_PLAIN: usize = MAX_RECORD - TAG_LEN;
const LENGTH: usize = 2;

/// Both directions get a new key each time this many records used the last one.
pub const REKEY_EVERY: u64 = 1 << 20;

/// Why bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// No record is as short.
    #[error("record of {0} bytes")]
    Short(usize),
    /// Changed, replayed, reordered or not the peer's.
    #[error("record {0}")]
    Forged(#[from] Forged),
}

/// Seals what this end sends.
#[derive(Debug)]
pub struct Sealer(CipherState);

/// Opens what the other end sends.
#[derive(Debug)]
pub struct Opener(CipherState);

fn rekey_if_due(cipher: &mut CipherState) {
    if cipher.sealed().is_multiple_of(REKEY_EVERY) {
        cipher.rekey();
    }
}

impl Sealer {
    pub(crate) fn new(key: Zeroizing<[u8; 32]>) -> Sealer {
        Sealer(CipherState::new(key))
    }

    /// Begins a record at the end of the buffer; the plain text is then appended to it.
    pub fn begin(&self, buffer: &mut Vec<u8>) -> RecordStart {
        let start = RecordStart(buffer.len());
        buffer.extend_from_slice(&[0; LENGTH]);
        start
    }

    /// Seals what was appended since [`begin`](Sealer::begin), in place. An empty record is taken back.
    ///
    /// # Panics
    /// If more than [`MAX_PLAIN`] bytes were appended, which is for the caller to see to.
    pub fn finish(&mut self, buffer: &mut Vec<u8>, start: RecordStart) {
        let text = start.0 + LENGTH;
        let len = buffer.len() - text;
        if len == 0 {
            buffer.truncate(start.0);
            return;
        }
        let sealed = u16::try_from(len + TAG_LEN).expect("callers append at most MAX_PLAIN bytes");
        let tag = self.0.seal(&[], &mut buffer[text..]).expect("a record is shorter than the cipher's limit");
        buffer.extend_from_slice(&tag);
        buffer[start.0..text].copy_from_slice(&sealed.to_be_bytes());
        rekey_if_due(&mut self.0);
    }
}

/// Where in its buffer a record begins.
#[derive(Debug)]
pub struct RecordStart(usize);

impl Opener {
    pub(crate) fn new(key: Zeroizing<[u8; 32]>) -> Opener {
        Opener(CipherState::new(key))
    }

    /// Takes the next record off the front of what was read and opens it in place; `None` if it is not
    /// there whole yet. The text shares the buffer it was read into.
    ///
    /// # Errors
    /// [`RecordError`]: the connection is of no more use.
    pub fn next(&mut self, read: &mut BytesMut) -> Result<Option<BytesMut>, RecordError> {
        let Some((length, rest)) = read.split_first_chunk::<LENGTH>() else { return Ok(None) };
        let len = usize::from(u16::from_be_bytes(*length));
        if len <= TAG_LEN {
            return Err(RecordError::Short(len));
        }
        if rest.len() < len {
            return Ok(None);
        }
        let mut record = read.split_to(LENGTH + len).split_off(LENGTH);
        let text = self.0.open(&[], &mut record)?.len();
        record.truncate(text);
        rekey_if_due(&mut self.0);
        Ok(Some(record))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Sealer, Opener) {
        (Sealer::new(Zeroizing::new([9; 32])), Opener::new(Zeroizing::new([9; 32])))
    }

    fn sealed(sealer: &mut Sealer, texts: &[&[u8]]) -> Vec<u8> {
        let mut buffer = Vec::new();
        for text in texts {
            let start = sealer.begin(&mut buffer);
            buffer.extend_from_slice(text);
            sealer.finish(&mut buffer, start);
        }
        buffer
    }

    #[test]
    fn records_come_out_as_they_went_in_however_they_are_cut() {
        let (mut sealer, mut opener) = pair();
        let long = vec![5; MAX_PLAIN];
        let bytes = sealed(&mut sealer, &[b"one", b"", &long, b"three"]);
        let mut read = BytesMut::new();
        let mut texts = Vec::new();
        for piece in bytes.chunks(1000) {
            read.extend_from_slice(piece);
            while let Some(text) = opener.next(&mut read).expect("true") {
                texts.push(text.to_vec());
            }
        }
        assert_eq!(texts, [b"one".to_vec(), long, b"three".to_vec()]);
        assert!(read.is_empty());
    }

    #[test]
    fn replayed_reordered_and_impossibly_short_records_are_refused() {
        let (mut sealer, mut opener) = pair();
        let one = sealed(&mut sealer, &[b"one"]);
        let two = sealed(&mut sealer, &[b"two"]);
        assert!(opener.next(&mut BytesMut::from(&two[..])).is_err(), "reordered");
        assert!(opener.next(&mut BytesMut::from(&one[..])).is_ok());
        assert!(opener.next(&mut BytesMut::from(&one[..])).is_err(), "replayed");
        for len in 0..=TAG_LEN as u8 {
            assert_eq!(opener.next(&mut BytesMut::from(&[0, len][..])), Err(RecordError::Short(usize::from(len))));
        }
    }

    #[test]
    fn both_ends_change_keys_at_the_same_record() {
        let (mut sealer, mut opener) = pair();
        for keyed in [REKEY_EVERY - 2, 5 * REKEY_EVERY - 1] {
            sealer.0.skip_to(keyed);
            opener.0.skip_to(keyed);
            for n in 0..4u8 {
                let bytes = sealed(&mut sealer, &[&[n]]);
                let text = opener.next(&mut BytesMut::from(&bytes[..])).expect("true").expect("whole");
                assert_eq!(text[..], [n]);
            }
        }
        let fresh = CipherState::new(Zeroizing::new([9; 32]));
        let stale = Opener({
            let mut stale = fresh;
            stale.skip_to(sealer.0.sealed());
            stale
        });
        let bytes = sealed(&mut sealer, &[b"x"]);
        let mut stale = stale;
        assert!(stale.next(&mut BytesMut::from(&bytes[..])).is_err(), "the first key no longer opens anything");
    }
}

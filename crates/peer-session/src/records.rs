//! Encrypted records: u16 length ‖ AEAD ciphertext, sealed and opened in the caller's buffers.

use std::ops::Range;

use zeroize::Zeroizing;

use crate::cipher::{CipherState, Forged, Suite, TAG_LEN};

/// Longest ciphertext of a record.
pub const MAX_RECORD: usize = u16::MAX as usize;
/// Longest plain text of a record.
pub const MAX_PLAIN: usize = MAX_RECORD - TAG_LEN;
const LENGTH: usize = 2;

/// Both directions get a new key each time this many records used the last one: at most 64 GiB under one key, far below
/// where AES-GCM's or ChaCha20-Poly1305's proofs end.
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
    pub(crate) fn new(suite: Suite, key: &Zeroizing<[u8; 32]>) -> Sealer {
        Sealer(CipherState::new(suite, key))
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
    pub(crate) fn new(suite: Suite, key: &Zeroizing<[u8; 32]>) -> Opener {
        Opener(CipherState::new(suite, key))
    }

    /// Opens the first record of what was read, in place; `None`, and nothing changed, if it is not there whole yet.
    /// A record opens once: the caller then goes on behind [`Record::end`].
    ///
    /// # Errors
    /// [`RecordError`]: the connection is of no more use.
    pub fn open_first(&mut self, read: &mut [u8]) -> Result<Option<Record>, RecordError> {
        let Some((length, rest)) = read.split_first_chunk_mut::<LENGTH>() else { return Ok(None) };
        let len = usize::from(u16::from_be_bytes(*length));
        if len <= TAG_LEN {
            return Err(RecordError::Short(len));
        }
        let Some(record) = rest.get_mut(..len) else { return Ok(None) };
        let text = self.0.open(&[], record)?.len();
        rekey_if_due(&mut self.0);
        Ok(Some(Record { text: LENGTH..LENGTH + text, end: LENGTH + len }))
    }
}

/// Where in the bytes read a record lies that has been opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its plain text.
    pub text: Range<usize>,
    /// Where the next record begins.
    pub end: usize,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cipher::tests::suites;

    fn pair(suite: Suite) -> (Sealer, Opener) {
        let key = Zeroizing::new([9; 32]);
        (Sealer::new(suite, &key), Opener::new(suite, &key))
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

    fn open(opener: &mut Opener, bytes: &[u8]) -> Result<Vec<u8>, RecordError> {
        let mut bytes = bytes.to_vec();
        let record = opener.open_first(&mut bytes)?.expect("whole");
        assert_eq!(record.end, bytes.len());
        Ok(bytes[record.text].to_vec())
    }

    #[test]
    fn records_come_out_as_they_went_in_however_they_are_cut() {
        for suite in suites() {
            let (mut sealer, mut opener) = pair(suite);
            let long = vec![5; MAX_PLAIN];
            let bytes = sealed(&mut sealer, &[b"one", b"", &long, b"three"]);
            let mut read = Vec::new();
            let mut texts = Vec::new();
            for piece in bytes.chunks(1000) {
                read.extend_from_slice(piece);
                while let Some(record) = opener.open_first(&mut read).expect("true") {
                    texts.push(read[record.text].to_vec());
                    read.drain(..record.end);
                }
            }
            assert_eq!(texts, [b"one".to_vec(), long, b"three".to_vec()]);
            assert!(read.is_empty());
        }
    }

    #[test]
    fn what_is_not_there_whole_is_left_alone() {
        let (mut sealer, mut opener) = pair(Suite::PureChaCha);
        let bytes = sealed(&mut sealer, &[b"one", b"two"]);
        let first = bytes.len() / 2;
        for cut in 0..first {
            let mut read = bytes[..cut].to_vec();
            assert_eq!(opener.open_first(&mut read), Ok(None));
            assert_eq!(read, bytes[..cut], "cut at {cut}");
        }
        let mut read = bytes.clone();
        let record = opener.open_first(&mut read).expect("true").expect("whole");
        assert_eq!((record.end, &read[record.text]), (first, &b"one"[..]));
        assert_eq!(read[first..], bytes[first..], "the next record is as it came");
    }

    #[test]
    fn replayed_reordered_and_impossibly_short_records_are_refused() {
        for suite in suites() {
            let (mut sealer, mut opener) = pair(suite);
            let one = sealed(&mut sealer, &[b"one"]);
            let two = sealed(&mut sealer, &[b"two"]);
            assert!(open(&mut opener, &two).is_err(), "reordered");
            assert!(open(&mut opener, &one).is_ok());
            assert!(open(&mut opener, &one).is_err(), "replayed");
            for len in 0..=TAG_LEN as u8 {
                assert_eq!(opener.open_first(&mut [0, len]), Err(RecordError::Short(usize::from(len))));
            }
        }
    }

    #[test]
    fn both_ends_change_keys_at_the_same_record() {
        for suite in suites() {
            let (mut sealer, mut opener) = pair(suite);
            // One end by another implementation of the same cipher: they must change to the same key.
            let (_, mut other) =
                suites().into_iter().filter(|s| s.cipher() == suite.cipher()).map(pair).next().expect("own");
            for keyed in [REKEY_EVERY - 2, 5 * REKEY_EVERY - 1] {
                sealer.0.skip_to(keyed);
                opener.0.skip_to(keyed);
                other.0.skip_to(keyed);
                for n in 0..4u8 {
                    let bytes = sealed(&mut sealer, &[&[n]]);
                    assert_eq!(open(&mut opener, &bytes).expect("true"), [n]);
                    assert_eq!(open(&mut other, &bytes).expect("true"), [n]);
                }
            }
            let (_, mut stale) = pair(suite);
            stale.0.skip_to(sealer.0.sealed());
            let bytes = sealed(&mut sealer, &[b"x"]);
            assert!(open(&mut stale, &bytes).is_err(), "the first key no longer opens anything");
        }
    }
}

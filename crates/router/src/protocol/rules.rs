//! What may be said in a protocol: codes within the agreed range, payloads within their size.

use bytes::{BufMut, Bytes, BytesMut};

/// Bytes of a message before its payload: its code.
pub const CODE_LEN: usize = 2;

/// Largest payload of a protocol's message unless it says otherwise, in bytes.
pub const DEFAULT_MAX_MESSAGE: usize = 1 << 20;

/// What both ends of a session agreed on for one protocol, and what follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// The highest version that both speak.
    pub version: u16,
    /// Its number of message codes: they are those below it.
    pub codes: u16,
    /// Largest payload, in bytes.
    pub max_message: usize,
}

/// Why a message is not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsendable {
    /// The version agreed on has no such code.
    #[error("code {code} is not below {codes}, the number of codes of the version agreed on")]
    Code {
        /// The code.
        code: u16,
        /// How many there are.
        codes: u16,
    },
    /// The payload is larger than the protocol has it.
    #[error("{bytes} bytes, and a message of this protocol has at most {limit}")]
    TooLarge {
        /// Its bytes.
        bytes: usize,
        /// The protocol's limit.
        limit: usize,
    },
}

/// What a peer did that no correct peer does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Breach {
    /// A message without a code.
    #[error("a message without a code")]
    NoCode,
    /// A message that the protocol has not.
    #[error(transparent)]
    Message(#[from] Unsendable),
}

impl Agreed {
    /// Whether a message may be sent.
    ///
    /// # Errors
    /// [`Unsendable`].
    pub const fn check(&self, code: u16, bytes: usize) -> Result<(), Unsendable> {
        if code >= self.codes {
            return Err(Unsendable::Code { code, codes: self.codes });
        }
        if bytes > self.max_message {
            return Err(Unsendable::TooLarge { bytes, limit: self.max_message });
        }
        Ok(())
    }

    /// The code and the payload of a message that came in.
    ///
    /// # Errors
    /// [`Breach`], after which nothing the peer says is worth reading.
    pub fn read(&self, mut message: Bytes) -> Result<(u16, Bytes), Breach> {
        let code = code_of(&message).ok_or(Breach::NoCode)?;
        let payload = message.split_off(CODE_LEN);
        self.check(code, payload.len())?;
        Ok((code, payload))
    }
}

/// A message as it travels.
pub fn message(code: u16, payload: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(CODE_LEN + payload.len());
    bytes.put_u16(code);
    bytes.put_slice(payload);
    bytes.freeze()
}

/// The code that these bytes of a message begin with, if they are enough of it.
pub fn code_of(bytes: &[u8]) -> Option<u16> {
    bytes.first_chunk().map(|code| u16::from_be_bytes(*code))
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGREED: Agreed = Agreed { version: 3, codes: 2, max_message: 4 };

    #[test]
    fn a_message_is_these_bytes_and_comes_back() {
        let bytes = message(0x0102, b"abc");
        assert_eq!(&bytes[..], [1, 2, b'a', b'b', b'c']);
        let wide = Agreed { codes: u16::MAX, ..AGREED };
        assert_eq!(wide.read(bytes), Ok((0x0102, Bytes::from_static(b"abc"))));
        assert_eq!(AGREED.read(message(1, b"")), Ok((1, Bytes::new())));
    }

    #[test]
    fn a_code_out_of_range_is_refused_when_sent_and_a_breach_when_received() {
        assert_eq!(AGREED.check(1, 4), Ok(()));
        for code in [2, 3, u16::MAX] {
            let out = Unsendable::Code { code, codes: 2 };
            assert_eq!(AGREED.check(code, 0), Err(out));
            assert_eq!(AGREED.read(message(code, b"")), Err(out.into()));
        }
        let none = Agreed { codes: 0, ..AGREED };
        assert!(none.check(0, 0).is_err(), "no codes, no messages");
    }

    #[test]
    fn a_message_that_is_too_large_or_too_short_is_refused_at_both_ends() {
        let large = Unsendable::TooLarge { bytes: 5, limit: 4 };
        assert_eq!(AGREED.check(0, 5), Err(large));
        assert_eq!(AGREED.read(message(0, b"12345")), Err(large.into()));
        for short in [&b""[..], b"\0"] {
            assert_eq!(AGREED.read(Bytes::from_static(short)), Err(Breach::NoCode));
        }
    }
}

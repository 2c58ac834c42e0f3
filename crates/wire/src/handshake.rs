//! What the three handshake messages carry inside their encryption.
//!
//! On the stream: four bytes of magic and the Noise message m1 (of exactly [`m1_len`] bytes together), then u16 length
//! and m2, then u16 length and m3. From there on only records: u16 length and AEAD ciphertext.
//!
//! | magic | handshake | m1 |
//! |---|---|---|
//! | [`MAGIC`] | `Noise_XX_25519_ChaChaPoly_SHA256` | an x25519 key |
//! | [`MAGIC_SECRET`] | `Noise_XXpsk0_25519_ChaChaPoly_SHA256`, of a network with a secret | an x25519 key, a tag |

use serde::{Deserialize, Serialize};

use crate::MAX_RECORD;
use crate::codec::{Blob, List};

/// The first four bytes of a connection: three of magic, one that names the handshake. Other handshakes
/// on the same port can be told apart by them; they are bound into the prologue.
pub const MAGIC: [u8; 4] = *b"PRG\x01";

/// As [`MAGIC`], of a connection in a network whose nodes share a secret.
pub const MAGIC_SECRET: [u8; 4] = *b"PRG\x02";

/// Bytes of the first message: magic and an x25519 key.
pub const M1_LEN: usize = 4 + 32;

/// Bytes of the first message where there is a secret: also the tag that proves the sender to know it.
pub const M1_SECRET_LEN: usize = M1_LEN + 16;

/// Bytes of the first message that begins with this magic, itself included; `None` for other protocols'.
pub const fn m1_len(magic: [u8; 4]) -> Option<usize> {
    match magic {
        MAGIC => Some(M1_LEN),
        MAGIC_SECRET => Some(M1_SECRET_LEN),
        _ => None,
    }
}

/// Longest second or third message, in bytes, without its length.
pub const MAX_MESSAGE: usize = 2048;

/// A cipher for records, as named in the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CipherId(pub u16);

impl CipherId {
    /// ChaCha20-Poly1305 (RFC 8439): every node speaks it.
    pub const CHACHA20_POLY1305: CipherId = CipherId(1);
    /// AES-256-GCM (NIST SP 800-38D): offered by ends whose processor has instructions for it.
    pub const AES_256_GCM: CipherId = CipherId(2);

    /// A word for metrics and people.
    pub const fn label(self) -> &'static str {
        match self {
            CipherId::CHACHA20_POLY1305 => "chacha20-poly1305",
            CipherId::AES_256_GCM => "aes-256-gcm",
            CipherId(_) => "unknown",
        }
    }
}

/// The accepting end's payload. Bytes after it belong to a later version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResponderPayload {
    /// Its signed record, which proves the x25519 key of this handshake to be its identity's.
    pub record: Blob<MAX_RECORD>,
    /// Its [`Hello`](crate::Hello), encoded.
    pub hello: Blob<1024>,
    /// The record ciphers it speaks.
    pub ciphers: List<CipherId, 16>,
}

/// The dialling end's payload. Bytes after it belong to a later version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitiatorPayload {
    /// Its signed record.
    pub record: Blob<MAX_RECORD>,
    /// Its [`Hello`](crate::Hello), encoded.
    pub hello: Blob<1024>,
    /// The cipher it chose of those offered.
    pub cipher: CipherId,
    /// Empty today, skipped by who does not know what is in it.
    pub extension: Blob<512>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec;

    #[test]
    fn the_first_bytes_name_the_handshake_and_its_first_messages_length() {
        assert_eq!((MAGIC, MAGIC_SECRET), ([0x50, 0x52, 0x47, 1], [0x50, 0x52, 0x47, 2]));
        assert_eq!((m1_len(MAGIC), m1_len(MAGIC_SECRET), m1_len(*b"PRG\x03")), (Some(36), Some(52), None));
        assert_eq!(m1_len(*b"GET "), None);
    }

    #[test]
    fn the_payloads_are_these_bytes() {
        let (record, hello) = (Blob::new([1, 2]).expect("short"), Blob::new([3]).expect("short"));
        let m2 = ResponderPayload {
            record: record.clone(),
            hello: hello.clone(),
            ciphers: List::new(vec![CipherId::CHACHA20_POLY1305, CipherId(300)]).expect("few"),
        };
        assert_eq!(data_encoding::HEXLOWER.encode(&codec::encode(&m2)), "0201020103 0201fb2c01".replace(' ', ""));
        let m3 = InitiatorPayload {
            record,
            hello,
            cipher: CipherId::CHACHA20_POLY1305,
            extension: Blob::new([5, 6]).expect("short"),
        };
        assert_eq!(data_encoding::HEXLOWER.encode(&codec::encode(&m3)), "0201020103 01020506".replace(' ', ""));
        assert_eq!(codec::decode_exact(&codec::encode(&m2), MAX_MESSAGE), Ok(m2));
        assert_eq!(codec::decode_exact(&codec::encode(&m3), MAX_MESSAGE), Ok(m3));
    }

    #[test]
    fn the_largest_payloads_fit_their_message() {
        // 96: m2's or m3's keys and tags.
        let m3 = InitiatorPayload {
            record: Blob::new([0; MAX_RECORD]).expect("fits"),
            hello: Blob::new([0; 1024]).expect("fits"),
            cipher: CipherId(u16::MAX),
            extension: Blob::new([0; 512]).expect("fits"),
        };
        assert!(codec::encode(&m3).len() + 96 <= MAX_MESSAGE);
    }
}

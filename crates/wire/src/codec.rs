//! The one place that knows how values become bytes: bincode 2 with a limit on every decode.
//!
//! bincode has no maintainer since December 2025 (RUSTSEC-2025-0141). It is used here only, pinned,
//! and every type on the wire has a frozen byte vector, so a compatible codec can replace it in this
//! file. It cannot grow by itself, so types that must (greetings, records, packets) are read with
//! [`decode_prefix`], which leaves bytes of later versions alone.

use std::fmt;
use std::ops::Deref;

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Why bytes are not the value they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The input is longer than this kind of value may be.
    #[error("{len} bytes where at most {limit} are allowed")]
    TooLong {
        /// Bytes in the input.
        len: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// The bytes do not decode.
    #[error("malformed: {0}")]
    Malformed(String),
    /// The value decoded, and bytes were left over where none may be.
    #[error("{0} bytes left over")]
    Trailing(usize),
}

fn config() -> impl bincode::config::Config {
    bincode::config::standard()
}

/// The bytes of a value.
///
/// # Panics
/// If serde cannot represent the type (a map of unknown length, say). That depends on the type, not on
/// the value, and every wire type has a byte vector, so it shows in the type's own test.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    match bincode::serde::encode_to_vec(value, config()) {
        Ok(bytes) => bytes,
        Err(error) => panic!("a wire type that does not encode: {error}"),
    }
}

/// The value that the bytes begin with, and how many bytes it took. What follows belongs to a later
/// version and is ignored.
///
/// # Errors
/// More than `limit` bytes of input, or bytes that do not decode.
pub fn decode_prefix<'a, T: Deserialize<'a>>(bytes: &'a [u8], limit: usize) -> Result<(T, usize), CodecError> {
    if bytes.len() > limit {
        return Err(CodecError::TooLong { len: bytes.len(), limit });
    }
    bincode::serde::borrow_decode_from_slice(bytes, config()).map_err(|error| CodecError::Malformed(error.to_string()))
}

/// The value that is exactly these bytes.
///
/// # Errors
/// As [`decode_prefix`], and bytes left over.
pub fn decode_exact<'a, T: Deserialize<'a>>(bytes: &'a [u8], limit: usize) -> Result<T, CodecError> {
    let (value, used) = decode_prefix(bytes, limit)?;
    if used == bytes.len() { Ok(value) } else { Err(CodecError::Trailing(bytes.len() - used)) }
}

/// The value that is exactly these bytes, where its type has no bounds of its own: lengths that the bytes claim are
/// allowed only in proportion to how many there are. For what this computer wrote itself, such as journals, and for the
/// values of applications, where `limit` keeps them small: above 256 KiB of bytes, a claim is bounded at 1 GiB only.
///
/// # Errors
/// As [`decode_exact`].
pub fn decode_unbounded<'a, T: Deserialize<'a>>(bytes: &'a [u8], limit: usize) -> Result<T, CodecError> {
    fn within<'a, T: Deserialize<'a>, const MAX: usize>(bytes: &'a [u8]) -> Result<(T, usize), CodecError> {
        bincode::serde::borrow_decode_from_slice(bytes, bincode::config::standard().with_limit::<MAX>())
            .map_err(|error| CodecError::Malformed(error.to_string()))
    }
    if bytes.len() > limit {
        return Err(CodecError::TooLong { len: bytes.len(), limit });
    }
    // A number of one byte counts as the up to 16 bytes that it could have.
    let (value, used) = match bytes.len().saturating_mul(16) {
        0..=0x4000 => within::<T, 0x4000>(bytes),
        0x4001..=0x40_0000 => within::<T, 0x40_0000>(bytes),
        _ => within::<T, 0x4000_0000>(bytes),
    }?;
    if used == bytes.len() { Ok(value) } else { Err(CodecError::Trailing(bytes.len() - used)) }
}

/// Reads bytes by copying them from the input, where serde's own reading of an owned buffer makes room for as many as
/// are claimed. For `#[serde(deserialize_with)]`.
///
/// # Errors
/// If there are not as many bytes as are claimed.
pub fn copied<'de, D: Deserializer<'de>, T: From<Vec<u8>>>(deserializer: D) -> Result<T, D::Error> {
    struct Copied;

    impl Visitor<'_> for Copied {
        type Value = Vec<u8>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("bytes")
        }

        fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
            Ok(bytes.to_vec())
        }
    }

    deserializer.deserialize_bytes(Copied).map(T::from)
}

/// At most `MAX` bytes. A claimed length allocates nothing: the bytes are taken from the input.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Blob<const MAX: usize>(Vec<u8>);

impl<const MAX: usize> Blob<MAX> {
    /// The bytes, if they are few enough.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Option<Self> {
        let bytes = bytes.into();
        (bytes.len() <= MAX).then_some(Blob(bytes))
    }
}

impl<const MAX: usize> Deref for Blob<MAX> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl<const MAX: usize> fmt::Debug for Blob<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl<const MAX: usize> Serialize for Blob<MAX> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de, const MAX: usize> Deserialize<'de> for Blob<MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes<const MAX: usize>;

        impl<const MAX: usize> Visitor<'_> for Bytes<MAX> {
            type Value = Blob<MAX>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "at most {MAX} bytes")
            }

            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Blob<MAX>, E> {
                if bytes.len() > MAX {
                    return Err(E::invalid_length(bytes.len(), &self));
                }
                Ok(Blob(bytes.to_vec()))
            }
        }

        deserializer.deserialize_bytes(Bytes::<MAX>)
    }
}

/// UTF-8 text of at most `MAX` bytes.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Text<const MAX: usize>(String);

impl<const MAX: usize> Text<MAX> {
    /// The text, if it is short enough.
    pub fn new(text: impl Into<String>) -> Option<Self> {
        let text = text.into();
        (text.len() <= MAX).then_some(Text(text))
    }
}

impl<const MAX: usize> Deref for Text<MAX> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl<const MAX: usize> fmt::Debug for Text<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl<const MAX: usize> fmt::Display for Text<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<const MAX: usize> Serialize for Text<MAX> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0.as_bytes())
    }
}

impl<'de, const MAX: usize> Deserialize<'de> for Text<MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = Blob::<MAX>::deserialize(deserializer)?;
        String::from_utf8(bytes.0).map(Text).map_err(|_| D::Error::custom("text is not UTF-8"))
    }
}

/// At most `MAX` values. A claimed length allocates nothing beyond what the input holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct List<T, const MAX: usize>(Vec<T>);

impl<T, const MAX: usize> Default for List<T, MAX> {
    fn default() -> Self {
        List(Vec::new())
    }
}

impl<T, const MAX: usize> List<T, MAX> {
    /// The values, if they are few enough.
    pub fn new(values: Vec<T>) -> Option<Self> {
        (values.len() <= MAX).then_some(List(values))
    }

    /// The first `MAX` of the values.
    pub fn truncated(values: impl IntoIterator<Item = T>) -> Self {
        List(values.into_iter().take(MAX).collect())
    }

    /// The values by themselves.
    pub fn into_vec(self) -> Vec<T> {
        self.0
    }
}

impl<T, const MAX: usize> Deref for List<T, MAX> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T: Serialize, const MAX: usize> Serialize for List<T, MAX> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for List<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Values<T, const MAX: usize>(std::marker::PhantomData<T>);

        impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for Values<T, MAX> {
            type Value = List<T, MAX>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "at most {MAX} values")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<List<T, MAX>, A::Error> {
                // Grows as values arrive; the claimed length is never trusted.
                let mut values = Vec::new();
                while let Some(value) = seq.next_element()? {
                    if values.len() == MAX {
                        return Err(A::Error::invalid_length(MAX + 1, &self));
                    }
                    values.push(value);
                }
                Ok(List(values))
            }
        }

        deserializer.deserialize_seq(Values::<T, MAX>(std::marker::PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Sample = (u16, Blob<4>, List<Text<8>, 3>);

    fn sample() -> Sample {
        let names = ["a", "bc"].map(|name| Text::new(name).expect("short"));
        (513, Blob::new([1, 2, 3]).expect("short"), List::new(names.to_vec()).expect("few"))
    }

    #[test]
    fn the_encoding_is_the_frozen_one() {
        let bytes = encode(&sample());
        assert_eq!(data_encoding::HEXLOWER.encode(&bytes), "fb01020301020302016102 6263".replace(' ', ""));
        assert_eq!(decode_exact::<Sample>(&bytes, 64), Ok(sample()));
    }

    #[test]
    fn more_than_the_maximum_is_refused() {
        assert!(decode_exact::<Blob<2>>(&[3, 1, 2, 3], 64).is_err());
        assert!(decode_exact::<List<u8, 2>>(&[3, 1, 2, 3], 64).is_err());
        assert_eq!(decode_exact::<Blob<9>>(&[0; 65], 64), Err(CodecError::TooLong { len: 65, limit: 64 }));
        assert!(Blob::<2>::new([1, 2, 3]).is_none());
    }

    #[test]
    fn a_claimed_length_beyond_the_input_is_an_error_not_an_allocation() {
        // 0xfd: a u64 length follows.
        let huge = [0xfd, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
        assert!(decode_exact::<Blob<64>>(&huge, 64).is_err());
        assert!(decode_exact::<List<u64, 64>>(&huge, 64).is_err());
        assert!(decode_exact::<Text<64>>(&huge, 64).is_err());
        assert!(decode_unbounded::<Vec<u8>>(&huge, 64).is_err());
        assert!(decode_unbounded::<String>(&huge, 64).is_err());
        assert!(decode_unbounded::<Copied>(&huge, 64).is_err());
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Copied(#[serde(deserialize_with = "copied")] Vec<u8>);

    #[test]
    fn a_value_of_any_size_is_read_if_its_bytes_are_there() {
        let large: Vec<u64> = (0..200_000).collect();
        let bytes = encode(&(large.clone(), "text".to_owned()));
        assert_eq!(decode_unbounded(&bytes, 1 << 20), Ok((large, "text".to_owned())));
        assert_eq!(decode_unbounded(&[3, 1, 2, 3], 64), Ok(Copied(vec![1, 2, 3])));
        assert_eq!(decode_unbounded::<u8>(&[7, 9], 64), Err(CodecError::Trailing(1)));
        assert_eq!(decode_unbounded::<u8>(&[7, 9], 1), Err(CodecError::TooLong { len: 2, limit: 1 }));
    }

    #[test]
    fn exact_refuses_what_prefix_ignores() {
        assert_eq!(decode_exact::<u8>(&[7, 9], 64), Err(CodecError::Trailing(1)));
        assert_eq!(decode_prefix::<u8>(&[7, 9], 64), Ok((7, 1)));
    }
}

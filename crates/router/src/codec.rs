//! How a protocol's values become payloads: its own choice, the same on both ends.

use bytes::Bytes;
use peerage_wire::codec;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Writes and reads the values of one type.
pub trait Codec<T> {
    /// The bytes of a value.
    ///
    /// # Errors
    /// Why it has none, in words.
    fn encode(&self, value: &T) -> Result<Bytes, String>;

    /// The value of these bytes, which may be anybody's.
    ///
    /// # Errors
    /// Why it is none, in words.
    fn decode(&self, bytes: Bytes) -> Result<T, String>;
}

/// Bytes as they are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Raw;

impl Codec<Bytes> for Raw {
    fn encode(&self, value: &Bytes) -> Result<Bytes, String> {
        Ok(value.clone())
    }

    fn decode(&self, bytes: Bytes) -> Result<Bytes, String> {
        Ok(bytes)
    }
}

/// bincode, for values of at most [`MAX_BINCODE`] bytes. Lengths that a payload claims are believed in proportion to its
/// bytes only.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bincode;

/// Bytes of a value that [`Bincode`] takes: beyond, what a short payload may claim would be no bound any more.
pub const MAX_BINCODE: usize = 256 << 10;

impl<T: Serialize + DeserializeOwned> Codec<T> for Bincode {
    fn encode(&self, value: &T) -> Result<Bytes, String> {
        let bytes = codec::encode(value);
        if bytes.len() > MAX_BINCODE {
            return Err(format!("{} bytes, and bincode has at most {MAX_BINCODE} here; send them raw", bytes.len()));
        }
        Ok(bytes.into())
    }

    fn decode(&self, bytes: Bytes) -> Result<T, String> {
        codec::decode_unbounded(&bytes, MAX_BINCODE).map_err(|error| error.to_string())
    }
}

/// JSON.
#[cfg(feature = "json")]
#[derive(Clone, Copy, Debug, Default)]
pub struct Json;

#[cfg(feature = "json")]
impl<T: Serialize + DeserializeOwned> Codec<T> for Json {
    fn encode(&self, value: &T) -> Result<Bytes, String> {
        serde_json::to_vec(value).map(Bytes::from).map_err(|error| error.to_string())
    }

    fn decode(&self, bytes: Bytes) -> Result<T, String> {
        serde_json::from_slice(&bytes).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Value = (u16, String, Vec<u64>);

    fn comes_back(codec: impl Codec<Value>) {
        let value: Value = (7, "text".to_owned(), vec![1, u64::MAX]);
        let bytes = codec.encode(&value).expect("encodes");
        assert_eq!(codec.decode(bytes.clone()), Ok(value));
        for cut in 0..bytes.len() {
            assert!(codec.decode(bytes.slice(..cut)).is_err(), "cut at {cut}");
        }
        assert!(codec.decode([&bytes[..], b"x"].concat().into()).is_err(), "bytes left over");
    }

    #[test]
    fn values_come_back_and_what_is_no_value_is_an_error() {
        comes_back(Bincode);
        #[cfg(feature = "json")]
        comes_back(Json);
        assert_eq!(Raw.decode("any".into()), Ok(Bytes::from_static(b"any")));
    }

    #[test]
    fn a_claimed_length_makes_no_room() {
        let huge = Bytes::from_static(&[0xfd, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]);
        assert!(Codec::<String>::decode(&Bincode, huge.clone()).is_err());
        assert!(Codec::<Vec<u64>>::decode(&Bincode, huge).is_err());
        assert!(Codec::<Vec<u8>>::decode(&Bincode, vec![0; MAX_BINCODE + 1].into()).is_err());
        assert!(Codec::<Vec<u8>>::encode(&Bincode, &vec![0; MAX_BINCODE + 1]).is_err());
    }
}

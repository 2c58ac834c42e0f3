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

/// MessagePack, structs as maps by their fields' names, nested at most [`MAX_MESSAGEPACK_DEPTH`] deep. Bytes are looked
/// through before anything is made of them: what they claim to hold is there.
#[cfg(feature = "messagepack")]
#[derive(Clone, Copy, Debug, Default)]
pub struct MessagePack;

/// How deep values of [`MessagePack`] may be nested.
#[cfg(feature = "messagepack")]
pub const MAX_MESSAGEPACK_DEPTH: usize = 64;

#[cfg(feature = "messagepack")]
impl<T: Serialize + DeserializeOwned> Codec<T> for MessagePack {
    fn encode(&self, value: &T) -> Result<Bytes, String> {
        let bytes = rmp_serde::to_vec_named(value).map_err(|error| error.to_string())?;
        messagepack::check(&bytes).map_err(|what| format!("the peer would not read it: {what}"))?;
        Ok(bytes.into())
    }

    fn decode(&self, bytes: Bytes) -> Result<T, String> {
        messagepack::check(&bytes)?;
        rmp_serde::from_slice(&bytes).map_err(|error| error.to_string())
    }
}

#[cfg(feature = "messagepack")]
mod messagepack;

/// Protocol Buffers, for the messages that `prost` makes, nested at most 100 deep. Fields that a message has not are
/// passed over, as that format has it: a message does not say where it ends, so one that is cut between two fields is one
/// with fewer of them.
#[cfg(feature = "protobuf")]
#[derive(Clone, Copy, Debug, Default)]
pub struct Protobuf;

#[cfg(feature = "protobuf")]
impl<T: prost::Message + Default> Codec<T> for Protobuf {
    fn encode(&self, value: &T) -> Result<Bytes, String> {
        Ok(value.encode_to_vec().into())
    }

    fn decode(&self, bytes: Bytes) -> Result<T, String> {
        T::decode(bytes).map_err(|error| error.to_string())
    }
}

#[cfg(all(test, feature = "protobuf"))]
mod protobuf_tests;

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
        #[cfg(feature = "messagepack")]
        comes_back(MessagePack);
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

    #[cfg(any(feature = "json", feature = "messagepack"))]
    #[derive(Debug, Default, PartialEq, Serialize, serde::Deserialize)]
    struct Nested(Vec<Nested>);

    #[cfg(feature = "json")]
    #[test]
    fn nesting_without_end_is_refused_by_json_and_does_not_overflow_the_stack() {
        let nested = |depth: usize| Bytes::from(["[".repeat(depth), "]".repeat(depth)].concat());
        assert!(Codec::<Nested>::decode(&Json, nested(100)).is_ok());
        for depth in [1000, 1 << 20] {
            assert!(Codec::<Nested>::decode(&Json, nested(depth)).is_err(), "{depth}");
            assert!(Codec::<Nested>::decode(&Json, "[".repeat(depth).into()).is_err(), "{depth}");
            assert!(Codec::<String>::decode(&Json, nested(depth)).is_err(), "{depth}");
        }
        assert_eq!(Codec::<(u8, String)>::encode(&Json, &(7, "a".into())), Ok("[7,\"a\"]".into()), "frozen");
    }

    #[cfg(feature = "messagepack")]
    #[test]
    fn nesting_without_end_is_refused_by_messagepack_and_does_not_overflow_the_stack() {
        let nested = |depth: usize| Bytes::from([vec![0x91; depth - 1], vec![0x90]].concat());
        let deepest = Codec::<Nested>::decode(&MessagePack, nested(MAX_MESSAGEPACK_DEPTH)).expect("as deep as may be");
        assert_eq!(MessagePack.encode(&deepest), Ok(nested(MAX_MESSAGEPACK_DEPTH)));
        let deeper = Nested(vec![deepest]);
        assert!(Codec::<Nested>::encode(&MessagePack, &deeper).is_err(), "nor is such a value sent");
        for depth in [MAX_MESSAGEPACK_DEPTH + 2, 1000, 1 << 20] {
            assert!(Codec::<Nested>::decode(&MessagePack, nested(depth)).is_err(), "{depth}");
            assert!(Codec::<String>::decode(&MessagePack, nested(depth)).is_err(), "{depth}");
        }
    }

    #[cfg(feature = "messagepack")]
    #[test]
    fn messagepack_is_these_bytes_and_believes_no_length() {
        #[derive(Debug, PartialEq, Serialize, serde::Deserialize)]
        struct Status {
            height: u64,
            tags: Vec<String>,
        }
        let status = Status { height: 300, tags: vec!["a".into()] };
        let bytes = MessagePack.encode(&status).expect("encodes");
        assert_eq!(&bytes[..], b"\x82\xa6height\xcd\x01\x2c\xa4tags\x91\xa1a");
        assert_eq!(MessagePack.decode(bytes), Ok(status));
        // An array, a map, text and bytes of 4 GiB.
        for kind in [0xdd, 0xdf, 0xdb, 0xc6] {
            let huge = Bytes::from(vec![kind, 0xff, 0xff, 0xff, 0xff, 0, 0, 0]);
            assert!(Codec::<Vec<u64>>::decode(&MessagePack, huge.clone()).is_err());
            assert!(Codec::<String>::decode(&MessagePack, huge).is_err());
        }
    }
}

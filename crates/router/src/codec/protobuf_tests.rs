//! Messages as `prost` makes them, written by hand: its derive is another crate.

use bytes::{Buf, BufMut, Bytes};
use prost::DecodeError;
use prost::encoding::{DecodeContext, WireType, message, skip_field, string, uint64};

use super::{Codec, Protobuf};

#[derive(Clone, Debug, Default, PartialEq)]
struct Status {
    height: u64,
    name: String,
    inner: Option<Box<Status>>,
}

impl prost::Message for Status {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        if self.height != 0 {
            uint64::encode(1, &self.height, buf);
        }
        if !self.name.is_empty() {
            string::encode(2, &self.name, buf);
        }
        if let Some(inner) = &self.inner {
            message::encode(3, inner, buf);
        }
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        match tag {
            1 => uint64::merge(wire_type, &mut self.height, buf, ctx),
            2 => string::merge(wire_type, &mut self.name, buf, ctx),
            3 => message::merge(wire_type, self.inner.get_or_insert_default(), buf, ctx),
            _ => skip_field(wire_type, tag, buf, ctx),
        }
    }

    fn encoded_len(&self) -> usize {
        let mut bytes = Vec::new();
        self.encode_raw(&mut bytes);
        bytes.len()
    }

    fn clear(&mut self) {
        *self = Status::default();
    }
}

fn decode(bytes: impl Into<Bytes>) -> Result<Status, String> {
    Protobuf.decode(bytes.into())
}

#[test]
fn protobuf_is_these_bytes_and_passes_over_later_fields() {
    let inner = Some(Box::new(Status { height: 1, ..Status::default() }));
    let status = Status { height: 300, name: "a".into(), inner };
    let bytes = Protobuf.encode(&status).expect("encodes");
    assert_eq!(&bytes[..], b"\x08\xac\x02\x12\x01a\x1a\x02\x08\x01");
    assert_eq!(decode(bytes.clone()), Ok(status.clone()));
    assert_eq!(decode([&bytes[..], b"\x20\x01"].concat()), Ok(status), "a field of a later version");
    for cut in [1, 2, 4, 5, 7, 8, 9] {
        assert!(decode(bytes.slice(..cut)).is_err(), "cut at {cut}, within a field");
    }
    for rest in [&b"x"[..], b"\0", b"\x07"] {
        assert!(decode([&bytes[..], rest].concat()).is_err(), "{rest:?} is no field");
    }
}

#[test]
fn nesting_without_end_is_refused_by_protobuf_and_does_not_overflow_the_stack() {
    let nested = |depth: usize| {
        let mut bytes = Vec::new();
        for _ in 0..depth {
            let mut outer = vec![0x1a];
            prost::encoding::encode_varint(bytes.len() as u64, &mut outer);
            bytes.splice(0..0, outer);
        }
        bytes
    };
    assert!(decode(nested(90)).is_ok());
    assert!(decode(nested(2000)).is_err());
    // Unknown groups in each other, without end and with.
    for depth in [2000, 1 << 20] {
        assert!(decode(vec![0x23; depth]).is_err(), "{depth} open groups");
        assert!(decode([vec![0x23; depth], vec![0x24; depth]].concat()).is_err(), "{depth} groups");
    }
    // A length of nearly 2^63.
    assert!(decode(&b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\x7f"[..]).is_err());
}

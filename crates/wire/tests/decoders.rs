//! Every decoder of bytes that others send: whatever they are, an error or a value within its bounds.

use peerage_wire::codec::{self, CodecError};
use peerage_wire::handshake::{CipherId, InitiatorPayload, MAX_MESSAGE, ResponderPayload};
use peerage_wire::{Capability, DisconnectReason, Hello, Keypair, MAX_RECORD, NetworkId, NodeId, NodeRecord};
use proptest::prelude::*;

/// A length of eight bytes in front of nothing, as no honest end encodes one.
const HUGE: [u8; 9] = [0xfd, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];

/// The small types, each as it lies inside the messages.
#[test]
fn the_parts_of_messages_are_these_bytes() {
    let hex = |bytes: Vec<u8>| data_encoding::HEXLOWER.encode(&bytes);
    assert_eq!(hex(codec::encode(&NetworkId::named("test"))), "c4debd52f9aeb0ff");
    assert_eq!(hex(codec::encode(&Capability::new("gossip", 300).expect("short"))), "06676f73736970fb2c01");
    let ciphers = [CipherId::CHACHA20_POLY1305, CipherId::AES_256_GCM, CipherId(u16::MAX)];
    assert_eq!(hex(codec::encode(&ciphers)), "0102fbffff");
    let id = NodeId::from_bytes([7; 32]);
    assert_eq!(hex(codec::encode(&id)), "07".repeat(32));
    assert_eq!(DisconnectReason::HandshakeTimeout.code().to_be_bytes(), [1, 9]);
    // The text form, of the ed25519 key of RFC 8032's first test.
    let seed = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
    let seed = data_encoding::HEXLOWER.decode(seed.as_bytes()).expect("hex").try_into().expect("32 bytes");
    let id = Keypair::from_seed(seed).id();
    let public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    assert_eq!(data_encoding::HEXLOWER.encode(id.as_bytes()), public);
    assert_eq!(id.to_string(), "12D3KooWQK1wnefoLrcVHbbnf5tLzbopUd3K3bFAoJpA7YJgL5pV");
}

#[test]
fn lengths_that_are_claimed_and_not_there_are_errors_everywhere() {
    // The first field of each payload is a record's length.
    assert!(codec::decode_prefix::<ResponderPayload>(&HUGE, MAX_MESSAGE).is_err());
    assert!(codec::decode_prefix::<InitiatorPayload>(&HUGE, MAX_MESSAGE).is_err());
    // Up to the fork id, the agent and the capabilities of a greeting.
    for before in [9, 9 + 1 + 1, 9 + 1 + 1 + 1] {
        let bytes = [&vec![0; before][..], &HUGE].concat();
        assert!(codec::decode_prefix::<Hello>(&bytes, Hello::MAX).is_err(), "{before}");
    }
    // Up to the addresses and the entries of a record.
    for before in [1 + 32 + 1 + 8 + 32, 1 + 32 + 1 + 8 + 32 + 1] {
        let mut bytes = [&vec![0; before][..], &HUGE, &[0; 64]].concat();
        bytes[0] = 1;
        assert!(NodeRecord::decode(&bytes).is_err(), "{before}");
    }
    let long = vec![0; MAX_MESSAGE + 1];
    let refused = codec::decode_prefix::<ResponderPayload>(&long, MAX_MESSAGE).map(drop);
    assert_eq!(refused, Err(CodecError::TooLong { len: MAX_MESSAGE + 1, limit: MAX_MESSAGE }));
    assert!(NodeRecord::decode(&vec![1; MAX_RECORD + 1]).is_err());
}

/// A greeting that an end could send, and where it was damaged.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let edit = (any::<usize>(), any::<u8>());
    (proptest::collection::vec(edit, 0..4), 0usize..200).prop_map(|(edits, cut)| {
        let hello = "01c4debd52f9aeb0ff020909fd08070605040302010d706565726167652f302e312e300106676f7373697001";
        let mut bytes = data_encoding::HEXLOWER.decode(hello.as_bytes()).expect("hex");
        for (place, to) in edits {
            let place = place % bytes.len();
            bytes[place] = to;
        }
        bytes.truncate(cut);
        bytes
    })
}

fn bytes(max: usize) -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..max)
}

proptest! {
    /// What decodes is within its bounds, took no more than there was, and encodes again.
    #[test]
    fn any_bytes_are_a_greeting_or_an_error(bytes in prop_oneof![bytes(300), damaged()]) {
        if let Ok((hello, used)) = codec::decode_prefix::<Hello>(&bytes, Hello::MAX) {
            prop_assert!(used <= bytes.len() && hello.capabilities.len() <= 32 && hello.agent.len() <= 64);
            let again = codec::encode(&hello);
            prop_assert!(again.len() <= used, "the shortest form");
            prop_assert_eq!(codec::decode_exact::<Hello>(&again, Hello::MAX), Ok(hello));
        }
    }

    #[test]
    fn any_bytes_are_a_handshakes_payload_or_an_error(
        mut bytes in bytes(1500),
        lens in proptest::option::of((0u8..250, 0u8..250)),
    ) {
        // True lengths in front, so that more than the first field is reached.
        if let Some((record, hello)) = lens {
            for (at, len) in [(0, record), (1 + usize::from(record), hello)] {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = len;
                }
            }
        }
        if let Ok((payload, used)) = codec::decode_prefix::<ResponderPayload>(&bytes, MAX_MESSAGE) {
            prop_assert!(used <= bytes.len() && payload.record.len() <= MAX_RECORD && payload.ciphers.len() <= 16);
            let _ = NodeRecord::decode(&payload.record);
        }
        if let Ok((payload, used)) = codec::decode_prefix::<InitiatorPayload>(&bytes, MAX_MESSAGE) {
            prop_assert!(used <= bytes.len() && payload.record.len() <= MAX_RECORD && payload.extension.len() <= 512);
            let _ = codec::decode_prefix::<Hello>(&payload.hello, Hello::MAX);
        }
    }

    #[test]
    fn any_text_is_an_id_or_a_record_or_an_error(text in ".{0,80}", tail in "[A-Za-z0-9_-]{0,420}") {
        let _ = text.parse::<NodeId>();
        let _ = format!("12D3KooW{tail}").parse::<NodeId>();
        let _ = text.parse::<NodeRecord>();
        if let Ok(record) = format!("pnr:{tail}").parse::<NodeRecord>() {
            prop_assert!(record.bytes().len() <= MAX_RECORD);
        }
    }
}

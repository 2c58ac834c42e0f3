//! Byte vectors of every kind, and what arbitrary bytes do.

use proptest::prelude::*;

use super::*;

const LIMIT: usize = 1024;

fn topic(name: &str) -> Topic {
    Topic::new(name).expect("short")
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

fn origin() -> Origin {
    Origin {
        publisher: NodeId::from_bytes([0xaa; 32]),
        sequence: 0x0102_0304_0506_0708,
        issued: 0x1112_1314_1516_1718,
        signature: [0xbb; 64],
    }
}

fn only(bytes: Bytes) -> Item {
    let mut decoded: Vec<_> = items(bytes, LIMIT).collect();
    assert_eq!(decoded.len(), 1);
    decoded.remove(0).expect("decodes")
}

#[test]
fn control_items_are_these_bytes_and_come_back() {
    let id = MessageId([0xcc; 32]);
    let cc = "cc".repeat(32);
    let vectors = [
        (
            topics(true, [&topic("a"), &topic("bc")]),
            "01 00000006 01 0161 026263".to_owned(),
            Item::Topics { want_reply: true, coded: false, topics: vec![topic("a"), topic("bc")] },
        ),
        (
            topics(false, []),
            "01 00000001 00".to_owned(),
            Item::Topics { want_reply: false, coded: false, topics: vec![] },
        ),
        (subscribe(&topic("a")), "02 00000002 0161".to_owned(), Item::Subscribe(topic("a"))),
        (unsubscribe(&topic("a")), "03 00000002 0161".to_owned(), Item::Unsubscribe(topic("a"))),
        (
            i_have(&topic("a"), &[id]),
            format!("06 00000022 0161 {cc}"),
            Item::IHave { topic: topic("a"), ids: vec![id] },
        ),
        (i_want(&[id, id]), format!("07 00000040 {cc}{cc}"), Item::IWant { ids: vec![id, id] }),
        (graft(&topic("a")), "08 00000002 0161".to_owned(), Item::Graft(topic("a"))),
        (prune(&topic("a"), 60), "09 00000004 0161 003c".to_owned(), Item::Prune { topic: topic("a"), rest: 60 }),
        (i_dont_want(&[id]), format!("0a 00000020 {cc}"), Item::IDontWant { ids: vec![id] }),
        (
            firsts(&[1, id.head()]),
            format!("0b 00000010 0000000000000001 {}", "cc".repeat(8)),
            Item::Firsts { heads: vec![1, id.head()] },
        ),
    ];
    for (bytes, expected, item) in vectors {
        assert_eq!(hex(&bytes), expected.replace(' ', ""));
        assert_eq!(only(bytes), item);
    }
}

#[test]
fn messages_are_these_bytes_and_come_back() {
    let signed = Parcel::new(topic("a"), Some(origin()), b"hi");
    let expected =
        format!("04 00000074 0161 {} 0102030405060708 1112131415161718 {} 6869", "aa".repeat(32), "bb".repeat(64));
    assert_eq!(hex(&signed.bytes), expected.replace(' ', ""));
    assert_eq!(only(signed.bytes.clone()), Item::Message(signed));

    let anonymous = Parcel::new(topic("a"), None, b"hi");
    assert_eq!(hex(&anonymous.bytes), "050000000401616869");
    assert_eq!(only(anonymous.bytes.clone()), Item::Message(anonymous));
}

#[test]
fn a_payload_is_not_copied_when_decoded() {
    let sent = Parcel::new(topic("a"), Some(origin()), &[7; 500]);
    let Item::Message(received) = only(sent.bytes.clone()) else { panic!("a message") };
    assert_eq!(received.payload.as_ptr(), sent.payload.as_ptr());
    assert_eq!(received.bytes.as_ptr(), sent.bytes.as_ptr());
    let detached = received.detached();
    assert_eq!((&detached.payload, &detached.bytes), (&sent.payload, &sent.bytes));
    assert_ne!(detached.payload.as_ptr(), sent.payload.as_ptr());
}

#[test]
fn an_unknown_kind_is_skipped_by_its_length() {
    let mut bytes = vec![200, 0, 0, 0, 3, 1, 2, 3];
    bytes.extend_from_slice(&subscribe(&topic("a")));
    let decoded: Vec<_> = items(bytes.into(), LIMIT).collect();
    assert_eq!(decoded, [Ok(Item::Unknown(200)), Ok(Item::Subscribe(topic("a")))]);
}

#[test]
fn what_is_too_large_or_too_many_is_refused() {
    let large = Parcel::new(topic("a"), None, &[0; LIMIT + 1]).bytes;
    assert_eq!(items(large, LIMIT).next(), Some(Err(WireError::TooLarge(LIMIT + 1))));

    let crowd: Bytes = [200, 0, 0, 0, 0].repeat(MAX_ITEMS + 1).into();
    let decoded: Vec<_> = items(crowd, LIMIT).collect();
    assert_eq!(decoded.len(), MAX_ITEMS + 1);
    assert_eq!(decoded.last(), Some(&Err(WireError::TooManyItems)));

    let ids = control(7, |to| to.put_slice(&vec![0; 32 * (MAX_IDS + 1)]));
    assert_eq!(items(ids, LIMIT).next(), Some(Err(WireError::TooMany)));
    let names = control(1, |to| to.put_slice(&[&[0][..], &[1, b'a'].repeat(MAX_TOPICS + 1)].concat()));
    assert_eq!(items(names, LIMIT).next(), Some(Err(WireError::TooMany)));
}

#[test]
fn malformed_items_end_the_message() {
    let cases: [(&[u8], WireError); 8] = [
        (&[1], WireError::Short),
        (&[1, 0xff, 0xff, 0xff, 0xff], WireError::Short),
        (&[2, 0, 0, 0, 1, 0], WireError::Topic),
        (&[2, 0, 0, 0, 2, 1, 0xff], WireError::Topic),
        (&[2, 0, 0, 0, 3, 1, b'a', 0], WireError::Trailing(1)),
        (&[2, 0, 0, 0, 2, 2, b'a'], WireError::Short),
        (&[7, 0, 0, 0, 1, 0], WireError::Short),
        (&[4, 0, 0, 0, 2, 1, b'a'], WireError::Short),
    ];
    for (bytes, error) in cases {
        let bytes = [bytes, &subscribe(&topic("after"))].concat();
        // A cut item swallows what follows it; whichever error shows, nothing after it is read.
        let decoded: Vec<_> = items(bytes.clone().into(), LIMIT).collect();
        assert_eq!(decoded.len(), 1, "{bytes:?}");
        if !matches!(error, WireError::Short) {
            assert_eq!(decoded[0], Err(error), "{bytes:?}");
        }
        assert!(decoded[0].is_err(), "{bytes:?}");
    }
    let whole = Parcel::new(topic("a"), Some(origin()), b"hi").bytes;
    for cut in 1..whole.len() {
        assert_eq!(items(whole.slice(..cut), LIMIT).next(), Some(Err(WireError::Short)), "cut at {cut}");
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic_and_always_end(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(items(bytes.into(), LIMIT).count() <= MAX_ITEMS + 1);
    }

    #[test]
    fn arbitrary_bodies_of_known_kinds_never_panic(kind in 0u8..14, body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let bytes = control(kind, |to| to.put_slice(&body));
        for item in items(bytes, LIMIT).flatten() {
            if let Item::Message(parcel) = item {
                prop_assert!(parcel.payload.len() <= body.len());
            }
        }
    }

    #[test]
    fn a_message_comes_back(name in "[a-z]{1,64}", payload in proptest::collection::vec(any::<u8>(), 0..LIMIT), signed: bool) {
        let parcel = Parcel::new(topic(&name), signed.then(origin), &payload);
        prop_assert_eq!(&parcel.payload[..], &payload[..]);
        prop_assert_eq!(only(parcel.bytes.clone()), Item::Message(parcel));
    }
}

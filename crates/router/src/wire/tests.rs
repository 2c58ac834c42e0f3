//! Frozen bytes, and what a hostile peer may send.

use proptest::prelude::*;

use super::*;

fn only(bytes: Bytes) -> Result<Item, WireError> {
    let mut items = items(bytes, 64);
    let first = items.next().expect("one item");
    assert_eq!(items.next(), None, "and no more");
    first
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

#[test]
fn items_are_these_bytes() {
    let handler = HandlerId(0x0102_0304_0506_0708);
    let asked = request(9, handler, Duration::from_millis(1500), b"hi");
    assert_eq!(hex(&asked), "0100000016000000000000000901020304050607080000 05dc6869".replace(' ', ""));
    assert_eq!(hex(&response(9, b"yo")), "020000000a0000000000000009796f");
    assert_eq!(hex(&error(9, ErrorCode::Throttled, "no")), "030000000c000000000000000900046e6f");
    assert_eq!(hex(&cancel(9)), "04000000080000000000000009");
    assert_eq!(hex(&message(handler, b"m")), "050000000901020304050607086d");
}

#[test]
fn items_come_back() {
    let handler = HandlerId(7);
    let deadline = Duration::from_millis(1500);
    let payload = Bytes::from_static(b"hi");
    assert_eq!(
        only(request(1, handler, deadline, b"hi")),
        Ok(Item::Request { id: 1, handler, deadline, payload: payload.clone() })
    );
    assert_eq!(only(response(1, b"hi")), Ok(Item::Response { id: 1, payload: payload.clone() }));
    let said = Item::Error { id: 1, code: ErrorCode::Application(3), text: "no".to_owned() };
    assert_eq!(only(error(1, ErrorCode::Application(3), "no")), Ok(said));
    assert_eq!(only(cancel(1)), Ok(Item::Cancel { id: 1 }));
    assert_eq!(only(message(handler, b"hi")), Ok(Item::Message { handler, payload }));
}

#[test]
fn error_codes_are_distinct_and_unknown_ones_are_kept() {
    let known = [
        ErrorCode::Internal,
        ErrorCode::UnknownHandler,
        ErrorCode::NotMember,
        ErrorCode::Throttled,
        ErrorCode::InvalidRequest,
        ErrorCode::TooLarge,
        ErrorCode::Application(0),
        ErrorCode::Unknown(77),
    ];
    let codes: std::collections::BTreeSet<u16> = known.iter().map(|code| code.code()).collect();
    assert_eq!(codes.len(), known.len());
    for code in known {
        assert_eq!(ErrorCode::from_code(code.code()), code);
    }
}

#[test]
fn an_unknown_kind_is_skipped_by_its_length() {
    let bytes = [&[99, 0, 0, 0, 2, 1, 2][..], &cancel(4)].concat();
    let items: Vec<_> = items(bytes.into(), 64).collect();
    assert_eq!(items, [Ok(Item::Unknown(99)), Ok(Item::Cancel { id: 4 })]);
}

#[test]
fn items_cut_short_too_long_or_too_many_are_refused() {
    let whole = request(1, HandlerId(1), Duration::from_secs(1), b"");
    for cut in 1..whole.len() {
        assert_eq!(only(whole.slice(..cut)), Err(WireError::Short), "cut at {cut}");
    }
    assert_eq!(only(response(1, &[0; 65])), Err(WireError::TooLarge(65)));
    assert_eq!(only(Bytes::from_static(&[4, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 1, 0])), Err(WireError::Trailing(1)));
    assert_eq!(only(Bytes::from_static(&[2, 0xff, 0xff, 0xff, 0xff])), Err(WireError::Short));
    assert_eq!(only(Bytes::from_static(&[3, 0, 0, 0, 11, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0xff])), Err(WireError::Text));
    let many = Bytes::from(cancel(1).repeat(MAX_ITEMS + 1));
    assert_eq!(items(many, 64).last(), Some(Err(WireError::TooManyItems)));
}

#[test]
fn a_text_is_cut_between_characters() {
    let Ok(Item::Error { text, .. }) = only(error(1, ErrorCode::Internal, &"é".repeat(200))) else {
        panic!("an error");
    };
    assert_eq!(text, "é".repeat(MAX_TEXT / 2));
    let Ok(Item::Error { text, .. }) = only(error(1, ErrorCode::Internal, &format!("x{}", "é".repeat(200)))) else {
        panic!("an error");
    };
    assert_eq!(text.len(), MAX_TEXT - 1);
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic_and_end(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
        prop_assert!(items(bytes.into(), 64).count() <= MAX_ITEMS + 1);
    }
}

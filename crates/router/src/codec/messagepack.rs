//! Looking through MessagePack before it is read: without recursion, and without memory for what it claims.

use super::MAX_MESSAGEPACK_DEPTH;

const CUT: &str = "the bytes end too early";

/// Whether the bytes are one value, whole, with nothing after it, and nested no deeper than may be.
pub(super) fn check(bytes: &[u8]) -> Result<(), &'static str> {
    let mut rest = bytes;
    // Values that are still to come, by level; the outermost is one.
    let mut wanted = [0; MAX_MESSAGEPACK_DEPTH + 1];
    let mut level = 0;
    wanted[0] = 1;
    loop {
        while wanted[level] == 0 {
            if level == 0 {
                return if rest.is_empty() { Ok(()) } else { Err("bytes are left over") };
            }
            level -= 1;
        }
        wanted[level] -= 1;
        let kind = take(&mut rest, 1)?;
        // Bytes to pass over, and values inside.
        let (skipped, inside) = match kind as u8 {
            0x00..=0x7f | 0xc0 | 0xc2 | 0xc3 | 0xe0..=0xff => (0, 0),
            0x80..=0x8f => (0, 2 * (kind & 0x0f)),
            0x90..=0x9f => (0, kind & 0x0f),
            0xa0..=0xbf => (kind & 0x1f, 0),
            0xc1 => return Err("a byte that MessagePack has not"),
            0xc4 | 0xd9 => (take(&mut rest, 1)?, 0),
            0xc5 | 0xda => (take(&mut rest, 2)?, 0),
            0xc6 | 0xdb => (take(&mut rest, 4)?, 0),
            // Extensions: a length, a type, and so many bytes.
            0xc7 => (take(&mut rest, 1)? + 1, 0),
            0xc8 => (take(&mut rest, 2)? + 1, 0),
            0xc9 => (take(&mut rest, 4)? + 1, 0),
            0xd4..=0xd8 => (1 + (1 << (kind - 0xd4)), 0),
            0xcc | 0xd0 => (1, 0),
            0xcd | 0xd1 => (2, 0),
            0xca | 0xce | 0xd2 => (4, 0),
            0xcb | 0xcf | 0xd3 => (8, 0),
            0xdc => (0, take(&mut rest, 2)?),
            0xdd => (0, take(&mut rest, 4)?),
            0xde => (0, 2 * take(&mut rest, 2)?),
            0xdf => (0, 2 * take(&mut rest, 4)?),
        };
        rest = usize::try_from(skipped).ok().and_then(|skipped| rest.get(skipped..)).ok_or(CUT)?;
        // Each value is a byte at least.
        if inside > rest.len() as u64 {
            return Err(CUT);
        }
        // An empty list is a level, too: so it is where it is read.
        if matches!(kind, 0x80..=0x9f | 0xdc..=0xdf) {
            if level + 1 >= wanted.len() {
                return Err("nested too deep");
            }
            level += 1;
            wanted[level] = inside;
        }
    }
}

/// The next bytes, as a number.
fn take(rest: &mut &[u8], bytes: usize) -> Result<u64, &'static str> {
    let (taken, after) = rest.split_at_checked(bytes).ok_or(CUT)?;
    *rest = after;
    Ok(taken.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_kind_of_value_is_as_long_as_it_is() {
        let whole: [&[u8]; 16] = [
            b"\x7f",
            b"\xe0",
            b"\xc0",
            b"\xa2ab",
            b"\x92\x01\xa1a",
            b"\x81\xa1a\x90",
            b"\xc4\x02ab",
            b"\xc5\x00\x01a",
            b"\xc6\x00\x00\x00\x01a",
            b"\xc7\x02\x05ab",
            b"\xd5\x05ab",
            b"\xcb12345678",
            b"\xcd12",
            b"\xdc\x00\x01\xc3",
            b"\xde\x00\x01\xc3\xc2",
            b"\xdf\x00\x00\x00\x01\xc3\xc2",
        ];
        for bytes in whole {
            assert_eq!(check(bytes), Ok(()), "{bytes:?}");
            assert!((0..bytes.len()).all(|cut| check(&bytes[..cut]).is_err()), "{bytes:?} cut");
            assert!(check(&[bytes, b"\0"].concat()).is_err(), "{bytes:?} and more");
        }
        assert!(check(b"\xc1").is_err() && check(b"").is_err());
    }

    proptest! {
        #[test]
        fn whatever_comes_is_looked_through_and_what_passes_is_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if check(&bytes).is_ok() {
                let _ = rmp_serde::from_slice::<serde::de::IgnoredAny>(&bytes);
            }
        }
    }
}

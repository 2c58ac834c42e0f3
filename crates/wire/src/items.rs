//! Items of kind ‖ length ‖ body: how the protocols of a channel put several things into one message of a session.
//!
//! Kind is a u8, length a big-endian u32 of the body's bytes. A protocol skips items of kinds that it does not know, which
//! is how kinds are added later.

use bytes::Bytes;

/// Bytes of an item before its body.
pub const ITEM_HEADER: usize = 1 + 4;
/// Most items in a session message.
pub const MAX_ITEMS: usize = 1024;

/// Why a message is not made of items.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ItemsError {
    /// An item is longer than what is left.
    #[error("cut short")]
    Short,
    /// More than [`MAX_ITEMS`].
    #[error("more than {MAX_ITEMS} items")]
    TooMany,
}

/// Reads the items of a session message: `decode` is given each one's kind, and its bytes from the header on, which are a
/// slice of the message. Ends after the first error.
pub fn items<T, E: From<ItemsError>>(
    message: Bytes,
    mut decode: impl FnMut(u8, Bytes) -> Result<T, E>,
) -> impl Iterator<Item = Result<T, E>> {
    let (mut rest, mut count) = (message, 0);
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        count += 1;
        let next = if count > MAX_ITEMS { Err(ItemsError::TooMany) } else { split(&mut rest) };
        let item = next.map_err(E::from).and_then(|(kind, item)| decode(kind, item));
        if item.is_err() {
            rest = Bytes::new();
        }
        Some(item)
    })
}

/// Takes the first item off.
fn split(rest: &mut Bytes) -> Result<(u8, Bytes), ItemsError> {
    let Some(([kind, len @ ..], _)) = rest.split_first_chunk::<ITEM_HEADER>() else { return Err(ItemsError::Short) };
    let len = usize::try_from(u32::from_be_bytes(*len)).map_err(|_| ItemsError::Short)?;
    let end = ITEM_HEADER.checked_add(len).filter(|end| *end <= rest.len()).ok_or(ItemsError::Short)?;
    let kind = *kind;
    Ok((kind, rest.split_to(end)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(message: impl Into<Bytes>) -> Vec<Result<(u8, Vec<u8>), ItemsError>> {
        items(message.into(), |kind, item| Ok((kind, item[ITEM_HEADER..].to_vec()))).collect()
    }

    #[test]
    fn items_come_one_after_the_other_until_the_first_error() {
        let two = [7, 0, 0, 0, 2, b'a', b'b', 200, 0, 0, 0, 0];
        assert_eq!(all(two.to_vec()), [Ok((7, b"ab".to_vec())), Ok((200, Vec::new()))]);
        for cut in 1..7 {
            assert_eq!(all(two[..cut].to_vec()), [Err(ItemsError::Short)], "cut at {cut}");
        }
        assert_eq!(all(vec![1, 0xff, 0xff, 0xff, 0xff]), [Err(ItemsError::Short)], "a length is a claim");
        let refused = items(Bytes::from(two.to_vec()), |_, _| Err::<(), _>(ItemsError::Short));
        assert_eq!(refused.count(), 1);
        let crowd = all([200, 0, 0, 0, 0].repeat(MAX_ITEMS + 2));
        assert_eq!((crowd.len(), crowd.last()), (MAX_ITEMS + 1, Some(&Err(ItemsError::TooMany))));
    }

    proptest! {
        #[test]
        fn any_bytes_end(bytes in proptest::collection::vec(any::<u8>(), 0..4096)) {
            prop_assert!(all(bytes).len() <= MAX_ITEMS + 1);
        }
    }
}

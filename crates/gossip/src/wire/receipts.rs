//! The items by which a node learns which of its peers have a message.
//!
//! | kind | item | body |
//! |---|---|---|
//! | 13 | [`Confirm`](Item::Confirm) | topic ‖ ids of 32 bytes |
//! | 14 | [`Receipts`](Item::Receipts) | ids of 32 bytes |

use bytes::{BufMut, Bytes};

use super::{MAX_IDS, control, kind, put_topic};
use crate::message::{MessageId, Topic};

/// Announces messages, and asks to be told as soon as they are there; at most [`MAX_IDS`] ids are put in.
pub fn confirm(topic: &Topic, ids: &[MessageId]) -> Bytes {
    control(kind::CONFIRM, |to| {
        put_topic(to, topic);
        ids.iter().take(MAX_IDS).for_each(|id| to.put_slice(&id.0));
    })
}

/// Says that messages are here; at most [`MAX_IDS`] ids are put in.
pub fn receipts(ids: &[MessageId]) -> Bytes {
    control(kind::RECEIPTS, |to| ids.iter().take(MAX_IDS).for_each(|id| to.put_slice(&id.0)))
}

#[cfg(test)]
mod tests {
    use super::super::{Item, MAX_PAYLOAD, WireError, items};
    use super::*;

    #[test]
    fn the_bytes_are_the_frozen_ones_and_come_back() {
        let (topic, id) = (Topic::new("t").expect("short"), MessageId([7; 32]));
        let asked = confirm(&topic, &[id]);
        assert_eq!((&asked[..7], &asked[7..]), (&[13, 0, 0, 0, 34, 1, b't'][..], &[7; 32][..]));
        let said = receipts(&[id]);
        assert_eq!((&said[..5], &said[5..]), (&[14, 0, 0, 0, 32][..], &[7; 32][..]));
        let decoded = |bytes| items(bytes, MAX_PAYLOAD).collect::<Vec<_>>();
        assert_eq!(decoded(asked), [Ok(Item::Confirm { topic, ids: vec![id] })]);
        assert_eq!(decoded(said), [Ok(Item::Receipts { ids: vec![id] })]);
    }

    #[test]
    fn half_an_id_and_too_many_of_them_are_refused() {
        let short = Bytes::from([&[14, 0, 0, 0, 31][..], &[0; 31]].concat());
        assert_eq!(items(short, 0).next(), Some(Err(WireError::Short)));
        let len = u32::try_from(32 * (MAX_IDS + 1)).expect("small").to_be_bytes();
        let many = Bytes::from([&[14][..], &len, &vec![0; 32 * (MAX_IDS + 1)]].concat());
        assert_eq!(items(many, 0).next(), Some(Err(WireError::TooMany)));
    }
}

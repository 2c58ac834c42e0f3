//! Histories of durable topics on the wire: how far a node is, and what peers' logs have beyond it.
//!
//! The body of kind 15 is one of
//!
//! | first byte | rest |
//! |---|---|
//! | 0: a question | topic ‖ round u32 ‖ after u64 ‖ first publisher 32 ‖ last publisher 32 ‖ publisher 32, sequence u64, for each |
//! | 1: the end of an answer | topic ‖ round u32 ‖ after u64 ‖ messages u32 ‖ flags u8 (bit 0: there is more; bit 1: the sender keeps the topic) |
//! | 2: what follows in the session message is out of a log | – |
//!
//! Others are skipped, as unknown kinds are.

use bytes::{BufMut, Bytes, BytesMut};
use peerage_wire::NodeId;

use super::{ITEM_HEADER, Item, Reader, WireError, begin, control, finish, kind, put_topic};
use crate::message::Topic;

/// Most publishers that one question says something of: 16,000 bytes.
pub const MAX_KNOWN: usize = 400;

const ASK: u8 = 0;
const END: u8 = 1;
const LOGGED: u8 = 2;

/// What a node lacks of the publishers between two of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryAsk {
    /// The durable topic.
    pub topic: Topic,
    /// The asker's number for the question.
    pub round: u32,
    /// How far the answerer was with its last answer, by its own count; 0 at first.
    pub after: u64,
    /// The first publisher that is asked for.
    pub first: NodeId,
    /// The last one.
    pub last: NodeId,
    /// Publishers in order, and the last sequence of each that the asker has. Of others it has nothing.
    pub known: Vec<(NodeId, u64)>,
}

impl HistoryAsk {
    /// Whether the asker lacks a message.
    pub fn lacks(&self, publisher: &NodeId, sequence: u64) -> bool {
        let asked = (self.first..=self.last).contains(publisher);
        asked
            && match self.known.binary_search_by_key(publisher, |(known, _)| *known) {
                Ok(at) => self.known.get(at).is_some_and(|(_, last)| sequence > *last),
                Err(_) => true,
            }
    }
}

/// The end of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryEnd {
    /// The durable topic.
    pub topic: Topic,
    /// The question's.
    pub round: u32,
    /// How far the answerer's log was looked through.
    pub after: u64,
    /// Messages that were sent.
    pub sent: u32,
    /// Whether there is more behind it.
    pub more: bool,
    /// Whether the sender keeps the topic at all.
    pub keeps: bool,
}

const MORE: u8 = 1;
const KEEPS: u8 = 2;

pub(super) fn decode(body: &mut Reader<'_>) -> Result<Item, WireError> {
    match body.u8()? {
        ASK => {
            let topic = body.topic()?;
            let round = u32::from_be_bytes(body.array()?);
            let after = u64::from_be_bytes(body.array()?);
            let (first, last) = (NodeId::from_bytes(body.array()?), NodeId::from_bytes(body.array()?));
            if body.0.len() > MAX_KNOWN * 40 {
                return Err(WireError::TooMany);
            }
            let mut known: Vec<(NodeId, u64)> = Vec::with_capacity(body.0.len() / 40);
            while !body.0.is_empty() {
                let next = (NodeId::from_bytes(body.array()?), u64::from_be_bytes(body.array()?));
                let rises = known.last().is_none_or(|(before, _)| *before < next.0);
                if !rises || !(first..=last).contains(&next.0) {
                    return Err(WireError::History);
                }
                known.push(next);
            }
            Ok(Item::HistoryAsk(Box::new(HistoryAsk { topic, round, after, first, last, known })))
        }
        END => {
            let (topic, round) = (body.topic()?, u32::from_be_bytes(body.array()?));
            let (after, sent) = (u64::from_be_bytes(body.array()?), u32::from_be_bytes(body.array()?));
            let flags = body.u8()?;
            let (more, keeps) = (flags & MORE != 0, flags & KEEPS != 0);
            Ok(Item::HistoryEnd(HistoryEnd { topic, round, after, sent, more, keeps }))
        }
        LOGGED => Ok(Item::Logged),
        _ => {
            body.0 = &[];
            Ok(Item::Unknown(kind::HISTORY))
        }
    }
}

/// A question; of at most [`MAX_KNOWN`] publishers something is said.
pub fn history_ask(ask: &HistoryAsk) -> Bytes {
    control(kind::HISTORY, |to| {
        to.put_u8(ASK);
        put_topic(to, &ask.topic);
        to.put_u32(ask.round);
        to.put_u64(ask.after);
        to.put_slice(ask.first.as_bytes());
        to.put_slice(ask.last.as_bytes());
        for (publisher, sequence) in ask.known.iter().take(MAX_KNOWN) {
            to.put_slice(publisher.as_bytes());
            to.put_u64(*sequence);
        }
    })
}

/// The end of an answer.
pub fn history_end(end: &HistoryEnd) -> Bytes {
    control(kind::HISTORY, |to| {
        to.put_u8(END);
        put_topic(to, &end.topic);
        to.put_u32(end.round);
        to.put_u64(end.after);
        to.put_u32(end.sent);
        to.put_u8(if end.more { MORE } else { 0 } | if end.keeps { KEEPS } else { 0 });
    })
}

/// A message out of a log, which may be older than messages that are pushed.
pub fn logged(message: &Bytes) -> Bytes {
    let mut bytes = BytesMut::with_capacity(ITEM_HEADER + 1 + message.len());
    let body = begin(&mut bytes, kind::HISTORY);
    bytes.put_u8(LOGGED);
    finish(&mut bytes, body);
    bytes.put_slice(message);
    bytes.freeze()
}

#[cfg(test)]
mod tests {
    use super::super::items;
    use super::*;

    fn only(bytes: Bytes) -> Result<Item, WireError> {
        let mut decoded: Vec<_> = items(bytes, 0).collect();
        assert_eq!(decoded.len(), 1);
        decoded.remove(0)
    }

    fn id(n: u8) -> NodeId {
        NodeId::from_bytes([n; 32])
    }

    fn ask(known: Vec<(NodeId, u64)>) -> HistoryAsk {
        let topic = Topic::new("t").expect("short");
        HistoryAsk { topic, round: 7, after: 258, first: id(1), last: id(9), known }
    }

    #[test]
    fn questions_and_ends_are_these_bytes_and_come_back() {
        let hex = |bytes: &Bytes| data_encoding::HEXLOWER.encode(bytes);
        let bytes = history_ask(&ask(vec![(id(2), 3)]));
        let publishers = format!("{}{}{}", "01".repeat(32), "09".repeat(32), "02".repeat(32));
        let head = "0f00000077000174000000070000000000000102";
        assert_eq!(hex(&bytes), format!("{head}{publishers}0000000000000003"));
        assert_eq!(only(bytes), Ok(Item::HistoryAsk(Box::new(ask(vec![(id(2), 3)])))));
        let end = HistoryEnd { topic: ask(Vec::new()).topic, round: 7, after: 258, sent: 9, more: true, keeps: true };
        assert_eq!(hex(&history_end(&end)), "0f000000140101740000000700000000000001020000000903");
        assert_eq!(only(history_end(&end)), Ok(Item::HistoryEnd(end.clone())));
        assert_eq!(hex(&logged(&Bytes::new())), "0f0000000102");
        assert_eq!(only(logged(&Bytes::new())), Ok(Item::Logged));
        assert_eq!(only(control(kind::HISTORY, |to| to.put_slice(&[3, 3, 4]))), Ok(Item::Unknown(15)));
    }

    #[test]
    fn questions_that_are_out_of_order_or_too_long_are_refused() {
        let most: Vec<_> = (0..MAX_KNOWN as u64).map(|n| (id_of(n), n)).collect();
        assert!(only(history_ask(&ask(most.clone()))).is_ok());
        for known in [vec![(id(3), 1), (id(2), 1)], vec![(id(2), 1), (id(2), 1)], vec![(id(10), 1)], vec![(id(0), 1)]] {
            assert_eq!(only(history_ask(&ask(known))), Err(WireError::History));
        }
        let mut long = BytesMut::from(&history_ask(&ask(most))[..]);
        long.put_slice(id(8).as_bytes());
        long.put_u64(1);
        let len = (long.len() - ITEM_HEADER) as u32;
        long[1..5].copy_from_slice(&len.to_be_bytes());
        assert_eq!(only(long.freeze()), Err(WireError::TooMany));
    }

    fn id_of(n: u64) -> NodeId {
        let mut bytes = [2; 32];
        bytes[8..16].copy_from_slice(&n.to_be_bytes());
        NodeId::from_bytes(bytes)
    }

    #[test]
    fn what_is_lacked_is_what_comes_after_the_last_one_known_of_the_publishers_asked_for() {
        let ask = ask(vec![(id(2), 5)]);
        assert!(!ask.lacks(&id(2), 5) && ask.lacks(&id(2), 6));
        assert!(ask.lacks(&id(3), 0) && !ask.lacks(&id(10), 9) && !ask.lacks(&id(0), 9));
    }
}

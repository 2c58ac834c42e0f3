//! One coded message: which shards are here, what each peer is known to have, and whom a shard is sent to.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use peerage_machine::Time;
use peerage_queue::{Recipient, SessionId};

use super::bits::Bits;
use super::code::Coding;
use super::header::{Header, Key};
use super::merkle::{Hash, Tree};
use super::shape::Shape;
use crate::wire::{self, Shard};

/// Shards that wait for the check of their header: so many of all peers, and of one.
const MAX_EARLY: usize = 16;
const MAX_EARLY_PER_PEER: usize = 4;

/// What is known of a peer in the matter of one message.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) to: Recipient,
    /// It has the header, or was sent it.
    pub(super) knows: bool,
    /// It has enough.
    pub(super) complete: bool,
    /// It takes no shards.
    pub(super) refused: bool,
    /// It was told that this node has enough.
    pub(super) told: bool,
    /// What it has, or was sent.
    pub(super) has: Bits,
    /// What it was sent and has not said to have.
    pub(super) under_way: Bits,
    /// The shard whose way there and back is being timed, and since when.
    timed: Option<(u16, Time)>,
    /// The shortest it took.
    round_trip: Option<Duration>,
    /// What it brought.
    pub(super) brought: Bits,
    /// What it was asked for, and may bring though it was on its way already.
    pub(super) wanted: Bits,
    /// How often it was asked.
    pub(super) asked: u32,
    /// How many shards it asked for.
    pub(super) served: usize,
    /// How many shards it brought again.
    pub(super) repeats: usize,
}

impl Link {
    fn new(to: Recipient) -> Link {
        Link {
            to,
            knows: false,
            complete: false,
            refused: false,
            told: false,
            has: Bits::default(),
            under_way: Bits::default(),
            timed: None,
            round_trip: None,
            brought: Bits::default(),
            wanted: Bits::default(),
            asked: 0,
            served: 0,
            repeats: 0,
        }
    }
}

/// A window is for a round trip of this; for a longer one it is longer, up to so many times.
const USUAL_ROUND_TRIP: Duration = Duration::from_millis(100);
const WIDEST: usize = 4;
/// And for a payload of at least so many bytes; in proportion for smaller ones, as what is under way when a peer has enough
/// is in vain. A line carries no more of a larger one.
const USUAL_PAYLOAD: usize = 1024 * 1024;

impl Link {
    /// Shards that may be under way to it, given what may be to a peer at the usual distance: at least one, and two of a
    /// payload that has large shards, so that the next one is there when one has come.
    fn window(&self, bytes: usize, shape: &Shape) -> usize {
        let (payload, shard) = (shape.payload as usize, shape.shard as usize);
        let bytes = bytes.saturating_mul(payload.min(USUAL_PAYLOAD)) / USUAL_PAYLOAD;
        let least = if payload < USUAL_PAYLOAD { 1 } else { 2 };
        let millis = |span: Duration| usize::try_from(span.as_millis()).unwrap_or(usize::MAX);
        let usual = millis(USUAL_ROUND_TRIP);
        let taken = millis(self.round_trip.unwrap_or(USUAL_ROUND_TRIP)).clamp(usual, WIDEST * usual);
        (bytes.saturating_mul(taken) / usual / shard.max(1)).max(least)
    }
}

/// How far a shard has got.
#[derive(Clone, Copy, Debug, Default)]
struct Spread {
    /// How often this node sent it to somebody.
    sent: u16,
    /// Peers that have it, or were sent it.
    peers: u32,
}

/// A shard that is here.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) bytes: Bytes,
    pub(super) proof: Vec<Hash>,
}

/// How far a message has come.
#[derive(Debug)]
pub(super) enum Stage {
    /// Its header's signature is being checked; then, the message's.
    Header,
    Message,
    /// Shards come in.
    Open,
    /// There are enough, and it is being rebuilt.
    Rebuilding,
    /// It is here, with all its shards.
    Whole(Box<(Coding, Tree)>),
    /// It came whole before it could be rebuilt.
    Overtaken,
}

#[derive(Debug)]
pub(super) struct Session {
    pub(super) serial: u64,
    pub(super) key: Key,
    pub(super) header: Box<Header>,
    /// The header's item.
    item: Bytes,
    pub(super) stage: Stage,
    shards: BTreeMap<u16, Held>,
    pub(super) have: Bits,
    /// How far each shard has got, as far as this node knows.
    spread: Vec<Spread>,
    pub(super) links: BTreeMap<SessionId, Link>,
    pub(super) early: Vec<(SessionId, Shard)>,
    /// Who sent it first.
    pub(super) first: Option<SessionId>,
    pub(super) progress_at: Time,
    pub(super) ends: Time,
    /// How often peers were asked without progress.
    pub(super) asks: u8,
    /// Whether this node's peers were told that it takes part.
    pub(super) introduced: bool,
    /// Bytes it is charged for.
    pub(super) charge: usize,
}

impl Session {
    pub(super) fn new(now: Time, serial: u64, key: Key, header: Box<Header>, ends: Time) -> Session {
        Session {
            serial,
            key,
            item: wire::header(&header),
            spread: vec![Spread::default(); usize::from(header.shape.total)],
            header,
            stage: Stage::Header,
            shards: BTreeMap::new(),
            have: Bits::default(),
            links: BTreeMap::new(),
            early: Vec::new(),
            first: None,
            progress_at: now,
            ends,
            asks: 0,
            introduced: false,
            charge: 0,
        }
    }

    pub(super) fn link(&mut self, to: Recipient) -> &mut Link {
        self.links.entry(to.session).or_insert_with(|| Link::new(to))
    }

    pub(super) fn checked(&self) -> bool {
        !matches!(self.stage, Stage::Header | Stage::Message)
    }

    /// Shards that are enough.
    pub(super) fn enough(&self) -> usize {
        usize::from(self.header.shape.data)
    }

    /// Whether this node has enough, or the message itself.
    pub(super) fn has_enough(&self) -> bool {
        matches!(self.stage, Stage::Rebuilding | Stage::Whole(_) | Stage::Overtaken)
    }

    /// Keeps a shard until the header is checked; false if there is no room for it.
    pub(super) fn wait(&mut self, from: SessionId, shard: Shard) -> bool {
        let of_peer = self.early.iter().filter(|(session, _)| *session == from).count();
        let room = self.early.len() < MAX_EARLY && of_peer < MAX_EARLY_PER_PEER;
        if room {
            self.early.push((from, shard));
        }
        room
    }

    /// Keeps a shard that was proved.
    pub(super) fn keep(&mut self, index: u16, held: Held) {
        self.have.insert(index.into());
        self.shards.insert(index, held);
    }

    /// The shards that are here, to rebuild the message of.
    pub(super) fn shards(&self) -> Vec<(u16, Bytes)> {
        self.shards.iter().map(|(index, held)| (*index, held.bytes.clone())).collect()
    }

    /// The message is here: all shards are.
    pub(super) fn complete(&mut self, coding: Coding, tree: Tree) {
        for shard in 0..usize::from(self.header.shape.total) {
            self.have.insert(shard);
        }
        self.shards.clear();
        self.stage = Stage::Whole(Box::new((coding, tree)));
    }

    fn held(&self, index: u16) -> Option<Held> {
        if let Stage::Whole(whole) = &self.stage {
            let (coding, tree) = &**whole;
            return Some(Held { bytes: coding.shard(index.into())?, proof: tree.proof(index.into()) });
        }
        self.shards.get(&index).cloned()
    }

    /// The next shard for a peer, if it may lack one and has few enough under way: of those it is not known to have, the
    /// one that the fewest peers have, which others are least likely to be sending it just now. Who has enough, with what
    /// is under way to it, gets no more unasked.
    pub(super) fn next_for(&self, session: SessionId, bytes: usize, most: usize, salt: u64) -> Option<u16> {
        let link = self.links.get(&session)?;
        let window = link.window(bytes, &self.header.shape);
        if link.complete || link.refused || link.under_way.len() >= window || link.has.len() >= self.enough() {
            return None;
        }
        let spread = self.have.without(&link.has).filter_map(|index| Some((index, *self.spread.get(index)?)));
        let open = spread.filter(|(_, spread)| usize::from(spread.sent) < most);
        let order = |index: usize| scatter(salt ^ session.0 ^ (index as u64) << 48);
        let rarest = open.min_by_key(|(index, spread)| (spread.peers, spread.sent, order(*index)));
        rarest.and_then(|(index, _)| u16::try_from(index).ok())
    }

    /// A peer is gone, and what it had with it.
    pub(super) fn unlink(&mut self, session: SessionId) {
        let Some(link) = self.links.remove(&session) else { return };
        for index in link.has.iter() {
            if let Some(spread) = self.spread.get_mut(index) {
                spread.peers -= 1;
            }
        }
    }

    /// A peer said what it has.
    pub(super) fn heard(&mut self, now: Time, session: SessionId, has: &Bits) {
        if let Some(link) = self.links.get_mut(&session) {
            let news: Vec<usize> = has.without(&link.has).collect();
            for index in news {
                if let Some(spread) = self.spread.get_mut(index) {
                    link.has.insert(index);
                    spread.peers += 1;
                }
            }
            link.under_way.subtract(has);
            if let Some((_, since)) = link.timed.take_if(|(index, _)| has.contains((*index).into())) {
                let took = now.since(since);
                link.round_trip = Some(link.round_trip.map_or(took, |shortest| shortest.min(took)));
            }
        }
    }

    /// What carries a shard to these peers: to those that have not got the header yet, with it.
    pub(super) fn carry(&mut self, now: Time, index: u16, to: &[SessionId]) -> Vec<(bool, Vec<Recipient>, Bytes)> {
        let Some(Held { bytes, proof }) = self.held(index) else { return Vec::new() };
        let Some(spread) = self.spread.get_mut(usize::from(index)) else { return Vec::new() };
        spread.sent = spread.sent.saturating_add(1);
        let (mut knowing, mut new) = (Vec::new(), Vec::new());
        for session in to {
            let Some(link) = self.links.get_mut(session) else { continue };
            spread.peers += u32::from(link.has.insert(index.into()));
            link.under_way.insert(index.into());
            link.timed.get_or_insert((index, now));
            let side = if std::mem::replace(&mut link.knows, true) { &mut knowing } else { &mut new };
            side.push(link.to);
        }
        let shard = Shard { key: self.key, index, has: self.have.clone(), proof, bytes };
        let mut carried = Vec::new();
        for (with_header, to) in [(false, knowing), (true, new)] {
            if !to.is_empty() {
                let item = wire::shard(with_header.then_some(&*self.item), &shard);
                carried.push((with_header, to, item));
            }
        }
        carried
    }

    /// A shard did not reach a peer.
    pub(super) fn unsent(&mut self, session: SessionId, index: usize, with_header: bool) {
        if let Some(link) = self.links.get_mut(&session) {
            if let Some(spread) = self.spread.get_mut(index)
                && link.has.remove(index)
            {
                spread.peers -= 1;
            }
            link.under_way.remove(index);
            link.knows &= !with_header;
        }
    }

    /// Whom to ask for which of the shards that are missing: up to `most` peers, each for its part. Those that have all
    /// come first, and of them those that were asked least.
    pub(super) fn asks(&mut self, most: usize) -> Vec<(Recipient, Bits)> {
        let missing = self.enough().saturating_sub(self.have.len());
        let total = usize::from(self.header.shape.total);
        let salt = self.serial;
        let mut order: Vec<_> = self
            .links
            .iter()
            .filter(|(_, link)| link.complete || !link.has.is_empty())
            .map(|(session, link)| (link.asked, !link.complete, scatter(salt ^ session.0), *session))
            .collect();
        order.sort_unstable();
        order.truncate(most);
        let part = missing.div_ceil(order.len().max(1));
        let mut taken = Bits::default();
        let mut asks = Vec::new();
        for (_, _, place, session) in order {
            let Some(link) = self.links.get_mut(&session) else { continue };
            let mut wanted = Bits::default();
            // From a place of its own on, so that two that lack the same do not ask one peer for the same few.
            let start = usize::try_from(place % total.max(1) as u64).unwrap_or(0);
            for index in (0..total).map(|nth| (start + nth) % total) {
                if wanted.len() == part || taken.len() == missing {
                    break;
                }
                let there = link.complete || link.has.contains(index);
                if there && !self.have.contains(index) && taken.insert(index) {
                    wanted.insert(index);
                    link.wanted.insert(index);
                }
            }
            if !wanted.is_empty() {
                link.asked += 1;
                asks.push((link.to, wanted));
            }
        }
        asks
    }
}

/// SplitMix64's finaliser: an order that is nobody's choice.
fn scatter(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

//! Gossip: real messages without an end, made-up ones, announcements and questions of what nobody has, and meshes that one
//! enters and leaves.

use bytes::{Bytes, BytesMut};
use peerage_machine::Rng;
use peerage_server::gossip::wire::{self, MAX_IDS, Parcel};
use peerage_server::gossip::{Claim, MessageId, Origin, Topic};
use peerage_server::mailbox::Clock;
use peerage_server::peer_session::Peer;
use peerage_server::queue::Message;
use peerage_server::wire::frame::Lane;

use super::Foe;
use crate::attack::topic;

/// Messages of the smaller kind that go at a time.
const BATCH: usize = 16;
const SMALL: usize = 64;
const LARGE: usize = 64 << 10;

pub(super) async fn attack(foe: &Foe, peer: &mut Peer) {
    let (Some(channel), Ok(topic)) = (peer.channel("gossip"), topic()) else { return };
    let door = peer.door().clone();
    let mut maker = Maker { foe, topic, sequence: 0, rng: Rng::new(foe.number as u64) };
    let says = async {
        let mut next = maker.greeting();
        while door.offer_when_room(Message::new(channel, Lane::Normal, next)).await.is_ok() {
            next = maker.make();
            // What is made costs more than what is sent: the others have their turn.
            tokio::task::yield_now().await;
        }
    };
    let hears = async { while peer.recv().await.is_some() {} };
    tokio::select! {
        () = says => {}
        () = hears => {}
    }
}

struct Maker<'a> {
    foe: &'a Foe,
    topic: Topic,
    sequence: u64,
    rng: Rng,
}

impl Maker<'_> {
    /// As somebody who wants the topic.
    fn greeting(&self) -> Bytes {
        [wire::topics(true, [&self.topic]), wire::graft(&self.topic)].concat().into()
    }

    fn make(&mut self) -> Bytes {
        let (what, count, bytes) = match self.foe.number % 5 {
            0 => ("said", BATCH, self.messages(BATCH, SMALL, true)),
            1 => ("said_large", 1, self.messages(1, LARGE, true)),
            2 => ("said_invalid", BATCH, self.messages(BATCH, SMALL, false)),
            3 => ("announced", 2 * MAX_IDS, self.ids()),
            _ => ("grafted", BATCH, self.grafts()),
        };
        self.foe.counted.add(what, count as u64);
        bytes
    }

    /// Of its own, each a new one; signed as it should be, or not.
    fn messages(&mut self, count: usize, len: usize, valid: bool) -> Bytes {
        let mut bytes = BytesMut::new();
        let now = Clock::system().now();
        self.sequence = self.sequence.max(now.unix().as_nanos() as u64);
        for _ in 0..count {
            self.sequence += 1;
            let mut payload = vec![0; len];
            payload[len - 8..].copy_from_slice(&self.rng.next_u64().to_be_bytes());
            let (publisher, sequence, issued) = (self.foe.keys.id(), self.sequence, now.unix_millis());
            let id = MessageId::signed(&self.topic, &publisher, sequence, &payload);
            let signature = if valid { Claim { id, issued }.sign(&self.foe.keys) } else { [7; 64] };
            let origin = Origin { publisher, sequence, issued, signature };
            bytes.extend_from_slice(&Parcel::new(self.topic.clone(), Some(origin), &payload).bytes);
        }
        bytes.freeze()
    }

    /// Says that it has what there is not, and asks for what there is not.
    fn ids(&mut self) -> Bytes {
        let mut made_up = || {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&self.rng.next_u64().to_be_bytes());
            MessageId(id)
        };
        let (has, wants): (Vec<_>, Vec<_>) = (0..MAX_IDS).map(|_| (made_up(), made_up())).unzip();
        [wire::i_have(&self.topic, &has), wire::i_want(&wants)].concat().into()
    }

    /// Enters and leaves, the topic too.
    fn grafts(&self) -> Bytes {
        let once = [
            wire::graft(&self.topic),
            wire::prune(&self.topic, 1),
            wire::unsubscribe(&self.topic),
            wire::subscribe(&self.topic),
        ];
        once.concat().repeat(BATCH).into()
    }
}

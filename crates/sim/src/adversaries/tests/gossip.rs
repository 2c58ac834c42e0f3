//! Attackers in gossip.

use peerage_gossip::coded::{Coding, Header, Job, Shape};
use peerage_gossip::wire::{self, Item, Parcel, Shard};
use peerage_gossip::{Check, Origin, Out};

use super::*;
use crate::node::Oracle;

/// The gossip of an attacker with two peers that want its topic.
struct Gossip {
    cast: Rc<Cast>,
    driver: Driver<Foreign<GossipMachine>>,
}

impl Gossip {
    fn of(kind: Kind, options: &[(&str, i64)]) -> Gossip {
        let (cast, parts) = member(kind, options);
        let driver = Driver::new(parts.gossip.expect("it has a gossip of its own"));
        let mut gossip = Gossip { cast, driver };
        use peerage_gossip::In;
        gossip.told(0, In::Subscribe { token: 1, topic: topic(), policy: Policy::Signed });
        for number in 1..3 {
            let session = SessionId(number.into());
            gossip.told(0, In::PeerUp(peerage_gossip::PeerUp::new(session, keys(number).id(), ChannelId(1))));
            gossip.told(0, In::Inbound { session, payload: wire::topics_of(false, true, [&topic()]) });
        }
        gossip
    }

    /// What it asks for, with signatures given as the world gives them.
    fn outs(&mut self, now: Time) -> Vec<Out> {
        let mut all = Vec::new();
        loop {
            let outs: Vec<Out> = self.driver.drain().collect();
            if outs.is_empty() {
                return all;
            }
            for out in outs {
                let input = match &out {
                    Out::Sign { token, claim, .. } => {
                        let signature = self.cast.sign(keys(9).id(), claim);
                        Some(peerage_gossip::In::Signed { token: *token, signature })
                    }
                    Out::Verify { token, check, .. } => {
                        Some(peerage_gossip::In::Verified { token: *token, ok: self.cast.holds(check) })
                    }
                    Out::Code { token, job } => {
                        let coding = job.clone().run(&Oracle).map(Box::new);
                        Some(peerage_gossip::In::Coded { token: *token, coding })
                    }
                    _ => None,
                };
                input.into_iter().for_each(|input| self.driver.handle(now, input));
                all.push(out);
            }
        }
    }

    fn told(&mut self, millis: u64, input: peerage_gossip::In) -> Vec<Out> {
        self.driver.handle(at(millis), input);
        self.outs(at(millis))
    }

    /// What it does by itself in so many milliseconds.
    fn until(&mut self, millis: u64) -> Vec<Out> {
        let mut all = Vec::new();
        while let Some(due) = self.driver.next_deadline().filter(|due| *due <= at(millis)) {
            self.driver.expire_due(due);
            all.extend(self.outs(due));
        }
        all
    }

    /// A genuine message of an honest node, as its first peer sends it.
    fn genuine(&self) -> Parcel {
        let publisher = keys(3).id();
        let id = peerage_gossip::MessageId::signed(&topic(), &publisher, 1, b"news");
        let claim = peerage_gossip::Claim { id, issued: 0 };
        let signature = self.cast.sign(publisher, &claim);
        Parcel::new(topic(), Some(Origin { publisher, sequence: 1, issued: 0, signature }), b"news")
    }

    fn hears_news(&mut self) -> Vec<Out> {
        let payload = self.genuine().bytes;
        self.told(10, peerage_gossip::In::Inbound { session: SessionId(1), payload })
    }
}

/// What is sent, and to which sessions.
fn sent(outs: &[Out]) -> Vec<(Item, Vec<u64>)> {
    let mut sent = Vec::new();
    for out in outs {
        if let Out::Push(outgoing) = out {
            let to: Vec<u64> = outgoing.to.iter().map(|peer| peer.session.0).collect();
            let items = wire::items(outgoing.bytes.clone(), wire::MAX_PAYLOAD);
            sent.extend(items.map(|item| (item.expect("it decodes"), to.clone())));
        }
    }
    sent
}

fn messages(outs: &[Out]) -> Vec<(Parcel, Vec<u64>)> {
    let messages = sent(outs).into_iter().filter_map(|(item, to)| match item {
        Item::Message(parcel) => Some((parcel, to)),
        _ => None,
    });
    messages.collect()
}

fn holds(cast: &Cast, parcel: &Parcel) -> bool {
    let Origin { publisher, issued, signature, .. } = parcel.origin.clone().expect("signed");
    cast.holds(&Check { publisher, claim: peerage_gossip::Claim { id: parcel.id(), issued }, signature })
}

#[test]
fn a_free_rider_takes_and_does_not_give() {
    let mut rider = Gossip::of(Kind::FreeRider, &[]);
    let outs = rider.hears_news();
    assert!(outs.iter().any(|out| matches!(out, Out::Deliver(_))), "it takes");
    let mut later = rider.until(5_000);
    let ids = vec![rider.genuine().id()];
    let payload = wire::i_want(&ids);
    later.extend(rider.told(5_000, peerage_gossip::In::Inbound { session: SessionId(2), payload }));
    let given = sent(&[outs, later].concat());
    assert!(!given.iter().any(|(item, _)| matches!(item, Item::Message(_) | Item::IHave { .. })), "{given:?}");
}

#[test]
fn a_covert_swarm_gives_until_it_turns() {
    // It turns 30 s after the scenario began.
    let mut covert = Gossip::of(Kind::CovertFlash, &[]);
    assert_eq!(messages(&covert.hears_news()).len(), 1, "before");
    covert.until(31_000);
    let payload = wire::i_want(&[covert.genuine().id()]);
    let outs = covert.told(31_000, peerage_gossip::In::Inbound { session: SessionId(2), payload });
    assert!(messages(&outs).is_empty(), "after");
}

#[test]
fn a_spammer_publishes_at_its_rate_to_everybody_and_says_nothing_of_it() {
    let mut spammer = Gossip::of(Kind::Spammer, &[("rate", 20)]);
    let outs = spammer.until(1_000);
    let spam = messages(&outs);
    assert_eq!(spam.len(), 20);
    assert!(spam.iter().all(|(parcel, to)| holds(&spammer.cast, parcel) && *to == [1, 2]));
    assert!(!outs.iter().any(|out| matches!(out, Out::Published { .. })));
}

#[test]
fn an_equivocator_signs_two_messages_with_one_sequence() {
    let mut equivocator = Gossip::of(Kind::Equivocator, &[("rate", 1)]);
    let told = messages(&equivocator.until(1_000));
    let [(one, to_one), (other, to_other)] = told.as_slice() else { panic!("two halves: {told:?}") };
    let sequence = |parcel: &Parcel| parcel.origin.as_ref().map(|origin| (origin.publisher, origin.sequence));
    assert_eq!(sequence(one), sequence(other));
    assert_ne!(one.payload, other.payload);
    assert!(holds(&equivocator.cast, one) && holds(&equivocator.cast, other));
    assert_eq!((to_one.as_slice(), to_other.as_slice()), ([1].as_slice(), [2].as_slice()));
}

#[test]
fn invalid_signatures_come_in_others_names_and_on_copies_of_what_is_genuine() {
    let mut flood = Gossip::of(Kind::InvalidSignatures, &[("rate", 10)]);
    let copies = messages(&flood.hears_news());
    let [(copy, to)] = copies.as_slice() else { panic!("one copy: {copies:?}") };
    assert_eq!((copy.id(), to.as_slice()), (flood.genuine().id(), [2].as_slice()));
    assert!(messages(&flood.hears_news()).is_empty(), "once: an attacker's copy of it is not damaged again");
    let invented = messages(&flood.until(1_000));
    assert_eq!(invented.len(), 10);
    let me = keys(9).id();
    for parcel in invented.iter().map(|(parcel, _)| parcel).chain([copy]) {
        assert!(!holds(&flood.cast, parcel));
        assert_ne!(parcel.origin.as_ref().map(|origin| origin.publisher), Some(me));
    }
}

#[test]
fn floods_send_what_they_say_at_their_rates() {
    let ids = |outs: &[Out], wanted: fn(&Item) -> usize| -> usize {
        sent(outs).iter().filter(|(_, to)| *to == [1, 2]).map(|(item, _)| wanted(item)).sum()
    };
    let mut promises = Gossip::of(Kind::IHaveFlood, &[("rate", 3_000)]);
    let outs = promises.until(1_000);
    let promised = ids(&outs, |item| if let Item::IHave { ids, .. } = item { ids.len() } else { 0 });
    assert_eq!(promised, 3_000);
    let mut requests = Gossip::of(Kind::IWantFlood, &[("rate", 3_000)]);
    requests.hears_news();
    let outs = requests.until(1_000);
    assert_eq!(ids(&outs, |item| if let Item::IWant { ids } = item { ids.len() } else { 0 }), 3_000);
    let mut grafts = Gossip::of(Kind::GraftFlood, &[("rate", 1_000)]);
    let outs = grafts.until(1_000);
    assert_eq!(ids(&outs, |item| usize::from(matches!(item, Item::Subscribe(_) | Item::Unsubscribe(_)))), 500);
    assert_eq!(ids(&outs, |item| usize::from(matches!(item, Item::Graft(_) | Item::Prune { .. }))), 500);
    assert_eq!(ids(&outs, |item| usize::from(matches!(item, Item::Topics { want_reply: true, .. }))), 10);
}

/// The header and the shards of what was sent.
fn coded(outs: &[Out]) -> (Option<Header>, Vec<(Shard, Vec<u64>)>) {
    let (mut header, mut shards) = (None, Vec::new());
    for (item, to) in sent(outs) {
        match item {
            Item::Header(said) => header = Some(*said),
            Item::Shard(shard) => shards.push((shard, to)),
            _ => {}
        }
    }
    (header, shards)
}

#[test]
fn a_polluter_sends_damaged_shards_to_all_others_and_none_as_it_was() {
    let mut polluter = Gossip::of(Kind::ShardPollution, &[]);
    let what = Descriptor { number: 1, size: 128 << 10 };
    // What an honest publisher sends.
    let shape = Shape::of(what.size as usize, 100).expect("it can be cut");
    let coding = Coding::of(what.payload(), shape, &Oracle).expect("it can be coded");
    let publisher = keys(3).id();
    let id = peerage_gossip::MessageId::signed(&topic(), &publisher, 1, &what.payload());
    let message_signature = polluter.cast.sign(publisher, &peerage_gossip::Claim { id, issued: 0 });
    let (topic, root) = (topic(), coding.tree().root());
    let unsigned = Header {
        topic,
        publisher,
        sequence: 1,
        issued: 0,
        message_signature,
        id,
        shape,
        root,
        expires: 60_000,
        signature: [0; 64],
    };
    let signature = polluter.cast.sign(publisher, &unsigned.claim());
    let header = Header { signature, ..unsigned };
    let bytes = coding.shard(3).expect("there is one");
    let genuine = Shard { key: header.key(), index: 3, has: Default::default(), proof: coding.tree().proof(3), bytes };
    let payload = wire::shard(Some(&wire::header(&header)), &genuine);
    let mut outs = polluter.told(10, peerage_gossip::In::Inbound { session: SessionId(1), payload });
    outs.extend(polluter.until(2_000));
    let (said, shards) = coded(&outs);
    assert_eq!(said, Some(header));
    let [(damaged, to)] = shards.as_slice() else { panic!("one shard: {shards:?}") };
    assert_eq!(to.as_slice(), [2]);
    assert_eq!((damaged.index, &damaged.proof), (3, &genuine.proof));
    assert_ne!(damaged.bytes, genuine.bytes);
    assert_eq!(weigh(&damaged.bytes), weigh(&genuine.bytes));
}

#[test]
fn a_forgers_shards_are_under_its_root_and_no_payloads() {
    let mut forger = Gossip::of(Kind::NonCodeword, &[("rate", 1)]);
    let outs = forger.until(1_500);
    assert_eq!(messages(&outs).len(), 0, "never whole");
    let (header, shards) = coded(&outs);
    let header = header.expect("it published");
    assert!(forger.cast.holds(&header.check()) && forger.cast.holds(&header.message_check()));
    let what = Descriptor { number: Descriptor::HOSTILE | (9 << 32) | 1, size: 128 << 10 };
    let sound = Coding::of(what.payload(), header.shape, &Oracle).expect("it can be coded");
    assert_ne!(header.root, sound.tree().root());
    for (shard, _) in &shards {
        let is_cut = shard.index < header.shape.data;
        assert_eq!(sound.shard(shard.index.into()) == Some(shard.bytes.clone()), is_cut, "{}", shard.index);
    }
    let (mut indices, data) = (shards.iter().map(|(shard, _)| shard.index), header.shape.data);
    assert!(indices.clone().any(|index| index < data) && indices.any(|index| index >= data));
    // Whoever has enough of those that are sound finds a payload, and that it is not what was signed.
    let shards = (0..data).filter_map(|index| Some((index, sound.shard(index.into())?))).collect();
    assert_eq!(Job::Rebuild { header: Box::new(header), shards }.run(&Oracle), None);
}

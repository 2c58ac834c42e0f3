//! Credit that is exceeded, lied about, flooded or never given.

use std::collections::BTreeMap;
use std::time::Duration;

use peerage_machine::{Driver, Time};
use peerage_peer_session::peerage_queue::{ChannelId, LanesConfig, Message, Refusal, SessionId};
use peerage_peer_session::peerage_wire::DisconnectReason;
use peerage_peer_session::peerage_wire::frame::{
    CHANNEL_WINDOW, Header, Kind, Lane, MAX_FRAGMENT, MAX_STREAM, MESSAGE_COST, first_window,
};
use peerage_peer_session::{Allocator, Config, EndedBy, In, Out, SessionMachine};
use proptest::prelude::*;

use crate::BREACH;
use crate::support::{Frame, Hostile, Node, begin, data, limit, own};

#[tokio::test(start_paused = true)]
async fn one_byte_more_than_was_granted_ends_the_session_on_every_lane() {
    let node = Node::new(1);
    let mut beside = node.beside().await;
    for lane in Lane::ALL {
        for beyond in [0, 1] {
            let (mut session, mut hostile) = node.meet(9, 1 << 20).await;
            // A message that leaves of the window what one of nine bytes costs, and that one or a longer one. Nobody
            // takes them, so nothing is granted meanwhile.
            let large = first_window(lane) - 2 * MESSAGE_COST - 9;
            let mut left = large as usize - 1000;
            let mut frames = vec![begin(2, lane, large as u32, &[0; 1000])];
            while left > 0 {
                let len = left.min(MAX_FRAGMENT);
                left -= len;
                frames.push(data(2, lane, left > 0, vec![0; len]));
            }
            frames.push(data(2, lane, false, vec![0; 9 + beyond]));
            hostile.send(&frames).await;
            if beyond == 0 {
                tokio::time::sleep(Duration::from_secs(1)).await;
                assert_eq!(session.inlets[1].len(), 2, "{lane:?}");
                assert!(session.lives());
            } else {
                assert_eq!(session.end().await, BREACH, "{lane:?}");
                assert_eq!(session.inlets[1].len(), 1, "{lane:?}");
            }
        }
        beside.talk().await;
    }
    // Nor by messages of nothing: each costs what it takes to keep it.
    let (mut session, mut hostile) = node.meet(9, 1 << 20).await;
    let window = first_window(Lane::High);
    let empty: Vec<Frame> = (0..=window / MESSAGE_COST).map(|_| data(1, Lane::High, false, [])).collect();
    hostile.send(&empty).await;
    assert_eq!(session.end().await, BREACH);
    assert_eq!(session.inlets[0].len() as u64, window / MESSAGE_COST);
    beside.part().await;
}

#[tokio::test(start_paused = true)]
async fn limits_that_lie_give_the_peer_nothing_but_what_is_queued_for_it() {
    let node = Node::new(1);
    let beside = node.beside().await;
    let (mut session, mut hostile) = node.meet(9, 1 << 20).await;
    let say = async |hostile: &mut Hostile, frames: &[Frame]| {
        assert!(hostile.send(frames).await);
        tokio::time::sleep(Duration::from_millis(1)).await;
    };
    let next = async |hostile: &mut Hostile| loop {
        let (header, payload) = hostile.hear().await.expect("open");
        if matches!(header.kind, Kind::Data | Kind::Reclaimed) {
            return (header.kind, payload);
        }
    };
    // The first window, with which every flow begins.
    let window = first_window(Lane::Normal);
    session.say(1, Lane::Normal, vec![9; (window - MESSAGE_COST) as usize]);
    let mut first = 0;
    while first + MESSAGE_COST < window {
        first += next(&mut hostile).await.1.iter().filter(|byte| **byte == 9).count() as u64;
    }
    // Limits that fall count for nothing.
    let cost = 100 + MESSAGE_COST;
    let two = window + 2 * cost;
    say(&mut hostile, &[limit(Kind::Credit, 1, Lane::Normal, two), limit(Kind::Credit, 1, Lane::Normal, 0)]).await;
    for n in 0..3 {
        session.say(1, Lane::Normal, vec![n; 100]);
    }
    assert_eq!(next(&mut hostile).await, (Kind::Data, vec![0; 100]));
    assert_eq!(next(&mut hostile).await, (Kind::Data, vec![1; 100]));
    // Asked to give back more than it has, the node says what it used; asked for what lies far ahead, what it has.
    for (asked, holds) in [(0, two), (u64::MAX, two)] {
        say(&mut hostile, &[limit(Kind::Reclaim, 1, Lane::Normal, asked)]).await;
        assert_eq!(next(&mut hostile).await, (Kind::Reclaimed, holds.to_be_bytes().to_vec()), "{asked}");
    }
    // All there is, twice; and then less again.
    let most = limit(Kind::Credit, 1, Lane::Normal, u64::MAX);
    say(&mut hostile, &[most.clone(), most, limit(Kind::Credit, 1, Lane::Normal, 1)]).await;
    assert_eq!(next(&mut hostile).await, (Kind::Data, vec![2; 100]));
    for n in 0..100 {
        session.say(1, Lane::Normal, vec![n; 1000]);
        assert_eq!(next(&mut hostile).await, (Kind::Data, vec![n; 1000]));
    }
    say(&mut hostile, &[limit(Kind::Reclaim, 1, Lane::Normal, 0)]).await;
    let used = window + 3 * cost + 100 * (1000 + MESSAGE_COST);
    assert_eq!(next(&mut hostile).await, (Kind::Reclaimed, used.to_be_bytes().to_vec()));
    assert!(session.lives());
    assert_eq!(node.outbound.used(), 0);
    beside.part().await;
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_limits_is_answered_by_the_newest_of_each_flow() {
    let node = Node::new(1);
    let mut beside = node.beside().await;
    let (mut session, mut hostile) = node.meet(9, 256 << 10).await;
    let mut sent = 0u64;
    for round in 0..50u64 {
        let frames: Vec<Frame> = (0..3000)
            .flat_map(|n| {
                let lane = Lane::ALL[n as usize % 4];
                let kind = if n % 3 == 0 { Kind::Credit } else { Kind::Reclaim };
                [limit(kind, 1 + (n % 2) as u16, lane, round * n)]
            })
            .collect();
        sent += frames.len() as u64;
        let record = hostile.seal(&frames);
        assert!(hostile.write(&record).await, "they are legal");
        beside.talk().await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(session.lives());
    // It read nothing of the answers, and they fit: eight flows, and as many rounds as the node had turns.
    let answered = session.mailbox.stats().bytes_out;
    assert!(answered < sent, "{answered} bytes for {sent} frames");
    beside.part().await;
}

/// It answers pings and reads all there is, so for long it is neither idle nor stalled; it only never says that it takes
/// more than the first windows.
#[tokio::test(start_paused = true)]
async fn a_peer_that_grants_no_credit_holds_its_own_lanes_and_no_more() {
    let node = Node::new(1);
    let mut beside = node.beside().await;
    let (mut session, mut hostile) = node.meet(9, 256 << 10).await;
    let answers = tokio::spawn(async move {
        let mut taken = 0;
        while let Some((header, payload)) = hostile.hear().await {
            match header.kind {
                Kind::Ping if !hostile.send(&[own(Kind::Pong, payload.clone())]).await => break,
                Kind::Data => taken += payload.len(),
                Kind::Disconnect => return taken,
                _ => {}
            }
        }
        panic!("not told why");
    });
    let lane = LanesConfig::recommended().bytes;
    let mut full = 0;
    for _ in 0..600 {
        for lane in Lane::ALL {
            for channel in 1..=2 {
                let message = Message::new(ChannelId(channel), lane, vec![0; 512 << 10].into());
                match session.door.offer(message) {
                    Ok(()) => {}
                    Err(Refusal::LaneFull | Refusal::PoolFull) => full += 1,
                    Err(refusal) => panic!("{refusal:?}"),
                }
            }
        }
        let used = node.outbound.used();
        assert!(used <= 16 << 20 && used >= lane.min(2 << 20), "a peer's part of the pool: {used}");
        tokio::time::sleep(Duration::from_secs(1)).await;
        beside.talk().await;
    }
    assert!(full > 4000, "{full}");
    // Messages that began to go out on the first windows held their place for long enough.
    let start = tokio::time::Instant::now();
    assert_eq!(session.end().await.reason, DisconnectReason::Stalled);
    assert!(start.elapsed() <= Duration::from_secs(20), "{:?}", start.elapsed());
    let taken = answers.await.expect("no panic");
    assert!(taken <= 2 * CHANNEL_WINDOW, "{taken}");
    assert_eq!(node.outbound.used(), 0);
    beside.part().await;
}

/// A frame that may come, closer to a true one than chance would have it.
fn frame() -> impl Strategy<Value = (Header, Vec<u8>)> {
    let len = prop_oneof![Just(0usize), Just(8), 0usize..40, Just(1000), Just(MAX_FRAGMENT)];
    let kind = prop_oneof![6 => Just(0u8), 1 => 0u8..8, 1 => any::<u8>()];
    let channel = prop_oneof![8 => Just(1u16), 4 => Just(2u16), 1 => Just(0u16), 1 => any::<u16>()];
    let stream = prop_oneof![20 => Just(0u64), 1 => 0..=MAX_STREAM];
    let total = prop_oneof![1u32..100_000, any::<u32>()];
    (kind, 0usize..4, any::<[bool; 3]>(), channel, stream, len, total).prop_map(
        |(kind, lane, [more, starts, end], channel, stream, len, total)| {
            let mut payload = vec![0; len];
            let stated = total.to_be_bytes();
            let with = len.min(4);
            payload[..with].copy_from_slice(&stated[..with]);
            let kind = Kind::from_code(kind);
            let total = starts && (more || kind != Kind::Data);
            let header = Header { more, total, end, stream, ..Header::new(kind, Lane::ALL[lane], channel, len as u16) };
            (header, payload)
        },
    )
}

#[derive(Clone, Debug)]
enum Step {
    Frame(Header, Vec<u8>),
    /// As a continuation of whatever is under way on a flow.
    Continue(u16, usize, usize),
    Handle,
    Grant(u64),
    Grow(usize, u64),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => frame().prop_map(|(header, payload)| Step::Frame(header, payload)),
        6 => (1u16..3, 0usize..4, 1usize..MAX_FRAGMENT).prop_map(|(channel, lane, len)| Step::Continue(channel, lane, len)),
        2 => Just(Step::Handle),
        2 => (1u64..50_000).prop_map(Step::Grant),
        1 => (0usize..8, 1u64..50_000).prop_map(|(flow, by)| Step::Grow(flow, by)),
        1 => (0u64..20_000).prop_map(Step::Wait),
    ]
}

/// What an observer of one flow counts.
#[derive(Clone, Copy, Debug, Default)]
struct Watched {
    limit: u64,
    received: u64,
    /// The total of what is under way, and how much of it is here.
    partial: Option<(u64, u64)>,
    handled: u64,
    unhandled: u64,
}

/// The machine between a peer that sends anything and a node that keeps to its rules.
struct Observed {
    driver: Driver<SessionMachine>,
    now: Time,
    flows: [Watched; 8],
    /// What the session holds of the inbound pool, and what it asked for and has not got.
    reserved: u64,
    wanted: u64,
    ended: bool,
}

impl Observed {
    fn new() -> Observed {
        let config = Config { max_message: 100_000, ..Config::recommended() };
        let mut observed = Observed {
            driver: Driver::new(SessionMachine::new(config, SessionId(1), 2)),
            now: Time::ZERO,
            flows: std::array::from_fn(|flow| Watched {
                limit: first_window(Lane::ALL[flow % 4]),
                ..Watched::default()
            }),
            reserved: 2 * CHANNEL_WINDOW as u64,
            wanted: 0,
            ended: false,
        };
        observed.driver.handle(Time::ZERO, In::Start);
        observed.perform();
        observed
    }

    fn flow(&self, channel: u16, lane: Lane) -> usize {
        (usize::from(channel) - 1) * 4 + lane as usize
    }

    fn perform(&mut self) {
        let outs: Vec<Out> = self.driver.drain().collect();
        for out in outs {
            assert!(!self.ended, "nothing follows the end: {out:?}");
            match out {
                Out::Credit(flow, limit) => {
                    let index = self.flow(flow.channel.0, flow.lane);
                    assert!(limit > self.flows[index].limit, "limits rise");
                    self.flows[index].limit = limit;
                }
                Out::Want(bytes) => self.wanted += bytes,
                Out::GiveBack(bytes) => self.reserved -= bytes,
                Out::End(reason, by) => {
                    self.ended = true;
                    let ours = [DisconnectReason::ProtocolError, DisconnectReason::Idle, DisconnectReason::Stalled];
                    assert!(by == EndedBy::Peer || ours.contains(&reason), "{reason}");
                }
                _ => {}
            }
        }
    }

    fn frame(&mut self, header: Header, payload: &[u8]) {
        let now = self.now;
        let message = self.driver.with(|machine, fx| machine.receive(now, &header, payload, &mut Allocator, fx));
        let was = self.ended;
        self.perform();
        if let Some((index, delivery)) = &message {
            assert!(!was, "nothing is delivered after the end");
            self.flows[*index].unhandled += delivery.cost();
        }
        if header.kind != Kind::Data || self.ended {
            return;
        }
        // It was taken: then it was granted.
        let index = self.flow(header.channel, header.lane);
        let watched = &mut self.flows[index];
        let len = payload.len() as u64;
        match &mut watched.partial {
            None if header.more => {
                let stated = u32::from_be_bytes(*payload.first_chunk().expect("a total"));
                watched.partial = Some((u64::from(stated), len - 4));
                watched.received += len - 4 + MESSAGE_COST;
            }
            None => watched.received += len + MESSAGE_COST,
            Some((total, here)) => {
                watched.received += len;
                *here += len;
                assert!(*here <= *total);
                if *here == *total {
                    assert_eq!(message.as_ref().map(|(_, delivery)| delivery.payload.len() as u64), Some(*total));
                    watched.partial = None;
                }
            }
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Frame(header, payload) => self.frame(header, &payload),
            Step::Continue(channel, lane, len) => {
                let index = self.flow(channel, Lane::ALL[lane]);
                let watched = self.flows[index];
                let left = watched.partial.map_or(len, |(total, here)| ((total - here) as usize).min(len));
                let left = left.min((watched.limit - watched.received) as usize);
                let more = watched.partial.is_some_and(|(total, here)| here + (left as u64) < total);
                let header = Header { more, ..Header::new(Kind::Data, Lane::ALL[lane], channel, left as u16) };
                self.frame(header, &vec![0; left]);
            }
            Step::Handle => {
                for index in 0..8 {
                    let watched = &mut self.flows[index];
                    watched.handled += std::mem::take(&mut watched.unhandled);
                    let total = watched.handled;
                    self.driver.handle(self.now, In::Released { flow: index, total });
                    self.perform();
                }
            }
            Step::Grant(bytes) => {
                let bytes = bytes.min(self.wanted);
                self.wanted -= bytes;
                self.reserved += bytes;
                self.driver.handle(self.now, In::Granted(bytes));
                self.perform();
            }
            Step::Grow(flow, by) => {
                if !self.ended {
                    self.reserved += by;
                }
                self.driver.handle(self.now, In::Grown { flow, by });
                self.perform();
            }
            Step::Wait(millis) => {
                self.now += Duration::from_millis(millis);
                self.driver.expire_due(self.now);
                self.perform();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever comes in, nothing panics, nothing that was not granted is kept, and nothing is granted that the pool did
    /// not give: what is here unfinished and unhandled is never more than what is reserved.
    #[test]
    fn any_frames_in_any_order_leave_no_more_than_was_reserved(steps in proptest::collection::vec(step(), 1..120)) {
        let mut observed = Observed::new();
        for step in steps {
            observed.step(step);
            if observed.ended {
                continue;
            }
            let mut outstanding = 0;
            for watched in &observed.flows {
                prop_assert!(watched.received <= watched.limit, "{watched:?}");
                outstanding += watched.limit - watched.handled;
            }
            prop_assert!(outstanding <= observed.reserved, "{outstanding} of {}", observed.reserved);
        }
    }

    /// Limits and claims of the peer's, whatever they are, change nothing but the lanes'.
    #[test]
    fn any_limit_of_the_peers_is_passed_on_or_a_breach(frames in proptest::collection::vec((frame(), any::<u64>()), 1..60)) {
        let mut observed = Observed::new();
        let mut granted: BTreeMap<_, u64> = BTreeMap::new();
        for ((header, _), limit) in frames {
            let kind = [Kind::Credit, Kind::Reclaim, Kind::Reclaimed][limit as usize % 3];
            let header = Header { kind, ..header };
            let now = observed.now;
            observed.driver.with(|machine, fx| machine.receive(now, &header, &limit.to_be_bytes(), &mut Allocator, fx));
            let outs: Vec<Out> = observed.driver.drain().collect();
            let of_a_flow = (1..=2).contains(&header.channel) && header.stream == 0;
            match &outs[..] {
                [Out::MaySend(flow, to)] => {
                    prop_assert!(of_a_flow && kind == Kind::Credit && *to == limit);
                    *granted.entry(*flow).or_default() += 1;
                }
                [Out::Yield(_, to)] => prop_assert!(of_a_flow && kind == Kind::Reclaim && *to == limit),
                outs => {
                    prop_assert!(!of_a_flow || kind == Kind::Reclaimed, "{outs:?}");
                    let ended = matches!(outs.last(), Some(Out::End(DisconnectReason::ProtocolError, EndedBy::Us)));
                    prop_assert!(ended, "{outs:?}");
                    break;
                }
            }
        }
        prop_assert!(granted.len() <= 8);
    }
}

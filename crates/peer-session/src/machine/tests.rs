use peerage_machine::Driver;
use peerage_wire::frame::{CHANNEL_WINDOW, MAX_FRAGMENT};

use super::*;

const SESSION: SessionId = SessionId(1);

struct World {
    driver: Driver<SessionMachine>,
    now: Time,
}

fn normal(channel: u16) -> Flow {
    Flow { channel: ChannelId(channel), stream: 0, lane: Lane::Normal }
}

impl World {
    fn with(config: Config) -> World {
        let mut world = World { driver: Driver::new(SessionMachine::new(config, SESSION, 2)), now: Time::ZERO };
        assert_eq!(world.input(In::Start), [], "the peer knows what it may send");
        assert_eq!(world.wait(1), [Out::Send(Kind::Ping, 1u64.to_be_bytes().to_vec())]);
        world
    }

    fn new() -> World {
        World::with(Config { max_message: 100_000, ..Config::recommended() })
    }

    fn input(&mut self, input: In) -> Vec<Out> {
        self.driver.handle(self.now, input);
        self.driver.drain().collect()
    }

    fn frame(&mut self, header: Header, payload: &[u8]) -> (Option<Delivery>, Vec<Out>) {
        let now = self.now;
        let message = self.driver.with(|machine, fx| machine.receive(now, &header, payload, &mut Allocator, fx));
        (message.map(|(_, delivery)| delivery), self.driver.drain().collect())
    }

    fn data(&mut self, channel: u16, more: bool, total: bool, payload: &[u8]) -> (Option<Delivery>, Vec<Out>) {
        self.frame(Header { more, total, ..Header::new(Kind::Data, Lane::Normal, channel, 0) }, payload)
    }

    fn own(&mut self, kind: Kind, payload: &[u8]) -> Vec<Out> {
        self.frame(Header::new(kind, Lane::Control, 0, 0), payload).1
    }

    fn wait(&mut self, seconds: u64) -> Vec<Out> {
        let until = self.now + Duration::from_secs(seconds);
        let mut outs = Vec::new();
        while let Some(at) = self.driver.next_deadline().filter(|at| *at <= until) {
            self.driver.expire_due(at);
            outs.extend(self.driver.drain());
        }
        self.now = until;
        outs
    }

    /// Begins a message of `total` bytes on channel 1 with a fragment of 16,000.
    fn begin(&mut self, total: u32) -> Vec<Out> {
        self.data(1, true, true, &[&total.to_be_bytes()[..], &[0; 16_000]].concat()).1
    }
}

fn ended(outs: &[Out]) -> Option<(DisconnectReason, EndedBy)> {
    outs.iter().find_map(|out| match out {
        Out::End(reason, by) => Some((*reason, *by)),
        _ => None,
    })
}

const BREACH: Option<(DisconnectReason, EndedBy)> = Some((DisconnectReason::ProtocolError, EndedBy::Us));
const STALLED: Option<(DisconnectReason, EndedBy)> = Some((DisconnectReason::Stalled, EndedBy::Us));

#[test]
fn messages_are_delivered_whole_and_lanes_do_not_mix() {
    let mut world = World::new();
    let whole = [&[1; MAX_FRAGMENT - 4][..], &[2; 100]].concat();
    let first = [&(whole.len() as u32).to_be_bytes()[..], &[1; MAX_FRAGMENT - 4]].concat();
    assert_eq!(world.data(1, true, true, &first), (None, vec![]));
    let (urgent, _) = world.frame(Header::new(Kind::Data, Lane::High, 1, 0), b"vote");
    assert!(urgent.is_some_and(|d| &d.payload[..] == b"vote" && d.lane == Lane::High));
    let (message, _) = world.data(1, false, false, &[2; 100]);
    assert!(message.is_some_and(|d| d.payload[..] == whole && d.channel == ChannelId(1)));
}

#[test]
fn each_malformed_fragment_ends_the_session_with_its_reason() {
    let total = |n: u32, rest: &[u8]| [&n.to_be_bytes()[..], rest].concat();
    type Fragments<'a> = &'a [(u16, bool, bool, Vec<u8>)];
    let cases: &[(&str, Fragments<'_>)] = &[
        ("channel 0", &[(0, false, false, vec![1])]),
        ("unknown channel", &[(3, false, false, vec![1])]),
        ("a middle without a beginning", &[(1, true, false, vec![1])]),
        ("a total on a message of one fragment", &[(1, false, true, total(4, b"abcd"))]),
        ("a total cut short", &[(1, true, true, vec![0, 0])]),
        ("a claim of 4 GiB", &[(1, true, true, total(u32::MAX, b"a"))]),
        ("a total already reached", &[(1, true, true, total(1, b"a"))]),
        ("an empty first fragment", &[(1, true, true, total(9, b""))]),
        ("a second beginning", &[(1, true, true, total(9, b"a")), (1, true, true, total(9, b"a"))]),
        ("more than the total", &[(1, true, true, total(3, b"a")), (1, false, false, b"abc".to_vec())]),
        ("less than the total", &[(1, true, true, total(3, b"a")), (1, false, false, b"a".to_vec())]),
        ("an empty middle", &[(1, true, true, total(3, b"a")), (1, true, false, vec![])]),
    ];
    for (name, frames) in cases {
        let mut world = World::new();
        let mut outs = Vec::new();
        for (channel, more, total, payload) in *frames {
            let (message, more_outs) = world.data(*channel, *more, *total, payload);
            assert_eq!(message, None, "{name}");
            outs.extend(more_outs);
        }
        assert_eq!(ended(&outs), BREACH, "{name}");
        assert!(outs.contains(&Out::Send(Kind::Disconnect, vec![0, 2])), "{name}: the peer is told");
        assert_eq!(world.data(1, false, false, b"late"), (None, vec![]), "{name}: nothing after the end");
    }
    let mut world = World::new();
    let (_, outs) = world.frame(Header { stream: 3, ..Header::new(Kind::Data, Lane::Normal, 1, 0) }, b"a");
    assert_eq!(ended(&outs), BREACH, "a stream that nobody opened");
}

#[test]
fn a_peer_that_sends_more_than_it_was_granted_is_cut_off_however_it_does() {
    let window = first_window(Lane::Normal);
    let flood = |len: usize| {
        let mut world = World::new();
        for count in 0..100_000u64 {
            let (message, outs) = world.data(1, false, false, &vec![0; len]);
            if message.is_none() {
                assert_eq!(ended(&outs), BREACH);
                return count * (len as u64 + MESSAGE_COST);
            }
        }
        panic!("never cut off");
    };
    for len in [0, 1, 128, 16_384] {
        assert!(flood(len) <= window, "messages of {len} bytes");
    }
    let mut world = World::new();
    world.begin(100_000);
    let endless = (0..10).map(|_| world.data(1, true, false, &[0; 16_000]).1).find_map(|outs| ended(&outs));
    assert_eq!(endless, BREACH, "fragments without end");
}

#[test]
fn messages_begun_everywhere_hold_no_more_than_the_windows_until_the_pool_gives_more() {
    let mut world = World::new();
    let mut wanted = 0;
    for channel in 1..=2 {
        for lane in Lane::ALL {
            let first = [&100_000u32.to_be_bytes()[..], &[0; 10_000]].concat();
            let header = Header { more: true, total: true, ..Header::new(Kind::Data, lane, channel, 0) };
            let (_, outs) = world.frame(header, &first);
            assert_eq!(ended(&outs), None);
            wanted += outs.iter().map(|out| if let Out::Want(bytes) = out { *bytes } else { 0 }).sum::<u64>();
        }
    }
    let windows = 2 * CHANNEL_WINDOW as u64;
    let first = 100_000 + MESSAGE_COST - first_window(Lane::Control);
    assert_eq!(wanted, first, "one at a time, or a part of each could keep all of them waiting");
    let mut left = first;
    for _ in 0..8 {
        let outs = world.input(In::Granted(left));
        left = outs.iter().map(|out| if let Out::Want(bytes) = out { *bytes } else { 0 }).sum::<u64>();
        wanted += left;
    }
    assert_eq!((wanted, left), (8 * (100_000 + MESSAGE_COST) - windows, 0));
    let mut world = World::new();
    world.begin(100_000);
    let outs = (0..5).map(|_| ended(&world.data(1, true, false, &[0; 16_000]).1)).find(Option::is_some);
    assert_eq!(outs, Some(BREACH), "not before it is granted");
}

#[test]
fn the_pools_bytes_go_to_who_asked_first_and_come_back_with_the_permits() {
    let mut world = World::new();
    let window = first_window(Lane::Normal);
    let need = 90_000 + MESSAGE_COST - window;
    assert_eq!(world.begin(90_000), [Out::Want(need)]);
    assert_eq!(world.input(In::Granted(1000)), [Out::Credit(normal(1), window + 1000)], "as it comes");
    assert_eq!(world.input(In::Granted(need - 1000)), [Out::Credit(normal(1), 90_000 + MESSAGE_COST)]);
    let mut delivered = None;
    for n in 1..=5 {
        let len = if n == 5 { 10_000 } else { 16_000 };
        delivered = world.data(1, n < 5, false, &vec![0; len]).0;
    }
    let delivery = delivered.expect("whole");
    assert_eq!((delivery.payload.len(), delivery.cost()), (90_000, 90_000 + MESSAGE_COST));
    let flow = 2;
    assert_eq!(world.driver.machine().flow(flow), normal(1));
    let outs = world.input(In::Released { flow, total: delivery.cost() });
    assert!(outs.contains(&Out::GiveBack(need)), "{outs:?}");
    assert!(outs.contains(&Out::Credit(normal(1), delivery.cost() + window)), "{outs:?}");
}

#[test]
fn a_fast_peers_window_grows_while_the_pool_allows_and_is_asked_back_when_idle() {
    let mut world = World::new();
    world.now += Duration::from_millis(50);
    world.own(Kind::Pong, &1u64.to_be_bytes());
    let window = first_window(Lane::Normal);
    let flow = 2;
    let mut total = 0;
    let mut grows = Vec::new();
    for _ in 0..10 {
        world.now += Duration::from_millis(10);
        let (message, _) = world.data(1, false, false, &[0; 16_000]);
        total += message.expect("granted").cost();
        grows.extend(
            world.input(In::Released { flow, total }).into_iter().filter(|out| matches!(out, Out::Grow { .. })),
        );
    }
    assert_eq!(grows.first(), Some(&Out::Grow { flow, by: window }));
    world.input(In::Grown { flow, by: window });
    world.wait(16);
    world.own(Kind::Pong, &[0; 8]);
    let outs = world.wait(15);
    let limit = total + window;
    assert!(outs.contains(&Out::Reclaim(normal(1), limit)), "{outs:?}");
    let (_, outs) = world.frame(Header::new(Kind::Reclaimed, Lane::Normal, 1, 8), &limit.to_be_bytes());
    assert!(outs.contains(&Out::GiveBack(window)), "{outs:?}");
}

#[test]
fn a_peer_that_keeps_idle_credit_is_stalled_and_one_that_invents_answers_malformed() {
    let mut world = World::new();
    world.data(1, false, false, b"x");
    world.input(In::Released { flow: 2, total: 1 + MESSAGE_COST });
    world.input(In::Grown { flow: 2, by: 100_000 });
    let outs: Vec<Out> = (0..7)
        .flat_map(|_| {
            world.own(Kind::Pong, &[0; 8]);
            world.wait(14)
        })
        .collect();
    assert_eq!(ended(&outs), STALLED);

    for payload in [&1000u64.to_be_bytes()[..], &[0; 7]] {
        let (_, outs) = World::new().frame(Header::new(Kind::Reclaimed, Lane::Normal, 1, 8), payload);
        assert_eq!(ended(&outs), BREACH);
    }
}

#[test]
fn the_peers_limits_are_passed_on_and_those_of_no_flow_refused() {
    let mut world = World::new();
    let credit = |kind, channel| Header::new(kind, Lane::Bulk, channel, 8);
    let flow = Flow { lane: Lane::Bulk, ..normal(2) };
    let limit = u64::MAX.to_be_bytes();
    assert_eq!(world.frame(credit(Kind::Credit, 2), &limit).1, [Out::MaySend(flow, u64::MAX)]);
    assert_eq!(world.frame(credit(Kind::Reclaim, 2), &limit).1, [Out::Yield(flow, u64::MAX)]);
    assert_eq!(ended(&world.frame(credit(Kind::Credit, 2), &limit[..7]).1), BREACH);
    for (channel, stream) in [(0, 0), (3, 0), (1, 1)] {
        let (_, outs) = World::new().frame(Header { stream, ..credit(Kind::Credit, channel) }, &limit);
        assert_eq!(ended(&outs), BREACH, "{channel} {stream}");
    }
}

#[test]
fn pings_are_answered_and_answers_measured_by_their_nonce() {
    let mut world = World::new();
    assert_eq!(world.own(Kind::Ping, &[7; 8]), [Out::Send(Kind::Pong, vec![7; 8])]);
    world.wait(1);
    assert_eq!(world.own(Kind::Pong, &9u64.to_be_bytes()), [], "nobody asked");
    assert_eq!(world.own(Kind::Pong, &1u64.to_be_bytes()), [Out::RoundTrip(Duration::from_secs(1))]);
    assert_eq!(world.own(Kind::Pong, &1u64.to_be_bytes()), [], "once");
    assert_eq!(ended(&world.own(Kind::Ping, &[7; 7])), BREACH);
}

#[test]
fn a_silent_peer_is_pinged_and_then_given_up() {
    let mut world = World::new();
    assert_eq!(world.wait(28).len(), 1, "one more ping");
    assert_eq!(ended(&world.wait(2)), Some((DisconnectReason::Idle, EndedBy::Us)));
    let mut world = World::new();
    for _ in 0..10 {
        assert_eq!(ended(&world.wait(20)), None);
        assert_eq!(world.own(Kind::Unknown(200), b"anything is a sign of life"), [Out::Skipped]);
    }
}

#[test]
fn a_peer_that_takes_nothing_is_stalled() {
    let mut world = World::new();
    for _ in 0..5 {
        world.input(In::Writing(Writing::Waiting));
        world.own(Kind::Pong, &[0; 8]);
        assert_eq!(ended(&world.wait(15)), None);
        world.input(In::Writing(Writing::Done));
        assert_eq!(ended(&world.wait(10)), None);
    }
    world.input(In::Writing(Writing::Waiting));
    world.own(Kind::Pong, &[0; 8]);
    assert_eq!(ended(&world.wait(21)), STALLED);
}

#[test]
fn a_message_must_go_on_and_be_whole_in_time_once_its_peer_may_send_it() {
    let mut world = World::new();
    world.begin(50_000);
    world.wait(15);
    world.own(Kind::Pong, &[0; 8]);
    assert_eq!(ended(&world.wait(10)), STALLED, "pings do not help an unfinished message");

    // One byte now and then: 50,000 bytes at 32 KiB a second, and 20 s.
    let mut world = World::new();
    world.begin(50_000);
    let outs = (0..5).map(|_| {
        world.data(1, true, false, b"a");
        ended(&world.wait(10))
    });
    assert_eq!(outs.collect::<Vec<_>>(), [None, None, STALLED, None, None]);

    // Without credit it is not the peer who is slow.
    let mut world = World::new();
    let granted = |world: &mut World| {
        let window = first_window(Lane::Normal) as usize;
        let rest = window - 16_000 - MESSAGE_COST as usize;
        world.begin(90_000);
        for chunk in vec![0; rest].chunks(16_000) {
            world.data(1, true, false, chunk);
        }
    };
    granted(&mut world);
    for _ in 0..10 {
        world.own(Kind::Pong, &[0; 8]);
        assert_eq!(ended(&world.wait(20)), None);
    }
    let outs = world.input(In::Granted(90_000));
    assert_eq!(ended(&outs), None);
    world.own(Kind::Pong, &[0; 8]);
    assert_eq!(ended(&world.wait(25)), STALLED, "now it is");
}

#[test]
fn a_message_that_waits_for_what_this_end_has_not_handled_is_not_late() {
    let mut world = World::new();
    for _ in 0..3 {
        assert!(world.data(1, false, false, &[0; 16_000]).0.is_some());
    }
    world.data(1, true, true, &[&50_000u32.to_be_bytes()[..], &[0; 16_380]].concat());
    for _ in 0..20 {
        world.own(Kind::Pong, &[0; 8]);
        assert_eq!(ended(&world.wait(20)), None, "three messages hold the window");
    }
}

#[test]
fn an_abandoned_message_is_not_kept_alive_by_others_that_begin() {
    let mut world = World::new();
    world.begin(50_000);
    let outs = (0..4).map(|_| {
        let header = Header { more: true, total: true, ..Header::new(Kind::Data, Lane::High, 1, 0) };
        world.frame(header, &[0, 0, 0, 2, 7]);
        world.frame(Header::new(Kind::Data, Lane::High, 1, 0), &[7]);
        ended(&world.wait(10))
    });
    assert_eq!(outs.collect::<Vec<_>>(), [None, STALLED, None, None]);
}

#[test]
fn a_slow_message_is_excused_by_what_else_came_unless_others_wait_for_its_room() {
    let run = |contended| {
        let mut world = World::with(Config { max_window: 1 << 20, ..Config::recommended() });
        world.begin(60_000);
        let (mut total, mut lasted) = (0, 0);
        while lasted < 200 {
            world.driver.machine_mut().contended(contended);
            if ended(&world.data(1, true, false, b"a").1).is_some() || ended(&world.wait(10)).is_some() {
                break;
            }
            // A hundred messages of the high lane in ten seconds, each handled at once.
            for _ in 0..100 {
                let Some(message) = world.frame(Header::new(Kind::Data, Lane::High, 1, 0), &[0; 16_000]).0 else {
                    break;
                };
                total += message.cost();
                world.input(In::Released { flow: 1, total });
            }
            lasted += 10;
        }
        lasted
    };
    assert_eq!(run(false), 200);
    assert!(run(true) <= 30);
}

#[test]
fn a_message_that_waits_for_the_peers_credit_holds_its_place_for_ten_minutes_at_most() {
    let mut world = World::new();
    assert_eq!(ended(&world.input(In::Starved(Duration::from_secs(599)))), None);
    assert_eq!(ended(&world.input(In::Starved(Duration::from_secs(600)))), STALLED);
}

#[test]
fn a_farewell_is_not_answered_and_unknown_reasons_survive() {
    for (payload, reason) in [
        (&[0, 4][..], DisconnectReason::TooManyPeers),
        (&[9, 9, 1, 2, 3], DisconnectReason::Unknown(0x0909)),
        (&[], DisconnectReason::Requested),
    ] {
        let outs = World::new().own(Kind::Disconnect, payload);
        assert_eq!(outs, [Out::End(reason, EndedBy::Peer)]);
    }
}

#[test]
fn before_a_friendly_end_what_is_queued_has_its_time() {
    let quitting = Some((DisconnectReason::Quitting, EndedBy::Us));
    let mut world = World::new();
    assert_eq!(world.input(In::Disconnect(DisconnectReason::Requested)), [Out::Drain]);
    assert!(world.data(1, false, false, b"still heard").0.is_some());
    assert_eq!(world.input(In::Disconnect(DisconnectReason::Quitting)), [], "asked once");
    assert_eq!(ended(&world.input(In::Drained)), quitting);
    let mut world = World::new();
    world.input(In::Disconnect(DisconnectReason::Quitting));
    assert_eq!(ended(&world.wait(1)), quitting, "or its time is over");
    let mut world = World::new();
    world.input(In::Disconnect(DisconnectReason::Quitting));
    assert_eq!(ended(&world.own(Kind::Disconnect, &[0, 8])), Some((DisconnectReason::Quitting, EndedBy::Peer)));
}

#[test]
fn of_many_causes_of_death_the_first_counts_and_nothing_follows() {
    type Cause = fn(&mut World) -> Vec<Out>;
    let causes: [Cause; 5] = [
        |world| world.input(In::Disconnect(DisconnectReason::Useless)),
        |world| world.input(In::Broken),
        |world| world.input(In::Malformed),
        |world| world.own(Kind::Disconnect, &[0, 8]),
        |world| world.wait(1000),
    ];
    for first in 0..causes.len() {
        let mut world = World::new();
        let outs = causes[first](&mut world);
        assert_eq!(outs.iter().filter(|out| matches!(out, Out::End(..))).count(), 1);
        for later in &causes {
            assert_eq!(later(&mut world), []);
        }
    }
}

#[test]
fn time_in_which_nothing_is_read_is_not_held_against_the_peer() {
    let mut world = World::new();
    world.begin(90_000);
    // Nearly all of its time has passed, and the rest does not while its frames wait to be read.
    world.wait(15);
    assert_eq!(world.input(In::Held(true)), []);
    let outs = world.wait(300);
    assert!(!outs.iter().any(|out| matches!(out, Out::End(..))), "{outs:?}");
    assert_eq!(world.input(In::Held(false)), []);
    let outs = world.wait(3);
    assert!(!outs.iter().any(|out| matches!(out, Out::End(..))), "{outs:?}");
    let outs = world.wait(30);
    assert!(outs.contains(&Out::End(DisconnectReason::Stalled, EndedBy::Us)), "then it has had it: {outs:?}");
}

#[test]
fn an_answer_that_lay_unread_says_nothing_of_the_distance() {
    let mut world = World::new();
    world.input(In::Held(true));
    world.wait(5);
    world.input(In::Held(false));
    assert_eq!(world.own(Kind::Pong, &1u64.to_be_bytes()), []);
    assert_eq!(world.driver.machine().round_trip(), None);
}

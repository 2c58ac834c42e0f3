use peerage_machine::Driver;
use peerage_wire::frame::MAX_FRAGMENT;

use super::*;

/// A pool of so many bytes.
struct Pool(u64);

impl Room for Pool {
    fn reserve(&mut self, bytes: u64) -> bool {
        let left = self.0.checked_sub(bytes);
        self.0 = left.unwrap_or(self.0);
        left.is_some()
    }
}

struct World {
    driver: Driver<StreamsMachine>,
    pool: Pool,
    all: u64,
    now: Time,
}

const BREACH: StreamOut = StreamOut::End(DisconnectReason::ProtocolError);
const CODE: StreamCode = StreamCode(7);

fn flow(stream: u64) -> Flow {
    Flow { channel: ChannelId(1), stream, lane: Lane::Bulk }
}

fn frame(kind: Kind, stream: u64) -> Header {
    Header { stream, ..Header::new(kind, Lane::Bulk, 1, 0) }
}

impl World {
    /// The accepting end: the peer's streams are odd.
    fn with(config: Config, pool: u64, allowance: u64) -> World {
        let machine = StreamsMachine::new(config, 2, Direction::Inbound, allowance);
        World { driver: Driver::new(machine), pool: Pool(pool), all: pool, now: Time::ZERO }
    }

    fn new() -> World {
        World::with(Config::recommended(), 64 << 20, STREAM_ALLOWANCE as u64)
    }

    fn outs(&mut self) -> Vec<StreamOut> {
        let outs = self.driver.take_outs();
        for out in &outs {
            if let StreamOut::GiveBack(bytes) = out {
                self.pool.0 += bytes;
            }
        }
        outs
    }

    fn frame(&mut self, header: Header, payload: &[u8]) -> (bool, Vec<StreamOut>) {
        let World { driver, pool, now, .. } = self;
        let deliver = driver.with(|machine, fx| machine.receive(*now, &header, payload, pool, fx));
        (deliver, self.outs())
    }

    fn opened(&mut self, stream: u64) -> Vec<StreamOut> {
        self.frame(frame(Kind::Open, stream), &[]).1
    }

    fn data(&mut self, stream: u64, len: usize) -> (bool, Vec<StreamOut>) {
        self.frame(frame(Kind::Data, stream), &vec![0; len])
    }

    fn end(&mut self, stream: u64) -> Vec<StreamOut> {
        self.frame(Header { end: true, ..frame(Kind::Data, stream) }, &[]).1
    }

    fn code(&mut self, kind: Kind, stream: u64) -> Vec<StreamOut> {
        self.frame(frame(kind, stream), &CODE.0.to_be_bytes()).1
    }

    fn input(&mut self, input: StreamIn) -> Vec<StreamOut> {
        self.driver.handle(self.now, input);
        self.outs()
    }

    fn read(&mut self, stream: u64, total: u64) -> Vec<StreamOut> {
        let World { driver, pool, now, .. } = self;
        let near = Some(Duration::from_millis(10));
        driver.with(|machine, fx| machine.read(*now, stream, total, near, pool, fx));
        self.outs()
    }

    fn open(&mut self, lane: Lane) -> Result<u64, OpenError> {
        let World { driver, pool, now, .. } = self;
        driver.with(|machine, fx| machine.open(*now, ChannelId(1), lane, pool, fx))
    }

    fn is_clean(&self) -> bool {
        let machine = self.driver.machine();
        machine.is_empty()
            && self.pool.0 == self.all
            && machine.allowance == STREAM_ALLOWANCE as u64
            && machine.own == 0
    }
}

#[test]
fn a_stream_lives_until_both_directions_have_ended_and_all_of_it_was_read() {
    let mut world = World::new();
    assert_eq!(world.opened(1), [StreamOut::Accept(flow(1))]);
    assert_eq!(world.data(1, 5000), (true, vec![]));
    assert_eq!(world.end(1), [StreamOut::Ended(1)]);
    assert_eq!(world.input(StreamIn::EndSent(1)), []);
    assert_eq!(world.read(1, 4999), []);
    assert_eq!(world.read(1, 5000), [StreamOut::Closed(1)]);
    assert!(world.is_clean());
}

#[test]
fn ids_of_each_side_rise_without_a_gap_and_are_not_used_again() {
    for (opened, next) in [(vec![], 3), (vec![1], 5), (vec![1], 1), (vec![], 2), (vec![1, 3], 3), (vec![], 0)] {
        let mut world = World::new();
        opened.iter().for_each(|stream| assert_eq!(world.opened(*stream), [StreamOut::Accept(flow(*stream))]));
        assert_eq!(world.opened(next), [BREACH], "{next} after {opened:?}");
        assert_eq!(world.opened(next), [], "and nothing after the end");
    }
    let mut world = World::new();
    assert_eq!((world.open(Lane::Bulk), world.open(Lane::Normal)), (Ok(2), Ok(4)));
    assert_eq!(world.open(Lane::High), Err(OpenError::Lane));
}

#[test]
fn what_is_no_frame_of_a_stream_ends_the_session() {
    let bad = [
        (frame(Kind::Data, 3), &[0; 4][..]),
        (frame(Kind::Data, 2), &[0; 4]),
        (frame(Kind::Data, 1), &[]),
        (Header { more: true, ..frame(Kind::Data, 1) }, &[0; 4]),
        (Header { total: true, ..frame(Kind::Data, 1) }, &[0; 4]),
        (Header { lane: Lane::Normal, ..frame(Kind::Data, 1) }, &[0; 4]),
        (Header { channel: 2, ..frame(Kind::Data, 1) }, &[0; 4]),
        (frame(Kind::Reset, 1), &[0; 5]),
        (frame(Kind::Stop, 1), &[]),
        (frame(Kind::Credit, 1), &[0; 4]),
        (frame(Kind::Reclaimed, 1), &[0; 8]),
        (frame(Kind::Reset, 0), &[0; 4]),
        (frame(Kind::Ping, 1), &[0; 8]),
        (Header { lane: Lane::High, ..frame(Kind::Open, 3) }, &[]),
        (Header { channel: 3, ..frame(Kind::Open, 3) }, &[]),
        (Header { channel: 0, ..frame(Kind::Open, 3) }, &[]),
        (frame(Kind::Open, 3), &[0]),
    ];
    for (header, payload) in bad {
        let mut world = World::new();
        world.opened(1);
        assert_eq!(world.frame(header, payload), (false, vec![BREACH]), "{header:?}");
    }
}

#[test]
fn who_sends_more_than_its_credit_or_after_its_end_is_cut_off() {
    let mut world = World::new();
    world.opened(1);
    assert_eq!(world.data(1, MAX_FRAGMENT), (true, vec![]), "the first window");
    assert_eq!(world.read(1, 4096), [StreamOut::Credit(flow(1), STREAM_WINDOW + 4096)]);
    assert_eq!(world.data(1, 4096), (true, vec![]));
    assert_eq!(world.data(1, 1), (false, vec![BREACH]));
    for (last, more) in [(Kind::Data, Kind::Data), (Kind::Data, Kind::Reset), (Kind::Reset, Kind::Data)] {
        let mut world = World::new();
        world.opened(1);
        let ended = if last == Kind::Data { world.end(1) } else { world.code(last, 1) };
        assert_eq!(ended.len(), 1);
        let after = if more == Kind::Data { world.data(1, 4).1 } else { world.code(more, 1) };
        assert_eq!(after, [BREACH], "{more:?} after {last:?}");
    }
}

#[test]
fn a_window_doubles_while_it_is_used_up_quickly_and_goes_back_with_the_stream() {
    let mut world = World::new();
    world.opened(1);
    let (mut sent, mut limit) = (0, STREAM_WINDOW);
    for _ in 0..200 {
        while sent < limit {
            let len = (limit - sent).min(MAX_FRAGMENT as u64);
            assert!(world.data(1, len as usize).0);
            sent += len;
        }
        world.now += Duration::from_millis(10);
        for out in world.read(1, sent) {
            if let StreamOut::Credit(_, granted) = out {
                limit = granted;
            }
        }
    }
    assert_eq!(limit - sent, 16 << 20, "as large as windows get");
    assert_eq!(world.all - world.pool.0, (16 << 20) - STREAM_WINDOW, "and the first came from the allowance");
    world.data(1, 100);
    assert_eq!(world.end(1), [StreamOut::Ended(1), StreamOut::GiveBack((16 << 20) - STREAM_WINDOW)]);
    world.read(1, sent + 100);
    assert_eq!(world.input(StreamIn::EndSent(1)), [StreamOut::Closed(1)]);
    assert!(world.is_clean());
}

#[test]
fn a_window_that_lies_idle_is_asked_back_and_who_does_not_answer_is_stalled() {
    let mut world = World::new();
    world.opened(1);
    for n in 1..=3 {
        world.now += Duration::from_millis(5);
        world.data(1, 10_000);
        world.read(1, n * 10_000);
    }
    assert!(world.pool.0 < world.all, "it has grown");
    let mut asked = Vec::new();
    let mut wait = |world: &mut World, seconds| {
        world.now += Duration::from_secs(seconds);
        world.driver.expire_due(world.now);
        asked.extend(world.outs());
        asked.clone()
    };
    wait(&mut world, 20);
    assert_eq!(wait(&mut world, 20), [StreamOut::Reclaim(flow(1), 30_000 + STREAM_WINDOW)]);
    let answer = (30_000 + STREAM_WINDOW).to_be_bytes();
    let (_, outs) = world.frame(frame(Kind::Reclaimed, 1), &answer);
    assert!(matches!(outs[..], [StreamOut::GiveBack(_)]), "{outs:?}");
    assert_eq!(world.pool.0, world.all);
    for n in 4..=6 {
        world.now += Duration::from_millis(5);
        world.data(1, 10_000);
        world.read(1, n * 10_000);
    }
    for _ in 0..6 {
        wait(&mut world, 20);
    }
    assert_eq!(wait(&mut world, 20).last(), Some(&StreamOut::End(DisconnectReason::Stalled)));
}

#[test]
fn a_stream_beyond_the_limits_or_the_memory_is_refused_and_the_session_lives() {
    let config = Config { max_streams: 8, max_channel_streams: 6, ..Config::recommended() };
    let mut world = World::with(config, 3 * STREAM_WINDOW, STREAM_ALLOWANCE as u64);
    let refused = |stream, code| [StreamOut::Stop(flow(stream), code), StreamOut::Reset(flow(stream), code)];
    for stream in [1, 3, 5, 7, 9, 11] {
        assert_eq!(world.opened(stream), [StreamOut::Accept(flow(stream))]);
    }
    assert_eq!(world.opened(13), refused(13, StreamCode::TOO_MANY), "of this channel");
    assert_eq!((world.data(13, 5000), world.end(13)), ((false, vec![StreamOut::Late]), vec![StreamOut::Late]));
    let other = |stream| Header { channel: 2, ..frame(Kind::Open, stream) };
    assert_eq!(world.frame(other(15), &[]).1.len(), 1, "another channel has room");
    assert_eq!(world.pool.0, 0);
    assert!(matches!(world.frame(other(17), &[]).1[..], [StreamOut::Stop(_, StreamCode::NO_ROOM), _]));
    assert_eq!(world.open(Lane::Bulk), Err(OpenError::NoRoom));
    assert_eq!(world.driver.machine().len(), 7);
}

#[test]
fn as_many_streams_as_this_end_may_open_and_no_more() {
    let mut world = World::with(Config { max_streams: 3, ..Config::recommended() }, 64 << 20, 0);
    assert_eq!([2, 4, 6].map(|_| world.open(Lane::Bulk).is_ok()), [true; 3]);
    assert_eq!(world.open(Lane::Bulk), Err(OpenError::TooMany));
    world.outs();
    assert_eq!(world.code(Kind::Stop, 4), [StreamOut::WasStopped(4, CODE), StreamOut::Reset(flow(4), CODE)]);
    assert!(world.code(Kind::Reset, 4).contains(&StreamOut::Closed(4)));
    assert_eq!(world.open(Lane::Bulk), Ok(8));
    let none = StreamsMachine::new(Config::recommended(), 0, Direction::Outbound, 0);
    assert_eq!(
        Driver::new(none).with(|machine, fx| machine.open(
            Time::ZERO,
            ChannelId(1),
            Lane::Bulk,
            &mut Pool(1 << 20),
            fx
        )),
        Err(OpenError::NoChannel)
    );
}

#[test]
fn frames_that_crossed_an_end_are_ignored_but_only_as_many_as_could_have() {
    let mut world = World::new();
    world.opened(1);
    assert_eq!(world.input(StreamIn::Stop(1, CODE)), [StreamOut::Stop(flow(1), CODE)]);
    assert_eq!(world.data(1, 10_000), (false, vec![StreamOut::Late]), "it was under way");
    assert_eq!(world.input(StreamIn::Reset(1, CODE)), [StreamOut::Reset(flow(1), CODE), StreamOut::Closed(1)]);
    assert_eq!(world.data(1, 6384), (false, vec![StreamOut::Late]), "the rest of its window");
    assert!(world.is_clean());
    assert_eq!(world.data(1, 1), (false, vec![BREACH]));
    let mut world = World::new();
    world.opened(1);
    world.input(StreamIn::Refuse(1, CODE));
    let late = (0..).take_while(|_| world.end(1) == [StreamOut::Late]).count() as u64;
    assert!((1..=2 * LATE_FRAMES).contains(&late), "{late}");
}

#[test]
fn a_flood_of_streams_that_are_opened_and_aborted_ends_the_session_and_leaves_nothing() {
    for abort in [Kind::Reset, Kind::Stop] {
        let mut world = World::new();
        let mut opened = 0u64;
        let breach = loop {
            let stream = 2 * opened + 1;
            if world.opened(stream).contains(&BREACH) || world.code(abort, stream).contains(&BREACH) {
                break opened;
            }
            world.input(StreamIn::Stop(stream, CODE));
            world.input(StreamIn::Reset(stream, CODE));
            opened += 1;
            assert!(opened < 100_000);
        };
        assert_eq!(breach, u64::from(ABORTS.burst()), "{abort:?}");
    }
    let mut world = World::with(Config { max_streams: 1, ..Config::recommended() }, 64 << 20, 0);
    let ended = (0..3 * u64::from(ABORTS.burst())).position(|n| world.opened(2 * n + 1).contains(&BREACH));
    assert_eq!(ended, Some(ABORTS.burst() as usize + 1), "streams beyond the limit are the same");
}

#[test]
fn want_of_room_here_is_not_held_against_the_peer_unless_it_does_not_read_the_refusals() {
    let mut world = World::with(Config::recommended(), 0, 0);
    for n in 0..10_000u64 {
        let outs = world.opened(2 * n + 1);
        assert!(matches!(outs[..], [StreamOut::Stop(_, StreamCode::NO_ROOM), StreamOut::Reset(..)]), "{outs:?}");
        if n % 256 == 255 {
            world.input(StreamIn::Said);
        }
    }
    let mut world = World::new();
    for n in 0..10_000u64 {
        world.opened(2 * n + 1);
        let outs = world.input(StreamIn::Refuse(2 * n + 1, StreamCode::NO_ROOM));
        assert!(!outs.contains(&BREACH), "its protocol is behind");
        world.input(StreamIn::Said);
    }
    let mut world = World::with(Config::recommended(), 0, 0);
    let breach = (0..1000u64).position(|n| world.opened(2 * n + 1).contains(&BREACH));
    assert_eq!(breach, Some(256), "who opens more has not read what became of the others");
    let mut world = World::new();
    let refused = |n: &u64| {
        world.opened(2 * n + 1);
        !world.input(StreamIn::Refuse(2 * n + 1, StreamCode::REFUSED)).contains(&BREACH)
    };
    assert_eq!((0..10_000u64).take_while(refused).count(), ABORTS.burst() as usize, "a protocol that takes none");
}

#[test]
fn streams_that_come_and_go_properly_are_no_flood_and_cost_nothing_when_they_are_over() {
    let mut world = World::new();
    for n in 0..10_000u64 {
        let stream = 2 * n + 1;
        assert_eq!(world.opened(stream), [StreamOut::Accept(flow(stream))]);
        assert!(world.data(stream, 100).0);
        world.end(stream);
        world.read(stream, 100);
        assert_eq!(world.input(StreamIn::EndSent(stream)), [StreamOut::Closed(stream)]);
    }
    assert!(world.is_clean());
}

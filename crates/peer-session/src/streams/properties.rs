//! Two ends joined by a link that loses nothing: whatever they do, what arrives is what was written, and nothing is left.

use std::collections::{BTreeMap, VecDeque};

use peerage_machine::Driver;
use peerage_queue::stream::Outgoing;
use proptest::prelude::*;

use super::*;

/// The nth byte of a stream in a direction.
fn byte(stream: u64, from: usize, n: u64) -> u8 {
    (n.wrapping_mul(31) ^ stream ^ from as u64) as u8
}

struct Pool {
    free: u64,
}

impl Room for Pool {
    fn reserve(&mut self, bytes: u64) -> bool {
        let fits = self.free >= bytes;
        self.free -= if fits { bytes } else { 0 };
        fits
    }
}

/// What an application knows of its stream.
#[derive(Debug, Default)]
struct App {
    written: u64,
    finished: bool,
    reset: bool,
    /// Bytes that came, and how many of them it has read.
    came: u64,
    read: u64,
    end: bool,
    was_reset: bool,
    stopped: bool,
}

struct End {
    driver: Driver<StreamsMachine>,
    outgoing: Outgoing,
    pool: Pool,
    apps: BTreeMap<u64, App>,
    /// What is under way to the other end.
    link: VecDeque<(Header, Vec<u8>)>,
}

const POOL: u64 = 1 << 20;
const ALLOWANCE: u64 = 2 * STREAM_WINDOW;

struct Two {
    ends: [End; 2],
    now: Time,
    ended: bool,
}

impl Two {
    fn new() -> Two {
        let config = Config { max_streams: 6, max_channel_streams: 4, max_window: 256 << 10, ..Config::recommended() };
        let end = |direction| End {
            driver: Driver::new(StreamsMachine::new(config, 2, direction, ALLOWANCE)),
            outgoing: Outgoing::default(),
            pool: Pool { free: POOL },
            apps: BTreeMap::new(),
            link: VecDeque::new(),
        };
        Two { ends: [end(Direction::Outbound), end(Direction::Inbound)], now: Time::ZERO, ended: false }
    }

    fn say(&mut self, at: usize, kind: Kind, flow: Flow, payload: &[u8]) {
        let header =
            Header { stream: flow.stream, ..Header::new(kind, flow.lane, flow.channel.0, payload.len() as u16) };
        self.ends[at].link.push_back((header, payload.to_vec()));
    }

    fn perform(&mut self, at: usize) {
        for out in self.ends[at].driver.take_outs() {
            let end = &mut self.ends[at];
            match out {
                StreamOut::Open(flow) => {
                    end.outgoing.open(flow);
                    self.say(at, Kind::Open, flow, &[]);
                }
                StreamOut::Accept(flow) => {
                    end.outgoing.open(flow);
                    end.apps.insert(flow.stream, App::default());
                }
                StreamOut::Reset(flow, code) => {
                    end.outgoing.remove(flow.stream);
                    self.say(at, Kind::Reset, flow, &code.0.to_be_bytes());
                }
                StreamOut::Stop(flow, code) => self.say(at, Kind::Stop, flow, &code.0.to_be_bytes()),
                StreamOut::Ended(stream) => {
                    let app = end.apps.get_mut(&stream).expect("known");
                    app.end = true;
                    let read = app.read;
                    self.read(at, stream, read);
                }
                StreamOut::WasReset(stream, _) => end.apps.get_mut(&stream).expect("known").was_reset = true,
                StreamOut::WasStopped(stream, _) => end.apps.get_mut(&stream).expect("known").reset = true,
                StreamOut::Credit(flow, limit) => self.say(at, Kind::Credit, flow, &limit.to_be_bytes()),
                StreamOut::Reclaim(flow, limit) => self.say(at, Kind::Reclaim, flow, &limit.to_be_bytes()),
                StreamOut::MaySend(flow, limit) => end.outgoing.grant(flow.stream, limit),
                StreamOut::Yield(flow, limit) => {
                    let limit = end.outgoing.reclaim(flow.stream, limit);
                    self.say(at, Kind::Reclaimed, flow, &limit.to_be_bytes());
                }
                StreamOut::GiveBack(bytes) => end.pool.free += bytes,
                StreamOut::Closed(stream) => {
                    assert!(end.outgoing.room(stream, 1).is_none(), "nothing goes out any more")
                }
                StreamOut::Late => {}
                StreamOut::End(_) => self.ended = true,
            }
        }
    }

    fn read(&mut self, at: usize, stream: u64, total: u64) {
        let (now, rtt) = (self.now, Some(Duration::from_millis(5)));
        let End { driver, pool, .. } = &mut self.ends[at];
        driver.with(|machine, fx| machine.read(now, stream, total, rtt, pool, fx));
        self.perform(at);
    }

    /// Seals one fragment.
    fn seal(&mut self, at: usize) -> bool {
        let Some(fragment) = self.ends[at].outgoing.pop(Lane::Bulk, usize::MAX) else { return false };
        let flow = fragment.flow;
        let header = Header {
            stream: flow.stream,
            end: fragment.end,
            ..Header::new(Kind::Data, flow.lane, flow.channel.0, fragment.payload.len() as u16)
        };
        self.ends[at].link.push_back((header, fragment.payload.to_vec()));
        if fragment.end {
            self.ends[at].driver.handle(self.now, StreamIn::EndSent(flow.stream));
            self.perform(at);
        }
        true
    }

    /// One frame of `from` arrives.
    fn arrive(&mut self, from: usize) -> bool {
        let Some((header, payload)) = self.ends[from].link.pop_front() else { return false };
        let at = 1 - from;
        let now = self.now;
        let End { driver, pool, apps, .. } = &mut self.ends[at];
        if driver.with(|machine, fx| machine.receive(now, &header, &payload, pool, fx)) {
            let app = apps.get_mut(&header.stream).expect("accepted");
            assert!(!app.end && !app.was_reset);
            for found in &payload {
                assert_eq!(*found, byte(header.stream, from, app.came), "in order, as it was written");
                app.came += 1;
            }
        }
        self.perform(at);
        true
    }

    fn act(&mut self, at: usize, op: u8, pick: usize, n: u64) {
        let now = self.now;
        if op == 0 {
            let End { driver, pool, .. } = &mut self.ends[at];
            let channel = ChannelId(1 + (n % 2) as u16);
            if let Ok(stream) = driver.with(|machine, fx| machine.open(now, channel, Lane::Bulk, pool, fx)) {
                self.ends[at].apps.insert(stream, App::default());
            }
            return self.perform(at);
        }
        let known = self.ends[at].apps.len().max(1);
        let Some(stream) = self.ends[at].apps.keys().nth(pick % known).copied() else { return };
        let End { driver, outgoing, apps, .. } = &mut self.ends[at];
        let Some(app) = apps.get_mut(&stream) else { return };
        match op {
            1 | 2 => {
                if let Some(room) = outgoing.room(stream, n as usize) {
                    let bytes = (0..room as u64).map(|i| byte(stream, at, app.written + i));
                    outgoing.push(stream, bytes.collect::<Vec<_>>().into());
                    app.written += room as u64;
                }
            }
            3 | 4 if !app.stopped && !app.was_reset => {
                app.read = (app.read + n).min(app.came);
                let total = app.read;
                self.read(at, stream, total);
            }
            5 => app.finished |= outgoing.finish(stream),
            6 if !app.finished => {
                app.reset = true;
                driver.handle(now, StreamIn::Reset(stream, StreamCode(1)));
            }
            7 => {
                app.stopped = true;
                driver.handle(now, StreamIn::Stop(stream, StreamCode(2)));
            }
            _ => {}
        }
        self.perform(at);
    }

    fn check(&self) {
        for end in &self.ends {
            let machine = end.driver.machine();
            let pool: u64 = machine.live.values().map(|stream| stream.reserved.pool()).sum();
            assert_eq!(pool, POOL - end.pool.free, "what is taken from the pool is known");
            let unread = |app: &App| if app.stopped || app.was_reset { 0 } else { app.came - app.read };
            let unread: u64 = end.apps.values().map(unread).sum();
            assert!(unread <= pool + ALLOWANCE - machine.allowance, "{unread} bytes beyond what is reserved");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn whatever_two_ends_do_bytes_arrive_as_written_within_credit_and_nothing_is_left(
        ops in proptest::collection::vec((0usize..2, 0u8..14, 0usize..12, 0u64..30_000), 1..600),
    ) {
        let mut two = Two::new();
        for (at, op, pick, n) in ops {
            two.now += Duration::from_micros(n);
            match op {
                0..8 if op < 5 || n < 3000 => two.act(at, op, pick, n),
                8 | 9 => { two.seal(at); }
                10..13 => { two.arrive(at); }
                13 if n < 300 => {
                    two.now += Duration::from_secs(16);
                    for at in 0..2 {
                        two.ends[at].driver.expire_due(two.now);
                        two.perform(at);
                    }
                }
                _ => {}
            }
            two.check();
            prop_assert!(!two.ended, "honest ends do not break the rules");
        }
        // All that is open ends, and all that came is read.
        for at in 0..2 {
            for pick in 0..two.ends[at].apps.len() {
                two.act(at, 5, pick, 0);
            }
        }
        loop {
            let mut moved = false;
            for at in 0..2 {
                while two.seal(at) { moved = true; }
                while two.arrive(at) { moved = true; }
                for pick in 0..two.ends[at].apps.len() {
                    // Those that were opened by the other end since.
                    two.act(at, 5, pick, 0);
                    moved |= !two.ends[at].outgoing.is_idle();
                    let unread = |end: &End| end.apps.values().map(|app| app.came - app.read).sum::<u64>();
                    let before = unread(&two.ends[at]);
                    two.act(at, 3, pick, 100_000);
                    moved |= unread(&two.ends[at]) < before;
                }
            }
            prop_assert!(!two.ended);
            if !moved { break; }
        }
        for at in 0..2 {
            let [here, there] = [&two.ends[at], &two.ends[1 - at]];
            prop_assert!(here.driver.machine().is_empty(), "{:?}", here.driver.machine().live);
            prop_assert_eq!((here.pool.free, here.driver.machine().allowance), (POOL, ALLOWANCE));
            prop_assert_eq!((here.outgoing.bytes(), here.driver.machine().own), (0, 0));
            for (stream, app) in &here.apps {
                let Some(other) = there.apps.get(stream) else { continue };
                if other.finished && !other.reset && !app.stopped {
                    prop_assert!(app.end && app.came == other.written && app.read == app.came, "{app:?} of {other:?}");
                }
            }
        }
    }
}

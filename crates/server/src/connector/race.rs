//! Which of a node's addresses to try when: the connector's rule for one dial (after RFC 8305, "happy eyeballs").

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use peerage_machine::{Effects, Machine, Time};
use peerage_wire::DisconnectReason;
use serde::Serialize;

/// Addresses of a node that are tried; the dialer lets others be the first another time.
const ATTEMPTS: usize = peerage_dialer::RACED;
/// How long an address has for itself before the next one is tried besides (RFC 8305: 250 ms).
const DELAY: Duration = Duration::from_millis(250);

/// How a handshake failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// What the race ends with, if nothing else succeeds.
    pub end: End,
    /// Whether at another address it could go otherwise.
    pub curable: bool,
}

/// What may happen in a race.
#[derive(Clone, Debug, Serialize)]
pub enum In {
    /// It begins.
    Start,
    /// This address took the connection.
    Opened(SocketAddr),
    /// It did not.
    Failed {
        /// Which address.
        address: SocketAddr,
        /// Whether nothing came back at all.
        timed_out: bool,
    },
    /// The handshake with the node at the address that won is over.
    Handshaken(Result<(), Failure>),
}

/// What the connector is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Out {
    /// Open a connection there.
    Open(SocketAddr),
    /// Give this one up: another address was faster, or time is up.
    GiveUp(SocketAddr),
    /// This connection won: do the handshake on it.
    Handshake(SocketAddr),
    /// The race is over.
    Done(End),
}

/// How a race ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum End {
    /// With a session.
    Connected,
    /// A connection was made, and what answered is no peer.
    HandshakeFailed(DisconnectReason),
    /// This end refused, for a reason that is not of the node's making: no place, or a shutdown.
    Declined(DisconnectReason),
    /// No address took the connection.
    ConnectFailed,
    /// Nothing came back in time.
    TimedOut,
}

/// What a race waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// The next address' turn.
    Next,
    /// The end of all opening.
    Deadline,
}

/// The addresses of one node, raced with a delay.
///
/// The first of at most three that takes the connection wins, and the others are given up. If its handshake fails
/// in a way that another address could cure (somebody else answers, nobody does), the others get their turn after
/// all; no address gets more than one handshake.
pub struct Race {
    /// Not begun, the next one first.
    waiting: VecDeque<SocketAddr>,
    opening: BTreeSet<SocketAddr>,
    /// A handshake is going on.
    shaking: bool,
    /// How long connections may be opened; a handshake that has begun then still ends.
    limit: Duration,
    /// When that time is over.
    until: Time,
    done: bool,
    /// What it ends with if nothing else succeeds: of all failures the one that says most.
    worst: End,
}

impl Race {
    /// Races `addresses`, which are in the order of preference, for at most `limit`.
    pub fn new(addresses: &[SocketAddr], limit: Duration) -> Race {
        Race {
            waiting: interleaved(addresses),
            opening: BTreeSet::new(),
            shaking: false,
            limit,
            until: Time::ZERO,
            done: false,
            worst: End::ConnectFailed,
        }
    }

    /// Begins with the next address, if it may.
    fn next(&mut self, now: Time, fx: &mut Effects<Out, Timer>) {
        if self.shaking || self.done {
            return;
        }
        if now < self.until
            && let Some(address) = self.waiting.pop_front()
        {
            self.opening.insert(address);
            fx.emit(Out::Open(address));
            if !self.waiting.is_empty() {
                fx.arm(Timer::Next, now + DELAY);
            }
        } else if self.opening.is_empty() {
            self.end(self.worst, fx);
        }
    }

    fn end(&mut self, end: End, fx: &mut Effects<Out, Timer>) {
        self.done = true;
        fx.disarm(Timer::Next);
        fx.disarm(Timer::Deadline);
        fx.emit(Out::Done(end));
    }

    fn give_up(&mut self, fx: &mut Effects<Out, Timer>) -> BTreeSet<SocketAddr> {
        let given_up = std::mem::take(&mut self.opening);
        given_up.iter().for_each(|address| fx.emit(Out::GiveUp(*address)));
        given_up
    }

    fn opened(&mut self, address: SocketAddr, fx: &mut Effects<Out, Timer>) {
        if !self.opening.remove(&address) {
            return;
        }
        self.shaking = true;
        fx.disarm(Timer::Next);
        // They answered later, not never: if it comes to that they are tried again, before the others.
        for overtaken in self.give_up(fx).into_iter().rev() {
            self.waiting.push_front(overtaken);
        }
        fx.emit(Out::Handshake(address));
    }

    fn handshaken(&mut self, now: Time, outcome: Result<(), Failure>, fx: &mut Effects<Out, Timer>) {
        self.shaking = false;
        match outcome {
            Ok(()) => self.end(End::Connected, fx),
            Err(Failure { end, curable }) => {
                self.worst = end;
                if curable { self.next(now, fx) } else { self.end(self.worst, fx) }
            }
        }
    }
}

impl Machine for Race {
    type In = In;
    type Out = Out;
    type Timer = Timer;

    fn handle(&mut self, now: Time, input: In, fx: &mut Effects<Out, Timer>) {
        match input {
            In::Start => {
                self.until = now + self.limit;
                fx.arm(Timer::Deadline, self.until);
                self.next(now, fx);
            }
            In::Opened(address) => self.opened(address, fx),
            In::Failed { address, timed_out } => {
                if self.opening.remove(&address) {
                    if timed_out && self.worst == End::ConnectFailed {
                        self.worst = End::TimedOut;
                    }
                    self.next(now, fx);
                }
            }
            In::Handshaken(outcome) if self.shaking => self.handshaken(now, outcome, fx),
            In::Handshaken(_) => {}
        }
    }

    fn expire(&mut self, now: Time, timer: Timer, fx: &mut Effects<Out, Timer>) {
        match timer {
            Timer::Next => self.next(now, fx),
            Timer::Deadline => {
                if !self.shaking {
                    if !self.give_up(fx).is_empty() && self.worst == End::ConnectFailed {
                        self.worst = End::TimedOut;
                    }
                    self.next(now, fx);
                }
            }
        }
    }
}

/// The first addresses, in their order, but each family in turn: where one of them does not work at all, the other is
/// only one delay away.
fn interleaved(addresses: &[SocketAddr]) -> VecDeque<SocketAddr> {
    let mut seen = BTreeSet::new();
    let once = addresses.iter().copied().filter(|address| seen.insert(*address));
    let first_is_v4 = addresses.first().is_some_and(SocketAddr::is_ipv4);
    let (ours, theirs): (Vec<_>, Vec<_>) = once.partition(|address| address.is_ipv4() == first_is_v4);
    let (mut ours, mut theirs) = (ours.into_iter(), theirs.into_iter());
    let mut order = VecDeque::new();
    while order.len() < ATTEMPTS {
        let (one, other) = (ours.next(), theirs.next());
        if one.is_none() && other.is_none() {
            break;
        }
        order.extend([one, other].into_iter().flatten());
    }
    order.truncate(ATTEMPTS);
    order
}

#[cfg(test)]
mod tests {
    use peerage_machine::Driver;
    use proptest::prelude::*;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    fn at(text: &str) -> SocketAddr {
        text.parse().expect("socket")
    }

    fn v4(n: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, n], 1))
    }

    struct World(Driver<Race>, Time);

    impl World {
        fn start(addresses: &[SocketAddr]) -> (World, Vec<Out>) {
            let mut world = World(Driver::new(Race::new(addresses, LIMIT)), Time::ZERO);
            let outs = world.input(In::Start);
            (world, outs)
        }

        fn input(&mut self, input: In) -> Vec<Out> {
            self.0.handle(self.1, input);
            self.0.drain().collect()
        }

        fn failed(&mut self, n: u8) -> Vec<Out> {
            self.input(In::Failed { address: v4(n), timed_out: false })
        }

        fn wait(&mut self, millis: u64) -> Vec<Out> {
            self.1 += Duration::from_millis(millis);
            self.0.expire_due(self.1);
            self.0.drain().collect()
        }

        fn handshake_fails(&mut self, reason: DisconnectReason, curable: bool) -> Vec<Out> {
            self.input(In::Handshaken(Err(Failure { end: End::HandshakeFailed(reason), curable })))
        }
    }

    #[test]
    fn the_next_address_begins_after_the_delay_or_as_soon_as_one_failed() {
        let (mut world, outs) = World::start(&[v4(1), v4(2), v4(3), v4(4)]);
        assert_eq!(outs, [Out::Open(v4(1))]);
        assert_eq!(world.wait(249), []);
        assert_eq!(world.wait(1), [Out::Open(v4(2))]);
        assert_eq!(world.failed(1), [Out::Open(v4(3))], "at once");
        assert_eq!(world.wait(5000), [], "a fourth address is not tried");
        assert_eq!(world.failed(2), []);
        assert_eq!(world.failed(3), [Out::Done(End::ConnectFailed)]);
        assert_eq!(world.0.next_deadline(), None);
    }

    #[test]
    fn the_first_connection_wins_and_the_others_are_given_up() {
        let (mut world, _) = World::start(&[v4(1), v4(2), v4(3)]);
        assert_eq!(world.wait(250), [Out::Open(v4(2))]);
        assert_eq!(world.input(In::Opened(v4(2))), [Out::GiveUp(v4(1)), Out::Handshake(v4(2))]);
        assert_eq!(world.wait(1000), [], "nobody is tried while a handshake goes on");
        assert_eq!(world.input(In::Opened(v4(1))), [], "too late");
        assert_eq!(world.input(In::Handshaken(Ok(()))), [Out::Done(End::Connected)]);
        assert_eq!(world.wait(60_000), []);
    }

    #[test]
    fn a_failure_that_another_address_could_cure_gives_the_others_their_turn() {
        let (mut world, _) = World::start(&[v4(1), v4(2), v4(3)]);
        world.wait(250);
        world.input(In::Opened(v4(2)));
        let wrong = DisconnectReason::UnexpectedIdentity;
        assert_eq!(world.handshake_fails(wrong, true), [Out::Open(v4(1))], "the one that was overtaken");
        assert_eq!(world.failed(1), [Out::Open(v4(3))]);
        assert_eq!(world.failed(3), [Out::Done(End::HandshakeFailed(wrong))], "it says more than a closed port");
    }

    #[test]
    fn a_refusal_by_the_right_node_ends_the_race() {
        let (mut world, _) = World::start(&[v4(1), v4(2)]);
        world.input(In::Opened(v4(1)));
        let full = DisconnectReason::TooManyPeers;
        assert_eq!(world.handshake_fails(full, false), [Out::Done(End::HandshakeFailed(full))]);
        assert_eq!(world.wait(60_000), []);
    }

    #[test]
    fn after_the_deadline_nothing_is_opened_and_a_handshake_still_ends() {
        let (mut world, _) = World::start(&[v4(1)]);
        assert_eq!(world.wait(10_000), [Out::GiveUp(v4(1)), Out::Done(End::TimedOut)]);

        let (mut world, _) = World::start(&[v4(1), v4(2)]);
        world.wait(9_000);
        world.input(In::Opened(v4(1)));
        assert_eq!(world.wait(1_000), []);
        let lost = DisconnectReason::NetworkError;
        assert_eq!(world.handshake_fails(lost, true), [Out::Done(End::HandshakeFailed(lost))]);
    }

    #[test]
    fn swallowed_connections_are_a_time_out_and_no_address_at_all_a_failure() {
        let (mut world, _) = World::start(&[v4(1)]);
        assert_eq!(world.input(In::Failed { address: v4(1), timed_out: true }), [Out::Done(End::TimedOut)]);
        assert_eq!(World::start(&[]).1, [Out::Done(End::ConnectFailed)]);
    }

    #[test]
    fn families_take_turns_and_each_keeps_its_order() {
        let order = |list: &[&str]| {
            let addresses: Vec<SocketAddr> = list.iter().map(|text| at(text)).collect();
            interleaved(&addresses).iter().map(SocketAddr::to_string).collect::<Vec<_>>()
        };
        assert_eq!(order(&["[::1]:1", "[::2]:1", "1.0.0.1:1"]), ["[::1]:1", "1.0.0.1:1", "[::2]:1"]);
        assert_eq!(
            order(&["1.0.0.1:1", "1.0.0.1:1", "1.0.0.2:1", "[::1]:1", "[::2]:1"]),
            ["1.0.0.1:1", "[::1]:1", "1.0.0.2:1"]
        );
        assert_eq!(
            order(&["1.0.0.1:1", "1.0.0.2:1", "1.0.0.3:1", "1.0.0.4:1"]),
            ["1.0.0.1:1", "1.0.0.2:1", "1.0.0.3:1"]
        );
    }

    proptest! {
        /// Whatever the addresses do, and whenever: one handshake at a time and at most one an address, at most three
        /// addresses, and one end, by the deadline or with the handshake that was going on then.
        #[test]
        fn a_race_ends_once_in_time_and_never_shakes_two_hands(
            count in 0..6u8,
            steps in proptest::collection::vec((0..5u8, 0..3usize, 0..3000u64), 0..40),
        ) {
            let addresses: Vec<SocketAddr> = (0..count).map(v4).collect();
            let (mut world, mut outs) = World::start(&addresses);
            let (mut opening, mut tried, mut shaken) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
            let (mut shaking, mut ended) = (false, false);
            let finish = [(5, 0, 0); 12];
            for (what, which, millis) in steps.into_iter().chain(finish) {
                for out in outs {
                    prop_assert!(!ended, "{out:?} after the end");
                    match out {
                        Out::Open(address) => {
                            prop_assert!(!shaking && world.1.since(Time::ZERO) < LIMIT);
                            prop_assert!(opening.insert(address));
                            tried.insert(address);
                        }
                        Out::GiveUp(address) => prop_assert!(opening.remove(&address)),
                        Out::Handshake(address) => {
                            prop_assert!(!std::mem::replace(&mut shaking, true));
                            prop_assert!(shaken.insert(address));
                        }
                        Out::Done(_) => ended = true,
                    }
                }
                prop_assert!(tried.len() <= ATTEMPTS);
                let address = opening.iter().nth(which % opening.len().max(1)).copied();
                outs = match (what, address) {
                    (0, Some(address)) => {
                        opening.remove(&address);
                        world.input(In::Opened(address))
                    }
                    (1, Some(address)) => {
                        opening.remove(&address);
                        world.input(In::Failed { address, timed_out: millis % 2 == 0 })
                    }
                    (2 | 5, _) if shaking => {
                        shaking = false;
                        world.handshake_fails(DisconnectReason::NetworkError, true)
                    }
                    (3, _) if shaking && millis % 4 == 0 => {
                        shaking = false;
                        world.input(In::Handshaken(Ok(())))
                    }
                    (5, _) => world.wait(5000),
                    _ => world.wait(millis),
                };
            }
            prop_assert!(ended && opening.is_empty() && world.0.next_deadline().is_none());
        }
    }
}

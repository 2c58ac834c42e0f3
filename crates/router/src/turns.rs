//! Turns at the processors: whose handler's future is polled next.
//!
//! The runtime polls what is ready in the order in which it became so. A thousand calls at work would stand there before
//! the actors and sessions of the node, and one peer's before those of all others. So only as many futures of handlers
//! as it has threads but one are the runtime's at a time; the others wait here, in an order that is fair to sessions.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use peerage_mailbox::Clock;
use peerage_queue::SessionId;
use peerage_queue::throttle::Spending;

/// A turn costs at least this: what waking costs, and what tells sessions apart that nothing is known of.
const LEAST: u64 = Duration::from_micros(10).as_nanos() as u64;
/// So much is called for at a time, for each thread, as far as turns took of late: short ones come in company, and what
/// they answer goes out together.
const SLICE: u64 = Duration::from_micros(200).as_nanos() as u64;
/// And no more turns than this, for each thread.
const COMPANY: u64 = 64;
/// Sessions that are remembered before those that owe nothing are forgotten.
const REMEMBERED: usize = 64;

/// A place in the order.
type Ticket = u64;

/// Start-time fair queueing by time that was used: a session's turn begins when the others that wait have had as much as
/// it has. A session that has one task at a time waits for about one of each other.
struct Order<W> {
    processors: u64,
    /// Turns that are given and not over.
    given: u64,
    /// What a turn took of late: the longest, and after it an eighth less each time.
    typical: u64,
    sessions: BTreeMap<SessionId, Waits<W>>,
    /// The sessions that wait, by when their turn begins.
    waiting: BTreeSet<(u64, SessionId)>,
    /// Those whose turn has come, and who were woken for it.
    called: BTreeSet<Ticket>,
    /// When the turn that was given last began, and when the last one of all ends, in nanoseconds of processor time.
    now: u64,
    over: u64,
    tickets: Ticket,
    remembered: usize,
}

struct Waits<W> {
    next: u64,
    tasks: VecDeque<(Ticket, W)>,
}

impl<W> Order<W> {
    fn new(processors: usize) -> Order<W> {
        Order {
            processors: processors.max(1) as u64,
            given: 0,
            typical: SLICE,
            sessions: BTreeMap::new(),
            waiting: BTreeSet::new(),
            called: BTreeSet::new(),
            now: 0,
            over: 0,
            tickets: 0,
            remembered: REMEMBERED,
        }
    }

    /// Turns at a time.
    fn most(&self) -> u64 {
        self.processors * (SLICE / self.typical.max(1)).clamp(1, COMPANY)
    }

    /// Asks for a turn: `None` if it is now, to be [ended](Order::end).
    fn come(&mut self, session: SessionId, waker: impl FnOnce() -> W) -> Option<Ticket> {
        if self.given < self.most() {
            self.given += 1;
            return None;
        }
        if self.sessions.len() >= self.remembered {
            let now = self.now;
            self.sessions.retain(|_, waits| !waits.tasks.is_empty() || waits.next > now);
            self.remembered = REMEMBERED.max(2 * self.sessions.len());
        }
        self.tickets += 1;
        let waits = self.sessions.entry(session).or_insert_with(|| Waits { next: 0, tasks: VecDeque::new() });
        waits.next = waits.next.max(self.now);
        waits.tasks.push_back((self.tickets, waker()));
        self.waiting.insert((waits.next, session));
        Some(self.tickets)
    }

    /// Whether the turn of the ticket has come, to be [ended](Order::end). One that still waits is woken by this waker
    /// from now on.
    fn is_called(&mut self, session: SessionId, ticket: Ticket, waker: impl FnOnce() -> W) -> bool {
        if self.called.remove(&ticket) {
            return true;
        }
        let tasks = self.sessions.get_mut(&session).map(|waits| &mut waits.tasks);
        if let Some((_, old)) = tasks.and_then(|tasks| tasks.iter_mut().find(|(waits, _)| *waits == ticket)) {
            *old = waker();
        }
        false
    }

    /// A turn is over, and took so long. Returns who are to be woken for theirs.
    fn end(&mut self, session: SessionId, took: Duration) -> Vec<W> {
        let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.typical = took.max(self.typical - self.typical / 8);
        // While nobody waits, nobody takes anything from others.
        if let Some(waits) = self.sessions.get_mut(&session).filter(|_| !self.waiting.is_empty()) {
            let waited = self.waiting.remove(&(waits.next, session));
            waits.next = waits.next.max(self.now).saturating_add(took);
            self.over = self.over.max(waits.next);
            if waited {
                self.waiting.insert((waits.next, session));
            }
        }
        self.given -= 1;
        self.call()
    }

    /// Gives the ticket up. Returns who are to be woken instead.
    fn leave(&mut self, session: SessionId, ticket: Ticket) -> Vec<W> {
        if self.called.remove(&ticket) {
            self.given -= 1;
            return self.call();
        }
        let Some(waits) = self.sessions.get_mut(&session) else { return Vec::new() };
        waits.tasks.retain(|(waits, _)| *waits != ticket);
        if waits.tasks.is_empty() {
            self.waiting.remove(&(waits.next, session));
            self.settle();
        }
        Vec::new()
    }

    /// Calls as many as may have their turn.
    fn call(&mut self) -> Vec<W> {
        let mut called = Vec::new();
        while self.given < self.most()
            && let Some(waker) = self.give()
        {
            self.given += 1;
            called.push(waker);
        }
        called
    }

    fn give(&mut self) -> Option<W> {
        let (begins, session) = self.waiting.pop_first()?;
        let waits = self.sessions.get_mut(&session)?;
        let (ticket, waker) = waits.tasks.pop_front()?;
        self.now = begins;
        waits.next = begins + LEAST;
        self.over = self.over.max(waits.next);
        if !waits.tasks.is_empty() {
            self.waiting.insert((waits.next, session));
        }
        self.called.insert(ticket);
        self.settle();
        Some(waker)
    }

    /// Nobody waits, so nobody owes anything.
    fn settle(&mut self) {
        if self.waiting.is_empty() {
            self.now = self.over;
        }
    }

    fn waiting(&self) -> usize {
        self.sessions.values().map(|waits| waits.tasks.len()).sum()
    }
}

/// The turns of a node's handlers. Clones are the same.
#[derive(Clone)]
pub(crate) struct Turns {
    order: Arc<Mutex<Order<Waker>>>,
    clock: Clock,
}

impl Turns {
    /// As many at a time as the runtime has threads, and one less: that is left for all else.
    pub(crate) fn new(clock: Clock) -> Turns {
        let threads = tokio::runtime::Handle::try_current().map_or(1, |runtime| runtime.metrics().num_workers());
        Turns { order: Arc::new(Mutex::new(Order::new(threads.saturating_sub(1)))), clock }
    }

    /// A future of what this session asked for, to be polled in its turns; the time it takes is charged.
    pub(crate) fn of<F: Future + Unpin>(&self, session: SessionId, spending: Option<Spending>, future: F) -> InTurn<F> {
        InTurn { place: Place { turns: self.clone(), session, at: At::Away }, spending, future }
    }

    /// Futures that could go on and wait for their turn.
    pub(crate) fn waiting(&self) -> usize {
        self.lock().waiting()
    }

    /// Held for one call. The order is valid between any two calls.
    fn lock(&self) -> MutexGuard<'_, Order<Waker>> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Turns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Turns")
    }
}

struct Place {
    turns: Turns,
    session: SessionId,
    at: At,
}

#[derive(Clone, Copy)]
enum At {
    Away,
    /// In the order, until it is called.
    Waits(Ticket),
    /// Its turn is the next poll, behind all that the runtime has to poll now.
    Next,
}

impl Place {
    /// Whether this poll is its turn.
    fn is_now(&mut self, cx: &Context<'_>) -> bool {
        let mut order = self.turns.lock();
        let waker = || cx.waker().clone();
        self.at = match self.at {
            At::Next => {
                self.at = At::Away;
                return true;
            }
            At::Away => order.come(self.session, waker).map_or(At::Next, At::Waits),
            At::Waits(ticket) if order.is_called(self.session, ticket, waker) => At::Next,
            waits => waits,
        };
        drop(order);
        // A task that wakes itself comes last. Else all that are ready would have their polls one after the other: those
        // that wait in the runtime's own queue, and those that it polls first because they were woken last.
        if matches!(self.at, At::Next) {
            cx.waker().wake_by_ref();
        }
        false
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let next = match self.at {
            At::Away => Vec::new(),
            At::Waits(ticket) => self.turns.lock().leave(self.session, ticket),
            At::Next => self.turns.lock().end(self.session, Duration::ZERO),
        };
        next.into_iter().for_each(Waker::wake);
    }
}

/// One turn, which ends also by a panic.
struct Turn<'a> {
    place: &'a Place,
    spending: Option<&'a Spending>,
    began: Duration,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let Place { turns, session, .. } = self.place;
        let took = turns.clock.running().saturating_sub(self.began);
        if let Some(spending) = self.spending {
            spending.add(took);
        }
        let next = turns.lock().end(*session, took);
        next.into_iter().for_each(Waker::wake);
    }
}

/// A future that is polled in its session's turns.
pub(crate) struct InTurn<F> {
    place: Place,
    spending: Option<Spending>,
    future: F,
}

impl<F: Future + Unpin> Future for InTurn<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.get_mut();
        if !this.place.is_now(cx) {
            return Poll::Pending;
        }
        let began = this.place.turns.clock.running();
        let _turn = Turn { place: &this.place, spending: this.spending.as_ref(), began };
        Pin::new(&mut this.future).poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: Duration = Duration::from_millis(1);

    /// Has so many tasks of a session come, named by it and their number.
    fn come(order: &mut Order<(u64, u64)>, session: u64, tasks: u64) {
        for task in 0..tasks {
            assert!(order.come(SessionId(session), || (session, task)).is_some(), "somebody is at it");
        }
    }

    /// Ends a turn: whose is the next, which is one.
    fn next(order: &mut Order<(u64, u64)>, session: u64, took: Duration) -> u64 {
        match *order.end(SessionId(session), took) {
            [(next, _)] => next,
            ref called => panic!("{called:?}"),
        }
    }

    #[test]
    fn short_turns_come_in_company_and_a_long_one_ends_that() {
        let mut order = Order::new(1);
        assert_eq!(order.come(SessionId(1), || (1, 0)), None);
        come(&mut order, 1, 1_000);
        let mut at_once = order.end(SessionId(1), Duration::ZERO).len() as u64;
        for _ in 0..200 {
            at_once = at_once - 1 + order.end(SessionId(1), Duration::from_micros(2)).len() as u64;
        }
        assert_eq!((at_once, order.given), (COMPANY, COMPANY));
        for _ in 0..COMPANY - 1 {
            assert_eq!(order.end(SessionId(1), MILLI), [], "no more until all but one are over");
        }
        assert_eq!(order.end(SessionId(1), MILLI).len(), 1);
    }

    #[test]
    fn as_many_as_there_are_processors_have_their_turn_at_once() {
        let mut order = Order::new(2);
        assert_eq!(order.come(SessionId(1), || 1), None);
        assert_eq!(order.come(SessionId(1), || 2), None);
        let third = order.come(SessionId(1), || 3).expect("has to wait");
        assert!(!order.is_called(SessionId(1), third, || 4));
        assert_eq!((order.waiting(), order.end(SessionId(1), MILLI)), (1, vec![4]), "the waker that came last");
        assert!(order.is_called(SessionId(1), third, || 5));
        assert_eq!((order.end(SessionId(1), MILLI), order.end(SessionId(1), MILLI)), (vec![], vec![]));
        assert_eq!(order.given, 0);
    }

    #[test]
    fn one_task_waits_for_one_of_each_other_session() {
        let mut order = Order::new(1);
        assert_eq!(order.come(SessionId(1), || (1, 0)), None);
        for session in 1..=4 {
            come(&mut order, session, 100);
        }
        let mut ended = SessionId(1);
        for _ in 0..50 {
            ended = SessionId(next(&mut order, ended.0, MILLI));
        }
        come(&mut order, 9, 1);
        let mut before = 0;
        loop {
            ended = SessionId(next(&mut order, ended.0, MILLI));
            if ended.0 == 9 {
                break;
            }
            before += 1;
        }
        assert!(before <= 4, "{before}");
    }

    #[test]
    fn sessions_have_the_same_time_whatever_one_turn_of_theirs_takes() {
        let mut order = Order::new(1);
        assert_eq!(order.come(SessionId(1), || (1, 0)), None);
        come(&mut order, 1, 1_000);
        come(&mut order, 2, 1_000);
        let (mut ended, mut used) = (1, [Duration::ZERO; 2]);
        for _ in 0..550 {
            let took = if ended == 1 { 10 * MILLI } else { MILLI };
            used[ended as usize - 1] += took;
            ended = next(&mut order, ended, took);
        }
        let [slow, quick] = used.map(|time| time.as_millis());
        assert!(slow.abs_diff(quick) <= 20, "{slow} and {quick} ms");
    }

    #[test]
    fn who_leaves_takes_no_turn_and_passes_on_the_one_it_was_called_for() {
        let mut order = Order::new(1);
        assert_eq!(order.come(SessionId(1), || 0), None);
        let mut ticket = |session| order.come(SessionId(session), || session).expect("has to wait");
        let (gone, called, last) = (ticket(2), ticket(3), ticket(4));
        assert!(order.leave(SessionId(2), gone).is_empty());
        assert_eq!(order.end(SessionId(1), MILLI), [3]);
        assert_eq!(order.leave(SessionId(3), called), [4]);
        assert!(order.is_called(SessionId(4), last, || 0));
        assert!(order.end(SessionId(4), MILLI).is_empty());
        assert_eq!((order.given, order.waiting(), order.called.len(), order.waiting.len()), (0, 0, 0, 0));
    }

    #[test]
    fn sessions_that_are_gone_are_forgotten_and_nothing_else_is_kept() {
        let mut order = Order::new(1);
        assert_eq!(order.come(SessionId(0), || (0, 0)), None);
        let mut session = 0;
        for other in 1..10_000 {
            assert!(order.come(SessionId(other), || (other, 0)).is_some());
            session = next(&mut order, session, MILLI);
            let ticket = order.tickets;
            assert!(order.is_called(SessionId(session), ticket, || (0, 0)));
        }
        assert_eq!(order.end(SessionId(session), MILLI), []);
        assert!(order.sessions.len() <= REMEMBERED, "{}", order.sessions.len());
        assert_eq!((order.given, order.waiting.len(), order.called.len()), (0, 0, 0));
    }

    #[tokio::test]
    async fn what_else_is_ready_is_polled_between_two_turns() {
        let turns = Turns::new(Clock::system());
        let log = Arc::new(Mutex::new(Vec::new()));
        let note = |what: &'static str| {
            let log = log.clone();
            async move { log.lock().expect("nobody panics with it").push(what) }
        };
        let mut tasks = Vec::new();
        for session in 0..20 {
            tasks.push(tokio::spawn(turns.of(SessionId(session), None, Box::pin(note("handler")))));
        }
        tasks.push(tokio::spawn(note("session")));
        for task in tasks {
            task.await.expect("no panic");
        }
        let log = log.lock().expect("nobody panics with it");
        assert_eq!((log.len(), log.iter().position(|what| *what == "session")), (21, Some(0)), "{log:?}");
    }

    #[tokio::test]
    async fn futures_take_turns_and_a_panic_ends_its_own() {
        let turns = Turns::new(Clock::system());
        let log = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for n in 0..10_u64 {
            let (log, session) = (log.clone(), SessionId(n % 2));
            let future = Box::pin(async move {
                tokio::task::yield_now().await;
                assert_ne!(n, 4, "one of them panics");
                log.lock().expect("nobody panics with it").push(n);
            });
            tasks.push(tokio::spawn(turns.of(session, None, future)));
        }
        tasks.swap_remove(7).abort();
        let mut failed = 0;
        for task in tasks {
            failed += usize::from(task.await.is_err());
        }
        assert_eq!(failed, 1);
        assert_eq!(log.lock().expect("nobody panics with it").len(), 8);
        assert_eq!((turns.waiting(), turns.lock().given), (0, 0));
    }
}

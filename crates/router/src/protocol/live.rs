//! The tasks: one for each protocol that a session has, from the session's beginning until some time after its end.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Poll;
use std::time::Duration;

use metrics::{Counter, Gauge};
use peerage_mailbox::{Capacity, Meter, Outlet, Port, data_queue};
use peerage_queue::{ChannelId, Door, Inbound, Pool, SessionId};
use peerage_wire::frame::CHANNEL_WINDOW;
use peerage_wire::{DisconnectReason, MatchedCapability};
use tokio::sync::watch;

use super::channel::Parts;
use super::define::{Peer, Protocol, Protocols};
use super::rules::Agreed;
use super::runs::{How, RunId, Runs};

/// What of a peer's messages waits in the run's own queue. The session keeps the others, as far as the peer's credit
/// goes, which it has back only when they are handled.
const WAITING: Capacity = Capacity { items: 256, weight: CHANNEL_WINDOW };

/// How long a run may take to return once its session has ended.
const LINGER: Duration = Duration::from_secs(2);

/// What a run tells the root: two at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    session: SessionId,
    run: RunId,
    /// Nothing for a breach that the run may survive for a while.
    how: Option<How>,
}

impl Event {
    pub(super) const fn breach(session: SessionId, run: RunId) -> Event {
        Event { session, run, how: None }
    }

    /// The run's session.
    pub const fn session(&self) -> SessionId {
        self.session
    }
}

/// A session's part in its protocols. Once it is dropped the session counts as ended, and its runs have a moment left.
#[derive(Debug)]
pub struct Live {
    _alive: watch::Sender<()>,
    protocols: usize,
    waiting: Vec<Run>,
}

impl Live {
    /// The runs to start, once.
    pub fn start(&mut self) -> Vec<Run> {
        std::mem::take(&mut self.waiting)
    }

    /// Whether it has any.
    pub const fn has_protocols(&self) -> bool {
        self.protocols > 0
    }
}

/// One run, to be spawned.
pub struct Run {
    protocol: Protocol,
    peer: Peer,
    parts: Parts,
    report: Report,
}

impl std::fmt::Debug for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Run({} {})", self.protocol.name(), self.peer.id)
    }
}

struct Metrics {
    running: Gauge,
    ended: [Counter; How::ALL.len()],
}

impl Metrics {
    fn new(meter: &Meter) -> Metrics {
        meter.describe("peerage_protocol_runs", "Runs of per-peer protocols");
        meter.describe("peerage_protocol_runs_ended_total", "Runs that have ended, and how");
        let ended = |how: How| meter.counter("peerage_protocol_runs_ended_total", &[("how", how.label())]);
        Metrics { running: meter.gauge("peerage_protocol_runs", &[]), ended: How::ALL.map(ended) }
    }

    fn ended(&self, how: How) {
        self.running.decrement(1.0);
        let is = |other: &How| std::mem::discriminant(other) == std::mem::discriminant(&how);
        if let Some(counter) = How::ALL.iter().position(is).and_then(|at| self.ended.get(at)) {
            counter.increment(1);
        }
    }
}

/// A node's protocols and their runs, as the root keeps them.
pub struct Tracker {
    protocols: Protocols,
    runs: Runs,
    pool: Pool,
    events: Port<Event>,
    metrics: Metrics,
}

impl Tracker {
    /// Keeps the runs of these protocols, which are sent from `pool` and tell `events` of their ends.
    pub fn new(protocols: Protocols, pool: Pool, events: Port<Event>, meter: &Meter) -> Tracker {
        Tracker { protocols, runs: Runs::default(), pool, events, metrics: Metrics::new(meter) }
    }

    /// Channels that a session has at most: one for each of the node's protocols.
    pub fn channels(&self) -> usize {
        self.protocols.plan().channels()
    }

    /// A session begins: where the messages of its protocols go, and what is to be started once the peer is announced.
    pub fn open(
        &mut self,
        peer: &Peer,
        matched: &[MatchedCapability],
        door: &Door,
    ) -> (Vec<(ChannelId, Outlet<Inbound>)>, Live) {
        let (alive, ended) = watch::channel(());
        let (mut routes, mut waiting) = (Vec::new(), Vec::new());
        for MatchedCapability { channel, capability } in matched {
            let Some((protocol, agreed)) = self.protocols.agreed(capability) else { continue };
            let channel = ChannelId(*channel);
            let (outlet, inlet) = data_queue(WAITING);
            routes.push((channel, outlet));
            let (session, run) = (peer.session, self.runs.begin(peer.session));
            let report = Report { events: self.events.clone(), session, run, how: How::Ended };
            let parts = Parts {
                peer: peer.id,
                session,
                run,
                channel,
                agreed,
                door: door.clone(),
                pool: self.pool.clone(),
                inlet,
                ended: ended.clone(),
                events: self.events.clone(),
            };
            self.metrics.running.increment(1.0);
            waiting.push(Run { protocol: protocol.clone(), peer: peer.clone(), parts, report });
        }
        (routes, Live { _alive: alive, protocols: waiting.len(), waiting })
    }

    /// A run has something to tell: why its session is to end, if it is.
    pub fn event(&mut self, Event { session, run, how }: Event) -> Option<DisconnectReason> {
        match how {
            Some(how) => {
                self.metrics.ended(how);
                self.runs.ended(session, run, how)
            }
            None => self.runs.breach(session, run),
        }
    }

    /// A session has ended; its [`Live`] is to be dropped, too.
    pub fn peer_down(&mut self, session: SessionId) {
        self.runs.peer_down(session);
    }

    /// Runs that have not ended.
    pub fn len(&self) -> usize {
        self.runs.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }
}

impl std::fmt::Debug for Tracker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tracker({:?})", self.runs)
    }
}

/// Tells the root of a run's end, however that comes; also of one that never began.
struct Report {
    events: Port<Event>,
    session: SessionId,
    run: RunId,
    how: How,
}

impl Drop for Report {
    fn drop(&mut self) {
        self.events.send(Event { session: self.session, run: self.run, how: Some(self.how) });
    }
}

impl Run {
    /// Runs the protocol to its end.
    pub async fn run(self) {
        let Run { protocol, peer, parts, mut report } = self;
        let (id, Agreed { version, .. }, mut ended) = (peer.id, parts.agreed, parts.ended.clone());
        report.how = How::Panicked;
        // Called in here, so that what panics before its first wait is caught, too.
        let name = protocol.name().to_owned();
        let mut running = Box::pin(async move { protocol.run(peer, parts).await });
        let running = poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| running.as_mut().poll(cx))) {
            Ok(polled) => polled.map(Some),
            Err(_) => Poll::Ready(None),
        });
        let over = async {
            // Nothing is ever sent: the sender is dropped.
            while ended.changed().await.is_ok() {}
            tokio::time::sleep(LINGER).await;
        };
        let error = tokio::select! {
            biased;
            returned = running => match returned {
                Some(Ok(())) => {
                    report.how = How::Returned;
                    None
                }
                Some(Err(error)) => {
                    report.how = error.how();
                    Some(error.to_string())
                }
                None => None,
            },
            () = over => {
                report.how = How::Abandoned;
                None
            }
        };
        let how = report.how.label();
        tracing::debug!(%id, protocol = name, version, how, error, "a protocol's run has ended");
    }
}

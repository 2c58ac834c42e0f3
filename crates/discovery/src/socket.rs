//! The tasks that own the reading end of the sockets.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use peerage_machine::Time;
use peerage_mailbox::{Clock, Item, Outlet, Overflow, Port};
use peerage_transport::Datagram;
use peerage_wire::Admission;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::count::{DropReason, Event};
use crate::foreign::{Foreign, MAX_FOREIGN};
use crate::gate::{Gate, Inbound, Known, Told, Verdict};
use crate::metrics::Metrics;
use crate::wire::{self, Kind, MAX_PACKET};

/// How long a socket that cannot be read is left alone.
const AFTER_ERROR: Duration = Duration::from_millis(50);
/// Datagrams taken after one wake-up before others get their turn on this thread. If each costs a signature check,
/// they take 3 ms.
///
/// Each by a call of its own: 32 a call (`recvmmsg`, by `quinn-udp`) were measured to be 6 % faster (`docs/measurements.md`).
const BATCH: usize = 64;
/// How often it is asked how many datagrams the system lost.
const LOOK_FOR_LOST: Duration = Duration::from_secs(2);

/// A task that ends with its owner.
pub(crate) struct Reader(JoinHandle<()>);

impl Reader {
    /// Ends it, and comes back when it holds its socket no more.
    pub(crate) async fn end(mut self) {
        self.0.abort();
        // That it was cut off is what was asked for.
        drop((&mut self.0).await);
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Tells the actor when its reader ends, however that comes about: an actor that hears nothing must not live on.
struct Ended(Port<()>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.send(());
    }
}

/// What a reader brings the actor.
#[derive(Clone, Debug)]
pub(crate) enum Arrival {
    /// A packet that passed the gate, and the number of the socket that it came to.
    Packet { socket: usize, inbound: Inbound },
    /// What an answer tells of its sender's clock, although it was refused.
    Told(Told),
}

/// Packets from the socket tasks wait in a bounded queue; the newest is dropped when the machine is behind, as
/// the older ones are nearer to their senders' time-outs.
impl Item for Arrival {
    fn weight(&self) -> usize {
        MAX_PACKET
    }

    fn overflow(&self) -> Overflow {
        Overflow::Reject
    }
}

/// What the gates of all readers are told as it changes.
#[derive(Clone)]
pub(crate) struct News {
    /// Whose packets they let in.
    pub(crate) admission: watch::Receiver<Arc<Admission>>,
    /// Who is in the table.
    pub(crate) known: watch::Receiver<Arc<[Known]>>,
}

/// One socket's way into the actor.
pub(crate) struct Reading {
    pub(crate) socket: Arc<Datagram>,
    pub(crate) number: usize,
    pub(crate) gate: Gate,
    pub(crate) news: News,
    pub(crate) clock: Clock,
    pub(crate) outlet: Outlet<Arrival>,
    pub(crate) foreign: Option<Outlet<Foreign>>,
    pub(crate) metrics: Metrics,
}

impl Reading {
    /// Reads through the gate into the actor's queue until the reader is dropped; `ended` is told of its end.
    pub(crate) fn start(mut self, ended: Port<()>) -> Reader {
        self.news.admission.mark_changed();
        self.news.known.mark_changed();
        Reader(tokio::spawn(async move {
            let _ended = Ended(ended);
            self.run().await;
        }))
    }

    async fn run(mut self) {
        // One byte more than may be tells what is too long.
        let mut buffer = vec![0; MAX_FOREIGN + 1];
        let mut lost = Lost::new(self.clock.now(), &self.socket);
        loop {
            let first = self.socket.recv_from(&mut buffer).await;
            let now = self.clock.now();
            self.listen_to_news();
            let mut received = first;
            let mut taken = 0;
            loop {
                match received {
                    Ok((len, from)) => self.take(now, from, buffer.get(..len).unwrap_or_default()),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    // Where a packet of ours could not be delivered, some systems say so here. No fault of the socket.
                    Err(error) if is_about_a_peer(&error) => {}
                    Err(error) => {
                        tracing::debug!(%error, "the discovery socket could not be read");
                        self.metrics.event(Event::ReadFailed);
                        self.clock.sleep_until(Some(self.clock.now() + AFTER_ERROR)).await;
                        break;
                    }
                }
                taken += 1;
                if taken == BATCH {
                    tokio::task::yield_now().await;
                    break;
                }
                received = self.socket.try_recv_from(&mut buffer);
            }
            // Whoever finds the socket empty is not behind.
            self.gate.pressed(taken == BATCH);
            lost.look(now, &self.socket, &self.metrics);
        }
    }

    fn listen_to_news(&mut self) {
        let News { admission, known } = &mut self.news;
        if admission.has_changed().unwrap_or(false) {
            self.gate.restrict(admission.borrow_and_update().clone());
        }
        if known.has_changed().unwrap_or(false) {
            self.gate.know(known.borrow_and_update().clone());
        }
    }

    fn take(&mut self, now: Time, from: SocketAddr, bytes: &[u8]) {
        if let Some(foreign) = &self.foreign
            && !wire::is_ours(bytes)
        {
            return self.pass_on(foreign, from, bytes);
        }
        match self.gate.admit(now, from, bytes) {
            Verdict::Pass(inbound) => {
                self.metrics.received(inbound.packet.message.kind());
                self.offer(Arrival::Packet { socket: self.number, inbound });
            }
            Verdict::Challenge(bytes) => {
                self.metrics.dropped(DropReason::NoCookie);
                match self.socket.send_to(&bytes, from) {
                    Ok(()) => self.metrics.sent(Kind::Cookie),
                    Err(_) => self.metrics.dropped(DropReason::NotSent),
                }
            }
            Verdict::Drop(reason, kind) => {
                tracing::trace!(%from, reason = reason.label(), ?kind, "dropped a datagram");
                self.metrics.dropped(reason);
                if let Some(told) = self.gate.take_told() {
                    self.offer(Arrival::Told(told));
                }
            }
        }
    }

    fn offer(&self, arrival: Arrival) {
        if self.outlet.offer(arrival).is_err() {
            self.metrics.dropped(DropReason::QueueFull);
        }
    }

    /// Copies another protocol's packet for its handler.
    fn pass_on(&self, foreign: &Outlet<Foreign>, from: SocketAddr, bytes: &[u8]) {
        if bytes.len() > MAX_FOREIGN {
            return self.metrics.dropped(DropReason::TooLong);
        }
        if !self.gate.permits(from) {
            return self.metrics.dropped(DropReason::NotAdmitted);
        }
        match foreign.offer(Foreign { from, bytes: bytes.to_vec(), socket: self.socket.clone() }) {
            Ok(()) => self.metrics.event(Event::Foreign),
            Err(_) => self.metrics.dropped(DropReason::ForeignFull),
        }
    }
}

/// Whether reading failed because somebody did not take what this socket sent before (Windows says so when it is read).
fn is_about_a_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
    )
}

/// Counts the datagrams that the system lost since the reader began: an earlier life of the actor counted those before.
struct Lost {
    next: Time,
    counted: u64,
}

impl Lost {
    fn new(now: Time, socket: &Datagram) -> Lost {
        Lost { next: now, counted: socket.lost().unwrap_or(0) }
    }

    fn look(&mut self, now: Time, socket: &Datagram, metrics: &Metrics) {
        if now < self.next {
            return;
        }
        self.next = now + LOOK_FOR_LOST;
        if let Some(lost) = socket.lost() {
            metrics.dropped_many(DropReason::Kernel, lost.saturating_sub(self.counted));
            self.counted = lost;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_reader_that_panics_is_reported() {
        let (tell, mut told) = mpsc::channel(1);
        let ended = Ended(Port::from_fn(move |()| tell.try_send(()).expect("room for one")));
        let reader = Reader(tokio::spawn(async move {
            let _ended = ended;
            panic!("as a gate never should");
        }));
        assert_eq!(told.recv().await, Some(()));
        drop(reader);
    }
}

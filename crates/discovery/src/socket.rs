//! The tasks that own the reading end of the sockets, and the choice of one to send from.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use peerage_mailbox::{Clock, Outlet, Port};
use peerage_transport::Datagram;
use peerage_wire::Admission;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::count::{DropReason, Event};
use crate::gate::{Gate, Inbound, Verdict};
use crate::machine::Families;
use crate::metrics::Metrics;
use crate::wire::{Kind, MAX_PACKET};

/// How long a socket that cannot be read is left alone.
const AFTER_ERROR: Duration = Duration::from_millis(50);

/// A task that ends with its owner.
pub(crate) struct Reader(JoinHandle<()>);

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

/// Reads a socket through a gate of its own into the actor's queue, until dropped; `ended` is told of its end. The gate
/// lets in whom `admission` admits.
pub(crate) fn read(
    socket: Arc<Datagram>,
    mut gate: Gate,
    mut admission: watch::Receiver<Arc<Admission>>,
    clock: Clock,
    outlet: Outlet<Inbound>,
    metrics: Metrics,
    ended: Port<()>,
) -> Reader {
    Reader(tokio::spawn(async move {
        let _ended = Ended(ended);
        // One byte more than a packet may have tells a packet that is too long.
        let mut buffer = [0; MAX_PACKET + 1];
        loop {
            let (len, from) = match socket.recv_from(&mut buffer).await {
                Ok(received) => received,
                Err(error) => {
                    tracing::debug!(%error, "the discovery socket could not be read");
                    metrics.event(Event::ReadFailed);
                    clock.sleep_until(Some(clock.now() + AFTER_ERROR)).await;
                    continue;
                }
            };
            if admission.has_changed().unwrap_or(false) {
                gate.restrict(admission.borrow_and_update().clone());
            }
            match gate.admit(clock.now(), from, buffer.get(..len).unwrap_or_default()) {
                Verdict::Pass(inbound) => {
                    metrics.received(inbound.packet.message.kind());
                    if outlet.offer(inbound).is_err() {
                        metrics.dropped(DropReason::QueueFull);
                    }
                }
                Verdict::Challenge(bytes) => {
                    metrics.dropped(DropReason::NoCookie);
                    match socket.send_to(&bytes, from) {
                        Ok(()) => metrics.sent(Kind::Cookie),
                        Err(_) => metrics.dropped(DropReason::NotSent),
                    }
                }
                Verdict::Drop(reason, kind) => {
                    tracing::trace!(%from, reason = reason.label(), ?kind, "dropped a datagram");
                    metrics.dropped(reason);
                }
            }
        }
    }))
}

/// The node's sockets, to send from.
pub(crate) struct Sockets(Vec<(SocketAddr, Arc<Datagram>)>);

impl Sockets {
    /// Those whose address can be read; a socket without one is not bound.
    pub(crate) fn new(sockets: &[Arc<Datagram>]) -> Sockets {
        Sockets(sockets.iter().filter_map(|socket| Some((socket.local_addr().ok()?, socket.clone()))).collect())
    }

    pub(crate) fn families(&self) -> Families {
        Families {
            v4: self.0.iter().any(|(local, _)| local.is_ipv4()),
            v6: self.0.iter().any(|(local, _)| local.is_ipv6()),
        }
    }

    /// Sends from the first socket of the address's family and reach: peers match answers by source address, so
    /// loopback is spoken to from loopback and the rest of the world is not, unless there is no other way.
    pub(crate) fn send(&self, bytes: &[u8], to: SocketAddr) -> bool {
        let family = || self.0.iter().filter(|(local, _)| local.is_ipv4() == to.is_ipv4());
        let near = family()
            .find(|(local, _)| local.ip().is_unspecified() || local.ip().is_loopback() == to.ip().is_loopback());
        near.or_else(|| family().next()).is_some_and(|(_, socket)| socket.send_to(bytes, to).is_ok())
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

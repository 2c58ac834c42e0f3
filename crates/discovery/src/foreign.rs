//! Packets of other protocols that share discovery's sockets.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use peerage_mailbox::{Capacity, Inlet, Item, Outlet, Overflow, data_queue};
use peerage_transport::Datagram;

/// The longest packet of another protocol in bytes: what crosses an Ethernet unfragmented, with room. Longer ones are
/// dropped, as nothing is passed on cut off.
pub const MAX_FOREIGN: usize = 2_048;
/// How many may wait for their handler (geth's `Unhandled` has as many).
const QUEUE: usize = 100;

/// A datagram that does not begin as discovery's do: a copy of it, and the socket to answer from. Nothing is known of
/// its sender but that the node's policy admits the address that it shows, which may be forged.
///
/// The other protocol takes turns with discovery on nothing: it has a queue of its own, and what comes while that is
/// full is dropped and counted. To speak first it sends from a socket that was lent to discovery too.
#[derive(Clone, Debug)]
pub struct Foreign {
    /// Where it came from; IPv4 looks like IPv4 on any socket.
    pub from: SocketAddr,
    /// Its bytes, at most [`MAX_FOREIGN`] and perhaps none.
    pub bytes: Vec<u8>,
    /// Where it came in, and its answer should go out.
    pub socket: Arc<Datagram>,
}

impl Foreign {
    /// A queue of 100 for [`Args::foreign`](crate::Args::foreign) and its handler. It outlives the discovery actor.
    pub fn queue() -> (Outlet<Foreign>, Inlet<Foreign>) {
        data_queue(Capacity { items: QUEUE, weight: QUEUE * MAX_FOREIGN })
    }

    /// Sends bytes back to where this came from, from the socket it came to.
    ///
    /// # Errors
    /// As [`Datagram::send_to`].
    pub fn answer(&self, bytes: &[u8]) -> io::Result<()> {
        self.socket.send_to(bytes, self.from)
    }
}

/// The newest is dropped when its handler is behind.
impl Item for Foreign {
    fn weight(&self) -> usize {
        self.bytes.len()
    }

    fn overflow(&self) -> Overflow {
        Overflow::Reject
    }
}

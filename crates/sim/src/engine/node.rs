//! What a user of the world writes: nodes and their messages.

use std::fmt::{self, Debug};
use std::net::SocketAddr;

use super::Net;

/// What travels.
pub trait Payload: Clone + Debug {
    /// Its bytes on the wire, all headers included.
    fn size(&self) -> usize;

    /// A number that differs where messages differ: what goes into the digest of the run.
    fn mark(&self) -> u64;
}

/// A process on a host: usually a few machines and what connects them.
///
/// It is told what happens and acts through the [`Net`] that comes with it. It has no other sense of time and no
/// other source of chance, so equal seeds make equal runs.
pub trait Node: Sized {
    /// What it sends and receives.
    type Message: Payload;
    /// What the scenario can tell it.
    type Command: Debug;
    /// What it tells the observer of the run.
    type Note;

    /// Something happened.
    fn handle(&mut self, event: Event<Self>, net: &mut Net<'_, Self>);
}

/// A host of the world, numbered from 0 as they were added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(pub u32);

impl HostId {
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// One end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Conn {
    pub(crate) slot: u32,
    /// How many connections used the slot before.
    pub(crate) life: u32,
    /// 0 for the end that dialled, 1 for the other.
    pub(crate) end: u8,
}

impl Conn {
    /// Whether this end dialled.
    pub fn dialled(&self) -> bool {
        self.end == 0
    }

    pub(crate) fn other(self) -> Conn {
        Conn { end: 1 - self.end, ..self }
    }

    /// As a number, for the digest.
    pub(crate) fn number(self) -> u64 {
        u64::from(self.life) << 33 | u64::from(self.slot) << 1 | u64::from(self.end)
    }
}

/// How a connection ended, or never began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Closed {
    /// The other end closed it, after everything it wrote.
    Finished,
    /// The process at the other end is gone.
    Reset,
    /// Nobody listens there.
    Refused,
    /// Nothing came back in time.
    Unreachable,
}

/// What may happen to a node.
pub enum Event<N: Node> {
    /// It begins. Once, before anything else.
    Start,
    /// The moment that it asked for with [`Net::wake_at`] has come.
    Wake,
    /// A datagram.
    Datagram {
        /// Where it came from.
        from: SocketAddr,
        /// What it is.
        message: N::Message,
    },
    /// A connection that it dialled is open.
    Opened(Conn),
    /// Somebody opened a connection to it.
    Accepted {
        /// This end of it.
        conn: Conn,
        /// Where it came from.
        from: SocketAddr,
    },
    /// The next message of a connection.
    Message {
        /// Of which one.
        conn: Conn,
        /// What it is.
        message: N::Message,
    },
    /// A connection takes messages again, after [`Net::ready`] said that it did not.
    Writable(Conn),
    /// Nothing can have come over a connection for the world's idle time: the network between its ends is cut.
    Silent(Conn),
    /// A message of this connection was damaged on its way.
    Garbled(Conn),
    /// A connection is over. The handle is of no use any more.
    Closed {
        /// Which one.
        conn: Conn,
        /// How.
        how: Closed,
    },
    /// The scenario has something for it.
    Command(N::Command),
}

impl<N: Node> Debug for Event<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Start => f.write_str("starts"),
            Event::Wake => f.write_str("wakes"),
            Event::Datagram { from, message } => write!(f, "datagram from {from}: {message:?}"),
            Event::Opened(conn) => write!(f, "{conn:?} opened"),
            Event::Accepted { conn, from } => write!(f, "{conn:?} accepted from {from}"),
            Event::Message { conn, message } => write!(f, "{conn:?} brought {message:?}"),
            Event::Writable(conn) => write!(f, "{conn:?} writable"),
            Event::Silent(conn) => write!(f, "{conn:?} silent"),
            Event::Garbled(conn) => write!(f, "{conn:?} garbled"),
            Event::Closed { conn, how } => write!(f, "{conn:?} closed: {how:?}"),
            Event::Command(command) => write!(f, "command {command:?}"),
        }
    }
}

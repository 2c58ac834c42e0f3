//! One port, several protocols: each has a door, and the first bytes of a connection say which one it is for.

use std::fmt;

use peerage_mailbox::Port;
use peerage_transport::Stream;

/// Another protocol on this node's port.
#[derive(Clone, Debug)]
pub struct Door {
    /// A word for people and logs; no two doors have the same.
    pub name: String,
    /// The bytes with which every connection of this protocol begins: 1 to 16. Not the beginning of another door's,
    /// nor the other way round.
    pub prefix: Vec<u8>,
    /// Most visitors in their set-up at a time. All doors together may have half of the slots that are for all, so
    /// that they never shut sessions out.
    pub limit: usize,
    /// Takes each connection, without waiting.
    pub take: Port<Visitor>,
}

/// A connection for a door. Its set-up takes one of the node's slots, until it is dropped or
/// [admitted](Visitor::admitted). How long that may last is for the door to say: it is never evicted.
pub struct Visitor {
    stream: Stream,
    slot: Box<dyn Send + Sync>,
}

impl Visitor {
    /// `slot` frees the slot when it is dropped.
    pub(crate) fn new(stream: Stream, slot: impl Send + Sync + 'static) -> Visitor {
        Visitor { stream, slot: Box::new(slot) }
    }

    /// The connection, all of whose bytes are still to be read.
    pub fn stream(&mut self) -> &mut Stream {
        &mut self.stream
    }

    /// The other end's address.
    pub fn address(&self) -> std::net::SocketAddr {
        self.stream.remote_addr()
    }

    /// Ends its set-up: the connection is the door's own from now on.
    pub fn admitted(self) -> Stream {
        drop(self.slot);
        self.stream
    }
}

impl fmt::Debug for Visitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Visitor({})", self.stream.remote_addr())
    }
}

/// Why there is no such door.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DoorError {
    /// Its first bytes cannot be looked for.
    #[error("the door `{name}` has a prefix of {len} bytes, which must be 1 to {MAX_PREFIX}")]
    PrefixLength {
        /// Which.
        name: String,
        /// How long.
        len: usize,
    },
    /// Two of them could be meant by the same bytes.
    #[error("the prefix of the door `{name}` and that of `{other}` cannot be told apart: one begins with the other")]
    Ambiguous {
        /// The new one.
        name: String,
        /// The one that is there.
        other: String,
    },
    /// There is one of that name.
    #[error("there is a door `{0}` already")]
    NameTaken(String),
    /// There are as many as there can be.
    #[error("there are {MAX_DOORS} doors already")]
    TooMany,
    /// It would take slots from sessions.
    #[error(
        "the doors together may take {most} visitors, half of the listener's slots; with `{name}` they take {with}"
    )]
    Limit {
        /// Which.
        name: String,
        /// How many visitors all doors would take.
        with: usize,
        /// How many they may.
        most: usize,
    },
}

/// Longest prefix of a door, in bytes; no more than that is read before it is known whose a connection is.
pub(crate) const MAX_PREFIX: usize = 16;
/// Doors besides the native ones: each is compared with every connection.
const MAX_DOORS: usize = 16;

/// A handshake of this node's own.
#[derive(Clone, Debug)]
pub(crate) struct Native {
    /// Its first bytes, at most [`MAX_PREFIX`].
    pub(crate) prefix: Vec<u8>,
    /// Bytes of its first message, which must all be there in time.
    pub(crate) first_message: usize,
}

/// Whose a connection is, as far as its first bytes say.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Look<'a> {
    Native(&'a Native),
    Door(&'a Door),
    /// It can still be more than one, or one that is not there whole.
    More,
    Unknown,
}

/// All doors of a node.
#[derive(Clone, Debug)]
pub(crate) struct Doors {
    native: Vec<Native>,
    /// At most [`MAX_DOORS`].
    others: Vec<Door>,
    /// Visitors of all doors together.
    most: usize,
}

impl Doors {
    /// Those of this node alone; others may take `most` visitors.
    pub(crate) fn new(native: Vec<Native>, most: usize) -> Doors {
        Doors { native, others: Vec::new(), most }
    }

    /// Adds one.
    pub(crate) fn open(&mut self, door: Door) -> Result<(), DoorError> {
        let Door { name, prefix, limit, .. } = &door;
        if prefix.is_empty() || prefix.len() > MAX_PREFIX {
            return Err(DoorError::PrefixLength { name: name.clone(), len: prefix.len() });
        }
        let natives = self.native.iter().map(|native| ("peerage", &native.prefix));
        let others = self.others.iter().map(|other| (other.name.as_str(), &other.prefix));
        for (other, taken) in natives.chain(others) {
            if other == name {
                return Err(DoorError::NameTaken(name.clone()));
            }
            if taken.starts_with(prefix) || prefix.starts_with(taken) {
                return Err(DoorError::Ambiguous { name: name.clone(), other: other.to_owned() });
            }
        }
        if self.others.len() >= MAX_DOORS {
            return Err(DoorError::TooMany);
        }
        let with = self.others.iter().map(|other| other.limit).fold(*limit, usize::saturating_add);
        if with > self.most {
            return Err(DoorError::Limit { name: name.clone(), with, most: self.most });
        }
        self.others.push(door);
        Ok(())
    }

    /// Removes one; whom it has taken stays.
    pub(crate) fn close(&mut self, name: &str) {
        self.others.retain(|door| door.name != name);
    }

    /// Whose a connection with these first bytes is.
    pub(crate) fn look(&self, bytes: &[u8]) -> Look<'_> {
        if let Some(native) = self.native.iter().find(|native| bytes.starts_with(&native.prefix)) {
            return Look::Native(native);
        }
        if let Some(door) = self.others.iter().find(|door| bytes.starts_with(&door.prefix)) {
            return Look::Door(door);
        }
        let natives = self.native.iter().map(|native| &native.prefix);
        let mut prefixes = natives.chain(self.others.iter().map(|door| &door.prefix));
        if prefixes.any(|prefix| prefix.starts_with(bytes)) { Look::More } else { Look::Unknown }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn door(name: &str, prefix: &[u8], limit: usize) -> Door {
        Door { name: name.into(), prefix: prefix.into(), limit, take: Port::closed() }
    }

    fn doors() -> Doors {
        let native = |prefix: &[u8]| Native { prefix: prefix.into(), first_message: 36 };
        Doors::new(vec![native(b"PRG\x01"), native(b"PRG\x02")], 100)
    }

    fn seen(doors: &Doors, bytes: &[u8]) -> String {
        match doors.look(bytes) {
            Look::Native(native) => format!("native {}", native.prefix[3]),
            Look::Door(door) => door.name.clone(),
            Look::More => "more".into(),
            Look::Unknown => "unknown".into(),
        }
    }

    #[test]
    fn the_first_bytes_name_the_door_as_soon_as_they_can() {
        let mut doors = doors();
        doors.open(door("http", b"GET ", 10)).expect("free");
        doors.open(door("long", b"PRG\x03 and so on", 10)).expect("free");
        let cases: [(&[u8], &str); 12] = [
            (b"", "more"),
            (b"P", "more"),
            (b"PRG", "more"),
            (b"PRG\x01", "native 1"),
            (b"PRG\x02 and what follows", "native 2"),
            (b"PRG\x03 and", "more"),
            (b"PRG\x03 and so on", "long"),
            (b"PRG\x03 and so oh", "unknown"),
            (b"G", "more"),
            (b"GET / HTTP/1.1", "http"),
            (b"GETTING", "unknown"),
            (b"\x16\x03\x01", "unknown"),
        ];
        for (bytes, expected) in cases {
            assert_eq!(seen(&doors, bytes), expected, "{bytes:?}");
        }
        doors.close("http");
        assert_eq!(seen(&doors, b"GET / HTTP/1.1"), "unknown");
    }

    #[test]
    fn a_door_that_cannot_be_told_apart_is_refused_in_words() {
        let mut doors = doors();
        doors.open(door("http", b"GET ", 10)).expect("free");
        let mut told = |door| doors.open(door).expect_err("refused").to_string();
        assert!(told(door("none", b"", 1)).contains("prefix of 0 bytes"));
        assert!(told(door("long", &[7; 17], 1)).contains("17 bytes, which must be 1 to 16"));
        assert!(told(door("http", b"POST", 1)).contains("`http` already"));
        assert!(told(door("same", b"GET ", 1)).contains("`http` cannot be told apart"));
        assert!(told(door("longer", b"GET / HTTP", 1)).contains("cannot be told apart"));
        assert!(told(door("shorter", b"G", 1)).contains("cannot be told apart"));
        assert!(told(door("us", b"PRG", 1)).contains("`peerage` cannot be told apart"));
        assert!(told(door("greedy", b"POST", 91)).contains("with `greedy` they take 101"));
        for n in 0..15 {
            doors.open(door(&n.to_string(), &[200 + n], 1)).expect("room");
        }
        assert_eq!(doors.open(door("one more", b"POST", 1)), Err(DoorError::TooMany));
    }
}

//! Packets as they arrive: as bytes, or as values in a world without bytes.

use peerage_wire::{NetworkId, NodeId, Signature};
use serde::Serialize;

use super::{Cookie, DOMAIN, Kind, MAGIC, MAX_PACKET, Message, Nonce, Packet, SIGNATURE, VERSION};
use crate::count::DropReason;

/// What every packet begins with, and all that the gate looks at; nothing of it is believed yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Its type.
    pub kind: Kind,
    /// The sender's network, as [`NetworkId::as_bytes`] gives it.
    pub network: [u8; 8],
    /// Who it says it is from.
    pub from: NodeId,
    /// Whom it is for.
    pub to: NodeId,
    /// The request's nonce.
    pub nonce: Nonce,
    /// The cookie shown or given.
    pub cookie: Cookie,
    /// Unix seconds; in a `Cookie`, its sender's clock.
    pub expiry: u64,
}

impl Header {
    /// The `Cookie` that answers this request: its nonce echoed, with the cookie to be shown next time and the clock of
    /// who gives it, in Unix seconds.
    pub(crate) fn challenge(&self, cookie: Cookie, clock: u64) -> Packet {
        Packet { nonce: self.nonce, cookie, expiry: clock, message: Message::Cookie }
    }

    /// The bytes of such a `Cookie`, which goes back with sender and recipient swapped, and is unsigned.
    pub(crate) fn challenge_bytes(&self, challenge: &Packet) -> Vec<u8> {
        challenge.start(&self.network, self.to, self.from)
    }
}

/// A packet as a value, with what sealing adds to it: for a world without bytes and signatures, which knows by itself
/// what is genuine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Sealed {
    /// The sender's network.
    pub network: NetworkId,
    /// Who it says it is from.
    pub from: NodeId,
    /// Whom it is for.
    pub to: NodeId,
    /// What would be its bytes.
    pub packet: Packet,
    /// Whether `from` signed it. Does not matter in a `Cookie`, which nobody signs.
    pub genuine: bool,
}

impl Sealed {
    /// What its bytes would begin with.
    pub fn header(&self) -> Header {
        let Packet { nonce, cookie, expiry, ref message } = self.packet;
        Header {
            kind: message.kind(),
            network: *self.network.as_bytes(),
            from: self.from,
            to: self.to,
            nonce,
            cookie,
            expiry,
        }
    }
}

/// A received packet, split into its parts.
#[derive(Clone, Copy, Debug)]
pub struct Envelope<'a> {
    /// What it begins with.
    pub header: Header,
    body: &'a [u8],
    signed: Option<(&'a [u8], &'a Signature)>,
}

/// Takes fields off the front of a packet.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], DropReason> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(DropReason::TooShort)?;
        self.0 = rest;
        Ok(*head)
    }
}

impl<'a> Envelope<'a> {
    /// Splits a packet.
    ///
    /// # Errors
    /// Why it is none of this version.
    pub fn read(bytes: &'a [u8]) -> Result<Envelope<'a>, DropReason> {
        if bytes.len() > MAX_PACKET {
            return Err(DropReason::TooLong);
        }
        let mut fields = Cursor(bytes);
        if fields.take()? != MAGIC {
            return Err(DropReason::Magic);
        }
        let [version, code] = fields.take()?;
        if version != VERSION {
            return Err(DropReason::Version);
        }
        let kind = Kind::from_code(code).ok_or(DropReason::UnknownType)?;
        let header = Header {
            kind,
            network: fields.take()?,
            from: NodeId::from_bytes(fields.take()?),
            to: NodeId::from_bytes(fields.take()?),
            nonce: Nonce { counter: u64::from_be_bytes(fields.take()?), mac: fields.take()? },
            cookie: Cookie(fields.take()?),
            expiry: u64::from_be_bytes(fields.take()?),
        };
        if kind == Kind::Cookie {
            return Ok(Envelope { header, body: &[], signed: None });
        }
        let (body, signature) = fields.0.split_last_chunk::<SIGNATURE>().ok_or(DropReason::TooShort)?;
        let signed = bytes.split_last_chunk::<SIGNATURE>().map(|(signed, _)| (signed, signature));
        Ok(Envelope { header, body, signed })
    }

    /// Checks the sender's signature. A `Cookie` has none and passes: its nonce speaks for it.
    ///
    /// # Errors
    /// [`DropReason::Signature`].
    pub fn verify(&self) -> Result<(), DropReason> {
        match self.signed {
            Some((bytes, signature)) => {
                self.header.from.verify(DOMAIN, bytes, signature).map_err(|_| DropReason::Signature)
            }
            None => Ok(()),
        }
    }

    /// Reads what it says.
    ///
    /// # Errors
    /// [`DropReason::Body`] or [`DropReason::BadRecord`].
    pub fn open(&self) -> Result<Packet, DropReason> {
        let Header { kind, nonce, cookie, expiry, .. } = self.header;
        Ok(Packet { nonce, cookie, expiry, message: Message::from_body(kind, self.body)? })
    }
}

//! A run's two ends: what the peer says, and the door through which it is told.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use peerage_mailbox::{Inlet, Port};
use peerage_queue::{ChannelId, Door, Inbound, Message, Permit, Pool, Refusal, SessionId};
use peerage_wire::NodeId;
use peerage_wire::frame::Lane;
use tokio::sync::watch;

use super::live::Event;
use super::rules::{Agreed, Breach, Unsendable, message};
use super::runs::RunId;
use crate::codec::Codec;

/// Why a message was not sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The session has ended.
    #[error("the session has ended")]
    Ended,
    /// There is no room: the peer takes what it is sent too slowly, or all do. Only where nobody waits for it.
    #[error("there is no room; the peer is too slow")]
    Full,
    /// The node is short of something, and only what is more urgent goes out until it is not. Only where nobody waits
    /// for that.
    #[error("the node sheds load")]
    Shed,
    /// The protocol has no such message.
    #[error(transparent)]
    Unsendable(#[from] Unsendable),
    /// The value cannot be written.
    #[error("the value does not encode: {0}")]
    Value(String),
}

impl From<Refusal> for SendError {
    fn from(refusal: Refusal) -> SendError {
        match refusal {
            Refusal::SessionEnded | Refusal::NoChannel => SendError::Ended,
            Refusal::Shed => SendError::Shed,
            Refusal::LaneFull | Refusal::Overtaken | Refusal::Expired | Refusal::PoolFull => SendError::Full,
        }
    }
}

/// Why there is no message, or no value in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecvError {
    /// The session has ended.
    #[error("the session has ended")]
    Ended,
    /// The peer sent what no correct peer sends. Its session ends for it, whatever the run makes of this.
    #[error("breach of protocol: {0}")]
    Breach(#[from] Breach),
    /// The payload is no value. Whether that is the peer's breach is for the run to say; it is if it returns this.
    #[error("the payload does not decode: {0}")]
    Value(String),
}

struct Inner {
    peer: NodeId,
    channel: ChannelId,
    agreed: Agreed,
    door: Door,
    pool: Pool,
    ended: watch::Receiver<()>,
}

/// Where a peer is told something in one protocol. Cheap to clone; kept beyond the session, it refuses.
///
/// Messages of one lane arrive in the order in which they were sent.
#[derive(Clone)]
pub struct Outbox<C> {
    inner: Arc<Inner>,
    lane: Lane,
    codec: C,
}

impl<C> Outbox<C> {
    /// Whose it is.
    pub fn peer(&self) -> NodeId {
        self.inner.peer
    }

    /// What was agreed on with this peer.
    pub fn agreed(&self) -> &Agreed {
        &self.inner.agreed
    }

    /// The same, for what is small and urgent: it overtakes what was said otherwise.
    #[must_use]
    pub fn urgent(self) -> Outbox<C> {
        Outbox { lane: Lane::High, ..self }
    }

    /// The same, for large transfers: everything else overtakes it.
    #[must_use]
    pub fn bulk(self) -> Outbox<C> {
        Outbox { lane: Lane::Bulk, ..self }
    }

    /// The same, with values written otherwise.
    #[must_use]
    pub fn with<D>(self, codec: D) -> Outbox<D> {
        Outbox { inner: self.inner, lane: self.lane, codec }
    }

    /// Whether the session has ended.
    pub fn is_ended(&self) -> bool {
        self.inner.ended.has_changed().is_err()
    }

    /// Waits until the session has ended.
    pub async fn ended(&self) {
        let mut ended = self.inner.ended.clone();
        // Nothing is ever sent: the sender is dropped.
        while ended.changed().await.is_ok() {}
    }

    fn encode<T>(&self, code: u16, value: &T) -> Result<Bytes, SendError>
    where
        C: Codec<T>,
    {
        // Before any work: a code is as often wrong as a value.
        self.inner.agreed.check(code, 0)?;
        let payload = self.codec.encode(value).map_err(SendError::Value)?;
        self.inner.agreed.check(code, payload.len())?;
        Ok(message(code, &payload))
    }

    fn envelope(&self, bytes: Bytes) -> Message {
        Message::new(self.inner.channel, self.lane, bytes)
    }

    /// Says it, and waits for room while the session lives: returns when it is queued. Who gives up waiting has not
    /// said it.
    ///
    /// # Errors
    /// [`SendError`].
    pub fn send<'a, T>(
        &'a self,
        code: u16,
        value: &T,
    ) -> impl Future<Output = Result<(), SendError>> + Send + use<'a, C, T>
    where
        C: Codec<T>,
    {
        let message = self.encode(code, value).map(|bytes| self.envelope(bytes));
        let door = &self.inner.door;
        async move { Ok(door.offer_when_room(message?).await?) }
    }

    /// Says all of these in one message, as a list.
    ///
    /// # Errors
    /// [`SendError`].
    pub fn send_items<T>(
        &self,
        code: u16,
        items: impl IntoIterator<Item = T>,
    ) -> impl Future<Output = Result<(), SendError>> + Send
    where
        C: Codec<Vec<T>>,
    {
        let items: Vec<T> = items.into_iter().collect();
        let message = self.encode(code, &items).map(|bytes| self.envelope(bytes));
        let door = self.inner.door.clone();
        async move { Ok(door.offer_when_room(message?).await?) }
    }

    /// Says it if there is room.
    ///
    /// # Errors
    /// [`SendError`].
    pub fn try_send<T>(&self, code: u16, value: &T) -> Result<(), SendError>
    where
        C: Codec<T>,
    {
        let bytes = self.encode(code, value)?;
        Ok(self.inner.door.offer(self.envelope(bytes))?)
    }
}

impl<C> fmt::Debug for Outbox<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Outbox({} {:?})", self.inner.peer, self.lane)
    }
}

/// Says the same to all of these, where there is room: the value is written once, and its bytes are held once. Returns
/// whom it was not said to, and why.
///
/// # Errors
/// [`SendError`], if it can be said to nobody: the value cannot be written, or the node has no room for it.
pub fn send_to_all<'a, C, T>(
    to: impl IntoIterator<Item = &'a Outbox<C>>,
    code: u16,
    value: &T,
) -> Result<Vec<(NodeId, SendError)>, SendError>
where
    C: Codec<T> + 'a,
{
    let mut refused = Vec::new();
    let mut written = None;
    for outbox in to {
        if written.is_none() {
            let payload = outbox.codec.encode(value).map_err(SendError::Value)?;
            let bytes = message(code, &payload);
            let charge = outbox.inner.pool.charge(bytes.len()).ok_or(SendError::Full)?;
            written = Some((payload.len(), bytes, charge));
        }
        let Some((len, bytes, charge)) = &written else { continue };
        // Versions may differ from peer to peer.
        let said = outbox.inner.agreed.check(code, *len).map_err(SendError::from).and_then(|()| {
            let message = outbox.envelope(bytes.clone()).charged(charge.clone());
            outbox.inner.door.offer(message).map_err(SendError::from)
        });
        if let Err(error) = said {
            refused.push((outbox.peer(), error));
        }
    }
    Ok(refused)
}

/// A message of the peer. It holds its part of the peer's credit until it is dropped.
pub struct Received<C> {
    /// Which one: below the number of codes agreed on.
    pub code: u16,
    /// What it says.
    pub payload: Bytes,
    codec: C,
    _permit: Permit,
}

impl<C> Received<C> {
    /// What it says, as a value.
    ///
    /// # Errors
    /// [`RecvError::Value`].
    pub fn value<T>(&self) -> Result<T, RecvError>
    where
        C: Codec<T>,
    {
        self.codec.decode(self.payload.clone()).map_err(RecvError::Value)
    }
}

impl<C> fmt::Debug for Received<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Received({} {} bytes)", self.code, self.payload.len())
    }
}

/// A run's channel with its peer.
pub struct Channel<C> {
    outbox: Outbox<C>,
    inlet: Inlet<Inbound>,
    /// Whom to tell of the peer's breach; nobody once it is told.
    breach: Option<(Port<Event>, SessionId, RunId)>,
}

/// What a channel is made of, before it has a codec.
pub(super) struct Parts {
    pub(super) peer: NodeId,
    pub(super) session: SessionId,
    pub(super) run: RunId,
    pub(super) channel: ChannelId,
    pub(super) agreed: Agreed,
    pub(super) door: Door,
    pub(super) pool: Pool,
    pub(super) inlet: Inlet<Inbound>,
    pub(super) ended: watch::Receiver<()>,
    pub(super) events: Port<Event>,
}

impl<C> Channel<C> {
    pub(super) fn new(parts: Parts, codec: C) -> Channel<C> {
        let Parts { peer, session, run, channel, agreed, door, pool, inlet, ended, events } = parts;
        let inner = Arc::new(Inner { peer, channel, agreed, door, pool, ended });
        let outbox = Outbox { inner, lane: Lane::Normal, codec };
        Channel { outbox, inlet, breach: Some((events, session, run)) }
    }

    /// What was agreed on with this peer.
    pub fn agreed(&self) -> &Agreed {
        self.outbox.agreed()
    }

    /// Where to tell the peer something: to be kept by others too.
    pub const fn outbox(&self) -> &Outbox<C> {
        &self.outbox
    }

    /// As [`Outbox::send`].
    ///
    /// # Errors
    /// [`SendError`].
    pub fn send<'a, T>(
        &'a self,
        code: u16,
        value: &T,
    ) -> impl Future<Output = Result<(), SendError>> + Send + use<'a, C, T>
    where
        C: Codec<T>,
    {
        self.outbox.send(code, value)
    }

    /// As [`Outbox::send_items`].
    ///
    /// # Errors
    /// [`SendError`].
    pub fn send_items<T>(
        &self,
        code: u16,
        items: impl IntoIterator<Item = T>,
    ) -> impl Future<Output = Result<(), SendError>> + Send
    where
        C: Codec<Vec<T>>,
    {
        self.outbox.send_items(code, items)
    }

    /// As [`Outbox::try_send`].
    ///
    /// # Errors
    /// [`SendError`].
    pub fn try_send<T>(&self, code: u16, value: &T) -> Result<(), SendError>
    where
        C: Codec<T>,
    {
        self.outbox.try_send(code, value)
    }

    /// The next message. Dropping the future loses none.
    ///
    /// # Errors
    /// [`RecvError::Ended`] once all was read that came before the session's end, and [`RecvError::Breach`].
    pub async fn recv(&mut self) -> Result<Received<C>, RecvError>
    where
        C: Clone,
    {
        let Ok(Inbound { delivery, permit }) = self.inlet.recv().await else { return Err(RecvError::Ended) };
        match self.agreed().read(delivery.payload) {
            Ok((code, payload)) => Ok(Received { code, payload, codec: self.outbox.codec.clone(), _permit: permit }),
            Err(breach) => {
                if let Some((events, session, run)) = self.breach.take() {
                    events.send(Event::breach(session, run));
                }
                // What else it says is not worth the memory.
                self.inlet.close();
                Err(breach.into())
            }
        }
    }
}

impl<C> fmt::Debug for Channel<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Channel({})", self.outbox.inner.peer)
    }
}

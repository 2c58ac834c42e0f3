//! The application's side: asks and sends, over raw bytes or with a codec.

use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use peerage_mailbox::{AskError, Capacity, Inlet, Outlet, Refused, ask, data_queue};
use peerage_wire::NodeId;
use peerage_wire::frame::Lane;

use crate::codec::Codec;
use crate::handler::HandlerId;
use crate::ingress::{Ask, OpenAsk};
use crate::machine::{Answer, OpenStreamError, Payload, Request, RequestError, Target, Terms};
use crate::resilience::{Pool, Sample, Sampled};
use crate::stream::Stream;

/// The router answers at its own deadline; who waits gives it this much more, for the case that it cannot.
const PATIENCE: Duration = Duration::from_secs(1);

/// Asks other nodes' handlers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Router {
    asks: Outlet<Ask>,
    keys: Arc<AtomicU64>,
}

impl Router {
    /// A router's asking end, and what its actor takes as [`Args::asks`](crate::Args::asks). Requests beyond the
    /// capacity (in payload bytes) are [`RequestError::Busy`].
    pub fn new(capacity: Capacity) -> (Router, Inlet<Ask>) {
        let (asks, inlet) = data_queue(capacity);
        (Router { asks, keys: Arc::default() }, inlet)
    }

    /// Asks, and waits for the end. Dropping the future cancels the request, at its responder, too.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn ask(&self, request: Request) -> Result<Answer, RequestError> {
        let mut pending = Pending { router: self, key: self.keys.fetch_add(1, Ordering::Relaxed), waits: true };
        let (key, longest) = (pending.key, request.terms.operation.saturating_add(PATIENCE));
        let asked = ask(longest, |reply| {
            let refused = self.asks.offer(Ask::Request { key, request: Box::new(request), reply });
            match refused {
                Err(Refused::Full(Ask::Request { reply, .. })) => reply.send(Err(RequestError::Busy)),
                // The node has stopped, or speaks no such protocol.
                Err(Refused::Closed(Ask::Request { reply, .. })) => reply.send(Err(RequestError::NotConnected)),
                _ => {}
            }
        });
        let ended = asked.await;
        // The answer is there, or nobody has the request any more.
        pending.waits = matches!(ended, Err(AskError::TimedOut));
        match ended {
            Ok(result) => result,
            Err(AskError::Dropped) => Err(RequestError::Restarted),
            Err(AskError::TimedOut) => Err(RequestError::TimedOut),
        }
    }

    /// Asks this peer, once.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn request(
        &self,
        peer: NodeId,
        handler: impl Into<HandlerId>,
        payload: impl Into<Bytes>,
        deadline: Duration,
    ) -> Result<Bytes, RequestError> {
        let request = raw(Target::Peer(peer), handler.into(), payload.into(), Terms::within(deadline));
        self.ask(request).await.map(|answer| answer.payload)
    }

    /// Asks any of these, and others of them where one fails. For requests that may be handled twice.
    ///
    /// # Errors
    /// [`RequestError`]; of the last attempt.
    pub async fn request_any(
        &self,
        pool: Pool,
        handler: impl Into<HandlerId>,
        payload: impl Into<Bytes>,
        deadline: Duration,
    ) -> Result<Answer, RequestError> {
        self.ask(raw(Target::Any(pool), handler.into(), payload.into(), Terms::trying(deadline))).await
    }

    /// Says something that wants no answer, to peers that are drawn so. Tells for whom it was queued.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn send(
        &self,
        to: Sample,
        handler: impl Into<HandlerId>,
        payload: impl Into<Bytes>,
    ) -> Result<Sampled, RequestError> {
        let (handler, payload) = (handler.into(), payload.into());
        let sent = ask(PATIENCE, |reply| {
            let refused = self.asks.offer(Ask::Send { to, handler, payload, reply });
            if let Err(Refused::Full(Ask::Send { reply, .. })) = refused {
                reply.send(Err(RequestError::Busy));
            }
        });
        sent.await.unwrap_or_else(|error| {
            Err(if error == AskError::Dropped { RequestError::Restarted } else { RequestError::TimedOut })
        })
    }

    /// Opens a stream to a handler of a peer. Waits for this node only: whether the peer takes the stream, its halves say
    /// ([`StreamFailed::Refused`](crate::StreamFailed::Refused)).
    ///
    /// # Errors
    /// [`OpenStreamError`].
    pub async fn open(&self, peer: NodeId, handler: impl Into<HandlerId>) -> Result<Stream, OpenStreamError> {
        self.open_on(peer, handler, Lane::Normal).await
    }

    /// As [`open`](Router::open), on the bulk lane, if it is that one, or else the normal one: bulk gives way to all
    /// else.
    ///
    /// # Errors
    /// [`OpenStreamError`].
    pub async fn open_on(
        &self,
        peer: NodeId,
        handler: impl Into<HandlerId>,
        lane: Lane,
    ) -> Result<Stream, OpenStreamError> {
        let handler = handler.into();
        let asked = ask(PATIENCE, |reply| {
            let refused = self.asks.offer(Ask::Open(OpenAsk { peer, handler, reply }));
            match refused {
                Err(Refused::Full(Ask::Open(ask))) => ask.reply.send(Err(OpenStreamError::Busy)),
                Err(Refused::Closed(Ask::Open(ask))) => ask.reply.send(Err(OpenStreamError::NotConnected)),
                _ => {}
            }
        });
        let opening = asked.await.map_err(|error| match error {
            AskError::Dropped => OpenStreamError::Restarted,
            AskError::TimedOut => OpenStreamError::Busy,
        })??;
        opening.open(if lane == Lane::Bulk { Lane::Bulk } else { Lane::Normal }).await
    }

    /// A client of one handler, with its payloads as `codec` has them.
    pub fn client<C, Q, A>(&self, handler: impl Into<HandlerId>, codec: C) -> Client<C, Q, A>
    where
        C: Codec<Q> + Codec<A>,
    {
        Client { router: self.clone(), handler: handler.into(), codec, types: PhantomData }
    }
}

fn raw(target: Target, handler: HandlerId, payload: Bytes, terms: Terms) -> Request {
    Request { target, handler, payload, terms, fallback: None }
}

/// A request that somebody waits for; dropped before its end, it is cancelled.
struct Pending<'a> {
    router: &'a Router,
    key: u64,
    waits: bool,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if self.waits {
            // Where the queue is full the request ends by its deadline.
            drop(self.router.asks.offer(Ask::Cancel { key: self.key }));
        }
    }
}

/// A client of one handler: values in, values out.
#[derive(Clone, Debug)]
pub struct Client<C, Q, A> {
    router: Router,
    handler: HandlerId,
    codec: C,
    types: PhantomData<fn(Q) -> A>,
}

/// Why a [`Client`] has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The request ended so.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The question cannot be written.
    #[error("the question does not encode: {0}")]
    Question(String),
    /// The answer cannot be read.
    #[error("the answer does not decode: {0}")]
    Answer(String),
}

impl<C: Codec<Q> + Codec<A>, Q, A> Client<C, Q, A> {
    /// Asks this peer, once.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn request(&self, peer: NodeId, question: &Q, deadline: Duration) -> Result<A, ClientError> {
        Ok(self.ask(Target::Peer(peer), question, Terms::within(deadline), None).await?.0)
    }

    /// Asks on these terms. `fallback` is the answer where there is none for a reason that another time or peer could
    /// have spared; who answered is none then.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn ask(
        &self,
        target: Target,
        question: &Q,
        terms: Terms,
        fallback: Option<&A>,
    ) -> Result<(A, Option<NodeId>), ClientError> {
        let payload = self.codec.encode(question).map_err(ClientError::Question)?;
        let fallback = fallback.map(|answer| self.codec.encode(answer).map(Payload)).transpose();
        let fallback = fallback.map_err(ClientError::Answer)?;
        let request = Request { target, handler: self.handler, payload, terms, fallback };
        let answer = self.router.ask(request).await?;
        Ok((self.codec.decode(answer.payload).map_err(ClientError::Answer)?, answer.from))
    }
}

//! What handlers are made of, and how they answer: exactly once, whatever becomes of them.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use peerage_mailbox::{Item, Outlet, Overflow};
use peerage_queue::SessionId;
use peerage_wire::NodeId;
use tokio::sync::watch;

use crate::machine::{Call, Fault};
use crate::turns::InTurn;
use crate::wire::{ErrorCode, MAX_TEXT};

/// What a handler is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incoming {
    /// Who asks.
    pub from: NodeId,
    /// By which session.
    pub session: SessionId,
    /// How long the answer is of use.
    pub deadline: Duration,
    /// Whether somebody waits for the answer; nobody does for a message.
    pub answered: bool,
    /// The question.
    pub payload: Bytes,
}

pub(crate) type Answering = Pin<Box<dyn Future<Output = Result<Bytes, Fault>> + Send>>;

/// Who works on calls. Clones are the same handler.
#[derive(Clone)]
pub struct Handler(Kind);

#[derive(Clone)]
enum Kind {
    Function(Arc<dyn Fn(Incoming) -> Result<Bytes, Fault> + Send + Sync>),
    Task(Arc<dyn Fn(Incoming) -> Answering + Send + Sync>),
    Outlet(Outlet<Job>),
}

impl Handler {
    /// A function, called by the router's own actor: to be used for what takes microseconds. With
    /// [`HandlerConfig::in_order`](crate::HandlerConfig::in_order), calls come in order and not too many at an instant.
    pub fn function(handle: impl Fn(Incoming) -> Result<Bytes, Fault> + Send + Sync + 'static) -> Handler {
        Handler(Kind::Function(Arc::new(handle)))
    }

    /// A future for each call, in a task of its own, which ends where it waits when nobody needs the answer any more. What
    /// it does between two waits is to take a millisecond at most: then calls of other peers have their turn.
    pub fn task<F>(handle: impl Fn(Incoming) -> F + Send + Sync + 'static) -> Handler
    where
        F: Future<Output = Result<Bytes, Fault>> + Send + 'static,
    {
        Handler(Kind::Task(Arc::new(move |incoming| Box::pin(handle(incoming)))))
    }

    /// A queue of the application's; it answers by each job's [`Responder`]. Calls for which it has no room are
    /// throttled.
    pub fn outlet(outlet: Outlet<Job>) -> Handler {
        Handler(Kind::Outlet(outlet))
    }

    /// Begins to work on a call. A function has the answer at once; else it comes by the responder.
    pub(crate) fn start(
        &self,
        call: Call,
        turns: impl FnOnce(Answering) -> InTurn<Answering>,
        responder: impl FnOnce() -> Responder,
    ) -> Option<Result<Bytes, Fault>> {
        let Call { from, session, deadline, answered, payload, .. } = call;
        let incoming = Incoming { from, session, deadline, answered, payload };
        match &self.0 {
            Kind::Function(handle) => return Some(handle(incoming)),
            Kind::Task(handle) => {
                let answering = turns(handle(incoming));
                let responder = responder();
                tokio::spawn(async move {
                    let mut responder = responder;
                    let answer = tokio::select! {
                        biased;
                        () = responder.cancelled() => return,
                        answer = answering => answer,
                    };
                    responder.answer(answer);
                });
            }
            Kind::Outlet(outlet) => {
                if let Err(refused) = outlet.offer(Job { incoming, responder: responder() }) {
                    refused.into_inner().responder.answer(Err(Fault::new(ErrorCode::Throttled, "")));
                }
            }
        }
        None
    }
}

impl fmt::Debug for Handler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Kind::Function(_) => "Handler::function",
            Kind::Task(_) => "Handler::task",
            Kind::Outlet(_) => "Handler::outlet",
        })
    }
}

/// A call for an application that has a queue for them.
#[derive(Debug)]
pub struct Job {
    /// What is asked.
    pub incoming: Incoming,
    /// How to answer.
    pub responder: Responder,
}

impl Item for Job {
    fn weight(&self) -> usize {
        self.incoming.payload.len()
    }

    fn overflow(&self) -> Overflow {
        Overflow::Reject
    }
}

/// Answers one call. Dropping it is an answer too: that the handler failed.
#[derive(Debug)]
pub struct Responder {
    call: u64,
    answers: Outlet<Done>,
    max_payload: usize,
    withdrawn: watch::Receiver<()>,
    done: bool,
}

impl Responder {
    pub(crate) fn new(
        call: u64,
        answers: Outlet<Done>,
        max_payload: usize,
        withdrawn: watch::Receiver<()>,
    ) -> Responder {
        Responder { call, answers, max_payload, withdrawn, done: false }
    }

    /// Answers.
    pub fn answer(mut self, answer: Result<Bytes, Fault>) {
        self.finish(answer, false);
    }

    /// Whether nobody needs the answer any more: it was cancelled, its time is over, or the peer or the router is gone.
    pub fn is_cancelled(&self) -> bool {
        self.withdrawn.has_changed().is_err()
    }

    /// Waits until nobody needs the answer any more.
    pub async fn cancelled(&mut self) {
        // Nothing is ever sent: the sender is dropped.
        while self.withdrawn.changed().await.is_ok() {}
    }

    fn finish(&mut self, answer: Result<Bytes, Fault>, crashed: bool) {
        if std::mem::replace(&mut self.done, true) {
            return;
        }
        let answer = match answer {
            Ok(payload) if payload.len() > self.max_payload => Err(Fault::new(ErrorCode::TooLarge, "")),
            Err(mut fault) if fault.text.len() > MAX_TEXT => {
                let end = (0..=MAX_TEXT).rev().find(|at| fault.text.is_char_boundary(*at)).unwrap_or(0);
                fault.text.truncate(end);
                Err(fault)
            }
            answer => answer,
        };
        let done = Done { call: self.call, answer, crashed };
        if let Err(refused) = self.answers.offer(done) {
            // No room for its bytes; there is room for one of each call.
            let Done { call, crashed, .. } = refused.into_inner();
            drop(self.answers.offer(Done { call, answer: Err(Fault::new(ErrorCode::Throttled, "")), crashed }));
        }
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.finish(Err(Fault::new(ErrorCode::Internal, "")), std::thread::panicking());
    }
}

/// A call that has ended.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) call: u64,
    pub(crate) answer: Result<Bytes, Fault>,
    /// Its handler panicked.
    pub(crate) crashed: bool,
}

impl Item for Done {
    fn weight(&self) -> usize {
        match &self.answer {
            Ok(payload) => payload.len(),
            Err(_) => 0,
        }
    }

    fn overflow(&self) -> Overflow {
        Overflow::Reject
    }
}

//! What handlers of streams are made of.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use peerage_mailbox::Outlet;
use peerage_queue::SessionId;
use peerage_wire::NodeId;

use super::Stream;
use super::tasks::Note;
use crate::turns::Turns;
use crate::wire::streams::codes;

/// A stream that a peer opened to a handler.
#[derive(Debug)]
pub struct IncomingStream {
    /// Who opened it.
    pub from: NodeId,
    /// By which session.
    pub session: SessionId,
    /// Its halves.
    pub stream: Stream,
}

type Working = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Who takes streams. Clones are the same handler.
#[derive(Clone)]
pub struct StreamHandler(Kind);

#[derive(Clone)]
enum Kind {
    Task(Arc<dyn Fn(IncomingStream) -> Working + Send + Sync>),
    Outlet(Outlet<IncomingStream>),
}

impl StreamHandler {
    /// A future for each stream, in a task of its own. The task is the application's: it goes on when the router restarts,
    /// and its stream fails when the session ends.
    pub fn task<F>(handle: impl Fn(IncomingStream) -> F + Send + Sync + 'static) -> StreamHandler
    where
        F: Future<Output = ()> + Send + 'static,
    {
        StreamHandler(Kind::Task(Arc::new(move |incoming| Box::pin(handle(incoming)))))
    }

    /// A queue of the application's. Streams for which it has no room are refused.
    pub fn outlet(outlet: Outlet<IncomingStream>) -> StreamHandler {
        StreamHandler(Kind::Outlet(outlet))
    }

    pub(crate) fn start(&self, incoming: IncomingStream, turns: &Turns, notes: Outlet<Note>) {
        match &self.0 {
            Kind::Task(handle) => {
                let session = incoming.session;
                let working = turns.of(session, None, handle(incoming));
                let watch = Watch { session, notes };
                tokio::spawn(async move {
                    let _watch = watch;
                    working.await;
                });
            }
            Kind::Outlet(outlet) => {
                if let Err(refused) = outlet.offer(incoming) {
                    refused.into_inner().stream.abort(codes::THROTTLED);
                }
            }
        }
    }
}

/// Tells of a handler that panics in its task.
struct Watch {
    session: SessionId,
    notes: Outlet<Note>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            drop(self.notes.offer(Note::Panicked { session: self.session }));
        }
    }
}

impl fmt::Debug for StreamHandler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Kind::Task(_) => "StreamHandler::task",
            Kind::Outlet(_) => "StreamHandler::outlet",
        })
    }
}

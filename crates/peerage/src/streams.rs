//! Streams through the front door: two byte streams in opposite directions between two nodes.

use std::future::Future;

use peerage_server::ServeFailed;
use peerage_server::router::{HandlerId, IncomingStream, OpenStreamError, Stream, StreamHandler, StreamHandlerConfig};
use peerage_server::wire::NodeId;

use crate::Node;

impl Node {
    /// Takes the streams that peers open by this name: `handle` is told the stream and who opened it. Each stream has a task
    /// of its own. Either end writes and reads as it likes; a half that is not needed should be
    /// [finished](peerage_server::router::StreamWriter::finish), or read to its end.
    ///
    /// For limits, members and a queue of the application's own there is
    /// [`ServerMailbox::serve_streams`](peerage_server::ServerMailbox::serve_streams).
    ///
    /// # Errors
    /// [`ServeFailed`]: the name is taken, empty or too long, or the node has stopped.
    pub async fn serve_streams<F>(
        &self,
        name: &str,
        handle: impl Fn(Stream, NodeId) -> F + Send + Sync + 'static,
    ) -> Result<HandlerId, ServeFailed>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let handler = StreamHandler::task(move |IncomingStream { from, stream, .. }| handle(stream, from));
        self.server().serve_streams(name, StreamHandlerConfig::recommended(), handler).await
    }

    /// Opens a stream to what a peer serves by this name. Waits for this node only; a peer that does not take the stream
    /// says so where it is written and read ([`StreamFailed::Refused`](crate::StreamFailed::Refused)).
    ///
    /// # Errors
    /// [`OpenStreamError`].
    pub async fn open_stream(&self, peer: NodeId, name: &str) -> Result<Stream, OpenStreamError> {
        self.server().router().open(peer, name).await
    }
}

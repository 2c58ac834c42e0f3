//! Requests through the front door: values in, values out.

use std::time::Duration;

use peerage_server::ServeFailed;
use peerage_server::router::codec::Bincode;
use peerage_server::router::{ClientError, Fault, Handler, HandlerConfig, HandlerId};
use peerage_server::wire::NodeId;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Node;

/// How long [`Node::request`] waits.
const DEADLINE: Duration = Duration::from_secs(10);

impl Node {
    /// Answers what peers ask by this name: `handle` is told the question and who asks. Each question has a task of its
    /// own, which ends where it waits when nobody needs the answer any more. What is no question never gets there.
    ///
    /// Values travel as bincode, of at most 256 KiB. For other payloads, limits, members and handlers in order there is
    /// [`ServerMailbox::serve`](peerage_server::ServerMailbox::serve).
    ///
    /// # Errors
    /// [`ServeFailed`]: the name is taken, empty or too long, or the node has stopped.
    pub async fn serve<Q, A, F>(
        &self,
        name: &str,
        handle: impl Fn(Q, NodeId) -> F + Send + Sync + 'static,
    ) -> Result<HandlerId, ServeFailed>
    where
        Q: Serialize + DeserializeOwned + Send + 'static,
        A: Serialize + DeserializeOwned + Send + 'static,
        F: Future<Output = Result<A, Fault>> + Send + 'static,
    {
        let handler = Handler::typed::<_, Q, A, F>(Bincode, handle);
        self.server().serve(name, HandlerConfig::concurrent(), handler).await
    }

    /// Asks a peer, and waits for at most ten seconds. Dropping the future cancels the request, also where it is worked
    /// on. For other terms, any of the peers, or other payloads there is
    /// [`ServerMailbox::router`](peerage_server::ServerMailbox::router).
    ///
    /// # Errors
    /// [`ClientError`]; exactly one end for each request.
    pub async fn request<Q, A>(&self, peer: NodeId, name: &str, question: Q) -> Result<A, ClientError>
    where
        Q: Serialize + DeserializeOwned,
        A: Serialize + DeserializeOwned,
    {
        self.server().router().client::<_, Q, A>(name, Bincode).request(peer, &question, DEADLINE).await
    }
}

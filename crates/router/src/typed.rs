//! Handlers of values: what a peer sends that is no value is its mistake, and is answered so.

use std::future::Future;
use std::sync::Arc;

use peerage_wire::NodeId;

use crate::codec::Codec;
use crate::machine::Fault;
use crate::wire::ErrorCode;
use crate::work::{Handler, Incoming};

impl Handler {
    /// A future for each call, with its question and answer as `codec` has them. As [`Handler::task`] otherwise.
    pub fn typed<C, Q, A, F>(codec: C, handle: impl Fn(Q, NodeId) -> F + Send + Sync + 'static) -> Handler
    where
        C: Codec<Q> + Codec<A> + Send + Sync + 'static,
        Q: Send + 'static,
        A: Send + 'static,
        F: Future<Output = Result<A, Fault>> + Send + 'static,
    {
        let codec = Arc::new(codec);
        Handler::task(move |Incoming { from, payload, .. }| {
            let question = codec.decode(payload).map_err(|why| Fault::new(ErrorCode::InvalidRequest, why));
            let answering = question.map(|question| handle(question, from));
            let codec = codec.clone();
            async move {
                let answer = answering?.await?;
                codec.encode(&answer).map_err(|why| Fault::new(ErrorCode::Internal, why))
            }
        })
    }
}

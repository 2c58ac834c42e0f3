//! What the machine counts, and how much it holds.

use peerage_machine::labelled;

labelled! {
    /// Something to count.
    Count {
        /// A request of this node was sent.
        Asked = "asked",
        /// It was answered.
        Answered = "answered",
        /// It completed with its fallback.
        FellBack = "fell_back",
        /// It is tried again.
        Retried = "retried",
        /// No answer in time.
        TimedOut = "timed_out",
        /// The peer went.
        Disconnected = "disconnected",
        /// The peer's lane was full.
        NotSent = "not_sent",
        /// Whoever asked does not wait any more.
        Cancelled = "cancelled",
        /// This node had too many under way.
        Busy = "busy",
        /// Nobody to ask.
        NoPeers = "no_peers",
        /// A handler of a peer is given a rest.
        CircuitOpened = "circuit_opened",
        /// A request was not sent because of that.
        CircuitOpen = "circuit_open",
        /// An attempt that waited for its place, or had none, at the pace that its peer allows.
        Paced = "paced",
        /// A peer answered with an error.
        Refused = "refused",
        /// A message without an answer was sent.
        Sent = "sent",
        /// A call was handed to its handler.
        Called = "called",
        /// Its answer was sent.
        Served = "served",
        /// Its handler answered with an error.
        Failed = "failed",
        /// A request for a handler that is not here.
        UnknownHandler = "unknown_handler",
        /// A request of a node that is no member.
        NotMember = "not_member",
        /// A request beyond a limit.
        Throttled = "throttled",
        /// A request whose time was over before it was begun.
        Expired = "expired",
        /// A call whose time was over before it was answered.
        Overdue = "overdue",
        /// A call that its asker cancelled.
        Withdrawn = "withdrawn",
        /// A call whose asker went.
        Orphaned = "orphaned",
        /// A cancellation of what is not here: it crossed with the answer.
        CancelledNothing = "cancelled_nothing",
        /// A request with the id of one under way.
        DuplicateId = "duplicate_id",
        /// An answer after its request had ended, in the time of grace.
        LateAnswer = "late_answer",
        /// An answer to what an earlier life of this router asked, most likely.
        EarlierLife = "earlier_life",
        /// An answer that nobody asked for.
        Unrequested = "unrequested",
        /// A session message that does not decode.
        Malformed = "malformed",
        /// An item of a kind this version does not know.
        UnknownKind = "unknown_kind",
        /// From a session this machine was not told of, or not any more.
        UnknownSession = "unknown_session",
        /// A handler panicked.
        HandlerPanicked = "handler_panicked",
        /// This node opened a stream.
        StreamOpened = "stream_opened",
        /// This node had too many streams open for another.
        StreamBusy = "stream_busy",
        /// A stream of a peer was handed to its handler.
        StreamServed = "stream_served",
        /// A stream of a peer for a handler that is not here.
        StreamUnknownHandler = "stream_unknown_handler",
        /// A stream of a node that is no member.
        StreamNotMember = "stream_not_member",
        /// A stream of a peer beyond a limit.
        StreamThrottled = "stream_throttled",
        /// A stream whose header did not come in time.
        StreamLate = "stream_late",
        /// A stream that its peer ended before its header.
        StreamEnded = "stream_ended",
        /// A stream whose header does not decode.
        StreamMalformed = "stream_malformed",
        /// An answer of this node went on a stream.
        AnswerStreamed = "answer_streamed",
        /// An answer went among the messages because there was no stream for it.
        AnswerNotStreamed = "answer_not_streamed",
        /// A peer's answer on a stream was larger than it may be.
        AnswerTooLarge = "answer_too_large",
        /// A peer's answer on a stream broke off, or had another length than it said.
        AnswerBroken = "answer_broken",
    }
}

/// How much a machine holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Sessions.
    pub peers: usize,
    /// Requests that the application waits for.
    pub operations: usize,
    /// Bytes of their payloads.
    pub operation_bytes: usize,
    /// Requests that are out.
    pub attempts: usize,
    /// Peers that have such.
    pub asked_peers: usize,
    /// Requests whose late answers are expected.
    pub retired: usize,
    /// Calls.
    pub calls: usize,
    /// Bytes of their payloads.
    pub call_bytes: usize,
    /// Peers that have such.
    pub served_peers: usize,
    /// Deadlines.
    pub deadlines: usize,
    /// Streams of peers without a header yet.
    pub streams_pending: usize,
    /// Streams that handlers have.
    pub streams_served: usize,
    /// Streams that this node opened.
    pub streams_opened: usize,
    /// Answers of this node that are, or wait to be, on streams.
    pub answers_out: usize,
    /// Their bytes.
    pub answer_bytes_out: usize,
    /// Answers that come on streams.
    pub answers_in: usize,
    /// Their bytes, as far as there is room for them.
    pub answer_bytes_in: usize,
}

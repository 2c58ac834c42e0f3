//! Why gossip lets something go, by names that never grow.

use peerage_machine::labelled;

labelled! {
    /// Why something was not done.
    DropReason {
        /// A session message that does not decode.
        Malformed = "malformed",
        /// An item of a kind this version does not know.
        UnknownKind = "unknown_kind",
        /// From a session this machine was not told of, or not any more.
        UnknownSession = "unknown_session",
        /// A message or announcement of a topic this node is not subscribed to.
        UnknownTopic = "unknown_topic",
        /// A message with the other policy than its topic's.
        WrongPolicy = "wrong_policy",
        /// A message published too long ago.
        TooOld = "too_old",
        /// A message published in the future: clocks differ.
        FromFuture = "from_future",
        /// A message whose signature is not its publisher's.
        InvalidSignature = "invalid_signature",
        /// A copy that failed the check before.
        RejectedBefore = "rejected_before",
        /// A copy whose handling or check panicked.
        Poison = "poison",
        /// No room for one more signature check.
        InFlightFull = "in_flight_full",
        /// An id forgotten before its time, for want of room.
        SeenEvicted = "seen_evicted",
        /// A peer announced more than it may.
        AnnounceFlood = "announce_flood",
        /// A peer asked for more than it may.
        RequestFlood = "request_flood",
        /// A peer showed what it has more often than it may.
        FilterFlood = "filter_flood",
        /// A peer changed its topics more often than it may, or has too many.
        TopicFlood = "topic_flood",
        /// An announcement by a peer that owes too much already.
        WantsFull = "wants_full",
        /// A peer did not send in time what it announced.
        BrokenPromise = "broken_promise",
        /// A request for a message that is not kept.
        NotKept = "not_kept",
        /// A request for a message the peer was sent often enough.
        ServedEnough = "served_enough",
        /// A header or shard that is not what its publisher signed, or does not add up.
        InvalidShard = "invalid_shard",
        /// A shard of a message whose header this node has not got.
        UnknownShard = "unknown_shard",
        /// A coded message for which there was no room, no quota, or no admission.
        CodedRefused = "coded_refused",
        /// Shards that a publisher signed and that are not those of a payload.
        NotACode = "not_a_code",
        /// A publication refused because the node's lanes are over half full.
        Busy = "busy",
        /// A peer grafted or pruned more often than it may.
        GraftFlood = "graft_flood",
        /// A peer grafted while it was to rest.
        GraftInRest = "graft_in_rest",
        /// A graft by a peer whose score is negative.
        GraftLowScore = "graft_low_score",
        /// A graft into a mesh that is full.
        GraftFull = "graft_full",
        /// A peer said of more messages than it may that it does not want them.
        UnwantedFlood = "unwanted_flood",
        /// Something of a peer whose score is below the graylist's threshold: nothing that it says is heard.
        Graylisted = "graylisted",
        /// An announcement, request or filter of a peer whose score is below the threshold for gossip.
        LowScore = "low_score",
        /// A peer told more often than it may which messages were first.
        FirstsFlood = "firsts_flood",
        /// A message larger than its topic's may be.
        TooLarge = "too_large",
        /// No room for one more message that the application would judge, or nobody there who judges.
        ValidationFull = "validation_full",
        /// A message that the application ignores.
        Ignored = "ignored",
        /// A message that the application rejects.
        Rejected = "rejected",
        /// The application did not say in time what it thinks of a message, which is ignored then.
        VerdictOverdue = "verdict_overdue",
        /// A verdict that came too late, or twice.
        LateVerdict = "late_verdict",
        /// A copy of a message that the application ignored.
        IgnoredBefore = "ignored_before",
        /// A peer asked for histories more often than it may.
        HistoryFlood = "history_flood",
        /// A peer asked for a history when others have what may be read now.
        HistoryBusy = "history_busy",
        /// A message out of a log, or the end of an answer, that was not asked for, or not any more.
        HistoryUnasked = "history_unasked",
        /// A peer that was asked for a history did not answer in time.
        HistoryOverdue = "history_overdue",
        /// A peer asked for more receipts than it may, or more than are remembered.
        ReceiptFlood = "receipt_flood",
    }
}

//! What the exchange counts, by names that never grow.

use peerage_machine::labelled;

labelled! {
    /// Why something that a peer sent, or a record in it, went no further.
    DropReason {
        /// The message does not decode.
        Malformed = "malformed",
        /// It came on another stream than the message flow.
        Stream = "stream",
        /// An item of a kind that this version does not know.
        UnknownKind = "unknown_kind",
        /// Of no session that speaks this protocol.
        NoSession = "no_session",
        /// It pulls more often than it may.
        PullQuota = "pull_quota",
        /// An answer to nothing that was asked.
        Unsolicited = "unsolicited",
        /// An answer that was not waited for any more.
        Late = "late",
        /// The same record, or the same statement, again.
        Repeated = "repeated",
        /// A record of another network.
        ForeignRecord = "foreign_record",
        /// This node's own record.
        OwnRecord = "own_record",
        /// A record of a node that is connected or known.
        Known = "known",
        /// A record that names no TCP socket which its teller may tell.
        RelayAddress = "relay_address",
        /// A record that the policy does not admit, or none of its addresses.
        NotAdmitted = "not_admitted",
        /// A record that its owner did not sign.
        BadRecord = "bad_record",
        /// A record at a site of which enough are known.
        SiteLimit = "site_limit",
        /// Somebody made room for a newer one.
        Overtaken = "overtaken",
        /// A record was not offered, as discovery is behind.
        NotOffered = "not_offered",
        /// A probe of a system port.
        ProbePort = "probe_port",
        /// A probe too early after the last one.
        ProbeQuota = "probe_quota",
        /// A probe that this node had no time for.
        ProbeBusy = "probe_busy",
        /// An address that nobody can be at, or that its teller may not tell.
        BadAddress = "bad_address",
        /// A message that the queue did not take.
        NotSent = "not_sent",
    }
}

labelled! {
    /// What happened, apart from drops.
    Event {
        /// A peer was asked for records.
        Pulled = "pulled",
        /// It answered.
        Answered = "answered",
        /// It did not answer in time.
        TimedOut = "timed_out",
        /// A peer's pull was answered.
        Served = "served",
        /// A node was learnt of.
        Learnt = "learnt",
        /// A node was forgotten, as dials of it failed.
        GivenUp = "given_up",
        /// A peer was asked to dial back.
        Probed = "probed",
        /// It got through.
        Reached = "reached",
        /// It did not.
        Unreached = "unreached",
        /// It did not try.
        Declined = "declined",
        /// A connection was opened for a peer.
        DialledBack = "dialled_back",
        /// A peer said where it sees this node.
        Observed = "observed",
    }
}

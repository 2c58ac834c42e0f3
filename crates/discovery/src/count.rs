//! What is counted, by names that never grow.

use peerage_machine::labelled;

labelled! {
    /// Why a packet, or a record in one, went no further.
    DropReason {
        /// Longer than a packet may be.
        TooLong = "too_long",
        /// Shorter than its type can be.
        TooShort = "too_short",
        /// Not a discovery packet, and nobody else's.
        Magic = "magic",
        /// A version this node does not speak.
        Version = "version",
        /// A node of another network.
        Network = "network",
        /// A type this version does not know.
        UnknownType = "unknown_type",
        /// Addressed to another node.
        Recipient = "recipient",
        /// Claims to come from this node.
        Own = "own",
        /// From, or about, an address or a node that the policy does not admit.
        NotAdmitted = "not_admitted",
        /// Its host sent too much.
        HostQuota = "host_quota",
        /// Its site sent too much.
        SiteQuota = "site_quota",
        /// A request without a valid cookie; answered with one.
        NoCookie = "no_cookie",
        /// An answer to nothing this node asked.
        Nonce = "nonce",
        /// An answer that comes long after its request gave up waiting.
        Late = "late",
        /// Expired, or claiming to live longer than a packet may.
        Expired = "expired",
        /// No signature check was left for it.
        VerifyBudget = "verify_budget",
        /// Not signed by its sender.
        Signature = "signature",
        /// The body does not decode.
        Body = "body",
        /// The machine was behind.
        QueueFull = "queue_full",
        /// An answer that matches no outstanding request: late, twice, from elsewhere or of another type.
        Unsolicited = "unsolicited",
        /// A record or packet beyond what was asked for.
        Excess = "excess",
        /// A record of another network.
        ForeignRecord = "foreign_record",
        /// A record with no address that its teller may tell and we can reach.
        RelayAddress = "relay_address",
        /// A record that its owner did not sign, or of another node than asked.
        BadRecord = "bad_record",
        /// A request of our own that was not sent, as too many are unanswered.
        TooManyRequests = "too_many_requests",
        /// A lookup answered from the table, as too many run.
        TooManyLookups = "too_many_lookups",
        /// Another protocol's packet, whose handler was behind.
        ForeignFull = "foreign_full",
        /// The socket was full: lost in the system, before anything of it was seen.
        Kernel = "kernel",
        /// The system did not take the packet.
        NotSent = "not_sent",
    }
}

labelled! {
    /// What happened, apart from drops.
    Event {
        /// A lookup began.
        LookupStarted = "lookup_started",
        /// A lookup ended.
        LookupFinished = "lookup_finished",
        /// A request was not answered in time.
        Timeout = "timeout",
        /// A node entered the table.
        NodeAdded = "node_added",
        /// A node left the table.
        NodeRemoved = "node_removed",
        /// A refresh began.
        Refresh = "refresh",
        /// The bootnodes were tried because the table was empty.
        Bootstrap = "bootstrap",
        /// A packet was passed on to the other protocol on this socket.
        Foreign = "foreign",
        /// A socket could not be read.
        ReadFailed = "read_failed",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn labels_are_distinct() {
        let drops: BTreeSet<_> = DropReason::ALL.iter().map(|reason| reason.label()).collect();
        assert_eq!(drops.len(), DropReason::ALL.len());
        let events: BTreeSet<_> = Event::ALL.iter().map(|event| event.label()).collect();
        assert_eq!(events.len(), Event::ALL.len());
    }
}

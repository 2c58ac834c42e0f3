//! What the sources count, by names that never grow.

use peerage_machine::labelled;

labelled! {
    /// What happened in a source of nodes.
    SourceEvent {
        /// A host's name leads somewhere new.
        NameFound = "name_found",
        /// A host's name could not be resolved.
        NameUnknown = "name_unknown",
        /// The file of nodes was read.
        FileRead = "file_read",
        /// The file of nodes could not be read.
        FileUnreadable = "file_unreadable",
        /// A line of the file names no node.
        FileLine = "file_line",
        /// A newer root of a list was accepted.
        ListRoot = "list_root",
        /// A lookup in a list was not answered, or by nothing that belongs there.
        ListFailed = "list_failed",
        /// A list was refused, or a part of it.
        ListRefused = "list_refused",
        /// A node of a list was found.
        ListNode = "list_node",
        /// A node of the local network was found.
        LocalNode = "local_node",
        /// What was said on the local network is of no use, or was said too often.
        LocalRefused = "local_refused",
    }
}

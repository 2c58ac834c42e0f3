//! Why a stream was not opened, or a direction of it ended before its end.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a stream was reset or is read no more: a number that travels. Applications use those below
/// [`FIRST_OWN`](StreamCode::FIRST_OWN) as they like; the session's own are above.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StreamCode(pub u32);

impl StreamCode {
    /// The lowest that means the same in every protocol.
    pub const FIRST_OWN: u32 = 0xffff_ff00;
    /// The half was dropped without a word.
    pub const DROPPED: StreamCode = StreamCode(0xffff_ff00);
    /// The protocol takes no streams, or no more of them now.
    pub const REFUSED: StreamCode = StreamCode(0xffff_ff01);
    /// More streams are open than the peer may open.
    pub const TOO_MANY: StreamCode = StreamCode(0xffff_ff02);
    /// The node has no memory for another window, or its protocol is behind in taking streams.
    pub const NO_ROOM: StreamCode = StreamCode(0xffff_ff03);

    /// A word for those that have one.
    pub const fn label(self) -> Option<&'static str> {
        match self {
            StreamCode::DROPPED => Some("dropped"),
            StreamCode::REFUSED => Some("refused"),
            StreamCode::TOO_MANY => Some("too many streams"),
            StreamCode::NO_ROOM => Some("no room"),
            _ => None,
        }
    }
}

impl fmt::Display for StreamCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.label() {
            Some(label) => f.write_str(label),
            None => write!(f, "code {}", self.0),
        }
    }
}

/// Why no stream was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The peer does not speak this protocol.
    #[error("the peer has no such channel")]
    NoChannel,
    /// Streams are of the normal or the bulk lane.
    #[error("a stream must be on the normal or the bulk lane")]
    Lane,
    /// As many streams to this peer are open as there may be.
    #[error("too many streams are open to this peer: wait for one to end")]
    TooMany,
    /// The inbound pool has no room for the first window of another stream.
    #[error("the inbound pool has no room for another stream: try again later")]
    NoRoom,
    /// The session has ended.
    #[error("the session has ended")]
    SessionEnded,
}

//! What travels on the router's channel: items of kind ‖ length ‖ body, several to a session message.
//!
//! | kind | item | body |
//! |---|---|---|
//! | 1 | [`Request`](Item::Request) | id u64 ‖ handler u64 ‖ deadline u32 (ms from when it was sent) ‖ payload |
//! | 2 | [`Response`](Item::Response) | id u64 ‖ payload |
//! | 3 | [`Error`](Item::Error) | id u64 ‖ code u16 ‖ text, UTF-8 |
//! | 4 | [`Cancel`](Item::Cancel) | id u64 |
//! | 5 | [`Message`](Item::Message) | handler u64 ‖ payload |
//! | 16–31 | on streams only | see [`streams`] |
//!
//! Kind is a u8, length a u32, all numbers big-endian. Items of other kinds are skipped by their length, which is how
//! kinds are added later. These travel on the channel's message flow (stream 0). A large answer has a stream of its own
//! ([`streams::Header::Answer`]); either way is an answer, whatever its size.

pub mod streams;

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
pub use peerage_wire::items::MAX_ITEMS;
use peerage_wire::items::{ITEM_HEADER, ItemsError};
use serde::{Deserialize, Serialize};

use crate::handler::HandlerId;

/// Longest text of an error, in bytes.
pub const MAX_TEXT: usize = 256;
/// Largest payload that may be configured, in bytes.
pub const MAX_PAYLOAD: usize = 16 * 1024 * 1024;
/// Bytes of an item around its payload, at most.
pub const MAX_OVERHEAD: usize = ITEM_HEADER + 8 + 8 + 4;

mod kind {
    pub(super) const REQUEST: u8 = 1;
    pub(super) const RESPONSE: u8 = 2;
    pub(super) const ERROR: u8 = 3;
    pub(super) const CANCEL: u8 = 4;
    pub(super) const MESSAGE: u8 = 5;
}

/// Why a request was not answered by its handler's result.
///
/// Each cause has a code of its own; a request that was not answered in time has none, because nobody sends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ErrorCode {
    /// The handler failed, or gave no answer.
    Internal,
    /// There is no such handler.
    UnknownHandler,
    /// Only members may call this handler.
    NotMember,
    /// More than the node takes of this peer, or of all, at this time.
    Throttled,
    /// The handler cannot read the payload.
    InvalidRequest,
    /// The answer is larger than the node sends.
    TooLarge,
    /// What the application says.
    Application(u16),
    /// A code of a later version.
    Unknown(u16),
}

/// The first code on the wire that is the application's.
const APPLICATION: u16 = 0x8000;

impl ErrorCode {
    /// The code on the wire. Codes of the application are 0x8000 and above: the upper bit of what it says is lost.
    pub const fn code(self) -> u16 {
        match self {
            ErrorCode::Internal => 1,
            ErrorCode::UnknownHandler => 2,
            ErrorCode::NotMember => 3,
            ErrorCode::Throttled => 4,
            ErrorCode::InvalidRequest => 5,
            ErrorCode::TooLarge => 6,
            ErrorCode::Application(code) => APPLICATION | code,
            ErrorCode::Unknown(code) => code,
        }
    }

    /// What the code means.
    pub const fn from_code(code: u16) -> ErrorCode {
        match code {
            1 => ErrorCode::Internal,
            2 => ErrorCode::UnknownHandler,
            3 => ErrorCode::NotMember,
            4 => ErrorCode::Throttled,
            5 => ErrorCode::InvalidRequest,
            6 => ErrorCode::TooLarge,
            APPLICATION.. => ErrorCode::Application(code & !APPLICATION),
            code => ErrorCode::Unknown(code),
        }
    }
}

/// One thing a peer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A question to a handler.
    Request {
        /// The asker's name for it, to be given back.
        id: u64,
        /// Whom it is for.
        handler: HandlerId,
        /// How long the asker waits, from when it was sent.
        deadline: Duration,
        /// The question.
        payload: Bytes,
    },
    /// The handler's answer.
    Response {
        /// The question's.
        id: u64,
        /// The answer.
        payload: Bytes,
    },
    /// There is no answer, and why.
    Error {
        /// The question's.
        id: u64,
        /// Why, for programs.
        code: ErrorCode,
        /// Why, for people; at most [`MAX_TEXT`] bytes.
        text: String,
    },
    /// The asker does not wait for the answer any more.
    Cancel {
        /// The question's.
        id: u64,
    },
    /// Something for a handler that nobody waits for an answer to.
    Message {
        /// Whom it is for.
        handler: HandlerId,
        /// What is said.
        payload: Bytes,
    },
    /// An item of a later version.
    Unknown(u8),
}

/// Why bytes are not the router's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A field, or an item, is longer than what is left.
    #[error("cut short")]
    Short,
    /// Bytes are left over in an item.
    #[error("{0} bytes left over in an item")]
    Trailing(usize),
    /// A text that is too long or not UTF-8.
    #[error("malformed text")]
    Text,
    /// More than [`MAX_ITEMS`] items.
    #[error("more than {MAX_ITEMS} items")]
    TooManyItems,
    /// A payload larger than this network allows.
    #[error("payload of {0} bytes")]
    TooLarge(usize),
}

/// The items of a session message, whose payloads may have at most `max_payload` bytes. Ends after the first error.
pub fn items(message: Bytes, max_payload: usize) -> impl Iterator<Item = Result<Item, WireError>> {
    peerage_wire::items::items(message, move |kind, item| decode(kind, item, max_payload))
}

impl From<ItemsError> for WireError {
    fn from(error: ItemsError) -> WireError {
        match error {
            ItemsError::Short => WireError::Short,
            ItemsError::TooMany => WireError::TooManyItems,
        }
    }
}

fn decode(kind: u8, item: Bytes, max_payload: usize) -> Result<Item, WireError> {
    let mut body = Reader(item.get(ITEM_HEADER..).ok_or(WireError::Short)?);
    let payload = |body: Reader<'_>| {
        if body.0.len() > max_payload {
            return Err(WireError::TooLarge(body.0.len()));
        }
        Ok(item.slice_ref(body.0))
    };
    match kind {
        kind::REQUEST => {
            let (id, handler) = (body.u64()?, HandlerId(body.u64()?));
            let deadline = Duration::from_millis(u32::from_be_bytes(body.array()?).into());
            Ok(Item::Request { id, handler, deadline, payload: payload(body)? })
        }
        kind::RESPONSE => Ok(Item::Response { id: body.u64()?, payload: payload(body)? }),
        kind::ERROR => {
            let (id, code) = (body.u64()?, ErrorCode::from_code(u16::from_be_bytes(body.array()?)));
            if body.0.len() > MAX_TEXT {
                return Err(WireError::Text);
            }
            let text = std::str::from_utf8(body.0).map_err(|_| WireError::Text)?;
            Ok(Item::Error { id, code, text: text.to_owned() })
        }
        kind::CANCEL => {
            let id = body.u64()?;
            if body.0.is_empty() { Ok(Item::Cancel { id }) } else { Err(WireError::Trailing(body.0.len())) }
        }
        kind::MESSAGE => Ok(Item::Message { handler: HandlerId(body.u64()?), payload: payload(body)? }),
        kind => Ok(Item::Unknown(kind)),
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (array, rest) = self.0.split_first_chunk::<N>().ok_or(WireError::Short)?;
        self.0 = rest;
        Ok(*array)
    }

    fn u64(&mut self) -> Result<u64, WireError> {
        self.array().map(u64::from_be_bytes)
    }
}

fn item(kind: u8, len: usize, fill: impl FnOnce(&mut BytesMut)) -> Bytes {
    let mut bytes = BytesMut::with_capacity(ITEM_HEADER + len);
    bytes.put_u8(kind);
    bytes.put_u32(u32::try_from(len).expect("payloads are bounded far below 4 GiB before they are built"));
    fill(&mut bytes);
    debug_assert_eq!(bytes.len(), ITEM_HEADER + len);
    bytes.freeze()
}

/// A question. What is left of its deadline is cut to whole milliseconds, and is one at least.
pub fn request(id: u64, handler: HandlerId, deadline: Duration, payload: &[u8]) -> Bytes {
    item(kind::REQUEST, 20 + payload.len(), |to| {
        to.put_u64(id);
        to.put_u64(handler.0);
        to.put_u32(u32::try_from(deadline.as_millis()).unwrap_or(u32::MAX).max(1));
        to.put_slice(payload);
    })
}

/// An answer.
pub fn response(id: u64, payload: &[u8]) -> Bytes {
    item(kind::RESPONSE, 8 + payload.len(), |to| {
        to.put_u64(id);
        to.put_slice(payload);
    })
}

/// Why there is no answer. The text is cut at [`MAX_TEXT`] bytes.
pub fn error(id: u64, code: ErrorCode, text: &str) -> Bytes {
    let end = (0..=MAX_TEXT.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    let text = &text[..end];
    item(kind::ERROR, 10 + text.len(), |to| {
        to.put_u64(id);
        to.put_u16(code.code());
        to.put_slice(text.as_bytes());
    })
}

/// The asker waits no more.
pub fn cancel(id: u64) -> Bytes {
    item(kind::CANCEL, 8, |to| to.put_u64(id))
}

/// Something that wants no answer.
pub fn message(handler: HandlerId, payload: &[u8]) -> Bytes {
    item(kind::MESSAGE, 8 + payload.len(), |to| {
        to.put_u64(handler.0);
        to.put_slice(payload);
    })
}

#[cfg(test)]
mod tests;

//! How a stream of the router's channel begins: one header of fixed length by its kind, in the shape of an item.
//!
//! | kind | header | body |
//! |---|---|---|
//! | 16 | [`Open`](Header::Open) | handler u64; then the application's bytes, both ways |
//! | 17 | [`Answer`](Header::Answer) | id u64 of a request ‖ length u32; then the answer, of just so many bytes, and the end |
//!
//! Who opened a stream says the header; nothing is said in answer. A node that does not take a stream stops and resets it
//! with a [code](codes).

use bytes::{BufMut, Bytes, BytesMut};
use peerage_wire::items::ITEM_HEADER;
use serde::{Deserialize, Serialize};

use crate::handler::HandlerId;

/// Bytes of the longest header.
pub const MAX_HEADER: usize = ITEM_HEADER + ANSWER_BODY;

const OPEN: u8 = 16;
const ANSWER: u8 = 17;
const OPEN_BODY: usize = 8;
const ANSWER_BODY: usize = 8 + 4;

/// Why a node does not take a stream, as it travels. Applications use those below [`FIRST`](codes::FIRST); those from
/// [`StreamCode::FIRST_OWN`](peerage_queue::stream::StreamCode::FIRST_OWN) on are the session's.
pub mod codes {
    use peerage_queue::stream::StreamCode;

    /// The lowest that is the router's.
    pub const FIRST: u32 = 0xffff_fe00;
    /// There is no such handler of streams.
    pub const UNKNOWN_HANDLER: StreamCode = StreamCode(FIRST);
    /// The handler is for members only.
    pub const NOT_MEMBER: StreamCode = StreamCode(FIRST + 1);
    /// More streams than the node takes of this peer, or of all, at this time.
    pub const THROTTLED: StreamCode = StreamCode(FIRST + 2);
    /// The header is malformed, or did not come in time.
    pub const HEADER: StreamCode = StreamCode(FIRST + 3);
    /// The node's router restarted before the stream had a handler.
    pub const RESTARTED: StreamCode = StreamCode(FIRST + 4);
    /// Nobody waits for this answer, or not any more.
    pub const UNWANTED: StreamCode = StreamCode(FIRST + 5);
    /// An answer that is larger than this network allows, or than it said.
    pub const TOO_LARGE: StreamCode = StreamCode(FIRST + 6);
}

/// What a stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Header {
    /// For a handler of streams.
    Open {
        /// Which.
        handler: HandlerId,
    },
    /// The answer to a request.
    Answer {
        /// The request's.
        id: u64,
        /// The answer's bytes.
        length: u32,
    },
}

/// Why a stream has no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum HeaderError {
    /// The stream ended, or was reset, before it was here.
    #[error("the stream ended before its header")]
    Ended,
    /// A kind that this version does not know.
    #[error("a header of kind {0}")]
    Kind(u8),
    /// A length that is not its kind's.
    #[error("a header of {0} bytes")]
    Length(u32),
}

impl Header {
    /// Its bytes.
    pub fn encode(self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(MAX_HEADER);
        match self {
            Header::Open { handler } => {
                bytes.put_u8(OPEN);
                bytes.put_u32(OPEN_BODY as u32);
                bytes.put_u64(handler.0);
            }
            Header::Answer { id, length } => {
                bytes.put_u8(ANSWER);
                bytes.put_u32(ANSWER_BODY as u32);
                bytes.put_u64(id);
                bytes.put_u32(length);
            }
        }
        bytes.freeze()
    }
}

/// A header of which some has come, whatever the pieces: never more than [`MAX_HEADER`] bytes.
#[derive(Debug, Default)]
pub struct HeaderReader {
    bytes: [u8; MAX_HEADER],
    len: usize,
}

impl HeaderReader {
    /// Takes the header's bytes off the front of a piece. The header when it is whole: what is left of the piece then is the
    /// stream's.
    ///
    /// # Errors
    /// [`HeaderError`]; nothing after it is of use.
    pub fn read(&mut self, piece: &mut Bytes) -> Result<Option<Header>, HeaderError> {
        loop {
            let body = match self.bytes.split_first_chunk::<ITEM_HEADER>() {
                Some(([kind, length @ ..], _)) if self.len >= ITEM_HEADER => {
                    Some(body(*kind, u32::from_be_bytes(*length))?)
                }
                _ => None,
            };
            let wanted = ITEM_HEADER + body.unwrap_or(0);
            if self.len == wanted && body.is_some() {
                return Ok(self.whole());
            }
            if piece.is_empty() {
                return Ok(None);
            }
            let taken = piece.split_to((wanted - self.len).min(piece.len()));
            let Some(room) = self.bytes.get_mut(self.len..self.len + taken.len()) else { return Ok(None) };
            room.copy_from_slice(&taken);
            self.len += taken.len();
        }
    }

    fn whole(&self) -> Option<Header> {
        let id = u64::from_be_bytes(*self.bytes.get(ITEM_HEADER..)?.first_chunk()?);
        if self.bytes.first() == Some(&OPEN) {
            return Some(Header::Open { handler: HandlerId(id) });
        }
        Some(Header::Answer { id, length: u32::from_be_bytes(*self.bytes.last_chunk()?) })
    }
}

/// The length of a body of this kind, if the claimed one is that.
fn body(kind: u8, claimed: u32) -> Result<usize, HeaderError> {
    let body = match kind {
        OPEN => OPEN_BODY,
        ANSWER => ANSWER_BODY,
        kind => return Err(HeaderError::Kind(kind)),
    };
    if claimed as usize == body { Ok(body) } else { Err(HeaderError::Length(claimed)) }
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;

    use super::*;

    const OPENS: Header = Header::Open { handler: HandlerId(0x0102_0304_0506_0708) };
    const ANSWERS: Header = Header::Answer { id: 0x1112_1314_1516_1718, length: 0x2122_2324 };

    #[test]
    fn headers_are_these_bytes() {
        assert_eq!(HEXLOWER.encode(&OPENS.encode()), "10000000080102030405060708");
        assert_eq!(HEXLOWER.encode(&ANSWERS.encode()), "110000000c111213141516171821222324");
    }

    #[test]
    fn a_header_is_read_however_it_is_cut_and_what_follows_it_is_left() {
        for header in [OPENS, ANSWERS] {
            let whole = [&header.encode()[..], b"more"].concat();
            for cut in 0..=whole.len() {
                let mut reader = HeaderReader::default();
                let (mut first, mut second) = (Bytes::from(whole.clone()), Bytes::new());
                if cut < first.len() {
                    second = first.split_off(cut);
                }
                let mut read = reader.read(&mut first).expect("fine");
                if read.is_none() {
                    assert!(first.is_empty());
                    read = reader.read(&mut second).expect("fine");
                }
                assert_eq!(read, Some(header));
                assert_eq!([first, second].concat(), b"more");
            }
            let mut reader = HeaderReader::default();
            let mut read = None;
            for byte in header.encode() {
                assert_eq!(read, None);
                read = reader.read(&mut Bytes::copy_from_slice(&[byte])).expect("fine");
            }
            assert_eq!(read, Some(header), "byte by byte");
        }
    }

    #[test]
    fn other_kinds_and_lengths_are_refused_as_soon_as_they_are_seen() {
        let read = |bytes: &'static [u8]| HeaderReader::default().read(&mut Bytes::from_static(bytes));
        assert_eq!(read(&[1, 0, 0, 0, 8]), Err(HeaderError::Kind(1)));
        assert_eq!(read(&[16, 0, 0, 0, 9]), Err(HeaderError::Length(9)));
        assert_eq!(read(&[17, 0xff, 0xff, 0xff, 0xff]), Err(HeaderError::Length(u32::MAX)));
        assert_eq!(read(&[16, 0, 0, 0]), Ok(None));
    }
}

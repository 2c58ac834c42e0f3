//! The bytes of a dump, which stay readable when a write of them was cut short.
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `PEERJRNL` |
//! | 2 | version of this layout, little-endian as all numbers here |
//! | frame | header: life (u32), crashed (u8), began (time), lost (u64), entries (u64), name and build (each u8 length and text), genesis |
//! | frame … | entries: what (u8), at (time), whether effects follow (u8), their hash (8), input |
//!
//! A time is running seconds (u64) and nanoseconds (u32), then Unix seconds and nanoseconds. A frame is the length of
//! its body (u32), four bytes of the BLAKE3 hash of the body, and the body.

use std::time::Duration;

use super::ring::{Kept, Ring};
use crate::Time;

const MAGIC: &[u8; 8] = b"PEERJRNL";
/// Of the layout described above.
const VERSION: u16 = 1;
/// What recorded it: effects are compared as they print, which another build may do otherwise.
const BUILD: &str = env!("CARGO_PKG_VERSION");

/// What an entry tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// An input.
    Input,
    /// A round of timers that were due.
    Expiry,
    /// A change of the machine that could not be recorded: a replay ends here.
    PassedBy,
}

/// A dump, as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dump<'a> {
    /// Whose it is.
    pub header: Header<'a>,
    /// What happened, oldest first.
    pub entries: Vec<Entry<'a>>,
    /// What could not be read.
    pub damage: Option<Damage>,
}

/// Whose journal it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// The machine's name.
    pub machine: &'a str,
    /// The version of Peerage that recorded it.
    pub build: &'a str,
    /// Which life of the machine, counted from 1.
    pub life: u32,
    /// Whether that life ended in a crash.
    pub crashed: bool,
    /// When it began.
    pub began: Time,
    /// The oldest entries, for which there was no room.
    pub lost: u64,
    /// Entries that were written after it.
    pub written: u64,
    /// What the machine was made of, by the shell's codec.
    pub genesis: &'a [u8],
}

/// One thing that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// When.
    pub at: Time,
    /// What.
    pub what: What,
    /// The input by the shell's codec; empty if it was none.
    pub input: &'a [u8],
    /// A hash of the effects that followed: of the timers set and unset, and of all that was asked for. None if the
    /// machine did not come back, by the time of the dump or ever.
    pub effects: Option<[u8; 8]>,
}

/// The end of a dump that was torn, or a place from which on it is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The first entry that is not whole, of those in the dump, counted from 0.
    pub entry: u64,
    /// Bytes from there to the end of the file; none of them was read. 0 if the file ends between two entries.
    pub bytes: usize,
}

/// Why bytes are not a dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DumpError {
    /// They do not begin as one.
    NotADump,
    /// Of a layout that this version does not read.
    Version(u16),
    /// The header is not whole, and nothing can be done without it.
    Header,
}

impl std::fmt::Display for DumpError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            DumpError::NotADump => f.write_str("not a journal: the file does not begin with `PEERJRNL`"),
            DumpError::Version(version) => {
                write!(
                    f,
                    "a journal of layout {version}, and this build reads layout {VERSION}; use the build of the node"
                )
            }
            DumpError::Header => f.write_str("a journal whose header is damaged: there is no machine to feed"),
        }
    }
}

impl std::error::Error for DumpError {}

pub(super) fn encode(ring: &Ring) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    let mut body = Vec::new();
    body.extend_from_slice(&ring.life.to_le_bytes());
    body.push(u8::from(ring.crashed));
    put_time(&mut body, ring.began);
    body.extend_from_slice(&ring.lost.to_le_bytes());
    body.extend_from_slice(&(ring.entries.len() as u64).to_le_bytes());
    put_text(&mut body, ring.machine);
    put_text(&mut body, BUILD);
    body.extend_from_slice(&ring.genesis);
    put_frame(&mut out, &body);
    for Kept { at, what, input, effects } in &ring.entries {
        body.clear();
        body.push(match what {
            What::Input => 0,
            What::Expiry => 1,
            What::PassedBy => 2,
        });
        put_time(&mut body, *at);
        body.push(u8::from(effects.is_some()));
        body.extend_from_slice(&effects.unwrap_or_default());
        body.extend_from_slice(input);
        put_frame(&mut out, &body);
    }
    out
}

fn put_time(out: &mut Vec<u8>, time: Time) {
    for clock in [time.running(), time.unix()] {
        out.extend_from_slice(&clock.as_secs().to_le_bytes());
        out.extend_from_slice(&clock.subsec_nanos().to_le_bytes());
    }
}

/// A name or version: never longer than 255 bytes, and cut if it were.
fn put_text(out: &mut Vec<u8>, text: &str) {
    let bytes = &text.as_bytes()[..text.len().min(255)];
    out.push(bytes.len() as u8);
    out.extend_from_slice(bytes);
}

fn put_frame(out: &mut Vec<u8>, body: &[u8]) {
    // An input of 4 GiB fits no ring.
    out.extend_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(&check(body));
    out.extend_from_slice(body);
}

fn check(body: &[u8]) -> [u8; 4] {
    let mut check = [0; 4];
    check.copy_from_slice(&blake3::hash(body).as_bytes()[..4]);
    check
}

/// Takes values from the front of bytes; `None` if they are too few. Nothing is copied, so that a claimed length
/// costs nothing.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(bytes)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.try_into().ok()
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn clock(&mut self) -> Option<Duration> {
        let (seconds, nanos) = (self.u64()?, self.u32()?);
        // More would carry over into the seconds, which could overflow.
        (nanos < 1_000_000_000).then(|| Duration::new(seconds, nanos))
    }

    fn time(&mut self) -> Option<Time> {
        Some(Time::new(self.clock()?, self.clock()?))
    }

    fn text(&mut self) -> Option<&'a str> {
        let len = usize::from(self.u8()?);
        std::str::from_utf8(self.bytes(len)?).ok()
    }

    fn frame(&mut self) -> Option<Reader<'a>> {
        let len = usize::try_from(self.u32()?).ok()?;
        let expected = self.array::<4>()?;
        let body = self.bytes(len)?;
        (check(body) == expected).then_some(Reader(body))
    }

    fn header(&mut self) -> Option<Header<'a>> {
        let mut body = self.frame()?;
        Some(Header {
            life: body.u32()?,
            crashed: body.u8()? != 0,
            began: body.time()?,
            lost: body.u64()?,
            written: body.u64()?,
            machine: body.text()?,
            build: body.text()?,
            genesis: body.0,
        })
    }

    fn entry(&mut self) -> Option<Entry<'a>> {
        let mut body = self.frame()?;
        let what = match body.u8()? {
            0 => What::Input,
            1 => What::Expiry,
            2 => What::PassedBy,
            _ => return None,
        };
        let at = body.time()?;
        let came_back = body.u8()? != 0;
        let effects = body.array()?;
        Some(Entry { at, what, input: body.0, effects: came_back.then_some(effects) })
    }
}

impl<'a> Dump<'a> {
    /// Reads a dump as far as it is whole. Whatever the bytes, this takes memory in proportion to them only.
    ///
    /// # Errors
    /// [`DumpError`], if there is not even a header.
    pub fn read(bytes: &'a [u8]) -> Result<Dump<'a>, DumpError> {
        let mut reader = Reader(bytes.strip_prefix(MAGIC).ok_or(DumpError::NotADump)?);
        let version = reader.array().map(u16::from_le_bytes).ok_or(DumpError::Header)?;
        if version != VERSION {
            return Err(DumpError::Version(version));
        }
        let header = reader.header().ok_or(DumpError::Header)?;
        let mut entries = Vec::new();
        loop {
            let left = reader.0.len();
            if left == 0 {
                break;
            }
            let Some(entry) = reader.entry() else {
                let damage = Damage { entry: entries.len() as u64, bytes: left };
                return Ok(Dump { header, entries, damage: Some(damage) });
            };
            entries.push(entry);
        }
        let missing = (entries.len() as u64) < header.written;
        let damage = missing.then_some(Damage { entry: entries.len() as u64, bytes: 0 });
        Ok(Dump { header, entries, damage })
    }

    /// The number of the first entry in it, counted from 0 through the machine's life.
    pub fn first(&self) -> u64 {
        self.header.lost
    }
}

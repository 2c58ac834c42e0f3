//! Streams: as many as there can be, without a header or with half of one; opened and reset; and used as they are meant,
//! at full speed in both directions.

use std::time::Duration;

use bytes::Bytes;
use peerage_server::peer_session::Peer;
use peerage_server::queue::ChannelId;
use peerage_server::queue::stream::{OpenError, StreamCode, StreamReader, StreamWriter};
use peerage_server::router::HandlerId;
use peerage_server::router::wire::streams::Header;
use peerage_server::wire::frame::Lane;
use tokio::task::JoinSet;

use super::Foe;
use crate::attack::BYTES;

/// As many as the handler lets one peer have.
const SERVED: usize = 16;
/// Bytes written at a time.
const PIECE: usize = 64 << 10;
/// While there is no place for another one.
const PAUSE: Duration = Duration::from_millis(1);

/// What one of them does with a stream.
#[derive(Clone, Copy)]
enum Manner {
    /// Nothing.
    Silent,
    /// Half of the header, and nothing more.
    HalfHeader,
    /// The header, and a reset.
    Reset,
    /// The header; then it neither reads nor writes.
    Stalls,
    /// Reads and writes as fast as it can.
    Uses,
}

const MANNERS: [Manner; 5] = [Manner::Uses, Manner::Silent, Manner::Reset, Manner::HalfHeader, Manner::Stalls];

impl Manner {
    /// Streams at a time: those who have no more than they may break no rule, and stay.
    const fn at_a_time(self) -> usize {
        match self {
            Manner::Uses | Manner::Stalls => SERVED,
            Manner::Silent | Manner::HalfHeader | Manner::Reset => super::STREAMS,
        }
    }
}

pub(super) async fn attack(foe: &Foe, peer: &mut Peer) {
    let Some(channel) = peer.channel("router") else { return };
    let manner = MANNERS[foe.number % MANNERS.len()];
    // Ends them with the session.
    let mut open = JoinSet::new();
    loop {
        while open.try_join_next().is_some() {}
        // Its messages are taken, so that nothing else is slow.
        while tokio::time::timeout(Duration::ZERO, peer.recv()).await.is_ok_and(|message| message.is_some()) {}
        let opened = match open.len() < manner.at_a_time() {
            true => peer.open_stream(channel, Lane::Normal).await,
            false => Err(OpenError::TooMany),
        };
        match opened {
            Ok((writer, reader)) => {
                foe.counted.add("opened", 1);
                open.spawn(stream(manner, writer, reader, foe.counted.clone()));
            }
            Err(OpenError::TooMany | OpenError::NoRoom) => tokio::time::sleep(PAUSE).await,
            Err(OpenError::NoChannel | OpenError::Lane | OpenError::SessionEnded) => return,
        }
    }
}

/// How a stream to the handler begins.
pub(super) fn header() -> Bytes {
    Header::Open { handler: HandlerId::of(BYTES) }.encode()
}

/// A stream that the handler has.
pub(super) async fn opened(peer: &Peer, channel: ChannelId) -> Option<(StreamWriter, StreamReader)> {
    let (mut writer, reader) = peer.open_stream(channel, Lane::Normal).await.ok()?;
    writer.write(header()).await.ok()?;
    Some((writer, reader))
}

/// One stream, until the peer ends it.
async fn stream(manner: Manner, mut writer: StreamWriter, mut reader: StreamReader, counted: super::Counted) {
    let header = match manner {
        Manner::Silent => Bytes::new(),
        Manner::HalfHeader => header().slice(..3),
        Manner::Reset | Manner::Stalls | Manner::Uses => header(),
    };
    if writer.write(header).await.is_err() {
        return counted.add("stream_refused", 1);
    }
    match manner {
        Manner::Reset => writer.reset(StreamCode(1)),
        Manner::Uses => {
            let reads = async {
                while let Ok(Some(bytes)) = reader.read().await {
                    counted.add("stream_bytes", bytes.len() as u64);
                }
            };
            let writes = async {
                let piece = Bytes::from_static(&[7; PIECE]);
                while writer.write(piece.clone()).await.is_ok() {}
            };
            tokio::join!(reads, writes);
        }
        // Nothing comes to those without a header but the refusal.
        Manner::Silent | Manner::HalfHeader => drop(reader.read().await),
        // Its end is the session's.
        Manner::Stalls => std::future::pending().await,
    }
}

//! The handshake's shell: carries its messages over a stream, within its deadlines.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use peerage_mailbox::Clock;
use peerage_transport::Stream;
use peerage_wire::frame::{Header, Kind, Lane};
use peerage_wire::handshake::MAX_MESSAGE;
use peerage_wire::{DisconnectReason, Keypair, NodeId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use crate::handshake::{Acceptor, Dialler, Direction, HandshakeError, Keys, LocalEnd, Presented, Remote};
use crate::pump::linger;
use crate::records::{Opener, Record, Sealer};
use crate::{Ciphers, Config, NetworkSecret};

/// A connection whose both ends have proved and accepted each other.
#[derive(Debug)]
pub struct Established {
    /// The connection.
    pub stream: Stream,
    /// The keys of its records.
    pub keys: Keys,
    /// What was read beyond the handshake.
    pub read: BytesMut,
    /// Who dialled.
    pub direction: Direction,
    /// The other end.
    pub remote: Remote,
}

impl Established {
    /// The other end's address.
    pub fn address(&self) -> SocketAddr {
        self.stream.remote_addr()
    }

    /// Tells the other end, which believes itself accepted, that there is no session after all.
    pub async fn refuse(mut self, reason: DisconnectReason, limit: Duration) {
        let farewell = frame(&mut self.keys.sealer, Kind::Disconnect, &reason.code().to_be_bytes());
        let goodbye = async {
            if self.stream.write_all(&farewell).await.is_ok() && self.stream.shutdown().await.is_ok() {
                linger(&mut self.stream).await;
            }
        };
        let _ = tokio::time::timeout(limit, goodbye).await;
    }
}

/// Runs handshakes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handshaker {
    config: Config,
    local: LocalEnd,
    clock: Clock,
    /// Curve operations at a time: half the cores, so that a flood of handshakes leaves the others to work.
    curves: Arc<Semaphore>,
}

fn io(error: std::io::Error) -> HandshakeError {
    HandshakeError::Io(error.to_string())
}

impl Handshaker {
    /// Handshakes in the name of `keys`.
    pub fn new(config: Config, keys: Keypair, clock: Clock) -> Handshaker {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let local = LocalEnd::new(&keys);
        Handshaker { config, local, clock, curves: Arc::new(Semaphore::new((cores / 2).max(1))) }
    }

    /// The same with other record ciphers than the best there are: for tests and benchmarks.
    #[must_use]
    pub fn with_ciphers(mut self, ciphers: Ciphers) -> Handshaker {
        self.local = self.local.with_ciphers(ciphers);
        self
    }

    /// The same in a network with this secret: it then shakes hands with those who have it and with nobody else.
    #[must_use]
    pub fn with_secret(mut self, secret: Option<NetworkSecret>) -> Handshaker {
        self.local = self.local.with_secret(secret);
        self
    }

    fn ephemeral() -> Result<Zeroizing<[u8; 32]>, HandshakeError> {
        let mut secret = Zeroizing::new([0; 32]);
        getrandom::fill(secret.as_mut()).map_err(|error| HandshakeError::Io(error.to_string()))?;
        Ok(secret)
    }

    async fn curve<T>(&self, operation: impl FnOnce() -> T) -> T {
        // The semaphore is never closed; without a permit the operation would only compete.
        let _permit = self.curves.acquire().await.ok();
        operation()
    }

    /// Runs the dialling end. `checkpoint` is asked once the other end is known and before this one shows
    /// itself; it reserves a place or says why not.
    ///
    /// # Errors
    /// [`HandshakeError`].
    pub async fn dial<F: Future<Output = Result<(), DisconnectReason>>>(
        &self,
        stream: Stream,
        ours: &Presented,
        expected: NodeId,
        checkpoint: impl FnOnce(Remote) -> F,
    ) -> Result<Established, HandshakeError> {
        within(self.config.handshake_timeout, self.dial_unbounded(stream, ours, expected, checkpoint)).await
    }

    async fn dial_unbounded<F: Future<Output = Result<(), DisconnectReason>>>(
        &self,
        stream: Stream,
        ours: &Presented,
        expected: NodeId,
        checkpoint: impl FnOnce(Remote) -> F,
    ) -> Result<Established, HandshakeError> {
        let mut wire = Wire::new(stream);
        let ephemeral = Self::ephemeral()?;
        let (dialler, m1) = self.curve(|| Dialler::begin(&self.local, ephemeral, expected)).await?;
        wire.stream.write_all(&m1).await.map_err(io)?;
        wire.more().await.map_err(|_| HandshakeError::Unanswered)?;
        let m2 = wire.message().await?;
        let now = self.clock.now();
        let (knowing, remote) = self.curve(|| dialler.read_m2(&self.config, now, ours, &m2)).await?;
        checkpoint(remote.clone()).await.map_err(HandshakeError::Refused)?;
        let (m3, mut keys) = self.curve(|| knowing.write_m3(ours)).await?;
        wire.write_message(&m3).await?;
        let record = wire.record(&mut keys.opener).await?;
        examine_answer(&wire.read[record.text])?;
        let Wire { stream, mut read } = wire;
        read.advance(record.end);
        Ok(Established { stream, keys, read, direction: Direction::Outbound, remote })
    }

    /// Runs the accepting end. `checkpoint` is asked once the other end is known; what it says is what the
    /// other end is told.
    ///
    /// # Errors
    /// [`HandshakeError`].
    pub async fn accept<F: Future<Output = Result<(), DisconnectReason>>>(
        &self,
        stream: Stream,
        ours: &Presented,
        checkpoint: impl FnOnce(Remote) -> F,
    ) -> Result<Established, HandshakeError> {
        within(self.config.handshake_timeout, self.accept_unbounded(stream, ours, checkpoint)).await
    }

    async fn accept_unbounded<F: Future<Output = Result<(), DisconnectReason>>>(
        &self,
        stream: Stream,
        ours: &Presented,
        checkpoint: impl FnOnce(Remote) -> F,
    ) -> Result<Established, HandshakeError> {
        let mut wire = Wire::new(stream);
        let m1 = within(self.config.first_message_timeout, wire.first(&self.local)).await?;
        // No curve operation, and so no permit: strangers to a network with a secret are told apart by hashing.
        let asked = Acceptor::asked(&self.local, &m1)?;
        let ephemeral = Self::ephemeral()?;
        let (acceptor, m2) = self.curve(|| asked.answer(ephemeral, ours)).await?;
        wire.write_message(&m2).await?;
        let m3 = wire.message().await?;
        let now = self.clock.now();
        let (mut keys, examined) = self.curve(|| acceptor.read_m3(&self.config, now, ours, &m3)).await?;
        let admitted = match examined {
            Ok(remote) => checkpoint(remote.clone()).await.map(|()| remote).map_err(HandshakeError::Refused),
            Err(error) => Err(error),
        };
        let answer = match &admitted {
            Ok(_) => frame(&mut keys.sealer, Kind::Accepted, &[]),
            Err(error) => frame(&mut keys.sealer, Kind::Disconnect, &error.reason().code().to_be_bytes()),
        };
        wire.stream.write_all(&answer).await.map_err(io)?;
        let Wire { mut stream, read } = wire;
        let remote = match admitted {
            Ok(remote) => remote,
            Err(error) => {
                // The refusal must leave before the connection goes.
                let _ = tokio::time::timeout(self.config.disconnect_timeout, stream.shutdown()).await;
                return Err(error);
            }
        };
        Ok(Established { stream, keys, read, direction: Direction::Inbound, remote })
    }
}

async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, HandshakeError>>,
) -> Result<T, HandshakeError> {
    tokio::time::timeout(limit, work).await.unwrap_or(Err(HandshakeError::TimedOut))
}

/// The accepting end's first record: one frame, which says yes or no.
fn examine_answer(mut frames: &[u8]) -> Result<(), HandshakeError> {
    let (header, payload) = Header::decode(&mut frames).map_err(|_| HandshakeError::NoAnswer)?;
    match header.kind {
        Kind::Accepted | Kind::Disconnect if !frames.is_empty() => Err(HandshakeError::AnswerNotAlone(frames.len())),
        Kind::Accepted => Ok(()),
        Kind::Disconnect => {
            let code = payload.first_chunk::<2>().map(|code| u16::from_be_bytes(*code));
            let reason = code.map_or(DisconnectReason::Requested, DisconnectReason::from_code);
            Err(HandshakeError::RefusedByPeer(reason))
        }
        _ => Err(HandshakeError::NoAnswer),
    }
}

/// One record with one frame of the session's own.
pub(crate) fn frame(sealer: &mut Sealer, kind: Kind, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let start = sealer.begin(&mut bytes);
    Header::new(kind, Lane::Control, 0, payload.len() as u16).encode(&mut bytes);
    bytes.extend_from_slice(payload);
    sealer.finish(&mut bytes, start);
    bytes
}

/// A connection during its handshake: each packet is read once, and what is behind a message stays for the next.
struct Wire {
    stream: Stream,
    read: BytesMut,
}

impl Wire {
    fn new(stream: Stream) -> Wire {
        Wire { stream, read: BytesMut::new() }
    }

    /// Reads what is there: at least one byte, and with what was read before no more than a record.
    async fn more(&mut self) -> Result<(), HandshakeError> {
        self.read.reserve(MAX_MESSAGE);
        match self.stream.read_buf(&mut self.read).await.map_err(io)? {
            0 => Err(HandshakeError::Io("closed by the peer".into())),
            _ => Ok(()),
        }
    }

    async fn exact(&mut self, bytes: &mut [u8]) -> Result<(), HandshakeError> {
        while self.read.len() < bytes.len() {
            self.more().await?;
        }
        self.read.copy_to_slice(bytes);
        Ok(())
    }

    /// Reads the first message, as soon as its magic says that there is one.
    async fn first(&mut self, local: &LocalEnd) -> Result<Vec<u8>, HandshakeError> {
        let mut magic = [0; 4];
        self.exact(&mut magic).await?;
        let mut m1 = magic.to_vec();
        m1.resize(local.m1_len(magic)?, 0);
        self.exact(&mut m1[magic.len()..]).await?;
        Ok(m1)
    }

    async fn message(&mut self) -> Result<Vec<u8>, HandshakeError> {
        let mut len = [0; 2];
        self.exact(&mut len).await?;
        let len = usize::from(u16::from_be_bytes(len));
        if len > MAX_MESSAGE {
            return Err(HandshakeError::Length(len));
        }
        let mut message = vec![0; len];
        self.exact(&mut message).await?;
        Ok(message)
    }

    async fn write_message(&mut self, message: &[u8]) -> Result<(), HandshakeError> {
        let len = u16::try_from(message.len()).map_err(|_| HandshakeError::Length(message.len()))?;
        self.stream.write_all(&[&len.to_be_bytes()[..], message].concat()).await.map_err(io)
    }

    /// Opens the first record. It is there whole by its 64 KiB, so no more than that is ever kept.
    async fn record(&mut self, opener: &mut Opener) -> Result<Record, HandshakeError> {
        loop {
            match opener.open_first(&mut self.read) {
                Ok(Some(record)) => return Ok(record),
                Ok(None) => self.more().await?,
                Err(_) => return Err(HandshakeError::NoAnswer),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(frames: &[(Kind, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (kind, payload) in frames {
            Header::new(*kind, Lane::Control, 0, payload.len() as u16).encode(&mut bytes);
            bytes.extend_from_slice(payload);
        }
        bytes
    }

    #[test]
    fn the_answer_is_one_frame_and_nothing_else() {
        let code = DisconnectReason::TooManyPeers.code().to_be_bytes();
        assert_eq!(examine_answer(&frames(&[(Kind::Accepted, &[])])), Ok(()));
        assert_eq!(
            examine_answer(&frames(&[(Kind::Disconnect, &code)])),
            Err(HandshakeError::RefusedByPeer(DisconnectReason::TooManyPeers))
        );
        for answer in [Kind::Accepted, Kind::Disconnect] {
            let mut bytes = frames(&[(answer, &code), (Kind::Ping, &[0; 8])]);
            assert_eq!(examine_answer(&bytes), Err(HandshakeError::AnswerNotAlone(7 + 8)));
            bytes.truncate(7 + 2 + 1);
            assert_eq!(examine_answer(&bytes), Err(HandshakeError::AnswerNotAlone(1)), "not even a frame");
        }
        for neither in [frames(&[(Kind::Ping, &[0; 8])]), vec![1, 2, 3], Vec::new()] {
            assert_eq!(examine_answer(&neither), Err(HandshakeError::NoAnswer));
        }
    }
}

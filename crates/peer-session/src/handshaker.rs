//! The handshake's shell: carries its messages over a stream, within its deadlines.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use peerage_mailbox::Clock;
use peerage_transport::Stream;
use peerage_wire::frame::{Header, Kind, Lane};
use peerage_wire::handshake::{M1_LEN, MAX_MESSAGE};
use peerage_wire::{DisconnectReason, Keypair, NodeId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use crate::Config;
use crate::handshake::{Acceptor, Dialler, Direction, HandshakeError, Keys, Presented, Remote};
use crate::pump::linger;
use crate::records::{MAX_RECORD, Opener, Sealer};

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
    keys: Keypair,
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
        Handshaker { config, keys, clock, curves: Arc::new(Semaphore::new((cores / 2).max(1))) }
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
        mut stream: Stream,
        ours: &Presented,
        expected: NodeId,
        checkpoint: impl FnOnce(Remote) -> F,
    ) -> Result<Established, HandshakeError> {
        let ephemeral = Self::ephemeral()?;
        let (dialler, m1) = self.curve(|| Dialler::begin(&self.keys, ephemeral, expected)).await?;
        stream.write_all(&m1).await.map_err(io)?;
        let m2 = read_message(&mut stream).await?;
        let now = self.clock.now();
        let (knowing, remote) = self.curve(|| dialler.read_m2(&self.config, now, ours, &m2)).await?;
        checkpoint(remote.clone()).await.map_err(HandshakeError::Refused)?;
        let (m3, mut keys) = self.curve(|| knowing.write_m3(ours)).await?;
        write_message(&mut stream, &m3).await?;
        let mut read = BytesMut::new();
        let answer = read_record(&mut stream, &mut keys.opener, &mut read).await?;
        let mut frames = &answer[..];
        match Header::decode(&mut frames) {
            Ok((header, _)) if header.kind == Kind::Accepted => {}
            Ok((header, reason)) if header.kind == Kind::Disconnect => {
                let code = reason.first_chunk::<2>().map(|code| u16::from_be_bytes(*code));
                let reason = code.map_or(DisconnectReason::Requested, DisconnectReason::from_code);
                return Err(HandshakeError::RefusedByPeer(reason));
            }
            _ => return Err(HandshakeError::NoAnswer),
        }
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
        mut stream: Stream,
        ours: &Presented,
        checkpoint: impl FnOnce(Remote) -> F,
    ) -> Result<Established, HandshakeError> {
        let mut m1 = [0; M1_LEN];
        let first = async { stream.read_exact(&mut m1).await.map_err(io) };
        within(self.config.first_message_timeout, first).await?;
        let ephemeral = Self::ephemeral()?;
        let (acceptor, m2) = self.curve(|| Acceptor::answer(&self.keys, ephemeral, ours, &m1)).await?;
        write_message(&mut stream, &m2).await?;
        let m3 = read_message(&mut stream).await?;
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
        stream.write_all(&answer).await.map_err(io)?;
        let remote = match admitted {
            Ok(remote) => remote,
            Err(error) => {
                // The refusal must leave before the connection goes.
                let _ = tokio::time::timeout(self.config.disconnect_timeout, stream.shutdown()).await;
                return Err(error);
            }
        };
        Ok(Established { stream, keys, read: BytesMut::new(), direction: Direction::Inbound, remote })
    }
}

async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, HandshakeError>>,
) -> Result<T, HandshakeError> {
    tokio::time::timeout(limit, work).await.unwrap_or(Err(HandshakeError::TimedOut))
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

async fn write_message(stream: &mut Stream, message: &[u8]) -> Result<(), HandshakeError> {
    let len = u16::try_from(message.len()).map_err(|_| HandshakeError::Length(message.len()))?;
    stream.write_all(&[&len.to_be_bytes()[..], message].concat()).await.map_err(io)
}

async fn read_message(stream: &mut Stream) -> Result<Vec<u8>, HandshakeError> {
    let len = usize::from(stream.read_u16().await.map_err(io)?);
    if len > MAX_MESSAGE {
        return Err(HandshakeError::Length(len));
    }
    let mut message = vec![0; len];
    stream.read_exact(&mut message).await.map_err(io)?;
    Ok(message)
}

async fn read_record(
    stream: &mut Stream,
    opener: &mut Opener,
    read: &mut BytesMut,
) -> Result<BytesMut, HandshakeError> {
    loop {
        match opener.next(read) {
            Ok(Some(record)) => return Ok(record),
            Ok(None) if read.len() > MAX_RECORD + 2 => return Err(HandshakeError::NoAnswer),
            Ok(None) => {}
            Err(_) => return Err(HandshakeError::NoAnswer),
        }
        if stream.read_buf(read).await.map_err(io)? == 0 {
            return Err(HandshakeError::Io("closed by the peer".into()));
        }
    }
}

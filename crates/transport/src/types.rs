//! The door itself: what the layers above hold.

use std::fmt;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::kernel;
use crate::memory::{MemoryDatagram, MemoryHost, MemoryListener};
use crate::pipe::PipeEnd;
use crate::sockets::{self, SocketOptions};

/// Where a node's connections and datagrams go. Cheap to clone.
#[derive(Clone)]
pub struct Transport(Kind);

#[derive(Clone)]
enum Kind {
    Sockets(SocketOptions),
    Memory(Arc<MemoryHost>),
}

impl Transport {
    /// The computer's TCP and UDP sockets, set up as [recommended](SocketOptions::recommended).
    pub const fn sockets() -> Transport {
        Transport::sockets_with(SocketOptions::recommended())
    }

    /// The computer's TCP and UDP sockets, set up as `options` say.
    pub const fn sockets_with(options: SocketOptions) -> Transport {
        Transport(Kind::Sockets(options))
    }

    /// Whether it is the computer's own.
    pub const fn is_sockets(&self) -> bool {
        matches!(self.0, Kind::Sockets(_))
    }

    pub(crate) fn memory(host: Arc<MemoryHost>) -> Transport {
        Transport(Kind::Memory(host))
    }

    /// Listens for streams. Port 0 takes a free one; an IPv6 socket takes IPv6 only, so that both
    /// families can listen on one port.
    ///
    /// # Errors
    /// As the operating system says; `AddrInUse` if somebody listens there.
    pub async fn listen(&self, on: SocketAddr) -> io::Result<Listener> {
        match &self.0 {
            Kind::Sockets(options) => {
                sockets::listen(on).map(|listener| Listener(ListenerKind::Socket(listener, *options)))
            }
            Kind::Memory(host) => host.listen(on).map(|listener| Listener(ListenerKind::Memory(listener))),
        }
    }

    /// Opens a stream. How long it may take is the caller's to say.
    ///
    /// # Errors
    /// As the operating system says.
    pub async fn connect(&self, to: SocketAddr) -> io::Result<Stream> {
        match &self.0 {
            Kind::Sockets(options) => sockets::connect(to, options).await,
            Kind::Memory(host) => host.connect(to).await,
        }
    }

    /// Binds a datagram socket. Port 0 takes a free one.
    ///
    /// # Errors
    /// As the operating system says.
    pub async fn bind_datagram(&self, on: SocketAddr) -> io::Result<Datagram> {
        match &self.0 {
            Kind::Sockets(_) => sockets::bind_datagram(on).map(|socket| Datagram(DatagramKind::Socket(socket))),
            Kind::Memory(host) => host.bind_datagram(on).map(|socket| Datagram(DatagramKind::Memory(socket))),
        }
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Sockets(_) => f.write_str("Transport(sockets)"),
            Kind::Memory(host) => write!(f, "Transport(memory {})", host.ip()),
        }
    }
}

/// Accepts streams; stops listening when dropped.
#[derive(Debug)]
pub struct Listener(ListenerKind);

#[derive(Debug)]
enum ListenerKind {
    Socket(tokio::net::TcpListener, SocketOptions),
    Memory(MemoryListener),
}

impl Listener {
    /// The next stream that somebody opens.
    ///
    /// # Errors
    /// As the operating system says; most are passing (a peer that was gone at once, no file descriptor
    /// left), so the caller waits a little and goes on.
    pub async fn accept(&mut self) -> io::Result<Stream> {
        match &mut self.0 {
            ListenerKind::Socket(listener, options) => sockets::accept(listener, options).await,
            ListenerKind::Memory(listener) => listener.accept().await,
        }
    }

    /// Where it listens, with the port it got.
    ///
    /// # Errors
    /// As the operating system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.0 {
            ListenerKind::Socket(listener, _) => listener.local_addr(),
            ListenerKind::Memory(listener) => Ok(listener.local_addr()),
        }
    }
}

pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A reliable byte stream to one address.
pub struct Stream {
    kind: StreamKind,
    remote: SocketAddr,
    /// What was read and put back; empty, and without room of its own, on all but the first reads.
    unread: Vec<u8>,
}

pub(crate) enum StreamKind {
    /// With the most unsent bytes that its options allow.
    Socket(tokio::net::TcpStream, Option<u32>),
    Memory(PipeEnd),
    Other(Box<dyn Io>),
}

impl Stream {
    /// Wraps a stream that was opened elsewhere; `remote` is whom limits by address are charged to.
    pub fn new(io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, remote: SocketAddr) -> Stream {
        Stream::made(StreamKind::Other(Box::new(io)), remote)
    }

    pub(crate) const fn made(kind: StreamKind, remote: SocketAddr) -> Stream {
        Stream { kind, remote, unread: Vec::new() }
    }

    /// The other end's address.
    pub const fn remote_addr(&self) -> SocketAddr {
        self.remote
    }

    /// Puts bytes back, to be read again before everything else: for who looks at the first bytes to find out whose
    /// stream this is. They are kept as long as nobody reads them, so the caller bounds their number.
    ///
    /// (The socket's own look-ahead, `MSG_PEEK`, cannot wait for *more* bytes than there are, and other streams have
    /// none.)
    pub fn unread(&mut self, bytes: &[u8]) {
        self.unread.splice(0..0, bytes.iter().copied());
    }

    /// Lets no more than about so many bytes wait in the system that the network has not taken: what is written after
    /// them waits behind them. Never more than the transport's own limit; a stream that has none goes on as it was.
    pub fn limit_unsent(&self, bytes: usize) {
        match &self.kind {
            StreamKind::Socket(stream, most) => sockets::limit_unsent(stream, *most, bytes),
            StreamKind::Memory(pipe) => pipe.limit_unsent(bytes),
            StreamKind::Other(_) => {}
        }
    }

    fn io(&mut self) -> Pin<&mut dyn Io> {
        match &mut self.kind {
            StreamKind::Socket(stream, _) => Pin::new(stream),
            StreamKind::Memory(pipe) => Pin::new(pipe),
            StreamKind::Other(io) => Pin::new(&mut **io),
        }
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stream({})", self.remote)
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.unread.is_empty() {
            let len = self.unread.len().min(buf.remaining());
            buf.put_slice(&self.unread[..len]);
            self.unread.drain(..len);
            if self.unread.is_empty() {
                self.unread = Vec::new();
            }
            return Poll::Ready(Ok(()));
        }
        self.io().poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.io().poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.io().poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.kind {
            StreamKind::Socket(..) | StreamKind::Memory(_) => true,
            StreamKind::Other(io) => io.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io().poll_shutdown(cx)
    }
}

/// A datagram socket, to be shared by reference between its reader and its senders.
#[derive(Debug)]
pub struct Datagram(DatagramKind);

#[derive(Debug)]
enum DatagramKind {
    Socket(tokio::net::UdpSocket),
    Memory(MemoryDatagram),
}

impl Datagram {
    /// The next datagram, cut off at the buffer's length, and who sent it. IPv4 senders look like IPv4
    /// whatever the socket's family.
    ///
    /// # Errors
    /// As the operating system says; most are passing.
    pub async fn recv_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        match &self.0 {
            DatagramKind::Socket(socket) => {
                let (len, from) = socket.recv_from(buf).await?;
                // Else answers from a 4-in-6 address never match what was asked (geth g29944).
                Ok((len, SocketAddr::new(from.ip().to_canonical(), from.port())))
            }
            DatagramKind::Memory(socket) => Ok(socket.recv_from(buf).await),
        }
    }

    /// A datagram that is there already, as [`recv_from`](Datagram::recv_from) has it: for who was woken once and takes
    /// all there is. On sockets there may be more although it says that there is none, so wait by `recv_from`.
    ///
    /// # Errors
    /// `WouldBlock` if there is none; else as the operating system says.
    pub fn try_recv_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        match &self.0 {
            DatagramKind::Socket(socket) => {
                let (len, from) = socket.try_recv_from(buf)?;
                Ok((len, SocketAddr::new(from.ip().to_canonical(), from.port())))
            }
            DatagramKind::Memory(socket) => socket.try_recv_from(buf).ok_or_else(|| io::ErrorKind::WouldBlock.into()),
        }
    }

    /// How many datagrams were lost because this socket's buffer was full; `None` where nobody counts them (in memory,
    /// and everywhere but on Linux). Reads a table of the system: for every few seconds, not for every datagram.
    pub fn lost(&self) -> Option<u64> {
        match &self.0 {
            DatagramKind::Socket(socket) => kernel::datagram_drops(socket.local_addr().ok()?),
            DatagramKind::Memory(_) => None,
        }
    }

    /// Sends without waiting. A datagram that the socket has no room for now is an error; datagrams may
    /// get lost anyway, so most callers count it and go on.
    ///
    /// # Errors
    /// As the operating system says; `WouldBlock` for a full buffer.
    pub fn send_to(&self, bytes: &[u8], to: SocketAddr) -> io::Result<()> {
        match &self.0 {
            DatagramKind::Socket(socket) => sockets::send_to(socket, bytes, to),
            DatagramKind::Memory(socket) => {
                socket.send_to(bytes, to);
                Ok(())
            }
        }
    }

    /// Where it is bound, with the port it got.
    ///
    /// # Errors
    /// As the operating system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.0 {
            DatagramKind::Socket(socket) => socket.local_addr(),
            DatagramKind::Memory(socket) => Ok(socket.local_addr()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::{Link, MemoryNetwork};

    async fn joined(transport: &Transport, ip: IpAddr) -> (Stream, Stream) {
        let mut listener = transport.listen((ip, 0).into()).await.expect("free");
        let at = listener.local_addr().expect("bound");
        let (out, into) = tokio::join!(transport.connect(at), listener.accept());
        (out.expect("listening"), into.expect("dialled"))
    }

    async fn bytes_put_back_come_first(transport: &Transport, ip: IpAddr) {
        let (mut out, mut into) = joined(transport, ip).await;
        out.write_all(b"hello, world").await.expect("room");
        let mut first = [0; 7];
        into.read_exact(&mut first).await.expect("there");
        into.unread(&first[4..]);
        into.unread(&first[..4]);
        // In pieces smaller than what was put back, across its end, and none for a reader without room.
        assert_eq!(into.read(&mut []).await.expect("open"), 0);
        let mut text = [0; 12];
        into.read_exact(&mut text[..3]).await.expect("there");
        into.unread(b"");
        into.read_exact(&mut text[3..]).await.expect("there");
        assert_eq!(&text, b"hello, world");
        assert!(into.unread.is_empty() && into.unread.capacity() == 0, "nothing is kept");
        into.write_all(b"and back").await.expect("room");
        drop(into);
        let mut back = String::new();
        out.read_to_string(&mut back).await.expect("ends");
        assert_eq!(back, "and back");
    }

    #[tokio::test]
    async fn bytes_put_back_come_first_on_sockets() {
        bytes_put_back_come_first(&Transport::sockets(), Ipv4Addr::LOCALHOST.into()).await;
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_put_back_come_first_in_memory() {
        let ip = Ipv4Addr::new(10, 0, 0, 1).into();
        bytes_put_back_come_first(&MemoryNetwork::new(1, Link::default()).host(ip), ip).await;
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_put_back_are_there_although_the_other_end_is_gone() {
        let ip = Ipv4Addr::new(10, 0, 0, 1).into();
        let (out, mut into) = joined(&MemoryNetwork::new(1, Link::default()).host(ip), ip).await;
        drop(out);
        into.unread(b"last words");
        let mut text = String::new();
        into.read_to_string(&mut text).await.expect("ends");
        assert_eq!(text, "last words");
    }
}

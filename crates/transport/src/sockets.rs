//! The computer's sockets, set up as a node needs them.

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use crate::types::{Stream, StreamKind};

/// Connections that may wait in the kernel for `accept`.
const BACKLOG: i32 = 1024;
/// The kernel wakes the writer when half is left: 64 KiB last 52 µs at 10 Gbit/s, and a wake-up across cores was
/// measured to cost 40 µs.
const NOTSENT_LOWAT: u32 = 128 * 1024;
/// Asked for the datagrams that wait to be read; the system may grant less (Linux: `net.core.rmem_max`). Linux charges
/// 768 bytes for a small one and doubles what is asked for, so these are some 11,000 datagrams, or what comes in 100 ms
/// at 100,000 a second: as long as a busy computer keeps a task from running. Its default of 208 KiB holds 3 ms of that.
/// Nothing is taken until datagrams wait.
const DATAGRAM_BUFFER: usize = 4 << 20;

/// How TCP streams are set up, whoever opened them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketOptions {
    /// Bytes that may wait unsent in the kernel (`TCP_NOTSENT_LOWAT`); `None` leaves it as the system has it,
    /// usually without limit but for the send buffer's, which grows to megabytes.
    ///
    /// A byte in the kernel can no longer be overtaken by one of a higher lane. What is sent and not acknowledged
    /// does not count, so throughput over long distances does not suffer. In effect on Linux and Android; elsewhere
    /// there is no safe way to ask for it, and the system's ways stay.
    pub notsent_lowat: Option<u32>,
}

impl SocketOptions {
    /// 128 KiB unsent at most.
    pub const fn recommended() -> SocketOptions {
        SocketOptions { notsent_lowat: Some(NOTSENT_LOWAT) }
    }
}

impl Default for SocketOptions {
    fn default() -> SocketOptions {
        SocketOptions::recommended()
    }
}

fn socket(on: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(on), kind, Some(protocol))?;
    if on.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

pub(crate) fn listen(on: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(on, Type::STREAM, Protocol::TCP)?;
    // A restarted node gets its port back although old connections linger. (On Windows the option means
    // something else: two could listen at once.)
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    socket.bind(&on.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

pub(crate) async fn accept(listener: &TcpListener, options: &SocketOptions) -> io::Result<Stream> {
    let (stream, remote) = listener.accept().await?;
    Ok(options.stream(stream, SocketAddr::new(remote.ip().to_canonical(), remote.port())))
}

pub(crate) async fn connect(to: SocketAddr, options: &SocketOptions) -> io::Result<Stream> {
    let stream = TcpStream::connect(to).await?;
    Ok(options.stream(stream, to))
}

/// Moves the limit of unsent bytes, to at most `most`.
pub(crate) fn limit_unsent(stream: &TcpStream, most: Option<u32>, bytes: usize) {
    #[cfg(any(target_os = "android", target_os = "linux"))]
    if let Some(most) = most {
        let bytes = u32::try_from(bytes).unwrap_or(most).min(most);
        let _ = SockRef::from(stream).set_tcp_notsent_lowat(bytes);
    }
    #[cfg(not(any(target_os = "android", target_os = "linux")))]
    let _ = (stream, most, bytes);
}

impl SocketOptions {
    fn stream(&self, stream: TcpStream, remote: SocketAddr) -> Stream {
        self.apply(&stream);
        Stream::made(StreamKind::Socket(stream, self.notsent_lowat), remote)
    }

    /// A connection on which this fails is one that is gone already, which its reader will notice, or a system that
    /// lacks the option; it must not look like a failure of `accept`.
    fn apply(&self, stream: &TcpStream) {
        // The pump writes whole turns, so waiting for more (Nagle) only adds delay.
        let _ = stream.set_nodelay(true);
        limit_unsent(stream, self.notsent_lowat, usize::MAX);
    }
}

pub(crate) fn bind_datagram(on: SocketAddr) -> io::Result<UdpSocket> {
    let socket = socket(on, Type::DGRAM, Protocol::UDP)?;
    // A system that grants less gives what it has.
    let _ = socket.set_recv_buffer_size(DATAGRAM_BUFFER);
    socket.bind(&on.into())?;
    UdpSocket::from_std(socket.into())
}

/// Asks the kernel directly: tokio's own `try_send_to` refuses until its event loop has once seen the socket
/// writable, which loses the first datagrams of every socket.
pub(crate) fn send_to(socket: &UdpSocket, bytes: &[u8], to: SocketAddr) -> io::Result<()> {
    SockRef::from(socket).send_to(bytes, &to.into()).map(drop)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};

    use super::*;
    use crate::Transport;

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn unsent_bytes_wait_with_us_and_not_in_the_kernel() {
        let listener = listen(([127, 0, 0, 1], 0).into()).expect("bound");
        for (notsent_lowat, kernel) in [(Some(NOTSENT_LOWAT), NOTSENT_LOWAT), (Some(20_000), 20_000), (None, 0)] {
            let options = SocketOptions { notsent_lowat };
            let stream = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("connected");
            options.apply(&stream);
            assert_eq!(SockRef::from(&stream).tcp_notsent_lowat().expect("readable"), kernel);
            assert!(stream.nodelay().expect("readable"));
        }
        assert_eq!(SocketOptions::default().notsent_lowat, Some(NOTSENT_LOWAT));
    }

    #[tokio::test]
    async fn streams_and_datagrams_cross_loopback() {
        let transport = Transport::sockets();
        for ip in ["127.0.0.1", "::1"] {
            let on = SocketAddr::new(ip.parse().expect("ip"), 0);
            let Ok(mut listener) = transport.listen(on).await else {
                // A machine without IPv6 has nothing to show.
                assert_eq!(ip, "::1");
                continue;
            };
            let at = listener.local_addr().expect("bound");
            let mut out = transport.connect(at).await.expect("connected");
            let mut into = listener.accept().await.expect("accepted");
            assert!(out.is_write_vectored());
            let parts = [io::IoSlice::new(b"hel"), io::IoSlice::new(b"lo")];
            assert_eq!(out.write_vectored(&parts).await.expect("written"), 5);
            let mut hello = [0; 5];
            into.read_exact(&mut hello).await.expect("read");
            assert_eq!(&hello, b"hello");
            assert_eq!(out.remote_addr(), at);
            assert_eq!(transport.listen(at).await.expect_err("a taken port").kind(), io::ErrorKind::AddrInUse);

            let a = transport.bind_datagram(on).await.expect("bound");
            let b = transport.bind_datagram(on).await.expect("bound");
            a.send_to(b"packet", b.local_addr().expect("bound")).expect("sent");
            let mut buf = [0; 64];
            let (len, from) = b.recv_from(&mut buf).await.expect("received");
            assert_eq!((&buf[..len], from), (&b"packet"[..], a.local_addr().expect("bound")));
            assert_eq!(b.try_recv_from(&mut buf).expect_err("nothing more").kind(), io::ErrorKind::WouldBlock);
        }
    }

    #[tokio::test]
    async fn all_that_waits_can_be_taken_after_one_wake_up() {
        let transport = Transport::sockets();
        let on = SocketAddr::from(([127, 0, 0, 1], 0));
        let a = transport.bind_datagram(on).await.expect("bound");
        let b = transport.bind_datagram(on).await.expect("bound");
        for number in 0..5 {
            a.send_to(&[number], b.local_addr().expect("bound")).expect("sent");
        }
        let mut buf = [0; 8];
        assert_eq!(b.recv_from(&mut buf).await.expect("received").0, 1);
        let mut all = vec![buf[0]];
        while let Ok((1, _)) = b.try_recv_from(&mut buf) {
            all.push(buf[0]);
        }
        assert_eq!(all, [0, 1, 2, 3, 4]);
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn what_the_kernel_drops_is_counted() {
        let transport = Transport::sockets();
        let on = SocketAddr::from(([127, 0, 0, 1], 0));
        let a = transport.bind_datagram(on).await.expect("bound");
        let b = transport.bind_datagram(on).await.expect("bound");
        assert_eq!(b.lost(), Some(0));
        // More than any buffer that was granted holds.
        let bytes = vec![0; 16 << 10];
        for _ in 0..1_000 {
            a.send_to(&bytes, b.local_addr().expect("bound")).expect("sent");
        }
        let lost = b.lost().expect("told");
        assert!((1..1_000).contains(&lost), "{lost}");
        assert_eq!(a.lost(), Some(0), "another socket's are not counted");
    }
}

//! The computer's sockets, set up as a node needs them.

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use crate::types::Stream;

/// Connections that may wait in the kernel for `accept`.
const BACKLOG: i32 = 1024;

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

pub(crate) async fn accept(listener: &TcpListener) -> io::Result<Stream> {
    let (stream, remote) = listener.accept().await?;
    Ok(set_up(stream, SocketAddr::new(remote.ip().to_canonical(), remote.port())))
}

pub(crate) async fn connect(to: SocketAddr) -> io::Result<Stream> {
    Ok(set_up(TcpStream::connect(to).await?, to))
}

fn set_up(stream: TcpStream, remote: SocketAddr) -> Stream {
    // The pump writes whole turns, so waiting for more (Nagle) only adds delay. A connection on which this fails
    // is one that is gone already, which its reader will notice; it must not look like a failure of `accept`.
    let _ = stream.set_nodelay(true);
    Stream::new(stream, remote)
}

pub(crate) fn bind_datagram(on: SocketAddr) -> io::Result<UdpSocket> {
    let socket = socket(on, Type::DGRAM, Protocol::UDP)?;
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
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use crate::Transport;

    #[tokio::test]
    async fn streams_and_datagrams_cross_loopback() {
        let transport = Transport::sockets();
        for ip in ["127.0.0.1", "::1"] {
            let on = std::net::SocketAddr::new(ip.parse().expect("ip"), 0);
            let Ok(mut listener) = transport.listen(on).await else {
                // A machine without IPv6 has nothing to show.
                assert_eq!(ip, "::1");
                continue;
            };
            let at = listener.local_addr().expect("bound");
            let mut out = transport.connect(at).await.expect("connected");
            let mut into = listener.accept().await.expect("accepted");
            out.write_all(b"hello").await.expect("written");
            let mut hello = [0; 5];
            into.read_exact(&mut hello).await.expect("read");
            assert_eq!(&hello, b"hello");
            assert_eq!(out.remote_addr(), at);
            assert_eq!(transport.listen(at).await.expect_err("a taken port").kind(), std::io::ErrorKind::AddrInUse);

            let a = transport.bind_datagram(on).await.expect("bound");
            let b = transport.bind_datagram(on).await.expect("bound");
            a.send_to(b"packet", b.local_addr().expect("bound")).expect("sent");
            let mut buf = [0; 64];
            let (len, from) = b.recv_from(&mut buf).await.expect("received");
            assert_eq!((&buf[..len], from), (&b"packet"[..], a.local_addr().expect("bound")));
        }
    }
}

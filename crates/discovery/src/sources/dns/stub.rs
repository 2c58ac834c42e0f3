//! Asking name servers: one datagram there and one back, and a connection where an answer does not fit.
//!
//! A stub resolver (RFC 1035, 5.3.1) for three record types, instead of a library of forty crates: the lists' texts are
//! signed or hashed, so that nothing here has to be believed. It relies on a recursive name server, as stubs do.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use peerage_wire::{Family, Host};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::message::{Answer, Kind, MAX_UDP, Problem, parse, query};
use crate::sources::name_task::{Resolution, Resolve};

/// Name servers that are asked (glibc `MAXNS`).
const MAX_SERVERS: usize = 3;
/// How long one may take before the next is asked; a lookup of a list may take 5 s.
const PATIENCE: Duration = Duration::from_millis(2_000);
/// Datagrams that answer something else, after which a server is given up: somebody is guessing.
const MAX_STRAY: usize = 64;
/// Bytes of an answer over TCP: 64 records of a list.
const MAX_TCP: usize = 64 * 1_024 - 1;
/// Bytes of `resolv.conf` that are read.
const MAX_CONFIG: u64 = 64 * 1_024;

/// The texts at a name, or why there are none.
pub type Texts = Pin<Box<dyn Future<Output = io::Result<Vec<String>>> + Send>>;

/// Whoever can look up TXT records.
pub trait Lookup: fmt::Debug + Send + Sync + 'static {
    /// The texts at a name, each put together from its strings. It may be given up by dropping it.
    fn texts(&self, name: &str) -> Texts;
}

/// Asks name servers: one that was named, or those of `/etc/resolv.conf`, which is read anew for each lookup as a
/// computer that moves has others.
#[derive(Clone, Debug)]
pub struct StubResolver {
    server: Option<SocketAddr>,
    config: PathBuf,
}

impl StubResolver {
    /// Asks this server, or the computer's.
    pub fn new(server: Option<SocketAddr>) -> StubResolver {
        StubResolver { server, config: "/etc/resolv.conf".into() }
    }

    fn servers(&self) -> io::Result<Vec<SocketAddr>> {
        if let Some(server) = self.server {
            return Ok(vec![server]);
        }
        let named = |why: String| {
            let path = self.config.display();
            io::Error::new(io::ErrorKind::NotFound, format!("{path}: {why}; name a name server in the settings"))
        };
        let mut text = String::new();
        let file = std::fs::File::open(&self.config).map_err(|error| named(error.to_string()))?;
        io::Read::read_to_string(&mut io::Read::take(file, MAX_CONFIG), &mut text)?;
        let servers = servers_in(&text);
        if servers.is_empty() { Err(named("it names no name server".into())) } else { Ok(servers) }
    }

    async fn ask(self, name: String, kind: Kind) -> io::Result<Answer> {
        let mut last = io::ErrorKind::TimedOut.into();
        for server in self.servers()? {
            match timeout(PATIENCE, ask(server, &name, kind)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => last = error,
                Err(_) => last = io::ErrorKind::TimedOut.into(),
            }
        }
        Err(last)
    }
}

/// The name servers that a `resolv.conf` names.
fn servers_in(text: &str) -> Vec<SocketAddr> {
    let named = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver")).map(str::trim);
    named.filter_map(|ip| ip.parse::<IpAddr>().ok()).map(|ip| SocketAddr::new(ip, 53)).take(MAX_SERVERS).collect()
}

async fn ask(server: SocketAddr, name: &str, kind: Kind) -> io::Result<Answer> {
    // The port, which the system draws, and the id are what a forger who does not see the query must guess.
    let id = getrandom::u32().map_err(io::Error::other)? as u16;
    let query = query(id, name, kind);
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(&query).await?;
    let mut buffer = [0; MAX_UDP];
    for _ in 0..MAX_STRAY {
        let len = socket.recv(&mut buffer).await?;
        match parse(&buffer[..len], id, name, kind) {
            Err(Problem::Stray) => {}
            Err(Problem::Truncated) => return ask_by_tcp(server, &query, id, name, kind).await,
            answer => return answer.map_err(io::Error::other),
        }
    }
    Err(io::Error::other(Problem::Stray))
}

async fn ask_by_tcp(server: SocketAddr, query: &[u8], id: u16, name: &str, kind: Kind) -> io::Result<Answer> {
    let mut stream = TcpStream::connect(server).await?;
    let mut bytes = (query.len() as u16).to_be_bytes().to_vec();
    bytes.extend(query);
    stream.write_all(&bytes).await?;
    let len = usize::from(stream.read_u16().await?).min(MAX_TCP);
    // What comes is kept as it comes, whatever length was claimed.
    let mut answer = Vec::new();
    stream.take(len as u64).read_to_end(&mut answer).await?;
    parse(&answer, id, name, kind).map_err(io::Error::other)
}

impl Lookup for StubResolver {
    fn texts(&self, name: &str) -> Texts {
        let (resolver, name) = (self.clone(), name.to_owned());
        Box::pin(async move { Ok(resolver.ask(name, Kind::Txt).await?.texts) })
    }
}

impl Resolve for StubResolver {
    fn resolve(&self, host: &Host) -> Resolution {
        let (resolver, host) = (self.clone(), host.clone());
        Box::pin(async move {
            let kinds: &[Kind] = match host.family() {
                Family::Any => &[Kind::A, Kind::Aaaa],
                Family::V4 => &[Kind::A],
                Family::V6 => &[Kind::Aaaa],
            };
            let (mut ips, mut last) = (Vec::new(), None);
            for kind in kinds {
                match resolver.clone().ask(host.name().to_owned(), *kind).await {
                    Ok(answer) => ips.extend(answer.ips),
                    Err(error) => last = Some(error),
                }
            }
            // Hosts of one family have no record of the other.
            match last {
                Some(error) if ips.is_empty() => Err(error),
                _ => Ok(ips),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_read_as_far_as_they_can_be_asked() {
        let text = "# mine\nsearch lan\nnameserver 192.0.2.1\n nameserver\t2001:db8::1 \nnameserver fe80::1%eth0\n\
            nameserver x\nnameserver 192.0.2.2\nnameserver 192.0.2.3\n";
        let servers: Vec<String> = servers_in(text).iter().map(SocketAddr::to_string).collect();
        assert_eq!(servers, ["192.0.2.1:53", "[2001:db8::1]:53", "192.0.2.2:53"]);
    }

    #[tokio::test]
    async fn a_computer_without_name_servers_says_what_to_do() {
        let resolver = StubResolver { server: None, config: "/nonexistent/resolv.conf".into() };
        let error = resolver.texts("a.example").await.expect_err("there is none").to_string();
        assert!(error.contains("name a name server"), "{error}");
    }
}

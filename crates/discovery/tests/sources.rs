//! The tasks of the sources: names from a resolver of the test's, a file that changes, a list from a real name server.

#[path = "support/dns.rs"]
mod dns;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dns::DnsServer;
use peerage_discovery::peerage_machine::journal::Journals;
use peerage_discovery::peerage_mailbox::{Clock, Counts, Meter, Port, Supervisor, ask};
use peerage_discovery::peerage_transport::Transport;
use peerage_discovery::peerage_wire::{
    Admission, Host, Keypair, NetworkId, NodeId, NodeRecord, RecordDraft, Verified, address,
};
use peerage_discovery::sources::dns::{ListLink, Lookup, SignedList, StubResolver};
use peerage_discovery::sources::{Named, Names, Resolution, Resolve, Sources};
use peerage_discovery::{Args, Config, DiscoveryMailbox, DiscoveryOut, Secrets, spawn};
use tokio::sync::mpsc;

const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const LIMIT: Duration = Duration::from_secs(20);

fn network() -> NetworkId {
    NetworkId::named("sources")
}

fn keys(n: u8) -> Keypair {
    Keypair::from_seed([n; 32])
}

fn record(n: u8, at: SocketAddr) -> Verified<NodeRecord> {
    let draft = RecordDraft::new(1, network()).address(address::from_tcp(at)).address(address::from_udp(at));
    draft.sign(&keys(n)).expect("small")
}

struct Node {
    mailbox: DiscoveryMailbox,
    record: Verified<NodeRecord>,
    candidates: mpsc::UnboundedReceiver<Verified<NodeRecord>>,
    counts: Counts,
}

/// A node on loopback that learns of others from these sources only.
async fn node(n: u8, sources: Sources) -> Node {
    let socket = Arc::new(Transport::sockets().bind_datagram(LOOPBACK).await.expect("bound"));
    let record = record(n, socket.local_addr().expect("bound"));
    let (send, candidates) = mpsc::unbounded_channel();
    let counts = Counts::default();
    let args = Args {
        foreign: None,
        config: Config::local(),
        keys: keys(n),
        record: record.clone(),
        sockets: vec![socket],
        bootnodes: Vec::new(),
        seeds: Vec::new(),
        admission: Arc::new(Admission::open()),
        secrets: Secrets::generate().expect("random"),
        seed: n.into(),
        clock: Clock::system(),
        sources,
        meter: Meter::new(Arc::new(counts.clone())),
        journals: Journals::off(),
        out: Port::from_fn(move |out| {
            if let DiscoveryOut::Candidates(found) = out {
                found.into_iter().for_each(|(record, _)| drop(send.send(record)));
            }
        }),
    };
    let (mailbox, _) = spawn(args, &Supervisor::none()).await.expect("starts");
    mailbox.want(64);
    Node { mailbox, record, candidates, counts }
}

impl Node {
    async fn finds(&mut self, id: NodeId) {
        let found = async {
            while let Some(record) = self.candidates.recv().await {
                if record.id() == id {
                    return;
                }
            }
            panic!("the node is gone");
        };
        tokio::time::timeout(LIMIT, found).await.expect("found in time");
    }
}

fn publish(
    server: &DnsServer,
    n: u8,
    domain: &str,
    seq: u64,
    records: &[Verified<NodeRecord>],
    links: &[ListLink],
) -> ListLink {
    let list = SignedList::build(&keys(n), domain, seq, records, links).expect("a name");
    list.texts().for_each(|(name, text)| server.text(name, &[text]));
    list.link().clone()
}

#[tokio::test]
async fn a_list_is_built_served_and_followed_to_the_nodes_in_it() {
    // So short that some answers do not fit and come by TCP.
    let server = DnsServer::start(LOOPBACK, 200);
    let (mut first, second) = (node(1, Sources::default()).await, node(2, Sources::default()).await);
    let inner = publish(&server, 101, "inner.example", 1, std::slice::from_ref(&second.record), &[]);
    let foreign = RecordDraft::new(1, NetworkId::named("other")).sign(&keys(9)).expect("small");
    let outer = publish(&server, 100, "outer.example", 1, &[first.record.clone(), foreign], &[inner]);
    server.text("outer.example", &["v=spf1 -all", &root_of(&server, "outer.example"), "\u{1}garbage"]);

    let sources = Sources { dns_lists: vec![outer], dns_server: Some(server.at), ..Sources::default() };
    let mut joining = node(3, sources).await;
    joining.finds(first.record.id()).await;
    joining.finds(second.record.id()).await;
    first.finds(joining.record.id()).await;
    let [udp, tcp] = server.asked();
    assert!(udp >= 7 && tcp >= 1, "{udp} {tcp}");
    let event = |name: &str| joining.counts.counter(&format!("peerage_discovery_sources_total{{event={name}}}"));
    let begun = std::time::Instant::now();
    while event("list_refused") == 0 && begun.elapsed() < LIMIT {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(event("list_refused"), 1, "the node of another network");
    assert_eq!((event("list_root"), event("list_failed")), (2, 0));
}

fn root_of(server: &DnsServer, domain: &str) -> String {
    server.zone.lock().expect("not poisoned").texts[domain][0].clone()
}

#[tokio::test]
async fn the_stub_asks_by_tcp_what_does_not_fit_and_tells_failures_apart() {
    let server = DnsServer::start(LOOPBACK, 200);
    let (short, long) = ("x".repeat(20), "y".repeat(500));
    let both = [long.clone(), short.clone()];
    server.text("a.example", &[&short]);
    server.text("b.example", &[&long, &short]);
    server.address("c.example", &[Ipv4Addr::new(192, 0, 2, 1)]);
    let stub = StubResolver::new(Some(server.at));
    assert_eq!(stub.texts("A.example").await.expect("there"), [&*short]);
    assert_eq!(stub.texts("b.example").await.expect("there"), both);
    assert_eq!(server.asked(), [2, 1]);
    assert!(stub.texts("none.example").await.expect_err("unknown").to_string().contains("code 3"));
    let host = |text: &str| Host::from_tcp(&text.parse().expect("address")).expect("a host");
    assert_eq!(stub.resolve(&host("/dns/c.example/tcp/1")).await.expect("one"), [IpAddr::from([192, 0, 2, 1])]);
    assert!(stub.resolve(&host("/dns4/none.example/tcp/1")).await.is_err());
    let nobody = std::net::UdpSocket::bind(LOOPBACK).expect("bound");
    let silent = StubResolver::new(Some(nobody.local_addr().expect("bound")));
    assert_eq!(silent.texts("a.example").await.expect_err("silent").kind(), io::ErrorKind::TimedOut);
}

#[tokio::test]
async fn a_file_of_nodes_is_read_and_read_again_when_it_changes() {
    let (first, second) = (node(1, Sources::default()).await, node(2, Sources::default()).await);
    let path = std::env::temp_dir().join(format!("peerage-nodes-{}-{}", std::process::id(), first.record.id()));
    std::fs::write(&path, format!("# ours\nnonsense\n{}\n", first.record)).expect("written");
    let mut joining = node(3, Sources { nodes_file: Some(path.clone()), ..Sources::default() }).await;
    joining.finds(first.record.id()).await;
    // An address this time, whose record has to be asked for.
    let tcp = second.record.tcp_address().expect("one");
    let whole = address::with_id(&address::from_tcp(tcp), second.record.id());
    std::fs::write(&path, format!("{}\n{whole}\n", first.record)).expect("written");
    joining.finds(second.record.id()).await;
    std::fs::remove_file(&path).expect("removed");
    let event = |name: &str| joining.counts.counter(&format!("peerage_discovery_sources_total{{event={name}}}"));
    assert_eq!((event("file_read"), event("file_line")), (2, 1));
    let known = ask(LIMIT, |reply| joining.mailbox.random(9, reply)).await.expect("answered");
    assert_eq!(known.len(), 2);
}

/// Says what it was told to, and nothing of names it was not told of.
#[derive(Debug, Default)]
struct Told {
    names: Mutex<BTreeMap<String, Vec<IpAddr>>>,
    asked: Mutex<usize>,
}

impl Resolve for Told {
    fn resolve(&self, host: &Host) -> Resolution {
        *self.asked.lock().expect("not poisoned") += 1;
        let known = self.names.lock().expect("not poisoned").get(host.name()).cloned();
        Box::pin(async move { known.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no such host")) })
    }
}

#[tokio::test(start_paused = true)]
async fn names_are_resolved_by_whom_the_program_says_and_again_until_they_are_known() {
    let told = Arc::new(Told::default());
    let (send, mut named) = mpsc::unbounded_channel::<Named>();
    let out = Port::from_fn(move |named| drop(send.send(named)));
    let counts = Counts::default();
    let meter = Meter::new(Arc::new(counts.clone()));
    let names = Names::new(told.clone(), Clock::simulated(Duration::from_secs(1)), 7, &meter, out);
    let host = Host::from_tcp(&"/dns4/boot.example/tcp/30303".parse().expect("address")).expect("a host");
    names.hosts(vec![host.clone()]);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(named.try_recv().is_err());
    assert!(counts.counter("peerage_discovery_sources_total{event=name_unknown}") > 2);
    told.names.lock().expect("not poisoned").insert("boot.example".into(), vec![[192, 0, 2, 1].into()]);
    let found = named.recv().await.expect("resolved");
    assert_eq!((found.host, found.sockets), (host, vec![([192, 0, 2, 1], 30303).into()]));
    drop(names);
    tokio::time::sleep(Duration::from_millis(1)).await;
    let asked = *told.asked.lock().expect("not poisoned");
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    assert_eq!(*told.asked.lock().expect("not poisoned"), asked, "it ended with its owner");
}

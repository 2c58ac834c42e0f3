//! Nodes that nobody told of each other: by the local network, and by a list in the DNS.
#![cfg(target_os = "linux")]

#[path = "../../discovery/tests/support/dns.rs"]
mod dns;
mod netns;
mod support;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use dns::DnsServer;
use netns::Namespace;
use peerage::server::discovery::sources::dns::SignedList;
use peerage::server::wire::{Keypair, NodeRecord};
use support::Process;

/// Set within the namespace.
const INSIDE: &str = "PEERAGE_TEST_IN_NAMESPACE";
/// How long two nodes on one network may take to find each other.
const LIMIT: Duration = Duration::from_secs(5);

#[test]
fn two_nodes_without_flags_find_each_other_and_a_third_comes_by_a_list_in_the_dns() {
    if std::env::var_os(INSIDE).is_some() {
        return inside();
    }
    let namespace = match Namespace::new("peerage-sources") {
        Ok(namespace) => namespace,
        Err(error) => {
            eprintln!("no network namespace is to be had ({error}): only the list in the DNS is tested, on loopback");
            return by_list_on_loopback();
        }
    };
    let test = "two_nodes_without_flags_find_each_other_and_a_third_comes_by_a_list_in_the_dns";
    let output = namespace.run_again(test, INSIDE);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    eprintln!("{err}");
    assert!(output.status.success() && out.contains("1 passed"), "{out}{err}");
}

fn inside() {
    let root = tempfile::tempdir().expect("directory");
    let mut first = Process::plain(&root.path().join("first"), &[]);
    let begun = Instant::now();
    let mut second = Process::plain(&root.path().join("second"), &[]);
    first.line(&format!("peer up: {} ", second.fact("id")));
    second.line(&format!("peer up: {} ", first.fact("id")));
    let took = begun.elapsed();
    eprintln!("two nodes on one network: {took:?} from the start of the second one");
    assert!(took < LIMIT, "{took:?}");
    let third = by_list(root.path(), &mut first, &["--no-mdns"]);
    for process in [third, second, first] {
        process.interrupt();
    }
}

fn by_list_on_loopback() {
    let root = tempfile::tempdir().expect("directory");
    let mut first = Process::ready(&root.path().join("first"), &[]);
    let third = by_list(root.path(), &mut first, &["--no-mdns", "--listen", "/ip4/127.0.0.1/tcp/0"]);
    third.interrupt();
    first.interrupt();
}

/// A node that knows of a list only, which names the first one.
fn by_list(root: &Path, first: &mut Process, more: &[&str]) -> Process {
    let server = DnsServer::start(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), 512);
    let record = first.fact("record").parse::<NodeRecord>().and_then(NodeRecord::verify).expect("a record");
    let list = SignedList::build(&Keypair::from_seed([9; 32]), "nodes.example", 1, &[record], &[]).expect("a name");
    list.texts().for_each(|(name, text)| server.text(name, &[text]));
    let (link, at) = (list.link().to_string(), server.at.to_string());
    let flags = ["--dns-list", &link, "--dns-server", &at, "--api", "127.0.0.1:0", "--metrics", "127.0.0.1:0"];
    let begun = Instant::now();
    let mut third = Process::plain(&root.join("third"), &[&flags[..], more].concat());
    third.line(&format!("peer up: {} ", first.fact("id")));
    first.line(&format!("peer up: {} ", third.fact("id")));
    eprintln!("a node with a list in the DNS: {:?} from its start", begun.elapsed());
    third
}

#[test]
fn a_bootnode_may_be_named_by_its_host_and_an_unknown_host_is_told() {
    let root = tempfile::tempdir().expect("directory");
    let server = DnsServer::start(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), 512);
    let mut first = Process::ready(&root.path().join("first"), &[]);
    let (id, at) = (first.fact("id"), server.at.to_string());
    let port = first.fact("listening").split('/').nth(4).map(str::to_owned).expect("a port");
    // Only a name of this computer's may lead to it.
    server.address("first.localhost", &[Ipv4Addr::LOCALHOST]);
    let known = format!("/dns4/first.localhost/tcp/{port}/p2p/{id}");
    let unknown = format!("/dns4/nobody.example/tcp/{port}/p2p/{id}");
    let mut second = Process::ready(
        &root.path().join("second"),
        &["--bootnode", &unknown, "--static-peer", &known, "--dns-server", &at],
    );
    second.line(&format!("peer up: {id} "));
    first.line(&format!("peer up: {} ", second.fact("id")));
    let statics = second.get("/v1/peers/static");
    assert_eq!(statics[0]["addresses"][0].as_str(), Some(&*known), "the name is kept: {statics}");
    let said = second.interrupt_and_hear();
    assert!(said.contains("the host nobody.example cannot be resolved"), "{said}");
    first.interrupt();
}

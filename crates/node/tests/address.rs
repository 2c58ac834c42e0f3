//! A node's own address, of real nodes in network namespaces: behind a NAT, and behind one that maps ports.
#![cfg(target_os = "linux")]

#[path = "support/netns.rs"]
mod netns;
mod support;

use std::net::UdpSocket;
use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use netns::Namespace;
use peerage::NodeRecord;
use peerage::server::wire::address;
use support::Process;

/// A new node is checked within seconds, and three sites must have seen it.
const LIMIT: Duration = Duration::from_secs(90);
/// Where the NAT is reached from outside.
const OUTSIDE: &str = "198.18.5.2";

/// A router with three public sites and a NAT with a home behind it.
struct Internet {
    public: [Namespace; 3],
    nat: Namespace,
    home: Namespace,
    _router: Namespace,
}

const PUBLIC: [&str; 3] = ["198.51.100", "203.0.113", "192.0.2"];

impl Internet {
    fn new() -> Result<Internet, String> {
        let router = Namespace::new("router")?;
        let site = |number: usize| {
            let (site, prefix) = (Namespace::new(&format!("public{number}"))?, PUBLIC[number]);
            let ends = [("wan0", &*format!("{prefix}.10/24")), (&*format!("site{number}"), &*format!("{prefix}.1/24"))];
            site.cable(&router, ends)?;
            site.ip(&format!("route add default via {prefix}.1"))?;
            Ok::<_, String>(site)
        };
        let public = [site(0)?, site(1)?, site(2)?];
        let (nat, home) = (Namespace::new("nat")?, Namespace::new("home")?);
        nat.cable(&router, [("wan0", "198.18.5.2/24"), ("nat", "198.18.5.1/24")])?;
        nat.ip("route add default via 198.18.5.1")?;
        home.cable(&nat, [("wan0", "10.7.0.2/24"), ("home", "10.7.0.1/24")])?;
        home.ip("route add default via 10.7.0.1")?;
        for namespace in [&router, &nat] {
            namespace.run("echo 1 > /proc/sys/net/ipv4/ip_forward")?;
        }
        nat.run("iptables -t nat -A POSTROUTING -o wan0 -j MASQUERADE")?;
        Ok(Internet { public, nat, home, _router: router })
    }

    /// What there is to test with, or a word on stderr of why there is nothing.
    fn or_say() -> Option<Internet> {
        // The smallest thing that needs everything; what fails after it is a failure.
        let first = Namespace::new("probe").and_then(|probe| probe.run("iptables -t nat -L -n"));
        match first {
            Ok(()) => Some(Internet::new().expect("namespaces can be made and joined")),
            Err(error) => {
                eprintln!("no network namespaces here, so no NAT is tested: {error}");
                None
            }
        }
    }

    /// Three nodes, one in each site, that know each other.
    fn populate(&self, root: &Path) -> Vec<Process> {
        let mut nodes: Vec<Process> = Vec::new();
        for (number, site) in self.public.iter().enumerate() {
            let listen = format!("/ip4/{}.10/tcp/30303", PUBLIC[number]);
            let bootnode = nodes.first().map(|first| first.fact("listening"));
            let mut arguments = vec!["--listen", &listen];
            arguments.extend(bootnode.iter().flat_map(|bootnode| ["--bootnode", bootnode.as_str()]));
            nodes.push(site.within(|| Process::ready(&root.join(format!("public{number}")), &arguments)));
        }
        nodes
    }
}

/// Asks until the answer is as it should be.
fn until(what: &str, mut ask: impl FnMut() -> Result<(), String>) {
    let end = Instant::now() + LIMIT;
    loop {
        match ask() {
            Ok(()) => return,
            Err(answer) if Instant::now() > end => panic!("{what}: not within {LIMIT:?}: {answer}"),
            Err(_) => thread::sleep(Duration::from_millis(500)),
        }
    }
}

fn check(right: bool, answer: &serde_json::Value) -> Result<(), String> {
    if right { Ok(()) } else { Err(answer.to_string()) }
}

/// Where namespaces are not to be had: what the user says is told, first of all, and survives into the record.
fn without_namespaces(root: &Path) {
    let node = Process::ready(root, &["--external", "203.0.113.9"]);
    let external = node.get("/v1/node")["external"].clone();
    assert_eq!(external[0]["source"], "static", "{external}");
    node.interrupt();
}

#[test]
fn a_node_behind_a_nat_learns_its_outside_address_and_has_peers() {
    let root = tempfile::tempdir().expect("directory");
    let Some(internet) = Internet::or_say() else { return without_namespaces(root.path()) };
    let public = internet.populate(root.path());
    let bootnode = public[0].fact("listening");
    internet.home.within(|| {
        let arguments = ["--listen", "/ip4/0.0.0.0/tcp/30303", "--nat", "none", "--bootnode", &bootnode];
        let mut home = Process::ready(&root.path().join("home"), &arguments);
        assert_eq!(home.get("/v1/node")["external"], serde_json::json!([]), "nobody has told it yet");
        home.line("peer up: ");
        until("the address that others see", || {
            let node = home.get("/v1/node");
            let expected = serde_json::json!([
                { "address": format!("/ip4/{OUTSIDE}/tcp/30303"), "source": "predicted" },
                { "address": format!("/ip4/{OUTSIDE}/udp/30303"), "source": "predicted" },
            ]);
            check(node["external"] == expected, &node)
        });
        let node = home.get("/v1/node");
        let record: NodeRecord = node["record"].as_str().and_then(|text| text.parse().ok()).expect("a record");
        let expected = [format!("{OUTSIDE}:30303"), "10.7.0.2:30303".into()];
        assert_eq!(record.tcp_sockets().iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
        home.line(&format!("external: /ip4/{OUTSIDE}/tcp/30303 predicted"));
        until("the sequence on disk", || {
            let seq = std::fs::read_to_string(root.path().join("home/record-seq")).ok();
            let seq = seq.and_then(|text| text.trim().parse::<u64>().ok());
            check(seq >= Some(record.seq()), &serde_json::json!(seq))
        });
        reports_itself_not_dialable(&home);
        assert!(home.get("/v1/peers").as_array().is_some_and(|peers| !peers.is_empty()));
        let said = home.interrupt_and_hear();
        assert!(said.contains("not dialable from outside"), "{said}");
    });
    public.into_iter().for_each(Process::interrupt);
}

/// Nobody can dial the node: it asks three peers to try once it has listened for half a minute, and reports what they say.
fn reports_itself_not_dialable(home: &Process) {
    let node = || home.get("/v1/node");
    until("whether others can dial it", || check(node()["reachability"] == "unreachable", &node()["reachability"]));
}

/// A gateway that speaks NAT-PMP: each map request is told to `asked` as (TCP or not, inside, lease), and granted at
/// `inside` + 11000 for ten minutes.
fn serve_nat_pmp(socket: &UdpSocket, asked: &Sender<(bool, u16, u32)>) {
    let mut packet = [0; 1200];
    while let Ok((len, from)) = socket.recv_from(&mut packet) {
        let answer = match packet[..len] {
            [0, 0] => vec![0, 128, 0, 0, 0, 0, 0, 1, 198, 18, 5, 2],
            [0, opcode @ 1..=2, _, _, i0, i1, _, _, l0, l1, l2, l3] => {
                let (inside, lease) = (u16::from_be_bytes([i0, i1]), u32::from_be_bytes([l0, l1, l2, l3]));
                if asked.send((opcode == 2, inside, lease)).is_err() {
                    return;
                }
                let outside = if lease == 0 { 0 } else { inside + 11_000 };
                let ports = [inside.to_be_bytes(), outside.to_be_bytes()].concat();
                [&[0, 128 + opcode, 0, 0, 0, 0, 0, 1][..], &ports, &lease.to_be_bytes()].concat()
            }
            _ => vec![0, 128, 0, 1, 0, 0, 0, 1],
        };
        if socket.send_to(&answer, from).is_err() {
            return;
        }
    }
}

#[test]
fn a_node_behind_a_gateway_that_maps_ports_is_dialled_there_and_gives_them_back() {
    let root = tempfile::tempdir().expect("directory");
    let Some(internet) = Internet::or_say() else { return without_namespaces(root.path()) };
    // What the gateway grants, the NAT does.
    for protocol in ["tcp", "udp"] {
        let rule = format!("-p {protocol} --dport 41303 -j DNAT --to-destination 10.7.0.2:30303");
        internet.nat.run(&format!("iptables -t nat -A PREROUTING -i wan0 {rule}")).expect("iptables works");
    }
    let gateway = internet.nat.within(|| UdpSocket::bind("10.7.0.1:5351")).expect("free");
    gateway.set_read_timeout(Some(2 * LIMIT)).expect("a time");
    let (asked, requests) = channel();
    thread::spawn(move || serve_nat_pmp(&gateway, &asked));

    let public = internet.populate(root.path());
    let bootnode = public[0].fact("listening");
    internet.home.within(move || {
        // It waits to be dialled, can be in one way only, and is well until it is: that may be long after it was told of
        // others.
        let arguments =
            ["--listen", "/ip4/0.0.0.0/tcp/30303", "--no-dial", "--min-peers", "0", "--bootnode", &bootnode];
        let mut home = Process::ready(&root.path().join("home"), &arguments);
        // It may have been granted before the node was ready.
        until("the address that the gateway grants", || {
            let node = home.get("/v1/node");
            let expected = serde_json::json!([
                { "address": format!("/ip4/{OUTSIDE}/tcp/41303"), "source": "mapped" },
                { "address": format!("/ip4/{OUTSIDE}/udp/41303"), "source": "mapped" },
            ]);
            check(node["external"] == expected, &node)
        });
        assert!(home.printed("external: ") || home.line("external: ").contains("mapped"));
        let node = home.get("/v1/node");
        let record: NodeRecord = node["record"].as_str().and_then(|text| text.parse().ok()).expect("a record");
        assert_eq!(record.addresses()[0], address::parse("/ip4/198.18.5.2/tcp/41303").expect("address"));
        assert_eq!(record.addresses()[1], address::parse("/ip4/198.18.5.2/udp/41303").expect("address"));
        until("a peer that dialled", || {
            let peers = home.get("/v1/peers");
            check(peers[0]["direction"] == "inbound", &peers)
        });
        let node = home.get("/v1/node");
        assert_eq!(node["reachability"], "reachable", "somebody came from outside: {node}");
        home.interrupt();
        drop(root);
    });
    let requests: Vec<_> = requests.try_iter().collect();
    assert_eq!(requests[..2], [(true, 30303, 600), (false, 30303, 600)]);
    assert!(requests.contains(&(true, 30303, 0)) && requests.contains(&(false, 30303, 0)), "{requests:?}");
    public.into_iter().for_each(Process::interrupt);
}

//! The program itself: what it prints, how nodes find each other, how it ends, and how it refuses to start.
#![cfg(unix)]

mod support;

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use support::{Process, Stream, command, get};

/// Runs it with what must make it refuse, and returns the sentence.
fn refused(data_dir: &Path, more: &[&str]) -> String {
    let output = command(data_dir, more).output().expect("starts");
    let said = String::from_utf8(output.stderr).expect("text");
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{said}");
    assert_eq!(said.trim_end().lines().count(), 1, "one sentence: {said}");
    assert!(said.starts_with("node: "), "{said}");
    said
}

#[test]
fn nodes_find_each_other_by_the_printed_address_and_gossip_until_a_signal() {
    let root = tempfile::tempdir().expect("directory");
    let mut first = Process::ready(&root.path().join("first"), &[]);
    let (id, address, api) = (first.fact("id"), first.fact("listening"), first.fact("api"));
    assert!(id.starts_with("12D3KooW") && address.ends_with(&format!("/p2p/{id}")), "{id} {address}");
    assert!(address.starts_with("/ip4/127.0.0.1/tcp/"), "{address}");
    assert!(first.fact("record").starts_with("pnr:"));
    let node = first.get("/v1/node");
    assert_eq!((node["id"].as_str(), node["api"].as_str()), (Some(&*id), Some(&*api)));
    assert_eq!(node["metrics"].as_str(), Some(&*first.fact("metrics")));
    let key = root.path().join("first/key");
    assert_eq!(std::fs::metadata(&key).expect("made").permissions().mode() & 0o777, 0o600);

    let record = first.fact("record");
    let mut second = Process::ready(&root.path().join("second"), &["--bootnode", &address]);
    let mut third = Process::ready(&root.path().join("third"), &["--bootnode", &record]);
    // Who dials is a matter of who is faster.
    let up = first.line(&format!("peer up: {} ", second.fact("id")));
    assert!(
        [" inbound /ip4/127.0.0.1/tcp/", " outbound /ip4/127.0.0.1/tcp/"].iter().any(|how| up.contains(how)),
        "{up}"
    );
    second.line(&format!("peer up: {id} "));
    third.line(&format!("peer up: {id} "));

    let mut stream = Stream::open(&format!("{api}/v1/topics/news"));
    stream.next("subscribed");
    let answer = ureq::post(format!("{}/v1/topics/news", second.fact("api"))).send("hello");
    assert_eq!(answer.expect("published").status(), 200);
    let message = stream.next("message");
    assert_eq!(
        (message["bytes"].as_str(), message["publisher"].as_str()),
        (Some("aGVsbG8="), Some(&*second.fact("id")))
    );
    first.line("message: news 5 bytes from ");
    let metrics = get(&first.fact("metrics"));
    assert!(metrics.contains("peerage_") && metrics.contains("process_resident_memory_bytes "), "{metrics}");

    let rebound = ureq::get(first.fact("metrics")).header("host", "evil.example").call();
    assert!(matches!(rebound, Err(ureq::Error::StatusCode(403))), "{rebound:?}");

    let mut events = Stream::open(&format!("{api}/v1/events"));
    let gone = second.fact("id");
    second.interrupt();
    let down = events.next("peer_down");
    assert_eq!(
        (down["id"].as_str(), down["reason"].as_str(), down["by"].as_str()),
        (Some(&*gone), Some("quitting"), Some("peer"))
    );
    first.line(&format!("peer down: {gone} quitting (by peer) after "));
    // With two streams open, and by the other signal.
    let begun = Instant::now();
    first.signal(Signal::TERM);
    assert_eq!(first.end().0.code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    third.line(&format!("peer down: {id} quitting (by peer)"));
    third.interrupt();
}

#[test]
fn a_private_network_needs_no_discovery_and_shows_its_agent_name() {
    let root = tempfile::tempdir().expect("directory");
    let hub = ["--no-discovery", "--no-dial", "--agent", "hub/1", "--fork-id", "fc64ec04"];
    let mut hub = Process::ready(&root.path().join("hub"), &hub);
    let (id, address) = (hub.fact("id"), hub.fact("listening"));
    let leaf = ["--no-discovery", "--no-listen", "--static-peer", &address, "--only", &id, "--fork-id", "fc64ec04"];
    let mut leaf = Process::ready(&root.path().join("leaf"), &leaf);
    assert!(!leaf.printed("listening: ") && leaf.printed("not listening: "));
    let up = leaf.line(&format!("peer up: {id} "));
    assert!(up.contains(" outbound "), "{up}");
    hub.line(&format!("peer up: {} inbound ", leaf.fact("id")));
    assert_eq!(leaf.get("/v1/peers")[0]["agent"], "hub/1");
    assert_eq!(leaf.get("/v1/peers/static")[0]["id"].as_str(), Some(&*id));
    leaf.interrupt();
    hub.interrupt();
}

#[test]
fn a_node_that_neither_dials_nor_listens_says_so() {
    let root = tempfile::tempdir().expect("directory");
    let node = Process::ready(root.path(), &["--no-dial", "--no-listen"]);
    let health = ureq::get(format!("{}/v1/health", node.fact("api"))).call();
    assert!(matches!(health, Err(ureq::Error::StatusCode(503))), "{health:?}");
    let said = node.interrupt_and_hear();
    assert!(said.contains("neither dials nor listens"), "{said}");

    let other = Process::ready(&root.path().join("other"), &[]);
    let address = other.fact("listening");
    let node = Process::ready(root.path(), &["--no-dial", "--static-peer", &address]);
    let said = node.interrupt_and_hear();
    assert!(said.contains("they have to dial this node"), "{said}");
    other.interrupt();
}

#[test]
fn a_node_that_is_killed_is_the_same_node_when_it_is_started_again() {
    let root = tempfile::tempdir().expect("directory");
    let mut first = Process::ready(root.path(), &[]);
    let id = first.fact("id");
    let said = refused(root.path(), &[]);
    assert!(said.contains("another node is running"), "{said}");
    first.signal(Signal::KILL);
    first.end();
    let again = Process::ready(root.path(), &[]);
    assert_eq!(again.fact("id"), id);
    again.interrupt();
}

#[test]
fn a_node_that_nobody_reads_lives_on_and_an_impatient_user_can_end_it_at_once() {
    let root = tempfile::tempdir().expect("directory");
    let mut child = command(root.path(), &["--log", "info"]).spawn().expect("starts");
    drop((child.stdout.take(), child.stderr.take()));
    let deadline = Instant::now() + Duration::from_secs(2);
    while Instant::now() < deadline {
        assert!(child.try_wait().expect("a child").is_none(), "it runs");
        std::thread::sleep(Duration::from_millis(50));
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, Signal::INT).expect("it runs");
    // The second one comes before the end of the drain, or after it.
    let _ = rustix::process::kill_process(pid, Signal::INT);
    let status = child.wait().expect("a child");
    assert!(matches!(status.code(), Some(0 | 130)), "{status}");
}

#[test]
fn what_is_wrong_is_one_sentence_and_exit_code_2_and_nothing_is_left_behind() {
    let root = tempfile::tempdir().expect("directory");
    let path = root.path().join("data");
    let taken = TcpListener::bind("127.0.0.1:0").expect("free");
    let at = taken.local_addr().expect("bound");
    let multiaddr = format!("/ip4/127.0.0.1/tcp/{}", at.port());
    let cases: [(&[&str], &str); 12] = [
        (&["--nonsense"], "--help"),
        (&["--listen", "/ip4/127.0.0.1/udp/1/quic-v1"], "quic-v1"),
        (&["--listen", "/ip4/127.0.0.1/tcp/1/ws"], "`ws`"),
        (&["--listen", "hello"], "/ip4/127.0.0.1/tcp/30303"),
        (&["--bootnode", "/ip4/127.0.0.1/tcp/1"], "copy the whole address"),
        (&["--listen", &multiaddr], "in use by another program"),
        (&["--api", &at.to_string()], "--api"),
        (&["--metrics", &at.to_string()], "--metrics"),
        (&["--api", "0.0.0.0:0"], "only loopback"),
        (&["--deny-net", "everybody"], "10.0.0.0/8"),
        (&["--no-discovery", "--no-listen", "--listen", "/ip4/127.0.0.1/tcp/0"], "nothing to bind"),
        (&["--only-file", "/nonexistent/ids"], "one id a line"),
    ];
    for (arguments, remedy) in cases {
        let said = refused(&path, arguments);
        assert!(said.contains(remedy), "{arguments:?}: {said}");
        assert!(!path.exists(), "{arguments:?}");
    }
}

#[test]
fn an_unusable_key_is_refused_and_left_alone() {
    let root = tempfile::tempdir().expect("directory");
    let key = root.path().join("key");
    std::fs::write(&key, "hello").expect("written");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).expect("chmod");
    assert!(refused(root.path(), &[]).contains("chmod 600"));
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).expect("chmod");
    assert!(refused(root.path(), &[]).contains("does not hold a key"));
    assert_eq!(std::fs::read_to_string(&key).expect("there"), "hello");
    let left: Vec<_> = std::fs::read_dir(root.path()).expect("there").collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[test]
fn help_is_no_mistake() {
    let output = command(Path::new("x"), &["--help"]).output().expect("starts");
    let text = String::from_utf8(output.stdout).expect("text");
    assert_eq!(output.status.code(), Some(0));
    let flags = "--data-dir --listen --network --fork-id --agent --bootnode --nodes-file --dns-list --dns-server \
        --static-peer --trusted --no-discovery --no-mdns --no-exchange --no-dial --no-listen --no-churn --message-events \
        --max-peers --max-static-peers --dial-ratio --max-pending \
        --external --nat --allow-net --deny-net --only --only-file --api --metrics --log";
    for flag in flags.split_whitespace() {
        assert!(text.contains(&format!("{flag} ")) || text.contains(&format!("{flag}\n")), "{flag}: {text}");
    }
    for heading in ["Peers:", "Switches:", "Limits:", "Who is admitted"] {
        assert!(text.contains(heading), "{heading}: {text}");
    }
}

#[test]
fn a_large_message_of_a_coded_topic_is_rebuilt_of_shards_by_every_node() {
    let root = tempfile::tempdir().expect("directory");
    let first = Process::ready(&root.path().join("first"), &["--coded", "blocks"]);
    let bootnode = first.fact("listening");
    let other = |name: &str| {
        let mut node = Process::ready(&root.path().join(name), &["--coded", "blocks", "--bootnode", &bootnode]);
        node.line(&format!("peer up: {} ", first.fact("id")));
        node
    };
    let others = [other("second"), other("third")];
    let nodes = || [&first].into_iter().chain(&others);
    let mut streams: Vec<Stream> = nodes()
        .map(|node| {
            let mut stream = Stream::open(&format!("{}/v1/topics/blocks", node.fact("api")));
            stream.next("subscribed");
            stream
        })
        .collect();
    let rebuilt = |node: &Process| {
        let text = get(&node.fact("metrics"));
        let value = text.lines().find_map(|line| line.strip_prefix("peerage_gossip_rebuilt_total "));
        value.map_or(0, |value| value.parse::<u64>().expect("a count"))
    };
    // Before it is known who wants the topic, it goes out whole: so until all have had one in shards.
    let deadline = Instant::now() + Duration::from_secs(30);
    for number in 0_u32.. {
        let block: Vec<u8> = (0..300_000_u32).map(|at| (at.wrapping_mul(number + 7) >> 5) as u8).collect();
        let answer = ureq::post(format!("{}/v1/topics/blocks", others[0].fact("api"))).send(&block[..]);
        assert_eq!(answer.expect("published").status(), 200);
        let expected = data_encoding::BASE64.encode(&block);
        for stream in &mut streams {
            assert!(stream.next("message")["bytes"] == *expected, "the block, whole");
        }
        if rebuilt(&first) > 0 && rebuilt(&others[1]) > 0 {
            break;
        }
        assert!(Instant::now() < deadline, "after {number} blocks nobody has rebuilt one");
    }
    drop(streams);
    first.interrupt();
    others.into_iter().for_each(Process::interrupt);
}

#[test]
fn how_peers_stand_in_gossip_is_told_over_http_for_all_and_for_one() {
    let root = tempfile::tempdir().expect("directory");
    let first = Process::ready(&root.path().join("first"), &["--gossip-mode", "gossipsub"]);
    let (id, address, api) = (first.fact("id"), first.fact("listening"), first.fact("api"));
    assert_eq!(first.get("/v1/peers/standings").as_array().map(Vec::len), Some(0));
    let mut second = Process::ready(&root.path().join("second"), &["--bootnode", &address]);
    second.line(&format!("peer up: {id} "));
    let other = second.fact("id");
    let (mut here, mut there) = (
        Stream::open(&format!("{api}/v1/topics/news")),
        Stream::open(&format!("{}/v1/topics/news", second.fact("api"))),
    );
    here.next("subscribed");
    there.next("subscribed");
    // Nodes of different modes understand each other.
    let answer = ureq::post(format!("{}/v1/topics/news", second.fact("api"))).send("hello");
    assert_eq!(answer.expect("published").status(), 200);
    here.next("message");

    let deadline = Instant::now() + Duration::from_secs(20);
    let standing = loop {
        let standing = first.get(&format!("/v1/peers/{other}/standing"));
        if standing["meshes"][0] == "news" && standing["score"]["firsts"].as_i64() > Some(0) {
            break standing;
        }
        assert!(Instant::now() < deadline, "{standing}");
        std::thread::sleep(Duration::from_millis(50));
    };
    assert_eq!((standing["id"].as_str(), standing["topics"].as_i64()), (Some(&*other), Some(1)));
    assert_eq!(standing["pruned"], serde_json::Value::Null);
    assert!(standing["why"].as_str().is_some_and(|why| why.contains("firsts")), "{standing}");
    let all = first.get("/v1/peers/standings");
    assert_eq!((all.as_array().map(Vec::len), &all[0]["id"]), (Some(1), &standing["id"]));
    let none = ureq::get(format!("{api}/v1/peers/{id}/standing")).call();
    assert!(matches!(none, Err(ureq::Error::StatusCode(404))), "{none:?}");
    let senseless = ureq::get(format!("{api}/v1/peers/nobody/standing")).call();
    assert!(matches!(senseless, Err(ureq::Error::StatusCode(400))), "{senseless:?}");

    // A peer that leaves the topic prunes, and its standing says so at the other end.
    drop(here);
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let standing = first.get(&format!("/v1/peers/{other}/standing"));
        if standing["meshes"].as_array().is_some_and(Vec::is_empty) {
            break;
        }
        assert!(Instant::now() < deadline, "{standing}");
        std::thread::sleep(Duration::from_millis(50));
    }
    drop(there);
    second.interrupt();
    first.interrupt();
}

//! What the command line may say, and what it may not.

use peerage::Config;

use super::*;

fn read(arguments: &[&str]) -> Result<Settings, NoRun> {
    parse(["node"].iter().chain(arguments).map(Into::into))
}

fn wrong(arguments: &[&str]) -> String {
    match read(arguments) {
        Err(NoRun::Wrong(sentence)) => {
            assert!(!sentence.contains('\n'), "one sentence: {sentence}");
            sentence
        }
        other => panic!("{arguments:?}: {other:?}"),
    }
}

const ID: &str = "12D3KooWPW8NCp5gTny3CUywj9ieJJpgg9vxGRZKSxLnqkdYQdVP";

#[test]
fn nothing_said_is_the_default() {
    let settings = read(&[]).expect("fine");
    assert!(settings.listen.is_empty() && settings.bootnodes.is_empty() && settings.api.is_none());
    assert_eq!((settings.network.as_str(), settings.local), ("peerage", false));
    assert!(
        settings.discovery
            && settings.exchange
            && settings.dialing
            && settings.listening
            && settings.warnings.is_empty()
    );
    // What the help says is what the crates below have.
    for config in [Config::recommended(), Config::local()] {
        assert_eq!((settings.max_peers, settings.max_static_peers), (config.max_peers, config.max_static_peers));
        assert_eq!((settings.dial_ratio, settings.max_pending), (config.dial_ratio, config.listener.slots));
        assert_eq!((&settings.fork_id, &settings.admission), (&config.fork_id, &config.admission));
        assert_eq!((settings.churn, settings.message_events), (config.churn.is_some(), config.message_events));
    }
}

#[test]
fn a_node_with_nothing_but_loopback_is_local() {
    let bootnode = |ip: &str| format!("/ip4/{ip}/tcp/1/p2p/{ID}");
    let local = |listen: &str, ip: &str| read(&["--listen", listen, "--bootnode", &bootnode(ip)]).expect("fine").local;
    assert!(local("/ip4/127.0.0.1/tcp/0", "127.0.0.1"));
    assert!(local("/ip6/::1/tcp/0", "127.0.0.1"));
    assert!(!local("/ip4/0.0.0.0/tcp/0", "127.0.0.1"));
    assert!(!local("/ip4/127.0.0.1/tcp/0", "192.0.2.1"));
    assert!(!read(&["--bootnode", &bootnode("127.0.0.1")]).expect("fine").local);
    let with_static = |ip: &str, more: &[&str]| {
        let address = bootnode(ip);
        read(&[&["--static-peer", address.as_str()], more].concat()).expect("fine").local
    };
    let listen = ["--listen", "/ip4/127.0.0.1/tcp/0"];
    assert!(with_static("127.0.0.1", &listen) && !with_static("192.0.2.1", &listen));
    // Nothing is bound: who is named decides.
    let nowhere = ["--no-listen", "--no-discovery"];
    assert!(with_static("127.0.0.1", &nowhere) && !with_static("192.0.2.1", &nowhere));
    assert!(!with_static("127.0.0.1", &["--no-listen"]), "UDP is bound on every address");
}

#[test]
fn external_addresses_are_one_a_family_and_a_gateway_is_asked_where_there_is_one() {
    let settings = read(&["--external", "203.0.113.7", "--external", "/ip6/2001:db8::7/tcp/9"]).expect("fine");
    let ports: Vec<_> = settings.external.iter().map(|external| external.port).collect();
    assert_eq!((ports, settings.nat), (vec![None, Some(9)], None));
    assert_eq!((Config::recommended().nat, Config::local().nat), (Nat::Auto, Nat::None), "as the help says");
    let loopback = ["--listen", "/ip4/127.0.0.1/tcp/0", "--nat"];
    let warned = |how| read(&[&loopback[..], &[how]].concat()).expect("fine").warnings;
    assert!(warned("upnp").concat().contains("nothing to ask for"));
    assert!(warned("none").is_empty());
}

#[test]
fn a_pasted_address_with_its_id_can_be_listened_at() {
    let settings = read(&["--listen", &format!("/ip4/127.0.0.1/tcp/9/p2p/{ID}"), "--listen", "/ip6/::1/tcp/0"]);
    let expected: [SocketAddr; 2] = ["127.0.0.1:9".parse().expect("socket"), "[::1]:0".parse().expect("socket")];
    assert_eq!(settings.expect("fine").listen, expected);
}

#[test]
fn what_is_wrong_is_said_in_one_sentence_with_the_remedy() {
    assert!(wrong(&["--listen", "/ip4/127.0.0.1/udp/1/quic-v1"]).contains("transport `quic-v1`"));
    assert!(wrong(&["--listen", "/ip4/127.0.0.1/tcp/1/ws"]).contains("transport `ws`"));
    assert!(wrong(&["--listen", "127.0.0.1:1"]).contains("write it like /ip4/127.0.0.1/tcp/30303"));
    assert!(wrong(&["--bootnode", "/ip4/127.0.0.1/tcp/1"]).contains("copy the whole address"));
    assert!(wrong(&["--bootnode", "pnr:AAAA"]).contains("record"));
    assert!(wrong(&["--external", "127.0.0.1"]).contains("others cannot reach 127.0.0.1"));
    assert!(wrong(&["--external", "hello"]).contains("write it like 203.0.113.7"));
    assert!(wrong(&["--external", "203.0.113.7", "--external", "203.0.113.8"]).contains("names 2 IPv4 addresses"));
    assert!(wrong(&["--nat", "stun"]).contains("use auto, upnp, pcp"));
    assert!(wrong(&["--max-peers", "0"]).contains("1..=10000"));
    assert!(wrong(&["--max-upload", "fast"]).contains("write it like 512KiB or 10MiB"));
    assert!(wrong(&["--max-peer-download", "0"]).contains("write it like"));
    assert!(wrong(&["--max-peers", "many"]).contains("--max-peers"));
    assert!(wrong(&["--api", "0.0.0.0:1"]).contains("only loopback"));
    assert!(wrong(&["--metrics", "192.0.2.1:1"]).contains("only loopback"));
    assert!(wrong(&["--api", "30380"]).contains("127.0.0.1:30380"));
    assert!(wrong(&["--log", "a=b=c"]).contains("write it like `info`"));
    assert!(wrong(&["--network", ""]).contains("has a name"));
    assert!(wrong(&["--data-dir", ""]).contains("--data-dir"));
    assert!(wrong(&["--listne", "x"]).contains("did you mean --listen?"));
    assert!(wrong(&["--nonsense"]).contains("--help"));
    assert!(wrong(&["file"]).contains("--help"));
    assert!(wrong(&["--listen"]).contains("--listen"));
    assert!(wrong(&["--static-peer", "/ip4/127.0.0.1/tcp/1"]).contains("copy the whole address"));
    assert!(wrong(&["--trusted", "nobody"]).contains("`id:`"));
    assert!(wrong(&["--only", "/ip4/127.0.0.1/tcp/1"]).contains("copy the whole address"));
    assert!(wrong(&["--allow-net", "10.0.0.0/33"]).contains("written like 10.0.0.0/8"));
    assert!(wrong(&["--deny-net", "localhost"]).contains("written like 10.0.0.0/8"));
    assert!(wrong(&["--agent", &"x".repeat(65)]).contains("at most 64"));
    assert!(wrong(&["--shared-net", "192.0.2.1"]).contains("192.0.2.1=20"));
    assert!(wrong(&["--shared-net", "192.0.2.1=0"]).contains("from 1 to 10000"));
    let shared = read(&["--shared-net", "192.0.2.1=20"]).expect("fine").shared;
    assert_eq!((shared[0].network.to_string().as_str(), shared[0].factor), ("192.0.2.1/32", 20));
    let (dir, absent) = (tempfile::tempdir().expect("a directory"), "/nowhere/at/all");
    let file = dir.path().join("secret");
    std::fs::write(&file, "hunter2\n").expect("writable");
    let path = file.to_str().expect("UTF-8");
    assert!(wrong(&["--secret-file", path]).contains("7 bytes: at least 16"));
    assert!(wrong(&["--secret-file", absent]).contains(absent));
    std::fs::write(&file, "s".repeat(5_000)).expect("writable");
    assert!(wrong(&["--secret-file", path]).contains("is it the right file?"));
    std::fs::write(&file, "correct horse battery staple\n").expect("writable");
    assert!(read(&["--secret-file", path]).expect("fine").secret.is_some());
    assert!(wrong(&["--fork-id", "xyz"]).contains("pairs of hexadecimal digits"));
    assert!(wrong(&["--fork-id", "abc"]).contains("pairs of hexadecimal digits"));
    assert!(wrong(&["--fork-id", &"00".repeat(33)]).contains("at most 32"));
    assert!(wrong(&["--dial-ratio", "0"]).contains("1..=10000"));
    assert!(wrong(&["--max-pending", "0"]).contains("--max-pending"));
    assert!(wrong(&["--max-static-peers", "many"]).contains("--max-static-peers"));
    assert!(wrong(&["--no-dail"]).contains("did you mean --no-dial?"));
}

#[test]
fn help_and_version_are_no_mistakes() {
    for asked in ["--help", "-h", "--version"] {
        assert!(matches!(read(&[asked]), Err(NoRun::Asked(_))));
    }
}

#[test]
fn every_switch_is_heard() {
    let address = format!("/ip4/127.0.0.1/tcp/1/p2p/{ID}");
    let address = address.as_str();
    let settings = read(&[
        "--no-discovery",
        "--no-exchange",
        "--no-listen",
        "--no-churn",
        "--message-events",
        "--withhold",
        "router/1",
        "--static-peer",
        address,
        "--trusted",
        ID,
        "--trusted",
        address,
        "--agent",
        "miner/7",
        "--fork-id",
        "0xFC64ec04",
        "--max-static-peers",
        "1",
        "--dial-ratio",
        "2",
        "--max-pending",
        "9",
        "--allow-net",
        "127.1.2.3/8",
        "--allow-net",
        "::1",
        "--deny-net",
        "10.0.0.0/8",
        "--only",
        address,
    ])
    .expect("fine");
    assert_eq!((settings.discovery, settings.dialing, settings.listening), (false, true, false));
    assert!(!settings.exchange);
    assert!(!settings.churn && settings.message_events && !read(&["--no-dial"]).expect("fine").dialing);
    assert_eq!(settings.withheld.iter().map(ToString::to_string).collect::<Vec<_>>(), ["router/1"]);
    let id: NodeId = ID.parse().expect("an id");
    assert_eq!((settings.statics[0].id, &settings.trusted[..]), (id, &[id, id][..]));
    assert_eq!(
        (settings.agent.as_deref(), settings.fork_id.as_bytes()),
        (Some("miner/7"), &[0xfc, 0x64, 0xec, 0x04][..])
    );
    assert_eq!((settings.max_static_peers, settings.dial_ratio, settings.max_pending), (1, 2, 9));
    let networks = |texts: &[&str]| texts.iter().map(|text| text.parse().expect("network")).collect::<Vec<IpNet>>();
    let allowed = networks(&["127.0.0.0/8", "::1/128"]);
    let only = Some(BTreeSet::from([id]));
    assert_eq!(settings.admission, Admission { allowed, denied: networks(&["10.0.0.0/8"]), only });
}

#[test]
fn those_to_admit_may_stand_in_a_file() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("only");
    let file = path.to_str().expect("text");
    assert!(wrong(&["--only-file", file]).contains("cannot be read"));
    let other = peerage::Keypair::from_seed([7; 32]).id();
    std::fs::write(&path, format!("# miners\n\n{ID} # the first\n/ip4/127.0.0.1/tcp/1/p2p/{ID}\n")).expect("written");
    let settings = read(&["--only-file", file, "--only", &other.to_string()]).expect("fine");
    assert_eq!(settings.admission.only, Some([ID.parse().expect("an id"), other].into()));
    std::fs::write(&path, format!("{ID}\nnobody\n")).expect("written");
    assert!(wrong(&["--only-file", file]).contains("line 2"));
    std::fs::write(&path, "# nobody yet\n").expect("written");
    let settings = read(&["--only-file", file]).expect("fine");
    assert_eq!((settings.admission.only.as_ref().map(BTreeSet::len), settings.warnings.len()), (Some(0), 1));
}

#[test]
fn what_contradicts_itself_is_refused() {
    let address = format!("/ip4/192.0.2.1/tcp/1/p2p/{ID}");
    let address = address.as_str();
    let other = peerage::Keypair::from_seed([7; 32]).id().to_string();
    let bootnode = ["--bootnode", address];
    let with = |named: &[&str], more: &[&str]| wrong(&[named, more].concat());
    assert!(with(&bootnode, &["--no-dial", "--no-discovery"]).contains("nobody would ask it"));
    assert!(read(&[&bootnode[..], &["--no-dial"]].concat()).is_ok(), "others find it by discovery, and dial it");
    let listen = ["--listen", "/ip4/127.0.0.1/tcp/0"];
    assert!(with(&listen, &["--no-listen", "--no-discovery"]).contains("nothing to bind"));
    assert!(read(&[&listen[..], &["--no-listen"]].concat()).is_ok(), "UDP is bound there");
    assert!(with(&["--static-peer", address], &["--max-static-peers", "0"]).contains("raise it"));
    for named in [["--bootnode", address], ["--static-peer", address], ["--trusted", ID]] {
        assert!(with(&named, &["--only", &other]).contains(&format!("add --only {ID}")), "{named:?}");
    }
    for named in [["--bootnode", address], ["--static-peer", address]] {
        assert!(with(&named, &["--deny-net", "192.0.2.0/24"]).contains("do not admit 192.0.2.1"), "{named:?}");
        assert!(with(&named, &["--allow-net", "10.0.0.0/8"]).contains("do not admit 192.0.2.1"), "{named:?}");
    }
    let many: Vec<String> = (0..=512).map(|n| format!("10.{}.{}.0/24", n / 256, n % 256)).collect();
    let many: Vec<&str> = many.iter().flat_map(|network| ["--deny-net", network.as_str()]).collect();
    assert!(wrong(&many).contains("at most 512"));
}

#[test]
fn what_is_not_meant_most_likely_is_warned_of() {
    let address = format!("/ip4/192.0.2.1/tcp/1/p2p/{ID}");
    let address = address.as_str();
    let settings = read(&["--static-peer", address, "--no-dial"]).expect("fine");
    assert!(settings.warnings[0].contains("have to dial this node"), "{:?}", settings.warnings);
}

#[test]
fn sources_of_nodes_are_read_and_refused_in_words() {
    assert!(read(&[]).expect("fine").mdns);
    for off in [&["--no-mdns"][..], &["--no-discovery"], &["--listen", "/ip4/127.0.0.1/tcp/0"]] {
        assert!(!read(off).expect("fine").mdns, "{off:?}");
    }
    let link = format!("pnrtree://{}@nodes.example.org", "A".repeat(51) + "Q");
    let settings = read(&["--dns-list", &link, "--dns-server", "192.0.2.1", "--nodes-file", "nodes"]).expect("fine");
    assert_eq!(settings.dns_lists[0].to_string(), link);
    assert_eq!(settings.dns_server, Some(([192, 0, 2, 1], 53).into()));
    assert!(wrong(&["--dns-list", "nodes.example.org"]).contains("pnrtree://"));
    assert!(wrong(&["--dns-server", "dns.example"]).contains("192.0.2.1:53"));
    assert!(wrong(&["--no-discovery", "--nodes-file", "nodes"]).contains("--static-peer"));
    let host = format!("/dns4/boot.example.org/tcp/30303/p2p/{ID}");
    let named = read(&["--bootnode", &host, "--allow-net", "10.0.0.0/8"]).expect("where it leads is seen later");
    assert_eq!(named.bootnodes[0].hosts.len(), 1);
    assert!(!read(&["--listen", "/ip4/127.0.0.1/tcp/0", "--bootnode", &host]).expect("fine").local);
}

#[test]
fn gossip_has_the_mode_that_is_named() {
    let mode = |arguments: &[&str]| read(arguments).expect("fine").gossip_mode;
    assert_eq!((mode(&[]), mode(&["--gossip-mode", "plumtree"])), (Mode::Peerage, Mode::Plumtree));
    let sentence = wrong(&["--gossip-mode", "flood"]);
    assert!(sentence.contains("`flood`") && sentence.contains("gossipsub"), "{sentence}");
}

#[test]
fn topics_are_coded_for_anybody_or_for_those_who_are_named() {
    let settings = read(&["--coded", "blocks", "--coded", &format!("votes={ID},{ID}")]).expect("fine");
    let admitted: Vec<_> = settings.coded.iter().map(|(topic, whom)| (topic.as_str(), whom.clone())).collect();
    let these = Admitted::These([ID.parse().expect("an id")].into());
    assert_eq!(admitted, [("blocks", Admitted::Everybody), ("votes", these)]);
    assert!(wrong(&["--coded", ""]).contains("--coded"));
    assert!(wrong(&["--coded", "blocks=me"]).contains("blocks=me"));
}

fn with_file(text: &str, typed: &[&str]) -> Result<Settings, NoRun> {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("node.toml");
    std::fs::write(&path, text).expect("written");
    read(&[&["--config", path.to_str().expect("text")], typed].concat())
}

#[test]
fn a_file_says_what_flags_say_and_flags_win() {
    let text = format!(
        "max-peers = 30\nno-mdns = true\nno-dial = false\nnetwork = \"here\"\nshed-memory = \"2GiB\"\n\
         static-peer = [\"/ip4/192.0.2.1/tcp/1/p2p/{ID}\"]\n[limits.health]\nmin_peers = 3\nsettle = 1.5\n"
    );
    let settings = with_file(&text, &["--network", "there"]).expect("fine");
    assert_eq!((settings.max_peers, settings.mdns, settings.dialing), (30, false, true));
    assert_eq!((settings.network.as_str(), settings.shed_memory), ("there", Some(2 << 30)));
    assert_eq!(settings.statics.len(), 1);
    let fixed: Vec<&str> = settings.file.fixed.keys().map(String::as_str).collect();
    assert_eq!(fixed, ["network", "no-dial", "no-mdns", "static-peer"], "what needs a restart");
    let config = crate::limits::configuration(&settings).expect("it adds up");
    assert_eq!((config.max_peers, config.health.min_peers), (30, Some(3)));
    assert_eq!(config.health.settle, std::time::Duration::from_millis(1500));
    let typed = with_file(&text, &["--min-peers", "1"]).expect("fine");
    assert_eq!(crate::limits::configuration(&typed).expect("it adds up").health.min_peers, Some(1), "the flag wins");
}

#[test]
fn bandwidth_is_a_limit_that_a_file_says_by_either_name_and_a_flag_wins() {
    let throttle = |text: &str, typed: &[&str]| {
        let settings = with_file(text, typed).expect("fine");
        assert!(settings.file.fixed.is_empty(), "none of it waits for a restart");
        crate::limits::configuration(&settings).expect("it adds up").queue.throttle
    };
    let flags = throttle("max-upload = \"8MiB\"\nmax-peer-download = \"1MiB\"", &["--max-upload", "9MiB"]);
    assert_eq!((flags.upload.node, flags.download.peer), (Some(9 << 20), Some(1 << 20)));
    assert_eq!((flags.download.node, flags.upload.peer), (None, None));
    let section = "[limits.throttle]\nmessages = 7\n[limits.throttle.upload]\nnode = 8388608\nreserved = 20\n";
    let upload = |typed: &[&str]| throttle(section, typed).upload;
    assert_eq!((upload(&[]).node, upload(&["--max-upload", "9MiB"]).node), (Some(8 << 20), Some(9 << 20)));
    assert_eq!(upload(&["--max-upload", "9MiB"]).reserved, 20);
    assert_eq!(throttle(section, &[]).messages, Some(7));
}

#[test]
fn what_is_wrong_in_a_file_is_said_with_the_file_and_the_nearest_name() {
    let told = |text: &str| match with_file(text, &[]) {
        Err(NoRun::Wrong(sentence)) => sentence,
        other => panic!("{other:?}"),
    };
    assert!(told("max-peer = 3").contains("there is no `max-peer`; did you mean `max-peers`?"));
    assert!(told("config = \"x\"").contains("there is no `config`"));
    assert!(told("max-peers = true").contains("cannot be true"));
    assert!(told("max-peers = 0").contains("node.toml: ") && told("max-peers = 0").contains("1..=10000"));
    assert!(told("no-dial = 1").contains("true or false"));
    assert!(told("log = \"a\"\nmax-peers = = 1").contains("line 2"));
    assert!(wrong(&["--config", "/there/is/no/such.toml"]).contains("/there/is/no/such.toml"));
    let settings = with_file("[limits]\nmax_peer = 3", &[]).expect("its limits are looked at with the others");
    let error = crate::limits::configuration(&settings).expect_err("no such limit");
    assert_eq!(error, "[limits]: there is no limit `max_peer`; did you mean `max_peers`?");
}

#[test]
fn sizes_have_units() {
    let memory = |text: &str| read(&["--shed-memory", text]).map(|settings| settings.shed_memory);
    for (text, bytes) in [("512MiB", 512 << 20), ("1GiB", 1 << 30), ("7", 7), ("3KiB", 3 << 10)] {
        assert_eq!(memory(text).expect("fine"), Some(bytes), "{text}");
    }
    for text in ["", "MiB", "1TB", "-1", "99999999999GiB"] {
        assert!(memory(text).is_err(), "{text}");
    }
}

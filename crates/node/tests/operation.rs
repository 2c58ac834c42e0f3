//! A process that is watched and changed while it runs: it sheds load, says so and recovers; its file is read again.
#![cfg(unix)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;
use support::{Process, Stream, get};

fn until(mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(40);
    while !holds() {
        assert!(Instant::now() < deadline, "not in time");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn patch(node: &Process, body: &str) -> serde_json::Value {
    let asked = ureq::patch(format!("{}/v1/limits", node.fact("api"))).content_type("application/json").send(body);
    serde_json::from_str(&asked.expect("changed").body_mut().read_to_string().expect("text")).expect("JSON")
}

#[cfg(target_os = "linux")]
#[test]
fn a_node_short_of_memory_sheds_says_so_in_every_way_and_recovers() {
    let root = tempfile::tempdir().expect("directory");
    let mut node = Process::ready(root.path(), &["--log", "warn,peerage_server=info"]);
    let api = node.fact("api");
    let metric = |name: &str| get(&node.fact("metrics")).lines().any(|line| line == name);
    assert!(metric("peerage_shedding_level 0"));
    let mut events = Stream::open(&format!("{api}/v1/events"));
    // No process is that small.
    patch(&node, r#"{"shedding": {"memory": 1048576, "recover_after": 1}}"#);
    for level in ["bulk", "normal", "newcomers"] {
        assert_eq!(events.next("shedding")["level"], level);
    }
    node.line("shedding: newcomers");
    until(|| get(&node.fact("metrics")).lines().any(|line| line == "peerage_shedding_level 3"));
    let health = ureq::get(format!("{api}/v1/health")).call();
    assert!(matches!(health, Err(ureq::Error::StatusCode(503))), "{health:?}");
    assert_eq!(get(&format!("{api}/v1/health/live")), r#"{"live":true}"#);
    let address = node.fact("listening");
    let other = Process::ready(&root.path().join("other"), &["--static-peer", &address]);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(node.get("/v1/peers"), json!([]), "nobody new");

    patch(&node, r#"{"shedding": {"memory": 0}}"#);
    until(|| get(&node.fact("metrics")).lines().any(|line| line == "peerage_shedding_level 0"));
    until(|| node.get("/v1/peers").as_array().is_some_and(|peers| peers.len() == 1));
    until(|| ureq::get(format!("{api}/v1/health")).call().is_ok());
    other.interrupt();
    let said = node.interrupt_and_hear();
    assert!(said.contains("short of memory") && said.contains("sheds nothing any more"), "{said}");
}

#[test]
fn a_file_is_read_again_at_a_signal_and_by_the_api_and_a_wrong_one_changes_nothing() {
    let root = tempfile::tempdir().expect("directory");
    let file = root.path().join("node.toml");
    let write = |text: &str| std::fs::write(&file, text).expect("written");
    write("max-peers = 30\nagent = \"one/1\"\n");
    let data = root.path().join("data");
    let mut node = Process::ready(&data, &["--config", file.to_str().expect("text")]);
    assert_eq!(node.get("/v1/limits")["max_peers"], 30);
    write("max-peers = 31\nagent = \"two/2\"\n[limits.health]\nmin_peers = 0\n");
    node.signal(Signal::HUP);
    node.line("reloaded: agent must wait for a restart");
    node.line("reloaded: health.min_peers, max_peers");
    assert_eq!((&node.get("/v1/limits")["max_peers"], &node.get("/v1/node")["agent"]), (&json!(31), &json!("one/1")));
    write("max-peers = 32\n[limits]\nmax_peer = 1\n");
    node.signal(Signal::HUP);
    let said = node.line("not reloaded: ");
    assert!(said.contains("did you mean `max_peers`?"), "{said}");
    assert_eq!(node.get("/v1/limits")["max_peers"], 31);
    write("max-peers = 33\nagent = \"one/1\"\n");
    let answer = ureq::post(format!("{}/v1/reload", node.fact("api"))).send_empty().expect("reloaded");
    let json: serde_json::Value =
        serde_json::from_str(&answer.into_body().read_to_string().expect("text")).expect("JSON");
    assert_eq!((&json["needs_restart"], &json["limits"]["max_peers"]), (&json!([]), &json!(33)));
    node.interrupt();
}

/// The names and labels in the table of metrics.
fn table() -> BTreeMap<String, BTreeSet<String>> {
    let ticked = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    let text = include_str!("../../../docs/metrics.md");
    let rows = text.lines().filter(|line| line.starts_with("| `peerage_"));
    let cells = rows.map(|row| row.split('|').map(ticked).collect::<Vec<_>>());
    cells.map(|mut cells| (cells[1].remove(0), cells.swap_remove(3).into_iter().collect())).collect()
}

/// Every metric's name in the sources of a folder.
fn named_in(folder: &Path, names: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("readable").path()) {
        if entry.is_dir() {
            named_in(&entry, names);
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&entry).expect("text");
            let literals = text.split('"').filter(|literal| literal.starts_with("peerage_"));
            let is_name =
                |literal: &&str| literal.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
            names.extend(literals.filter(is_name).map(str::to_owned));
        }
    }
}

#[test]
fn the_table_of_metrics_has_every_name_in_the_sources_and_no_other() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the folder of crates");
    let (mut names, mut packages) = (BTreeSet::new(), BTreeSet::new());
    for member in std::fs::read_dir(crates).expect("a folder").map(|member| member.expect("readable")) {
        packages.insert(format!("peerage_{}", member.file_name().to_string_lossy().replace('-', "_")));
        named_in(&member.path().join("src"), &mut names);
    }
    let names: Vec<&String> = names.difference(&packages).collect();
    let table = table();
    assert_eq!(names, table.keys().collect::<Vec<_>>(), "left: the sources; right: docs/metrics.md");
}

#[test]
fn what_running_nodes_register_is_in_the_table_with_its_labels_and_described() {
    let root = tempfile::tempdir().expect("directory");
    let mut first = Process::ready(&root.path().join("first"), &[]);
    let second = Process::ready(&root.path().join("second"), &["--static-peer", &first.fact("listening")]);
    first.line("peer up: ");
    let mut stream = Stream::open(&format!("{}/v1/topics/news", first.fact("api")));
    stream.next("subscribed");
    drop(ureq::post(format!("{}/v1/topics/news", second.fact("api"))).send("hello").expect("published"));
    stream.next("message");
    let table = table();
    let text = get(&first.fact("metrics"));
    let mut seen = 0;
    for line in text.lines().filter(|line| line.starts_with("peerage_")) {
        let (name, rest) = line.split_at(line.find(['{', ' ']).expect("a value"));
        let name = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|part| {
                let whole = name.strip_suffix(part)?;
                text.contains(&format!("# TYPE {whole} ")).then_some(whole)
            })
            .unwrap_or(name);
        let labels = table.get(name).unwrap_or_else(|| panic!("{name} is not in docs/metrics.md"));
        assert!(text.contains(&format!("# HELP {name} ")), "{name} is not described");
        for label in rest.split(['{', ',']).filter_map(|part| part.split_once("=\"")).map(|(label, _)| label) {
            let of_histogram = ["le", "quantile"].contains(&label);
            assert!(of_histogram || labels.contains(label), "{name} has a label {label}");
        }
        seen += 1;
    }
    assert!(seen > 100, "{seen}");
    first.interrupt();
    second.interrupt();
}

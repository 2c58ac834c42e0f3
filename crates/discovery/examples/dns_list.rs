//! Builds a signed list of nodes for the DNS, and checks one.
//!
//! ```text
//! cargo run -p peerage-discovery --features dns --example dns_list -- build KEY DOMAIN SEQ NODES > zone
//! cargo run -p peerage-discovery --features dns --example dns_list -- verify LINK ZONE
//! ```
//!
//! `KEY` is a file with 64 hexadecimal digits, made if there is none; keep it secret, as who has it can change the list.
//! `NODES` is a file with a record (`pnr:…`, as a node prints it) or a link to another list (`pnrtree://…`) a line, and
//! comments after `#`. `SEQ` must exceed that of the list's last version. The lines go into the domain's zone file, and
//! the link, which is printed last on stderr, to the list's users: `node --dns-list LINK`.
//!
//! xtask-reuse: build list.key example.org 1 /dev/null

use std::error::Error;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use data_encoding::HEXLOWER_PERMISSIVE;
use peerage_discovery::peerage_wire::{Keypair, NodeRecord, Verified};
use peerage_discovery::sources::dns::{ListLink, SignedList};

const USAGE: &str = "dns_list build KEY DOMAIN SEQ NODES | dns_list verify LINK ZONE";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments[..] {
        ["build", key, domain, seq, nodes] => build(Path::new(key), domain, seq, Path::new(nodes)),
        ["verify", link, zone] => verify(link, Path::new(zone)),
        _ => Err(USAGE.into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dns_list: {error}");
            ExitCode::from(2)
        }
    }
}

fn build(key: &Path, domain: &str, seq: &str, nodes: &Path) -> Result<(), Box<dyn Error>> {
    let seq = seq.parse().map_err(|_| "SEQ is a number that exceeds the one of the last version")?;
    let text = fs::read_to_string(nodes).map_err(|error| format!("{}: {error}", nodes.display()))?;
    let (records, links) = read(&text)?;
    let list = SignedList::build(&keys(key)?, domain, seq, &records, &links)?;
    // What is published is what a client would accept.
    SignedList::check(list.link(), &list.zone())?;
    std::io::stdout().write_all(list.zone().as_bytes())?;
    eprintln!("{} nodes, {} links: {}", records.len(), links.len(), list.link());
    Ok(())
}

fn verify(link: &str, zone: &Path) -> Result<(), Box<dyn Error>> {
    let text = fs::read_to_string(zone).map_err(|error| format!("{}: {error}", zone.display()))?;
    let (root, nodes, links) = SignedList::check(&link.parse()?, &text)?;
    println!("whole and signed: version {}, {nodes} nodes, {links} links", root.seq);
    Ok(())
}

type Contents = (Vec<Verified<NodeRecord>>, Vec<ListLink>);

fn read(text: &str) -> Result<Contents, String> {
    let mut contents: Contents = Default::default();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.split('#').next().unwrap_or_default().trim();
        let wrong = |error: &dyn Error| format!("line {number}: {error}");
        if line.starts_with("pnrtree:") {
            contents.1.push(line.parse().map_err(|error| wrong(&error))?);
        } else if !line.is_empty() {
            let record = line.parse::<NodeRecord>().and_then(NodeRecord::verify);
            contents.0.push(record.map_err(|error| wrong(&error))?);
        }
    }
    Ok(contents)
}

fn keys(path: &Path) -> Result<Keypair, Box<dyn Error>> {
    if !path.exists() {
        let keys = Keypair::generate()?;
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options.open(path)?.write_all(HEXLOWER_PERMISSIVE.encode(keys.to_seed().as_ref()).as_bytes())?;
        return Ok(keys);
    }
    let text = fs::read_to_string(path)?;
    let seed = HEXLOWER_PERMISSIVE.decode(text.trim().as_bytes())?;
    let seed = seed.try_into().map_err(|_| format!("{} must hold 64 hexadecimal digits", path.display()))?;
    Ok(Keypair::from_seed(seed))
}

//! What a node remembers across a restart: `cargo run -p peerage-nodedb --example remember`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use peerage_nodedb::peerage_machine::{Rng, Time};
use peerage_nodedb::peerage_wire::{Keypair, NetworkId, RecordDraft};
use peerage_nodedb::{Anchor, Banned, Config, NodeDb};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let (path, network) = (folder.path().join("nodes.redb"), NetworkId::named("example"));
    let now = Time::new(Duration::ZERO, SystemTime::now().duration_since(UNIX_EPOCH)?);

    let db = NodeDb::open(&path, network, Config::recommended())?;
    let record = RecordDraft::new(now.unix_millis(), network)
        .address("/ip4/192.0.2.1/udp/30303".parse()?)
        .sign(&Keypair::from_seed([7; 32]))?;
    db.put_record(&record, now);
    db.pong_received(record.id(), "192.0.2.1".parse()?, now);
    db.ban(Banned::Network("198.51.100.0/24".parse()?), now.unix() + Duration::from_secs(3_600), now);
    db.set_anchors(vec![Anchor { record, since: now.unix(), lived: Duration::from_secs(86_400) }]);
    db.flush().await?;
    println!("written: {} bytes in {} commit", db.stats().disk.last_commit_bytes, db.stats().disk.commits);
    db.close()?;

    let later = now + Duration::from_secs(60);
    let db = NodeDb::open(&path, network, Config::recommended())?;
    for seed in db.seeds(30, Duration::from_secs(5 * 86_400), later, &mut Rng::new(1)) {
        println!("to ask first: {} at {}", seed.id(), seed.addresses()[0]);
    }
    for anchor in db.anchors(later) {
        println!("to dial first: {}, a peer for {:?}", anchor.id(), anchor.lived);
    }
    for (banned, until) in db.bans(later) {
        println!("banned for another {:?}: {banned:?}", until.saturating_sub(later.unix()));
    }
    Ok(())
}

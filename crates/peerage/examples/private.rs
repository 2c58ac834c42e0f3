//! A private network: two nodes that know each other, look for nobody, and admit nobody else. Run it with
//! `cargo run -p peerage --example private`.

use std::error::Error;
use std::time::Duration;

use peerage::{Banned, Builder, Event, Keypair, Node};

async fn told(who: &str, node: &Node) -> Result<(), Box<dyn Error>> {
    let health = node.health().await?;
    println!("{who}: {} peers, {} {}", node.peer_count().await?, health.status.label(), health.reasons.join("; "));
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let [hub_keys, leaf_keys] = [Keypair::generate()?, Keypair::generate()?];
    let (hub_id, leaf_id) = (hub_keys.id(), leaf_keys.id());
    let private = || Builder::local().network("ours").discovery(false);

    let hub = private().identity(hub_keys).dialing(false).only_peers([leaf_id]).agent("hub/1").start().await?;
    let mut events = hub.events().await?;
    let address = hub.addresses().await?.remove(0);
    let leaf = private().identity(leaf_keys).listening(false).only_peers([hub_id]).static_peer(&address);
    let leaf = leaf.start().await?;
    if let Some(Event::PeerUp { id, direction, .. }) = events.next().await {
        println!("hub: peer up, {} {id}", direction.label());
    }
    told("hub", &hub).await?;

    // Its key is right and its address is known, and still nobody has to do with it.
    let stranger = private().listening(false).static_peer(&address).start().await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    told("stranger", &stranger).await?;

    hub.ban(Banned::Id(leaf_id), Duration::from_secs(60));
    if let Some(Event::PeerDown { reason, .. }) = events.next().await {
        println!("hub: peer down, {reason}");
    }
    for (banned, left) in hub.bans().await? {
        println!("hub: {banned} is banned for {left:.0?} more");
    }
    for node in [stranger, leaf, hub] {
        node.shutdown().await;
    }
    Ok(())
}

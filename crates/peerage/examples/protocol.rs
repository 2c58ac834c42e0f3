//! A protocol that runs once for each peer: a status from both ends, then a ping; here between two nodes, and it ends by
//! itself.

use peerage::Builder;
use peerage::codec::Bincode;
use peerage::protocol::{Protocol, RunError};

const STATUS: u16 = 0;
const PING: u16 = 1;
const PONG: u16 = 2;

fn ping(name: &'static str, height: u64, pings: bool) -> Protocol {
    let ping = Protocol::new("ping", Bincode, move |peer, mut channel| async move {
        channel.send(STATUS, &height).await?;
        let status = channel.recv().await?;
        if status.code != STATUS {
            return Err(RunError::breach("the first message is the status"));
        }
        println!("{name}: {} is at height {}", peer.id, status.value::<u64>()?);
        if pings {
            channel.send(PING, &7u64).await?;
        }
        loop {
            let message = channel.recv().await?;
            match message.code {
                PING => channel.send(PONG, &message.value::<u64>()?).await?,
                PONG => {
                    println!("{name}: pong {}, which is all", message.value::<u64>()?);
                    return Ok(());
                }
                _ => return Err(RunError::breach("one status is enough")),
            }
        }
    });
    ping.version(1, 3)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let loopback = || Builder::local().listen("/ip4/127.0.0.1/tcp/0");
    let alice = loopback().protocol(ping("alice", 10, false)).start().await?;
    let mut events = alice.events().await?;
    let bob =
        loopback().protocol(ping("bob", 20, true)).static_peer(alice.addresses().await?.remove(0)).start().await?;
    while let Some(event) = events.next().await {
        if let peerage::Event::PeerDown { reason, by, .. } = event {
            println!("alice: the session has ended by the {}: {reason}", by.label());
            break;
        }
    }
    bob.shutdown().await;
    alice.shutdown().await;
    Ok(())
}

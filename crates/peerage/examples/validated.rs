//! Three nodes in a row, whose programs judge what they pass on: the far end gets what is valid, confirmed, and no more.

use std::error::Error;
use std::time::Duration;

use peerage::{Builder, Node, TopicConfig, TopicError, TopicSetup, Verdict};

/// Messages of this topic are numbers; who sends on anything else is not worth listening to.
fn numbers(node: &Node) -> TopicSetup {
    let config = TopicConfig::signed().with_max_payload(20).with_validation(Duration::from_millis(500));
    node.topic_with("numbers", config).validate(|message| async move {
        match std::str::from_utf8(&message.payload).map(str::parse::<u64>) {
            Ok(Ok(_)) => Verdict::Accept,
            _ => Verdict::Reject,
        }
    })
}

async fn row() -> Result<[Node; 3], Box<dyn Error>> {
    let alone = || Builder::local().network("validated").discovery(false).exchange(false);
    let middle = alone().start().await?;
    let address = middle.addresses().await?.remove(0);
    let first = alone().static_peer(address.clone()).start().await?;
    let last = alone().static_peer(address).start().await?;
    while middle.peer_count().await? < 2 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok([first, middle, last])
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let [first, middle, last] = row().await?;
    let (from, _between, to) = (numbers(&first).await?, numbers(&middle).await?, numbers(&last).await?);
    // Until the first node knows what the middle one wants.
    while first.standings().await?.iter().all(|standing| standing.topics == 0) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    from.publish("not a number").await?;
    let confirmed = from.publish_confirmed("42", 1, Duration::from_secs(5)).await?;
    println!("{} peer has {}", confirmed.peers, confirmed.id);
    let message = to.next().await.ok_or("the node has stopped")?;
    println!("the far end got {:?} first", String::from_utf8_lossy(&message.payload));
    for standing in middle.standings().await? {
        println!("in the middle, {} stands at {}", standing.id, standing.score);
    }
    let refused: Result<_, TopicError> = first.topic_with("numbers", TopicConfig::signed()).await;
    println!("other parameters: {}", refused.err().map(|error| error.to_string()).unwrap_or_default());
    let too_large = from.publish("123456789012345678901").await;
    println!("too large: {}", too_large.err().map(|error| error.to_string()).unwrap_or_default());

    for node in [first, middle, last] {
        node.shutdown().await;
    }
    Ok(())
}

//! A chat. Run it in one terminal, and in others with the address that the first one prints.

use std::error::Error;

use peerage::Builder;
use tokio::io::{AsyncBufReadExt, BufReader};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut builder = Builder::local().network("chat");
    for friend in std::env::args().skip(1) {
        builder = builder.bootnode(friend);
    }
    let node = builder.start().await?;
    for address in node.addresses().await? {
        println!("others join with: cargo run -p peerage --example chat -- {address}");
    }

    let me = Some(node.id());
    let (publisher, subscriber) = node.topic("chat").await?.split();
    tokio::spawn(async move {
        while let Some(message) = subscriber.next().await {
            if let Some(publisher) = message.publisher.filter(|_| message.publisher != me) {
                println!("{publisher}: {}", String::from_utf8_lossy(&message.payload));
            }
        }
    });

    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        publisher.publish(line).await?;
    }
    node.shutdown().await;
    Ok(())
}

//! A log that outlives its program: it publishes, stops in the middle of its work, and goes on where it was.

use std::error::Error;

use peerage::{Builder, Durable};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::temp_dir().join(format!("peerage-durable-{}", std::process::id()));
    for life in 1..=2 {
        let node = Builder::local().network("durable").listen("/ip4/127.0.0.1/tcp/0").data_dir(&folder).start().await?;
        let orders = node.durable_topic("orders", Durable::cursor("shipping")).await?;
        if life == 1 {
            for order in ["one pear", "two plums", "three figs", "four dates"] {
                orders.publish(order).await?;
            }
        }
        for _ in 0..2 {
            let Some(order) = orders.next().await else { break };
            println!("life {life}, position {}: {}", order.position, String::from_utf8_lossy(&order.payload));
            orders.ack(order.position).await?;
        }
        node.shutdown().await;
    }
    std::fs::remove_dir_all(folder)?;
    Ok(())
}

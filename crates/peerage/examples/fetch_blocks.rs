//! Blocks by the stream: one node serves a chain, the other asks for a range of it and gets block after block.

use peerage::server::router::codec::Bincode;
use peerage::{Builder, Node, Stream, StreamCode};
use serde::{Deserialize, Serialize};

type Failure = Box<dyn std::error::Error>;

/// What is asked for.
#[derive(Serialize, Deserialize)]
struct Range {
    first: u64,
    count: u64,
}

/// What comes, so many times.
#[derive(Serialize, Deserialize)]
struct Block {
    height: u64,
    body: Vec<u8>,
}

/// A block has so many bytes at most.
const LARGEST: usize = 64 << 10;

async fn serve(Stream { mut writer, mut reader }: Stream) {
    let Ok(Some(Range { first, count })) = reader.recv_value(&Bincode, 64).await else {
        return writer.reset(StreamCode(400));
    };
    for height in first..first.saturating_add(count) {
        // Waits here while the other end does not read.
        let block = Block { height, body: vec![height as u8; 50_000] };
        if writer.send_value(&Bincode, &block).await.is_err() {
            return;
        }
    }
    let _ = writer.finish();
}

async fn fetch(node: &Node, chain: &Node, range: Range) -> Result<usize, Failure> {
    let Stream { mut writer, mut reader } = node.open_stream(chain.id(), "blocks/1").await?;
    writer.send_value(&Bincode, &range).await?;
    writer.finish()?;
    let (mut next, mut bytes) = (range.first, 0);
    while let Some(Block { height, body }) = reader.recv_value(&Bincode, LARGEST).await? {
        if height != next {
            return Err(format!("block {height}, and {next} was next").into());
        }
        (next, bytes) = (next + 1, bytes + body.len());
    }
    Ok(bytes)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let chain = Builder::local().start().await?;
    chain.serve_streams("blocks/1", |stream, _peer| serve(stream)).await?;
    let node = Builder::local().bootnode(chain.addresses().await?.remove(0)).start().await?;
    while node.peer_count().await? == 0 {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let bytes = fetch(&node, &chain, Range { first: 100, count: 200 }).await?;
    println!("200 blocks from height 100 on, {bytes} bytes");
    node.shutdown().await;
    chain.shutdown().await;
    Ok(())
}

//! Blocks by the stream: one router asks for a range, the other sends block after block, as fast as they are read.

mod support;

use peerage_router::codec::Bincode;
use peerage_router::peerage_queue::stream::StreamCode;
use peerage_router::{IncomingStream, Stream, StreamHandler, StreamHandlerConfig};

/// A height, and a block.
type Block = (u64, Vec<u8>);

/// A block has so many bytes at most.
const LARGEST: usize = 64 << 10;

async fn serve(IncomingStream { stream: Stream { mut writer, mut reader }, .. }: IncomingStream) {
    let Ok(Some((first, count))) = reader.recv_value::<(u64, u64), _>(&Bincode, 64).await else {
        return writer.reset(StreamCode(400));
    };
    for height in first..first.saturating_add(count) {
        // Waits here while the other end does not read.
        let block: Block = (height, vec![height as u8; 50_000]);
        if writer.send_value(&Bincode, &block).await.is_err() {
            return;
        }
    }
    let _ = writer.finish();
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (alice, bob) = support::pair().await?;
    bob.mailbox.serve_streams("blocks/1", StreamHandlerConfig::recommended(), StreamHandler::task(serve), None);

    let Stream { mut writer, mut reader } = alice.router.open(bob.id, "blocks/1").await?;
    writer.send_value(&Bincode, &(100u64, 200u64)).await?;
    writer.finish()?;
    let (mut blocks, mut bytes) = (0, 0);
    while let Some((height, body)) = reader.recv_value::<Block, _>(&Bincode, LARGEST).await? {
        if height != 100 + blocks {
            return Err(format!("block {height} is out of order").into());
        }
        (blocks, bytes) = (blocks + 1, bytes + body.len());
    }
    println!("{blocks} blocks from height 100 on, {bytes} bytes");

    let mut nonsense = alice.router.open(bob.id, "blocks/1").await?;
    nonsense.writer.send("?").await?;
    println!("and for nonsense: {}", nonsense.reader.read().await.err().ok_or("it was answered")?);
    let mut unknown = alice.router.open(bob.id, "blocks/2").await?;
    println!("and blocks/2: {}", unknown.reader.read().await.err().ok_or("it was answered")?);
    Ok(())
}

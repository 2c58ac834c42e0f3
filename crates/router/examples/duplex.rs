//! Both ends talk at once: each counts for the other, neither waits for its turn, and each ends its half when it is done.

mod support;

use peerage_router::codec::Bincode;
use peerage_router::{
    FrameError, IncomingStream, Stream, StreamHandler, StreamHandlerConfig, StreamReader, StreamWriter,
};

async fn say(mut writer: StreamWriter, last: u64) -> Result<(), FrameError> {
    for n in 0..=last {
        writer.send_value(&Bincode, &n).await?;
    }
    Ok(writer.finish()?)
}

async fn hear(mut reader: StreamReader) -> Result<u64, FrameError> {
    let mut sum = 0;
    while let Some(n) = reader.recv_value::<u64, _>(&Bincode, 16).await? {
        sum += n;
    }
    Ok(sum)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (alice, bob) = support::pair().await?;
    let talk = StreamHandler::task(|IncomingStream { stream: Stream { writer, reader }, .. }| async move {
        match tokio::join!(say(writer, 100_000), hear(reader)) {
            (Ok(()), Ok(sum)) => println!("bob heard {sum}"),
            (said, heard) => println!("bob: {said:?} {heard:?}"),
        }
    });
    bob.mailbox.serve_streams("talk/1", StreamHandlerConfig::recommended(), talk, None);
    let Stream { writer, reader } = alice.router.open(bob.id, "talk/1").await?;
    let (said, heard) = tokio::join!(say(writer, 1_000), hear(reader));
    said?;
    println!("alice heard {}", heard?);
    Ok(())
}

//! Streams beside messages: one end asks for a file by opening a stream, the other sends it as fast as it is read.
//!
//! `cargo run -p peerage-peer-session --example streams` does both ends over a connection in memory.

use std::error::Error;

use bytes::Bytes;
use peerage_peer_session::peerage_queue::stream::StreamCode;
use peerage_peer_session::peerage_transport::Stream;
use peerage_peer_session::peerage_wire::frame::Lane;
use peerage_peer_session::peerage_wire::{DisconnectReason, Keypair};
use peerage_peer_session::{Endpoint, Peer};

/// Sends what each stream asks for, until the session ends.
async fn serve(mut peer: Peer) {
    while let Some(mut stream) = peer.accept_stream().await {
        tokio::spawn(async move {
            let asked = stream.reader.read().await?.unwrap_or_default();
            let Some(megabytes) = std::str::from_utf8(&asked).ok().and_then(|text| text.parse::<usize>().ok()) else {
                stream.writer.reset(StreamCode(400));
                return Ok(());
            };
            for n in 0..16 * megabytes {
                // Waits here while the other end does not read.
                stream.writer.write(vec![n as u8; 64 << 10]).await?;
            }
            stream.writer.finish()
        });
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let (alice, bob) = (Keypair::generate()?, Keypair::generate()?);
    let near = Endpoint::new(&alice, "streams example", &[("files", 1)])?;
    let far = Endpoint::new(&bob, "streams example", &[("files", 1)])?;
    let (left, right) = tokio::io::duplex(64 * 1024);
    let somewhere = ([127, 0, 0, 1], 1).into();
    let (dialled, accepted) =
        tokio::join!(near.dial(Stream::new(left, somewhere), bob.id()), far.accept(Stream::new(right, somewhere)),);
    let (peer, server) = (dialled?, tokio::spawn(serve(accepted?)));
    let files = peer.channel("files").ok_or("both speak it")?;

    let (mut writer, mut reader) = peer.open_stream(files, Lane::Bulk).await?;
    writer.write(Bytes::from_static(b"8")).await?;
    writer.finish()?;
    let mut bytes = 0;
    while let Some(chunk) = reader.read().await? {
        bytes += chunk.len();
    }
    println!("read {bytes} bytes to the end of the stream");

    let (mut writer, mut reader) = peer.open_stream(files, Lane::Bulk).await?;
    writer.write(Bytes::from_static(b"all of it")).await?;
    match reader.read().await {
        Err(error) => println!("and of another: {error}"),
        Ok(_) => return Err("nonsense was answered".into()),
    }
    peer.disconnect(DisconnectReason::Quitting);
    server.await?;
    Ok(())
}

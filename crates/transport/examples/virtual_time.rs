//! Two hosts of an in-memory network exchange a line a minute for an hour, which takes no time at all.

use std::net::SocketAddr;
use std::time::Duration;

use peerage_transport::{Link, MemoryNetwork};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> std::io::Result<()> {
    let (started, virtual_start) = (std::time::Instant::now(), tokio::time::Instant::now());
    let network = MemoryNetwork::new(1, Link::default());
    let at = SocketAddr::from(([10, 0, 0, 2], 30303));
    let mut listener = network.host(at.ip()).listen(at).await?;
    let mut alice = network.host([10, 0, 0, 1].into()).connect(at).await?;
    let mut bob = listener.accept().await?;
    for minute in 0..60u8 {
        alice.write_u8(minute).await?;
        assert_eq!(bob.read_u8().await?, minute);
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
    println!("{:?} of virtual time in {:?}", virtual_start.elapsed(), started.elapsed());
    Ok(())
}

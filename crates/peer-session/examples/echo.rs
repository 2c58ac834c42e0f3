//! Two processes, one encrypted channel: the listener sends back what the dialler says.
//!
//! `cargo run -p peerage-peer-session --example echo` starts the second process itself: the same program, or another build
//! of it that `ECHO_DIALLER` names.

use peerage_peer_session::Endpoint;
use peerage_peer_session::peerage_transport::Transport;
use peerage_peer_session::peerage_wire::frame::Lane;
use peerage_peer_session::peerage_wire::{DisconnectReason, Keypair};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listener_keys = Keypair::from_seed([1; 32]);
    if let Some(port) = std::env::args().nth(1) {
        let endpoint = Endpoint::new(&Keypair::generate()?, "echo example", &[("echo", 1)])?;
        let stream = Transport::sockets().connect(([127, 0, 0, 1], port.parse()?).into()).await?;
        let mut peer = endpoint.dial(stream, listener_keys.id()).await?;
        let echo = peer.channel("echo").ok_or("the listener speaks no echo")?;
        peer.send(echo, Lane::Normal, "hello").await?;
        let heard = peer.recv().await.ok_or("no answer")?;
        let (who, cipher) = (peer.remote().id(), peer.cipher().label());
        println!("dialler: reached {who} over {cipher}, heard {:?}", heard.delivery.payload);
        peer.disconnect(DisconnectReason::Quitting);
        peer.ended().await;
        return Ok(());
    }
    let endpoint = Endpoint::new(&listener_keys, "echo example", &[("echo", 1)])?;
    let mut listener = Transport::sockets().listen(([127, 0, 0, 1], 0).into()).await?;
    let port = listener.local_addr()?.port().to_string();
    let dialler = std::env::var_os("ECHO_DIALLER").map_or_else(std::env::current_exe, |other| Ok(other.into()))?;
    let mut dialler = std::process::Command::new(dialler).arg(port).spawn()?;
    let stream = tokio::time::timeout(std::time::Duration::from_secs(10), listener.accept()).await??;
    let mut peer = endpoint.accept(stream).await?;
    while let Some(message) = peer.recv().await {
        println!("listener: says {:?} back", message.delivery.payload);
        peer.send(message.delivery.channel, Lane::Normal, message.delivery.payload).await?;
    }
    println!("listener: session ended: {}", peer.ended().await.reason);
    if dialler.wait()?.success() { Ok(()) } else { Err("the dialler failed".into()) }
}

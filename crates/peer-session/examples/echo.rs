//! Two processes, one encrypted channel: the listener sends back what the dialler says.
//!
//! `cargo run -p peerage-peer-session --example echo` starts the second process itself.

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
        println!("dialler: reached {}, heard {:?}", peer.remote().id(), heard.delivery.payload);
        peer.disconnect(DisconnectReason::Quitting);
        peer.ended().await;
        return Ok(());
    }
    let endpoint = Endpoint::new(&listener_keys, "echo example", &[("echo", 1)])?;
    let mut listener = Transport::sockets().listen(([127, 0, 0, 1], 0).into()).await?;
    let port = listener.local_addr()?.port().to_string();
    let mut dialler = std::process::Command::new(std::env::current_exe()?).arg(port).spawn()?;
    let mut peer = endpoint.accept(listener.accept().await?).await?;
    while let Some(message) = peer.recv().await {
        println!("listener: says {:?} back", message.delivery.payload);
        peer.send(message.delivery.channel, Lane::Normal, message.delivery.payload).await?;
    }
    println!("listener: session ended: {}", peer.ended().await.reason);
    if dialler.wait()?.success() { Ok(()) } else { Err("the dialler failed".into()) }
}

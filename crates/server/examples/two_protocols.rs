//! One port, two protocols: a node that answers web browsers on the port at which its peers reach it.

use std::time::Duration;

use peerage_server::journal::Journals;
use peerage_server::mailbox::{Clock, Meter, Port};
use peerage_server::nodedb::NodeDb;
use peerage_server::transport::Transport;
use peerage_server::wire::{Keypair, address};
use peerage_server::{Args, Config, Door, Listen, Visitor, start};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

/// Reads a request, and answers with a page.
async fn serve(visitor: Visitor) -> std::io::Result<()> {
    let from = visitor.address();
    // Its slot is for others as soon as it is known whom to serve.
    let mut stream = visitor.admitted();
    let mut lines = BufReader::new((&mut stream).take(8192)).lines();
    let request = lines.next_line().await?.unwrap_or_default();
    while lines.next_line().await?.is_some_and(|header| !header.is_empty()) {}
    let page = format!("HTTP/1.0 200 OK\r\n\r\nHello {from}, you said: {request}\n");
    stream.write_all(page.as_bytes()).await
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let http = Door {
        name: "http".into(),
        prefix: b"GET ".to_vec(),
        limit: 32,
        take: Port::from_fn(|visitor| drop(tokio::spawn(serve(visitor)))),
    };
    let node = start(Args {
        config: Config { discovery_on: false, ..Config::local() },
        keys: Keypair::generate()?,
        listen: Listen::At(vec![([127, 0, 0, 1], 0).into()]),
        bootnodes: Vec::new(),
        statics: Vec::new(),
        trusted: Vec::new(),
        doors: vec![http],
        foreign: None,
        protocols: Vec::new(),
        membership: None,
        transport: Transport::sockets(),
        clock: Clock::system(),
        meter: Meter::none(),
        journals: Journals::off(),
        seed: 1,
        secret: None,
        min_record_seq: 0,
        sources: Default::default(),
        resolver: None,
        db: NodeDb::memory(peerage_server::nodedb::Config::recommended()),
    })
    .await?;
    let local = node.local().await?;
    println!("peers:    {}", address::with_id(&local.addresses[0], local.record.id()));
    let at = address::tcp_socket(&local.addresses[0]).ok_or("listens on no TCP address")?;
    println!("browsers: http://{at}/");

    for first in ["GET / HTTP/1.0\r\n\r\n", "SSH-2.0-nobody\r\n"] {
        let mut stream = Transport::sockets().connect(at).await?;
        stream.write_all(first.as_bytes()).await?;
        let mut answer = String::new();
        // Who is unknown is closed without a word.
        let _ = tokio::time::timeout(Duration::from_secs(5), stream.read_to_string(&mut answer)).await;
        println!("{:18} {answer:?}", first.trim());
    }
    node.shutdown().await;
    Ok(())
}

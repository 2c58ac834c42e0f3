//! Streams and datagrams behind one door.
//!
//! A [`Transport`] is either the computer's sockets or one host of a [`MemoryNetwork`], which runs in
//! tokio's virtual time and whose delays and losses are functions of a seed. The layers above cannot
//! tell the difference, which is what lets whole nodes be tested by the hundred.
//!
//! ```
//! use std::time::Duration;
//! use peerage_transport::{Link, MemoryNetwork};
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> std::io::Result<()> {
//! let network = MemoryNetwork::new(1, Link { latency: Duration::from_millis(30), ..Link::default() });
//! let (alice, bob) = (network.host([10, 0, 0, 1].into()), network.host([10, 0, 0, 2].into()));
//!
//! let mut listener = bob.listen("10.0.0.2:30303".parse().unwrap()).await?;
//! let mut to_bob = alice.connect("10.0.0.2:30303".parse().unwrap()).await?;
//! let mut from_alice = listener.accept().await?;
//! to_bob.write_all(b"hi").await?;
//! let mut hi = [0; 2];
//! from_alice.read_exact(&mut hi).await?;
//! assert_eq!(&hi, b"hi");
//! # Ok(())
//! # }
//! ```
#![warn(missing_docs)]

mod flight;
mod kernel;
mod memory;
mod pipe;
mod sockets;
mod types;

pub use memory::{Link, MemoryNetwork};
pub use sockets::SocketOptions;
pub use types::{Datagram, Listener, Stream, Transport};

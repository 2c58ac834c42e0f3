//! A machine whose table is filled through its own door, and what an insert and an answer cost it.

use std::net::SocketAddr;
use std::time::Duration;

use peerage_discovery::wire::{Cookie, Message, Packet};
use peerage_discovery::{Config, DiscoveryMachine, Families, In, Inbound, Key, Out};
use peerage_machine::{Driver, Time};
use peerage_server::wire::{Keypair, NodeId, NodeRecord, RecordDraft, Verified, address};

use super::{Figures, UNIX, cost, keys, network, note, packet, thread_cpu};
use crate::Failure;
use crate::job::Impl;

/// Nodes that are offered to the table; of so many, most of a table's near buckets stay empty, as on a real network.
const OFFERED: u32 = 4_000;

struct Peer {
    addr: SocketAddr,
    record: Verified<NodeRecord>,
}

fn peer(number: u32) -> Result<Peer, Failure> {
    let [_, a, b, c] = number.to_be_bytes();
    let addr = SocketAddr::from(([20 + a, b, c, 1], 30303));
    let mut seed = [7; 32];
    seed[..4].copy_from_slice(&number.to_be_bytes());
    let record = RecordDraft::new(1, network()).address(address::from_udp(addr)).sign(&Keypair::from_seed(seed))?;
    Ok(Peer { addr, record })
}

/// What a peer says, as the gate passes it on.
fn says(from: NodeId, addr: SocketAddr, packet: Packet) -> In {
    In::Packet(Inbound { from, addr, packet })
}

/// A machine that met so many nodes, and the nanoseconds that each took to enter: from its record, its signature
/// already checked, until the machine has nothing more to say.
pub(super) fn filled() -> Result<(Driver<DiscoveryMachine>, f64), Failure> {
    let me = RecordDraft::new(1, network()).sign(&keys(1))?;
    let config = Config { exempt_local: false, ..Config::recommended() };
    let mut driver = Driver::new(DiscoveryMachine::new(config, me, Families::BOTH, Vec::new(), 1));
    let (mut taken, mut entered) = (0, 0_u32);
    driver.handle(Time::new(Duration::ZERO, Duration::from_secs(UNIX)), In::Start);
    for number in 0..OFFERED {
        // Long enough that those who were asked before are forgotten.
        let at = Time::new(Duration::from_millis(20 * u64::from(number)), Duration::from_secs(UNIX));
        let Peer { addr, record } = peer(number)?;
        let id = record.id();
        driver.take_outs();
        driver.handle(at, says(id, addr, packet(Message::Ping { record_seq: 1 })));
        let asked = driver.take_outs().into_iter().find_map(|out| match out {
            Out::Send(outgoing) if outgoing.packet.message == Message::RecordRequest => Some(outgoing.packet.nonce),
            _ => None,
        });
        let Some(nonce) = asked else { continue };
        let message = Message::RecordResponse { record: record.clone().into_inner() };
        let answer = Packet { nonce, cookie: Cookie::NONE, expiry: 0, message };
        let begun = thread_cpu();
        driver.handle(at, says(id, addr, answer));
        let mut records = vec![record];
        for out in driver.take_outs() {
            if let Out::Verify { token, .. } = out {
                driver.handle(at, In::Verified { token, records: std::mem::take(&mut records) });
            }
        }
        taken += thread_cpu() - begun;
        entered += 1;
        // Lookups that this began find nobody, and end when their questions do.
        driver.expire_due(at);
    }
    driver.take_outs();
    Ok((driver, taken as f64 / f64::from(entered.max(1))))
}

pub(super) fn measure(figures: &mut Figures) -> Result<(), Failure> {
    let (mut driver, insert) = filled()?;
    note(figures, Impl::Peerage, "insert_ns", insert);
    let sizes: usize = driver.machine().table_sizes().iter().sum();
    note(figures, Impl::Peerage, "table_nodes", sizes as f64);
    let at = Time::new(Duration::from_secs(100), Duration::from_secs(UNIX));
    let mut number = 0_u64;
    let closest = cost(|| {
        number += 1;
        let target = blake(number);
        // What a caller or another node asks: the choice of sixteen, and the copies of their records.
        let asker = says(NodeId::from_bytes([9; 32]), ([20, 0, 0, 9], 9).into(), packet(Message::FindNode { target }));
        driver.handle(at, asker);
        driver.take_outs()
    });
    note(figures, Impl::Peerage, "find_node_ns", closest);
    Ok(())
}

/// A point for a number.
pub(super) fn blake(number: u64) -> Key {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    Key::of(NodeId::from_bytes(bytes))
}

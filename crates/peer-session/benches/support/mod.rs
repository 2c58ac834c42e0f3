//! Two ends, and a handshake between them, machines only.

use std::time::Duration;

use peerage_machine::Time;
use peerage_peer_session::handshake::{Acceptor, Dialler, Keys, LocalEnd, Presented};
use peerage_peer_session::peerage_wire::codec::{List, Text};
use peerage_peer_session::peerage_wire::{Capability, ForkId, Hello, Keypair, NetworkId, RecordDraft};
use peerage_peer_session::{Ciphers, Config};
use zeroize::Zeroizing;

const UNIX: Duration = Duration::from_secs(1_700_000_000);

pub(crate) type End = (LocalEnd, Presented);

/// The nth end.
pub(crate) fn end(n: u8, ciphers: Ciphers) -> End {
    let (keys, network) = (Keypair::from_seed([n; 32]), NetworkId::named("bench"));
    let hello = Hello {
        version: Hello::VERSION,
        network,
        fork_id: ForkId::default(),
        instance: 1,
        agent: Text::new("bench").expect("short"),
        capabilities: List::truncated(Capability::new("a", 1)),
    };
    let record = RecordDraft::new(UNIX.as_millis() as u64, network).sign(&keys).expect("small");
    (LocalEnd::new(&keys).with_ciphers(ciphers), Presented { record, hello, accepted_forks: List::default() })
}

/// A whole handshake: the keys of the end that dials, and of the other.
pub(crate) fn handshake((alice, alice_says): &End, (bob, bob_says): &End) -> (Keys, Keys) {
    let (config, now) = (Config::recommended(), Time::new(Duration::ZERO, UNIX));
    let (dialler, m1) = Dialler::begin(alice, Zeroizing::new([8; 32]), bob_says.record.id()).expect("begins");
    let asked = Acceptor::asked(bob, &m1).expect("a first message");
    let (acceptor, m2) = asked.answer(Zeroizing::new([9; 32]), bob_says).expect("answers");
    let (knowing, _) = dialler.read_m2(&config, now, alice_says, &m2).expect("Bob's");
    let (m3, dialled) = knowing.write_m3(alice_says).expect("fits");
    let (accepted, _) = acceptor.read_m3(&config, now, bob_says, &m3).expect("Alice's");
    (dialled, accepted)
}

//! Tests of the record: what is in it, in which order, and that it always fits.

use std::net::{IpAddr, Ipv6Addr};

use peerage_discovery::external::Origin;

use super::*;

fn external(ip: IpAddr, tcp: u16, udp: u16) -> External {
    External { ip, tcp: Some(tcp), udp: Some(udp), origin: Origin::Mapped }
}

fn signed(config: &Config, external: &[External], bound: &[&str]) -> Verified<NodeRecord> {
    let bound: Vec<SocketAddr> = bound.iter().map(|text| text.parse().expect("socket")).collect();
    record(config, &Keypair::from_seed([1; 32]), 1_700_000_000_000, external, &bound).expect("it fits")
}

fn sockets(sockets: &[SocketAddr]) -> Vec<String> {
    sockets.iter().map(ToString::to_string).collect()
}

#[test]
fn two_mappings_put_the_gateways_address_and_the_granted_ports_first_in_the_record() {
    let mapped = external([203, 0, 113, 1].into(), 5001, 5002);
    let record = signed(&Config::recommended(), &[mapped], &["192.168.1.5:30303", "127.0.0.1:30303"]);
    assert_eq!(sockets(record.tcp_sockets()), ["203.0.113.1:5001", "192.168.1.5:30303"]);
    assert_eq!(sockets(record.udp_sockets()), ["203.0.113.1:5002", "192.168.1.5:30303"]);
    let deaf = Config { listening_on: false, ..Config::recommended() };
    let record = signed(&deaf, &[External { tcp: None, ..mapped }], &["192.168.1.5:30303"]);
    assert_eq!((record.tcp_sockets().len(), record.udp_sockets().len()), (0, 2));
}

#[test]
fn without_an_external_address_the_record_names_what_is_bound() {
    let record = signed(&Config::recommended(), &[], &["192.168.1.5:30303", "127.0.0.1:30303"]);
    assert_eq!(sockets(record.tcp_sockets()), ["192.168.1.5:30303", "127.0.0.1:30303"]);
}

#[test]
fn a_record_fits_however_many_addresses_there_are_and_the_widest_stay() {
    let v6 = |n: u16| IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, n, 1, 2, 3, 4, 5));
    let both = [external([203, 0, 113, 1].into(), 5001, 5002), external(v6(1), 65_535, 65_534)];
    let bound = ["127.0.0.1:30303", "10.0.0.1:30303", "[fd00::1]:30303", "[2001:db8:9:9:9:9:9:9]:30303"];
    let record = signed(&Config::recommended(), &both, &bound);
    assert!(record.bytes().len() <= peerage_wire::MAX_RECORD, "{}", record.bytes().len());
    let named = sockets(record.tcp_sockets());
    assert_eq!(named, ["203.0.113.1:5001", "[2001:db8:1:1:2:3:4:5]:65535", "[2001:db8:9:9:9:9:9:9]:30303"]);
}

#[test]
fn an_address_that_is_bound_too_is_named_once() {
    let bound = external([203, 0, 113, 1].into(), 30303, 30303);
    let record = signed(&Config::recommended(), &[bound], &["203.0.113.1:30303", "10.0.0.1:30303"]);
    assert_eq!(sockets(record.tcp_sockets()), ["203.0.113.1:30303", "10.0.0.1:30303"]);
}

#[test]
fn what_the_application_says_stands_in_the_record_however_many_addresses_there_are() {
    let keys = Keypair::from_seed([1; 32]);
    let entries = [("fork", vec![1; 32]), ("shards", vec![2; 40])];
    let record_entries = entries.map(|(key, value)| (key.as_bytes().to_vec(), value)).into();
    let config = Config { record_entries, ..Config::recommended() };
    assert_eq!(config.check(), Ok(()));
    let bound: Vec<SocketAddr> =
        (1..9).map(|n| (Ipv6Addr::new(0x2001, 0xdb8, n, 1, 2, 3, 4, 5), 30303).into()).collect();
    let record = record(&config, &keys, 1, &[], &bound).expect("it fits");
    assert_eq!((record.entry(b"fork"), record.entry(b"shards")), (Some(&[1; 32][..]), Some(&[2; 40][..])));
    assert!(!record.tcp_sockets().is_empty() && !record.udp_sockets().is_empty());
    let crowded = Config { record_entries: [(b"x".to_vec(), vec![0; 96])].into(), ..config.clone() };
    assert!(crowded.check().is_err());
    let nameless = Config { record_entries: [(Vec::new(), vec![0; 9])].into(), ..config };
    assert!(nameless.check().is_err());
}

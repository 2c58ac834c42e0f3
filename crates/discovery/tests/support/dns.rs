//! A name server for tests: A and TXT records from a table, over UDP and TCP, in threads that end with it.

// Each file of tests uses what it needs of this.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// What a name server says: texts and addresses, by name in lower case.
#[derive(Default)]
pub(crate) struct Zone {
    pub(crate) texts: BTreeMap<String, Vec<String>>,
    pub(crate) addresses: BTreeMap<String, Vec<Ipv4Addr>>,
}

/// A running name server.
pub(crate) struct DnsServer {
    pub(crate) at: SocketAddr,
    pub(crate) zone: Arc<Mutex<Zone>>,
    /// Questions over UDP, and over TCP.
    pub(crate) asked: Arc<[AtomicUsize; 2]>,
    ending: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl DnsServer {
    /// Answers over UDP that are longer than `limit` are cut.
    pub(crate) fn start(on: SocketAddr, limit: usize) -> DnsServer {
        let (udp, tcp) = bind(on);
        let at = udp.local_addr().expect("bound");
        let (zone, ending) = (Arc::new(Mutex::new(Zone::default())), Arc::new(AtomicBool::new(false)));
        let asked = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
        udp.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout");
        tcp.set_nonblocking(true).expect("a socket");
        let by_udp = {
            let (zone, ending, asked) = (zone.clone(), ending.clone(), asked.clone());
            std::thread::spawn(move || {
                let mut buffer = [0; 1500];
                while !ending.load(Ordering::Relaxed) {
                    let Ok((len, from)) = udp.recv_from(&mut buffer) else { continue };
                    asked[0].fetch_add(1, Ordering::Relaxed);
                    let mut reply = answer(&buffer[..len], &zone.lock().expect("not poisoned"));
                    if reply.len() > limit {
                        reply[2] |= 2;
                        reply[6..8].copy_from_slice(&[0, 0]);
                        reply.truncate(question_end(&reply));
                    }
                    udp.send_to(&reply, from).expect("sent");
                }
            })
        };
        let by_tcp = {
            let (zone, ending, asked) = (zone.clone(), ending.clone(), asked.clone());
            std::thread::spawn(move || {
                while !ending.load(Ordering::Relaxed) {
                    let Ok((mut stream, _)) = tcp.accept() else {
                        std::thread::sleep(Duration::from_millis(20));
                        continue;
                    };
                    stream.set_nonblocking(false).expect("a socket");
                    asked[1].fetch_add(1, Ordering::Relaxed);
                    let mut len = [0; 2];
                    stream.read_exact(&mut len).expect("a length");
                    let mut query = vec![0; u16::from_be_bytes(len).into()];
                    stream.read_exact(&mut query).expect("a query");
                    let reply = answer(&query, &zone.lock().expect("not poisoned"));
                    stream.write_all(&(reply.len() as u16).to_be_bytes()).expect("sent");
                    stream.write_all(&reply).expect("sent");
                }
            })
        };
        DnsServer { at, zone, asked, ending, threads: vec![by_udp, by_tcp] }
    }

    pub(crate) fn text(&self, name: &str, texts: &[&str]) {
        let texts = texts.iter().map(|text| (*text).to_owned()).collect();
        self.zone.lock().expect("not poisoned").texts.insert(name.to_lowercase(), texts);
    }

    pub(crate) fn address(&self, name: &str, ips: &[Ipv4Addr]) {
        self.zone.lock().expect("not poisoned").addresses.insert(name.to_lowercase(), ips.to_vec());
    }

    pub(crate) fn asked(&self) -> [usize; 2] {
        [0, 1].map(|n| self.asked[n].load(Ordering::Relaxed))
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A panic there fails the test by itself, as nothing is answered.
            drop(thread.join());
        }
    }
}

/// The same port of both; a free one may be taken by others in between.
fn bind(on: SocketAddr) -> (UdpSocket, TcpListener) {
    for _ in 0..20 {
        let udp = UdpSocket::bind(on).expect("bound");
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().expect("bound")) {
            return (udp, tcp);
        }
    }
    panic!("no port that is free for UDP and TCP");
}

fn question_end(message: &[u8]) -> usize {
    let mut at = 12;
    while message[at] != 0 {
        at += 1 + usize::from(message[at]);
    }
    at + 5
}

fn answer(query: &[u8], zone: &Zone) -> Vec<u8> {
    let (mut at, mut labels) = (12, Vec::new());
    while query[at] != 0 {
        let end = at + 1 + usize::from(query[at]);
        labels.push(String::from_utf8_lossy(&query[at + 1..end]).to_lowercase());
        at = end;
    }
    let name = labels.join(".");
    let kind = u16::from_be_bytes([query[at + 1], query[at + 2]]);
    let records: Vec<Vec<u8>> = match kind {
        16 => zone.texts.get(&name).into_iter().flatten().map(|text| strings(text)).collect(),
        1 => zone.addresses.get(&name).into_iter().flatten().map(|ip| ip.octets().to_vec()).collect(),
        _ => Vec::new(),
    };
    let known = zone.texts.contains_key(&name) || zone.addresses.contains_key(&name);
    let mut reply = query[..question_end(query)].to_vec();
    reply[2..4].copy_from_slice(&[0x81, if known { 0x80 } else { 0x83 }]);
    reply[6..12].copy_from_slice(&[0, records.len() as u8, 0, 0, 0, 0]);
    for data in records {
        reply.extend([0xc0, 12]);
        reply.extend(kind.to_be_bytes());
        reply.extend([0, 1, 0, 0, 0, 60]);
        reply.extend((data.len() as u16).to_be_bytes());
        reply.extend(data);
    }
    reply
}

fn strings(text: &str) -> Vec<u8> {
    let mut data = Vec::new();
    for part in text.as_bytes().chunks(255) {
        data.push(part.len() as u8);
        data.extend(part);
    }
    data
}

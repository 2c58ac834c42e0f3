//! What the system tells of a socket beyond its own calls.

use std::net::{IpAddr, SocketAddr};

/// Datagrams that the system dropped because the socket bound there had no room for them, since it was bound; `None`
/// where the system does not tell (everywhere but on Linux) or no socket is bound there.
///
/// Read from the table of the *thread's* network namespace, one line a socket; so not for every datagram.
pub(crate) fn datagram_drops(local: SocketAddr) -> Option<u64> {
    let table = if local.is_ipv4() { "/proc/thread-self/net/udp" } else { "/proc/thread-self/net/udp6" };
    if !cfg!(target_os = "linux") {
        return None;
    }
    drops_in(&std::fs::read_to_string(table).ok()?, local)
}

/// The sum of the last column over the lines of that address.
fn drops_in(table: &str, local: SocketAddr) -> Option<u64> {
    let address = address_in_table(local);
    let of_socket = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        (fields.nth(1)? == address).then(|| fields.next_back()?.parse::<u64>().ok())?
    };
    table.lines().skip(1).filter_map(of_socket).reduce(|sum, drops| sum.saturating_add(drops))
}

/// An address as the kernel prints it: words of 32 bits as they lie in memory, and the port.
fn address_in_table(local: SocketAddr) -> String {
    let words: String = match local.ip() {
        IpAddr::V4(ip) => format!("{:08X}", u32::from_ne_bytes(ip.octets())),
        IpAddr::V6(ip) => {
            let octets = ip.octets();
            let (words, _) = octets.as_chunks::<4>();
            words.iter().map(|word| format!("{:08X}", u32::from_ne_bytes(*word))).collect()
        }
    };
    format!("{words}:{:04X}", local.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a little-endian Linux prints it.
    #[cfg(target_endian = "little")]
    #[test]
    fn the_drops_of_a_socket_are_in_the_line_of_its_address() {
        let line = |address: &str, drops: u32| {
            format!(
                " 1: {address} 00000000:0000 07 00000000:00000000 00:00000000 00000000  0  0 77 2 00000000 {drops}\n"
            )
        };
        let table = ["sl local\n".to_owned(), line("0100007F:765F", 12), line("00000000:765F", 5)].concat();
        let drops = |local: &str| drops_in(&table, local.parse().expect("address"));
        assert_eq!(drops("127.0.0.1:30303"), Some(12));
        assert_eq!(drops("0.0.0.0:30303"), Some(5));
        assert_eq!(drops("127.0.0.1:30304"), None);
        let table = ["sl local\n".to_owned(), line("B80D0120000000000000000001000000:765F", 3)].concat();
        assert_eq!(drops_in(&table, "[2001:db8::1]:30303".parse().expect("address")), Some(3));
        assert_eq!(drops_in("", "[::1]:1".parse().expect("address")), None);
        assert_eq!(drops_in("sl\n1: 00000000:0001", "0.0.0.0:1".parse().expect("address")), None, "cut off");
    }
}

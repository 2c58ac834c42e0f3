//! Which gateway the computer's packets leave by.

use std::net::Ipv4Addr;

/// The computer's default gateway over IPv4, if it can be known: from the routing table of the kernel on Linux, from
/// the program `route` on macOS, and not elsewhere.
pub(super) async fn default_gateway() -> Option<Ipv4Addr> {
    #[cfg(target_os = "linux")]
    {
        // Of memory, not of a disk.
        from_proc(&std::fs::read_to_string("/proc/net/route").ok()?)
    }
    #[cfg(target_os = "macos")]
    {
        let asked = || std::process::Command::new("/sbin/route").args(["-n", "get", "default"]).output();
        let output = tokio::task::spawn_blocking(asked).await.ok()?.ok()?;
        from_route(std::str::from_utf8(&output.stdout).ok()?)
    }
    #[cfg(not(any(target_os = "linux", target_os = "macos")))]
    None
}

/// Reads `/proc/net/route`: numbers are hexadecimal, addresses in the order of this computer's bytes. Of several
/// default routes the one of the lowest metric is used.
#[cfg(any(target_os = "linux", test))]
fn from_proc(table: &str) -> Option<Ipv4Addr> {
    /// The route is up and leads to a gateway (`RTF_UP`, `RTF_GATEWAY`).
    const FLAGS: u32 = 3;
    let routes = table.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let number = |at: usize| u32::from_str_radix(fields.get(at)?, 16).ok();
        let (destination, gateway, flags, mask) = (number(1)?, number(2)?, number(3)?, number(7)?);
        let metric: u32 = fields.get(6)?.parse().ok()?;
        let is_default = destination == 0 && mask == 0 && flags & FLAGS == FLAGS && gateway != 0;
        is_default.then(|| (metric, Ipv4Addr::from(gateway.to_ne_bytes())))
    });
    routes.min_by_key(|(metric, _)| *metric).map(|(_, gateway)| gateway)
}

/// Reads what `route -n get default` prints.
#[cfg(any(target_os = "macos", test))]
fn from_route(text: &str) -> Option<Ipv4Addr> {
    text.lines().find_map(|line| line.trim().strip_prefix("gateway:")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n";

    fn line(destination: u32, gateway: [u8; 4], flags: u32, metric: u32, mask: u32) -> String {
        let gateway = u32::from_ne_bytes(gateway);
        format!("eth0\t{destination:08X}\t{gateway:08X}\t{flags:04X}\t0\t0\t{metric}\t{mask:08X}\t0\t0\t0\n")
    }

    #[test]
    fn the_default_route_of_the_lowest_metric_names_the_gateway() {
        let far = line(0, [10, 0, 0, 1], 3, 600, 0);
        let near = line(0, [192, 168, 1, 1], 3, 100, 0);
        assert_eq!(from_proc(&format!("{HEAD}{far}{near}")), Some(Ipv4Addr::new(192, 168, 1, 1)));
    }

    #[test]
    fn what_is_no_default_route_or_no_table_names_none() {
        let network = line(0x0001_a8c0, [0; 4], 1, 0, 0x00ff_ffff);
        let half = line(0, [10, 0, 0, 1], 3, 0, 0x0000_0080);
        let down = line(0, [10, 0, 0, 1], 2, 0, 0);
        let device = line(0, [0; 4], 1, 0, 0);
        for table in [String::new(), HEAD.into(), "hello\nworld".into(), format!("{HEAD}{network}{half}{down}{device}")]
        {
            assert_eq!(from_proc(&table), None, "{table}");
        }
    }

    #[test]
    fn the_program_of_macos_is_understood() {
        let text = "   route to: default\ndestination: default\n       mask: default\n    gateway: 192.168.1.1\n";
        assert_eq!(from_route(text), Some(Ipv4Addr::new(192, 168, 1, 1)));
        assert_eq!(from_route("    gateway: fe80::1%en0\n"), None);
        assert_eq!(from_route("route: not in table"), None);
    }
}

//! The node that is attacked: as recommended for nodes on one machine, but that local addresses are limited too.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use metrics_exporter_prometheus::PrometheusBuilder;
use peerage_server::mailbox::Meter;
use peerage_server::{Args, Config, PeerAddress, SharedAddress, start};
use tokio::io::{AsyncBufReadExt, BufReader};

use super::{Facts, Found, honest};
use crate::Failure;
use crate::machine::Usage;

/// All honest peers are on one address.
pub(super) fn config() -> Result<Config, Failure> {
    let mut config = Config { exempt_local: false, discovery_on: false, exchange_on: false, ..Config::local() };
    config.listener.shared_addresses = vec![SharedAddress { network: "127.0.0.1/32".parse()?, factor: 20 }];
    Ok(config)
}

/// A node with places for so many.
pub(super) fn idle(sessions: u32, exchange: bool) -> Config {
    Config {
        max_peers: sessions,
        dialing_on: false,
        discovery_on: exchange,
        exchange_on: exchange,
        churn: None,
        ..Config::local()
    }
}

pub(super) async fn run(config: Config) -> Result<(), Failure> {
    let recorder = PrometheusBuilder::new().build_recorder();
    let counted = recorder.handle();
    let args = Args { meter: Meter::new(Arc::new(recorder)), ..honest::args(0, config, Vec::new())? };
    let server = start(args).await?;
    let mut inlet = honest::subscribe(&server).await?;
    tokio::spawn(async move { while inlet.recv().await.is_ok() {} });
    let local = PeerAddress::from(&*server.local().await?.record);
    let at = *local.addresses.first().ok_or("it listens nowhere")?;
    debug_assert_eq!(at.ip(), Ipv4Addr::LOCALHOST);
    println!("{}", serde_json::to_string(&Found { at, id: local.id })?);
    let mut told = BufReader::new(tokio::io::stdin()).lines();
    while let Ok(Some(_)) = told.next_line().await {
        let text = counted.render();
        let Usage { cpu_us, rss_kib, peak_kib } = Usage::now();
        let facts = Facts {
            cpu_us,
            rss_kib,
            rss_peak_kib: peak_kib,
            refused: labelled(&text, "peerage_inbound_refused_total{", "reason"),
            handshakes: labelled(&text, "peerage_handshakes_total{direction=\"inbound\"", "outcome"),
        };
        println!("{}", serde_json::to_string(&facts)?);
    }
    Ok(())
}

/// The values of a Prometheus text's lines that begin so, by one of their labels.
fn labelled(text: &str, start: &str, label: &str) -> BTreeMap<String, f64> {
    let read = |line: &str| {
        let (_, rest) = line.split_once(&format!("{label}=\""))?;
        let (name, _) = rest.split_once('"')?;
        Some((name.to_owned(), line.rsplit_once(' ')?.1.parse().ok()?))
    };
    text.lines().filter(|line| line.starts_with(start)).filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_by_their_label() {
        let text = "# TYPE a counter\na{reason=\"host_limit\"} 7\na{reason=\"no_slot\"} 2\nab{reason=\"x\"} 1\n";
        let read = labelled(text, "a{", "reason");
        assert_eq!(read, BTreeMap::from([("host_limit".to_owned(), 7.0), ("no_slot".to_owned(), 2.0)]));
    }
}

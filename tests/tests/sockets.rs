//! Real sockets: what the process has open is what it had before. One test, as the count is of the whole process.
#![cfg(target_os = "linux")]

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

use peerage_server::mailbox::Clock;
use peerage_server::transport::Transport;
use peerage_server::{Args, PeerAddress, StartError, start};
use peerage_tests::{config, keys};
use tokio::runtime::Handle;

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("Linux").count()
}

fn args(n: usize, listen: SocketAddr, bootnodes: Vec<PeerAddress>) -> Args {
    let args = peerage_tests::args(config(10), keys(2, n), Transport::sockets(), vec![listen], Clock::system());
    Args { bootnodes, seed: n as u64, ..args }
}

/// Waits for what ends in its own time, as long as it may take.
async fn settles_at(files: usize, tasks: usize) {
    let now = || (open_files(), Handle::current().metrics().num_alive_tasks());
    for _ in 0..100 {
        if now() == (files, tasks) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(now(), (files, tasks), "open files and tasks");
}

#[tokio::test]
async fn nodes_that_ran_or_failed_to_start_leave_no_file_open_and_no_task() {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    // What the runtime and the first node open for good is there afterwards.
    start(args(0, any, Vec::new())).await.expect("a free port").shutdown().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (files, tasks) = (open_files(), Handle::current().metrics().num_alive_tasks());

    let taken = TcpListener::bind(any).expect("a free port");
    let at = taken.local_addr().expect("bound");
    let error = start(args(1, at, Vec::new())).await.expect_err("taken");
    assert!(matches!(error, StartError::Listen { protocol: "TCP", .. }), "{error}");
    drop(taken);
    let taken = UdpSocket::bind(any).expect("a free port");
    let at = taken.local_addr().expect("bound");
    let error = start(args(1, at, Vec::new())).await.expect_err("taken");
    assert!(matches!(error, StartError::Listen { protocol: "UDP", .. }), "{error}");
    drop(taken);
    TcpListener::bind(at).expect("TCP is free again");
    settles_at(files, tasks).await;

    let first = start(args(1, any, Vec::new())).await.expect("a free port");
    let local = first.local().await.expect("running");
    let known = PeerAddress::from(&*local.record);
    let mut nodes = vec![first];
    for n in 2..6 {
        nodes.push(start(args(n, any, vec![known.clone()])).await.expect("a free port"));
    }
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    for node in &nodes {
        while node.peer_count().await.expect("running") < 3 {
            assert!(tokio::time::Instant::now() < deadline, "they find each other");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    // Half of them while the others still dial them again.
    for node in nodes {
        node.shutdown().await;
    }
    settles_at(files, tasks).await;
}

//! The members that are fetched: when, and what becomes of a fetch that fails, is slow, or is overtaken.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use peerage_server::router::resilience::{Fetched, Membership};
use peerage_server::router::{ErrorCode, Handler, HandlerConfig, RequestError};
use peerage_server::wire::NodeId;

use crate::net::{Net, Node};

const SECOND: Duration = Duration::from_secs(1);

/// What each fetch does, and how many there were.
fn membership(
    fetch: impl Fn(usize) -> (Duration, Fetched) + Send + Sync + 'static,
) -> (Option<Arc<dyn Membership>>, Arc<AtomicUsize>) {
    let fetches = Arc::new(AtomicUsize::new(0));
    let count = fetches.clone();
    let membership = move || {
        let (time, fetched) = fetch(count.fetch_add(1, Ordering::SeqCst));
        async move {
            tokio::time::sleep(time).await;
            fetched
        }
    };
    (Some(Arc::new(membership)), fetches)
}

fn only(id: NodeId) -> BTreeMap<NodeId, u64> {
    BTreeMap::from([(id, 1)])
}

/// Two nodes, of which the first serves its members; and its fetches.
async fn pair(
    fetch: impl Fn(NodeId, usize) -> (Duration, Fetched) + Send + Sync + 'static,
) -> (Node, Node, Arc<AtomicUsize>) {
    let net = Net::new();
    let caller = net.node(2, |_| {}).await;
    let id = caller.id;
    let (membership, fetches) = membership(move |n| fetch(id, n));
    let statics = vec![caller.address.clone()];
    let first = net.node(1, |args| (args.membership, args.statics) = (membership, statics)).await;
    let members = HandlerConfig { members_only: true, ..HandlerConfig::concurrent() };
    first.server.serve("echo", members, Handler::function(|call| Ok(call.payload))).await.expect("free");
    first.until_peers(1).await;
    caller.until_peers(1).await;
    tokio::time::sleep(SECOND / 2).await;
    (first, caller, fetches)
}

async fn is_served(caller: &Node, by: &Node) -> bool {
    match caller.server.router().request(by.id, "echo", "hi", SECOND).await {
        Ok(_) => true,
        Err(RequestError::Refused { code: ErrorCode::NotMember, .. }) => false,
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test(start_paused = true)]
async fn members_are_fetched_at_the_start_again_when_old_and_used_and_an_error_keeps_them() {
    let (first, caller, fetches) = pair(|id, n| match n {
        0 => (Duration::ZERO, Err("not yet".into())),
        1 => (Duration::ZERO, Ok(only(id))),
        2 => (Duration::ZERO, Err("the chain is away".into())),
        3 => panic!("as it happens"),
        _ => (Duration::ZERO, Ok(BTreeMap::new())),
    })
    .await;
    assert!(!is_served(&caller, &first).await, "nobody is a member yet");
    tokio::time::sleep(6 * SECOND).await;
    assert_eq!(fetches.load(Ordering::SeqCst), 2, "tried again soon, as there was no set at all");
    assert!(is_served(&caller, &first).await);
    // Old, and asked for by being used; each error keeps what there is.
    for n in [3, 4] {
        tokio::time::sleep(61 * SECOND).await;
        assert!(is_served(&caller, &first).await, "the old set holds");
        tokio::time::sleep(SECOND).await;
        assert_eq!(fetches.load(Ordering::SeqCst), n);
        assert!(is_served(&caller, &first).await, "still");
    }
    tokio::time::sleep(61 * SECOND).await;
    assert!(is_served(&caller, &first).await);
    tokio::time::sleep(SECOND).await;
    assert!(!is_served(&caller, &first).await, "it is no member any more");
}

#[tokio::test(start_paused = true)]
async fn a_slow_fetch_holds_nobody_up_and_what_is_said_meanwhile_holds() {
    let (first, caller, fetches) = pair(|id, n| match n {
        // Longer than it may take.
        0 => (3600 * SECOND, Ok(only(id))),
        1 => (10 * SECOND, Ok(only(id))),
        _ => (10 * SECOND, Ok(BTreeMap::new())),
    })
    .await;
    assert!(!is_served(&caller, &first).await && first.server.peer_count().await == Ok(1), "the node is at work");
    assert_eq!(fetches.load(Ordering::SeqCst), 1);
    tokio::time::sleep(26 * SECOND).await;
    assert_eq!(fetches.load(Ordering::SeqCst), 2, "given up, and tried again");
    tokio::time::sleep(11 * SECOND).await;
    assert!(is_served(&caller, &first).await);
    // The next one is out when the application says who the members are.
    tokio::time::sleep(61 * SECOND).await;
    assert!(is_served(&caller, &first).await);
    tokio::time::sleep(SECOND).await;
    assert_eq!(fetches.load(Ordering::SeqCst), 3);
    first.server.members(only(caller.id));
    tokio::time::sleep(20 * SECOND).await;
    assert!(is_served(&caller, &first).await, "what the fetch brought counts for nothing");
}

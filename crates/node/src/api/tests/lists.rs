//! Static and trusted peers, bans and the policy of admission, over HTTP.

use super::*;

const ID: &str = "12D3KooWPW8NCp5gTny3CUywj9ieJJpgg9vxGRZKSxLnqkdYQdVP";

/// A request with a JSON body.
fn json(line: &str) -> String {
    format!("{line}\r\ncontent-type: application/json\r\n")
}

/// Two nodes that are peers because `dials` has the other as a static peer.
async fn pair() -> (Served, Node) {
    let dials = served(Builder::local().discovery(false)).await;
    let other = Builder::local().discovery(false).start().await.expect("starts");
    connect(&dials, &other).await;
    (dials, other)
}

async fn connect(dials: &Served, other: &Node) {
    let address = other.addresses().await.expect("runs").remove(0);
    let asked = dials.ask(&json("POST /v1/peers/static"), format!("{{\"address\":\"{address}\"}}")).await;
    assert_eq!(asked.json()["id"], other.id().to_string());
    until_peers(other, 1).await;
    until_peers(&dials.node, 1).await;
}

async fn until_peers(node: &Node, count: usize) {
    let work = async {
        while node.peer_count().await.expect("runs") != count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LIMIT, work).await.unwrap_or_else(|_| panic!("not in time: {count} peers"));
}

#[tokio::test]
async fn static_and_trusted_peers_are_listed_as_they_come_and_go() {
    let served = served(Builder::local().dialing(false)).await;
    for list in ["static", "trusted"] {
        assert_eq!(served.ask(&format!("GET /v1/peers/{list}"), "").await.body, "[]");
    }
    let address = format!("/ip4/127.0.0.1/tcp/1/p2p/{ID}");
    served.ask(&json("POST /v1/peers/static"), format!("{{\"address\":\"{address}\"}}")).await;
    served.ask(&json("POST /v1/peers/trusted"), format!("{{\"id\":\"{ID}\"}}")).await;
    let listed = served.ask("GET /v1/peers/static", "").await.json();
    assert_eq!(listed, serde_json::json!([{ "id": ID, "addresses": [address] }]), "as it was posted");
    assert_eq!(served.ask("GET /v1/peers/trusted", "").await.json(), serde_json::json!([{ "id": ID }]));
    for list in ["static", "trusted"] {
        assert_eq!(served.ask(&format!("DELETE /v1/peers/{list}/{ID}"), "").await.json()["id"], ID);
        assert_eq!(served.ask(&format!("GET /v1/peers/{list}"), "").await.body, "[]");
    }
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_is_deleted_is_gone_when_the_answer_comes() {
    let (served, other) = pair().await;
    let id = other.id();
    assert_eq!(served.ask(&format!("DELETE /v1/peers/{id}"), "").await.json()["id"], id.to_string());
    assert_eq!(served.ask("GET /v1/peers", "").await.body, "[]");
    assert_eq!(served.ask("GET /v1/peers/static", "").await.body, "[]", "it would come back");
    let again = served.ask(&format!("DELETE /v1/peers/{id}"), "").await;
    assert_eq!(again.status, StatusCode::OK, "who is no peer is gone already");
    served.ask("DELETE /v1/peers/nobody", "").await.refused(400, "not a peer id");
    other.shutdown().await;
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ban_drops_a_peer_and_keeps_it_away_until_it_is_taken_back() {
    let (served, other) = pair().await;
    let id = other.id().to_string();
    let banned = served.ask(&json("POST /v1/bans"), format!("{{\"id\":\"{id}\",\"seconds\":600}}")).await;
    assert_eq!((banned.status, banned.json()["id"].as_str()), (StatusCode::OK, Some(&*id)));
    until_peers(&served.node, 0).await;
    let bans = served.ask("GET /v1/bans", "").await.json();
    assert_eq!(bans[0]["id"], id);
    assert!(bans[0]["seconds"].as_u64().is_some_and(|left| (590..=600).contains(&left)), "{bans}");
    assert_eq!(served.ask(&format!("DELETE /v1/bans/{id}"), "").await.json()["unbanned"], id);
    assert_eq!(served.ask("GET /v1/bans", "").await.body, "[]");
    // It is static: it is dialled again.
    until_peers(&served.node, 1).await;

    // A network is one however it is written.
    served.ask(&json("POST /v1/bans"), "{\"network\":\"127.0.0.1/8\",\"seconds\":60}").await;
    until_peers(&served.node, 0).await;
    assert_eq!(served.ask("GET /v1/bans", "").await.json()[0]["network"], "127.0.0.0/8");
    let unbanned = served.ask("DELETE /v1/bans/127.0.0.0%2F8", "").await;
    assert_eq!(unbanned.json()["unbanned"], "127.0.0.0/8");
    assert_eq!(served.ask("GET /v1/bans", "").await.body, "[]");
    other.shutdown().await;
    served.stop().await;
}

#[tokio::test]
async fn a_ban_that_makes_no_sense_is_refused_with_what_to_write() {
    let served = served(Builder::local()).await;
    let ban = async |body: String, saying: &str| {
        served.ask(&json("POST /v1/bans"), body).await.refused(400, saying);
    };
    ban(format!("{{\"id\":\"{ID}\"}}"), "missing field `seconds`").await;
    ban(format!("{{\"id\":\"{ID}\",\"seconds\":0}}"), "from 1 to 31536000").await;
    ban(format!("{{\"id\":\"{ID}\",\"seconds\":99999999}}"), "PUT /v1/admission").await;
    ban(format!("{{\"id\":\"{ID}\",\"seconds\":-1}}"), "not the JSON expected").await;
    ban("{\"seconds\":1}".into(), "either an `id` or a `network`").await;
    ban(format!("{{\"id\":\"{ID}\",\"network\":\"10.0.0.0/8\",\"seconds\":1}}"), "either an `id`").await;
    ban("{\"id\":\"nobody\",\"seconds\":1}".into(), "not a peer id").await;
    ban("{\"network\":\"10.0.0.0/33\",\"seconds\":1}".into(), "written like 10.0.0.0/8").await;
    ban(format!("{{\"id\":\"{ID}\",\"secs\":1,\"seconds\":1}}"), "unknown field `secs`").await;
    ban(format!("{{\"id\":\"{}\",\"seconds\":1}}", served.node.id()), "this node itself").await;
    served.ask("POST /v1/bans", "{}").await.refused(415, "application/json");
    served.ask("DELETE /v1/bans/nobody", "").await.refused(400, "10.0.0.0/8");
    served.ask(&json("POST /v1/bans"), vec![b' '; 20_000]).await.refused(413, "16384 bytes");
    assert_eq!(served.ask("GET /v1/bans", "").await.body, "[]");
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_takes_effect_on_live_peers_and_can_be_read_back() {
    let (served, other) = pair().await;
    let open = served.ask("GET /v1/admission", "").await.json();
    assert_eq!(open, serde_json::json!({ "allowed": [], "denied": [], "only": null }));
    let only_other = format!("{{\"allowed\":[\"127.0.0.1/8\",\"::1\"],\"only\":[\"{}\"]}}", other.id());
    let set = served.ask(&json("PUT /v1/admission"), only_other).await.json();
    let expected =
        serde_json::json!({ "allowed": ["127.0.0.0/8", "::1/128"], "denied": [], "only": [other.id().to_string()] });
    assert_eq!((&set, &served.ask("GET /v1/admission", "").await.json()), (&expected, &expected));
    assert_eq!(served.node.peer_count().await.expect("runs"), 1, "it is admitted still");

    served.ask(&json("PUT /v1/admission"), "{\"only\":[]}").await;
    until_peers(&served.node, 0).await;
    served.ask(&json("PUT /v1/admission"), "{}").await;
    until_peers(&served.node, 1).await;
    other.shutdown().await;
    served.stop().await;
}

#[tokio::test]
async fn a_policy_that_cannot_be_is_refused_and_the_old_one_stays() {
    let served = served(Builder::local()).await;
    let put = json("PUT /v1/admission");
    served.ask(&put, "{\"denied\":[\"10.0.0.0/8\"]}").await;
    served.ask(&put, "{\"deny\":[\"11.0.0.0/8\"]}").await.refused(400, "unknown field `deny`");
    served.ask(&put, "{\"denied\":[\"everybody\"]}").await.refused(400, "written like 10.0.0.0/8");
    served.ask(&put, "{\"only\":[\"me\"]}").await.refused(400, "not a peer id");
    let many = serde_json::json!({ "denied": vec!["10.0.0.0/8"; 513] }).to_string();
    served.ask(&put, many).await.refused(400, "at most 512");
    served.ask(&put, vec![b' '; 1024 * 1024 + 1]).await.refused(413, "1048576 bytes");
    served.ask("PUT /v1/admission", "{}").await.refused(415, "application/json");
    served.ask(&json("POST /v1/admission"), "{}").await.refused(405, "does not know that method");
    assert_eq!(served.ask("GET /v1/admission", "").await.json()["denied"][0], "10.0.0.0/8");
    // As many ids as a permissioned network has.
    let only = serde_json::json!({ "only": vec![ID; 10_000] }).to_string();
    assert_eq!(served.ask(&put, only).await.json()["only"], serde_json::json!([ID]));
    served.stop().await;
}

#[tokio::test]
async fn a_page_in_a_browser_changes_no_list() {
    let served = served(Builder::local()).await;
    let lines = [
        "GET /v1/peers/static".into(),
        "POST /v1/peers/static".into(),
        format!("DELETE /v1/peers/static/{ID}"),
        "GET /v1/peers/trusted".into(),
        "POST /v1/peers/trusted".into(),
        format!("DELETE /v1/peers/trusted/{ID}"),
        format!("DELETE /v1/peers/{ID}"),
        "GET /v1/bans".into(),
        "POST /v1/bans".into(),
        format!("DELETE /v1/bans/{ID}"),
        "GET /v1/admission".into(),
        "PUT /v1/admission".into(),
    ];
    for line in &lines {
        let page = format!("{}origin: https://evil.example\r\n", json(line));
        served.ask(&page, "{}").await.refused(403, "Origin");
        let page = format!("{}sec-fetch-site: cross-site\r\n", json(line));
        served.ask(&page, "{}").await.refused(403, "Sec-Fetch-Site");
    }
    served.stop().await;
}

#[tokio::test]
async fn a_node_that_neither_dials_nor_listens_says_so_in_its_health() {
    let served = served(Builder::local().dialing(false).listening(false)).await;
    let health = served.ask("GET /v1/health", "").await;
    assert_eq!(health.status.as_u16(), 503);
    let reason = health.json()["reasons"][0].as_str().expect("a sentence").to_owned();
    assert!(reason.contains("neither dials nor listens"), "{reason}");
    assert_eq!(served.ask("GET /v1/node", "").await.json()["addresses"], serde_json::json!([]));
    served.stop().await;
}

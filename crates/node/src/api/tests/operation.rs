//! Health in checks, liveness, limits and reloading.

use serde_json::json;

use super::*;

#[tokio::test]
async fn health_names_every_check_with_its_state_sentence_and_threshold_and_liveness_is_apart() {
    let served = served(Builder::local()).await;
    let health = served.ask("GET /v1/health/ready", "").await;
    assert_eq!(health.status, StatusCode::OK);
    let json = health.json();
    let checks = json["checks"].as_array().expect("a list");
    assert_eq!(checks.len(), peerage::Check::ALL.len());
    for check in checks {
        assert!(["pass", "off"].contains(&check["state"].as_str().expect("a word")), "{check}");
        assert!(check["sentence"].is_string() && check["threshold"].is_string(), "{check}");
        assert!(check["since_unix_ms"].as_u64() > Some(1_700_000_000_000), "{check}");
    }
    let change = "PATCH /v1/limits\r\ncontent-type: application/json\r\n";
    assert_eq!(served.ask(change, r#"{"health": {"min_peers": 2}}"#).await.status, StatusCode::OK);
    let health = served.ask("GET /v1/health", "").await;
    assert_eq!((health.status.as_u16(), &health.json()["status"]), (503, &"degraded".into()));
    assert_eq!(health.json()["reasons"], json!(["0 peers are connected, and at least 2 are wanted"]));
    let peers =
        health.json()["checks"].as_array().and_then(|checks| checks.iter().find(|it| it["check"] == "peers").cloned());
    let peers = peers.expect("a check");
    assert_eq!((&peers["state"], &peers["threshold"]), (&json!("fail"), &json!("at least 2")));
    let live = served.ask("GET /v1/health/live", "").await;
    assert_eq!((live.status, live.json()), (StatusCode::OK, json!({ "live": true })), "it need not be started again");
    served.stop().await;
}

#[tokio::test]
async fn limits_are_read_and_changed_all_or_nothing_and_what_is_not_one_is_named() {
    let served = served(Builder::local()).await;
    let before = served.ask("GET /v1/limits", "").await.json();
    assert_eq!((&before["max_peers"], &before["listener"]["per_host"]["period"]), (&json!(50), &json!(10)));
    let change = "PATCH /v1/limits\r\ncontent-type: application/json\r\n";
    let ask = |body: &'static str| served.ask(change, body);
    let changed = ask(r#"{"max_peers": 7, "reputation": {"ban_time": 60}, "outbound": {"at_large": 33554432}}"#).await;
    assert_eq!(changed.status, StatusCode::OK, "{}", changed.body);
    let json = changed.json();
    assert_eq!(json["changed"], json!(["max_peers", "outbound.at_large", "reputation.ban_time"]));
    assert_eq!(json["limits"]["max_peers"], 7);
    assert_eq!(served.ask("GET /v1/limits", "").await.json(), json["limits"]);

    let throttle = r#"{"throttle": {"download": {"node": 1048576}, "cpu": null}}"#;
    let json = ask(throttle).await.json();
    assert_eq!(json["changed"], json!(["throttle.cpu", "throttle.download.node"]));
    let shown = served.ask("GET /v1/limits", "").await.json();
    assert_eq!((&shown["throttle"]["download"]["node"], &shown["throttle"]["cpu"]), (&json!(1 << 20), &json!(null)));
    ask(r#"{"throttle": {"download": {"node": 1000}}}"#).await.refused(400, "queue.throttle.download.node (1000)");
    ask(r#"{"throttle": {"download": {"node": "1MiB"}}}"#).await.refused(400, "whole number");

    ask(r#"{"max_peer": 7}"#).await.refused(400, "did you mean `max_peers`?");
    ask(r#"{"network": "other"}"#).await.refused(400, "nothing that can change while the node runs");
    ask(r#"{"max_peers": 8, "dial_ratio": 0}"#).await.refused(400, "dial_ratio must be at least 1");
    ask(r#"{"max_peers": 8, "inbound": {"aside": 1}}"#).await.refused(400, "queue.inbound");
    ask(r#"{"max_peers": 99999}"#).await.refused(400, "at most 10000 while the node runs");
    assert_eq!(served.ask("GET /v1/limits", "").await.json(), json["limits"], "nothing of it changed");
    served.ask("PATCH /v1/limits\r\n", "{}").await.refused(415, "application/json");
    let page = format!("{change}origin: https://evil.example\r\n");
    served.ask(&page, r#"{"max_peers": 1}"#).await.refused(403, "Origin");

    let reloaded = served.ask("POST /v1/reload", "").await;
    assert_eq!(reloaded.status, StatusCode::OK, "{}", reloaded.body);
    assert!(reloaded.json()["changed"].as_array().is_some_and(|names| names.contains(&json!("max_peers"))));
    assert_eq!(served.ask("GET /v1/limits", "").await.json()["max_peers"], 50, "as the command line says");
    served.stop().await;
}

//! The API of the ring, over HTTP with fakes.

use serde_json::json;

use crate::api::tests::{Api, Suspected};

const WEB: &str = "10.32.0.1/24";

async fn with_web() -> Api {
    let api = Api::start(Suspected::Answers);
    let (status, answer) = api
        .post("/v1/attach", json!({"target": "web", "ip": [WEB]}))
        .await;
    assert_eq!(status, 200, "{answer}");
    api
}

#[tokio::test]
async fn the_state_of_the_ring_and_its_addresses_are_served() {
    let api = with_web().await;
    let (status, view) = api.get("/v1/ipam").await;
    assert_eq!((status, &view["ring"]), (200, &json!("070707070707")));
    assert_eq!(view["refused"][0]["reason"], "malformed");
    assert_eq!(view["held"][0]["addresses"], "10.32.9.9");
    let (_, list) = api.get("/v1/ipam/addresses").await;
    let state = |n: usize| (list[n]["address"].clone(), list[n]["state"].clone());
    assert_eq!(state(0), (json!("10.32.0.1"), json!("used")));
    assert_eq!(list[0]["container"], "web");
    assert_eq!(state(1), (json!("10.32.9.9"), json!("held")));
    assert_eq!(state(2), (json!("10.32.0.3"), json!("announced")));
}

#[tokio::test]
async fn a_claimed_address_is_carried_or_kept() {
    let api = with_web().await;
    let body = json!({"address": "10.32.0.7", "target": "web"});
    let (status, reply) = api.post("/v1/ipam/claim", body).await;
    assert_eq!((status, &reply["address"]), (200, &json!("10.32.0.7/24")));
    assert_eq!(reply["attached"], true);
    let (_, list) = api.get("/v1/attachments").await;
    assert_eq!(list[0]["addresses"], json!([WEB, "10.32.0.7/24"]));
    let body = json!({"address": "10.32.0.8", "target": "db"});
    let (status, reply) = api.post("/v1/ipam/claim", body).await;
    assert_eq!((status, &reply["attached"]), (200, &json!(false)));
    for (address, target, status) in [
        ("10.32.0.9", "web", 409),
        ("10.32.0.3", "web", 409),
        ("127.0.0.1", "web", 400),
        ("10.32.0.7", "nobody", 404),
    ] {
        let body = json!({"address": address, "target": target});
        let (got, answer) = api.post("/v1/ipam/claim", body).await;
        assert_eq!(got, status, "{address} {target}: {answer}");
    }
}

#[tokio::test]
async fn an_address_is_released_when_nobody_carries_it() {
    let api = with_web().await;
    let (status, error) = api
        .post("/v1/ipam/release", json!({"address": "10.32.0.1"}))
        .await;
    assert_eq!(status, 409, "{error}");
    assert_eq!(
        error["error"]["todo"],
        "rmesh detach web takes it away and frees it"
    );
    let (status, _) = api.post("/v1/ipam/release", json!({"target": "web"})).await;
    assert_eq!(status, 409);

    *api.ports.lost.lock().unwrap() = Some("10.32.0.1".parse().unwrap());
    let (_, view) = api.get("/v1/ipam/check").await;
    assert_eq!(view["differences"][0]["address"], "10.32.0.1");
    let (status, reply) = api
        .post("/v1/ipam/release", json!({"address": "10.32.0.1"}))
        .await;
    assert_eq!((status, reply), (200, json!({"released": ["10.32.0.1"]})));
    let (_, view) = api.get("/v1/ipam/check").await;
    assert_eq!(view["differences"], json!([]));

    for (body, status) in [
        (json!({}), 400),
        (json!({"address": "10.32.0.1", "target": "web"}), 400),
        (json!({"address": "10.32.0.1"}), 404),
        (json!({"target": "db"}), 404),
    ] {
        let (got, answer) = api.post("/v1/ipam/release", body.clone()).await;
        assert_eq!(got, status, "{body}: {answer}");
    }
}

#[tokio::test]
async fn a_peer_that_answers_is_not_removed_and_the_risk_is_named() {
    let api = Api::start(Suspected::Answers);
    let (status, error) = api.post("/v1/peers/remove", json!({"peer": "c"})).await;
    assert_eq!((status, &error["error"]["why"]), (409, &json!("c answers")));
    let forced = json!({"peer": "c", "force": true});
    let (status, reply) = api.post("/v1/peers/remove", forced).await;
    assert_eq!((status, &reply["taken"]), (200, &json!(["10.32.9.9/32"])));
    assert_eq!(
        (&reply["held"], &reply["held_for_ms"]),
        (&json!(1), &json!(86_400_000))
    );
    for (peer, status) in [("a", 400), ("nobody", 404), ("cc", 404)] {
        let (got, error) = api.post("/v1/peers/remove", json!({"peer": peer})).await;
        assert_eq!(got, status, "{peer}: {error}");
    }
}

#[tokio::test]
async fn a_lost_majority_is_explained_before_it_is_forced() {
    let api = Api::start(Suspected::Dies);
    let (status, error) = api.post("/v1/peers/remove", json!({"peer": "b"})).await;
    assert_eq!(status, 409, "{error}");
    let why = error["error"]["why"].as_str().unwrap();
    assert!(
        why.contains("may be given twice") && why.contains("b, c do not answer"),
        "{why}"
    );
    let todo = error["error"]["todo"].as_str().unwrap();
    assert!(todo.contains("rmesh rmpeer b --force"), "{todo}");
}

#[tokio::test]
async fn another_ring_is_joined_by_the_name_of_a_peer() {
    let api = Api::start(Suspected::Answers);
    let (status, reply) = api.post("/v1/ipam/adopt", json!({"to": "b"})).await;
    assert_eq!((status, reply), (200, json!({"ring": "090909090909"})));
    let (status, _) = api.post("/v1/ipam/adopt", json!({"to": "0909"})).await;
    assert_eq!(status, 404);
}

#[tokio::test]
async fn a_pool_is_added_unless_something_is_in_its_way_which_is_named() {
    let api = Api::start(Suspected::Answers);
    let (status, reply) = api
        .post("/v1/ipam/pools", json!({"pool": "198.51.100.0/24"}))
        .await;
    let added = json!({"pool": "198.51.100.0/24", "added": true});
    assert_eq!((status, reply), (200, added));
    for (pool, status, words) in [
        ("192.0.2.1/32", 400, "too small"),
        (
            "192.0.2.0/30",
            409,
            "192.0.2.1 in it is an address of this host",
        ),
        ("192.0.2.2/31", 400, "too small"),
        ("203.0.113.0/24", 400, "overlaps the pool 203.0.113.0/25"),
        ("198.51.100.1/24", 400, "did you mean 198.51.100.0/24"),
        ("126.0.0.0/7", 400, "no container can have"),
    ] {
        let (got, error) = api.post("/v1/ipam/pools", json!({"pool": pool})).await;
        assert_eq!(got, status, "{pool}: {error}");
        let why = error["error"]["why"].as_str().unwrap();
        assert!(why.contains(words), "{pool}: {error}");
        assert_ne!(error["error"]["todo"], "", "{pool}: {error}");
    }
}

#[tokio::test]
async fn a_client_gets_an_address_for_its_word_and_gives_it_back() {
    let api = with_web().await;
    let path = "/v1/ipam/allocate";
    let (status, reply) = api.post(path, json!({"container": "vm-7"})).await;
    let (address, container) = (&reply["address"], &reply["container"]);
    assert_eq!((status, container), (200, &json!("vm-7")), "{reply}");
    assert_eq!(address, "10.32.0.102/12");
    let body = json!({"container": "vm-8", "subnet": "10.32.0.0/24"});
    let (status, reply) = api.post(path, body).await;
    assert_eq!((status, &reply["address"]), (200, &json!("10.32.0.103/24")));
    for (body, status) in [
        (json!({}), 400),
        (json!({"container": ""}), 400),
        (json!({"container": "x", "subnet": "10.32.0.1/24"}), 400),
        (json!({"container": "x", "ipv6": true}), 400),
    ] {
        let (got, error) = api.post(path, body.clone()).await;
        assert_eq!(got, status, "{body}: {error}");
    }
    let free = json!({"container": "vm-7"});
    let (status, reply) = api.post("/v1/ipam/release", free).await;
    assert_eq!((status, reply), (200, json!({"released": ["10.32.0.102"]})));
}

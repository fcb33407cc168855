//! The API over HTTP, with a fake in place of the task that owns the mesh and of the kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use ipnet::IpNet;
use rmesh_ipam::{Answer, Held, Outlook, Range, Refusal, Request as Wanted, RingId};
use rmesh_router::attach::{AttachError, Attachment, Request as AttachRequest, TargetSpec};
use rmesh_wire::PeerId;
use serde_json::{Value, json};
use tokio::net::UnixStream;
use tokio::sync::oneshot;

use super::convert::samples;
use super::{Service, TIMEOUT_HEADER, bind, router, socket_path};
use crate::daemon::{Call, Containers, Handle, Ports, Snapshot};
use crate::metrics::parse::parse;

/// A kernel that knows two namespaces and remembers what was made.
#[derive(Default)]
pub(super) struct FakePorts {
    made: Mutex<BTreeSet<String>>,
    refuses: AtomicBool,
    /// An address that every container has lost.
    pub(super) lost: Mutex<Option<IpAddr>>,
}

/// Addresses that containers have, by their keys.
type Given = Arc<Mutex<BTreeMap<String, Vec<IpAddr>>>>;

/// A ring without IPv6 whose next address is 10.32.0.101 and so on; 10.32.0.9 is in use elsewhere.
fn answer(given: &Given, request: Wanted) -> Result<Answer, Refusal> {
    let mut given = given.lock().unwrap();
    match request {
        Wanted::Allocate { wants_v6: true, .. } => Err(Refusal::NoPool(
            "IPv6".into(),
            "its pools: 10.32.0.0/12".into(),
        )),
        Wanted::Allocate { container, .. } => {
            let count = given.values().map(Vec::len).sum::<usize>();
            let address: IpAddr = format!("10.32.0.{}", 101 + count).parse().unwrap();
            given.entry(container).or_default().push(address);
            Ok(Answer::Address(address))
        }
        Wanted::Claim { container, address } => {
            if address == "10.32.0.9".parse::<IpAddr>().unwrap() {
                let by = "db on host b".into();
                return Err(Refusal::Used { address, by });
            }
            let own = given.entry(container).or_default();
            if !own.contains(&address) {
                own.push(address);
            }
            Ok(Answer::Address(address))
        }
        Wanted::Release { container } => Ok(Answer::Released(
            given.remove(&container).unwrap_or_default(),
        )),
        Wanted::ReleaseAddress { container, address } => {
            let own = given.entry(container).or_default();
            own.retain(|known| *known != address);
            Ok(Answer::Released(vec![address]))
        }
        Wanted::ReleaseHeld { address } => Err(Refusal::Invalid(format!(
            "{address} is not held for a removed peer"
        ))),
        Wanted::RemovePeer {
            peer, is_forced, ..
        } if peer == samples::B && !is_forced => {
            let (why, peer) = ("b, c do not answer".into(), "b".into());
            Err(Refusal::NoMajority { why, peer })
        }
        Wanted::RemovePeer { .. } => Ok(Answer::Removed {
            taken: vec![Range::from(HELD.parse::<IpNet>().unwrap())],
            held: 1,
        }),
        Wanted::AddPool { range } if range.to_string() == "203.0.113.0/24" => {
            let why = "203.0.113.0/24 overlaps the pool 203.0.113.0/25; choose another range";
            Err(Refusal::Invalid(why.into()))
        }
        Wanted::AddPool { .. } => Ok(Answer::PoolAdded),
        Wanted::Adopt { .. } => Ok(Answer::Adopted(RingId([9; 16]))),
        other => panic!("{other:?}"),
    }
}

/// What is held for c.
const HELD: &str = "10.32.9.9/32";

/// A ring in which this peer owns everything.
fn outlook(addresses: &[IpAddr]) -> Outlook {
    let me = samples::snapshot().ring.report.unwrap().owner;
    let day = Duration::from_secs(86_400);
    Outlook {
        owners: addresses.iter().map(|_| me).collect(),
        holds: vec![Held {
            range: Range::from(HELD.parse::<IpNet>().unwrap()),
            peer: samples::C,
            left: day,
            since: Some(Duration::ZERO),
        }],
        ..Outlook::default()
    }
}

/// A snapshot with what containers were given.
fn with_given(snapshot: &Snapshot, given: &Given) -> Snapshot {
    let mut snapshot = snapshot.clone();
    let given = given.lock().unwrap();
    let each = given
        .iter()
        .flat_map(|(key, ips)| ips.iter().map(|ip| (*ip, key.clone())));
    snapshot.ring.report.as_mut().unwrap().allocated = each.collect();
    snapshot
}

fn host_interface(inode: u64, interface: &str) -> String {
    format!("{inode}-{interface}")
}

impl Ports for FakePorts {
    fn attach(&self, request: &AttachRequest) -> Result<Attachment, AttachError> {
        let netns_inode = self.netns_inode(&request.target)?;
        if self.refuses.load(Ordering::SeqCst) {
            return Err(AttachError::ProcessGone { pid: 1 });
        }
        let host_interface = host_interface(netns_inode, &request.interface);
        self.made.lock().unwrap().insert(host_interface.clone());
        Ok(Attachment {
            target: request.target.to_string(),
            netns_inode,
            interface: request.interface.clone(),
            host_interface,
            mac: request.mac,
            addresses: request.addresses.clone(),
            name: request.name.clone(),
        })
    }

    fn detach(&self, attachment: &Attachment) -> Result<(), AttachError> {
        self.made.lock().unwrap().remove(&attachment.host_interface);
        Ok(())
    }

    fn is_present(&self, attachment: &Attachment) -> bool {
        self.made
            .lock()
            .unwrap()
            .contains(&attachment.host_interface)
    }

    fn carried(&self, attachment: &Attachment) -> Result<Option<Vec<IpNet>>, AttachError> {
        let lost = *self.lost.lock().unwrap();
        let carried = attachment
            .addresses
            .iter()
            .filter(|net| Some(net.addr()) != lost);
        Ok(self
            .is_present(attachment)
            .then(|| carried.copied().collect()))
    }

    fn netns_inode(&self, target: &TargetSpec) -> Result<u64, AttachError> {
        match target.to_string().as_str() {
            "web" | "pid:1" => Ok(1),
            "db" => Ok(2),
            name => Err(AttachError::NoSuchNamespace { name: name.into() }),
        }
    }
}

/// What the fake owner of the mesh does when a peer is suspected.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Suspected {
    Answers,
    Dies,
}

fn own_mesh(mut calls: tokio::sync::mpsc::Receiver<Call>, suspected: Suspected, given: Given) {
    tokio::spawn(async move {
        let mut snapshot = samples::snapshot();
        let saved = || {
            let (done, durable) = oneshot::channel();
            done.send(Ok(())).unwrap();
            durable
        };
        while let Some(call) = calls.recv().await {
            match call {
                Call::Snapshot(reply) => drop(reply.send(with_given(&snapshot, &given))),
                Call::Attached(attachment, reply) => {
                    let same = |a: &Attachment| a.host_interface == attachment.host_interface;
                    snapshot.attachments.retain(|a| !same(a));
                    snapshot.attachments.push(*attachment);
                    drop(reply.send(saved()));
                }
                Call::Detached(gone, reply) => {
                    snapshot.attachments.retain(|a| !gone.contains(a));
                    drop(reply.send(saved()));
                }
                Call::Suspect(peer) if suspected == Suspected::Dies => die(&mut snapshot, peer),
                Call::Suspect(_) | Call::Overlaps(_) => {}
                Call::Connect { peers, reply, .. } => drop(reply.send(Ok((peers, saved())))),
                Call::Forget { reply, .. } => drop(reply.send((Vec::new(), saved()))),
                Call::Ring { request, reply, .. } => {
                    drop(reply.send(answer(&given, request)));
                }
                Call::Outlook(addresses, reply) => {
                    drop(reply.send(Some(outlook(&addresses))));
                }
                Call::Pools(reply) => {
                    let pool: IpNet = "10.32.0.0/12".parse().unwrap();
                    drop(reply.send(vec![Range::from(pool)]));
                }
                Call::Running(_) => {}
                // Never answers: the caller's time limit has to help.
                Call::Secret(reply) => std::mem::forget(reply),
                Call::Stop => break,
            }
        }
    });
}

fn die(snapshot: &mut Snapshot, peer: PeerId) {
    for report in &mut snapshot.report.peers {
        if report.id == peer {
            (report.reachable, report.heard_ago) = (false, None);
        }
    }
    for endpoint in &mut snapshot.report.endpoints {
        endpoint.reachable &= endpoint.peer != peer;
    }
}

pub(super) struct Api {
    folder: tempfile::TempDir,
    pub(super) ports: Arc<FakePorts>,
    given: Given,
}

impl Api {
    pub(super) fn start(suspected: Suspected) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ports = Arc::new(FakePorts::default());
        let (handle, calls) = Handle::new();
        let kernel: Arc<dyn Ports> = ports.clone();
        let containers = Arc::new(Containers::new(handle.clone(), kernel, Vec::new()));
        let service = Service {
            handle: handle.clone(),
            containers,
        };
        let given = Given::default();
        own_mesh(calls, suspected, Arc::clone(&given));
        let listener = bind(folder.path()).unwrap();
        let routes: Router = router(Arc::new(service));
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Api {
            folder,
            ports,
            given,
        }
    }

    async fn ask(&self, method: &str, path: &str, body: &str, limit: Duration) -> (u16, Value) {
        let response = self.send(method, path, body, limit).await;
        let status = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap())
    }

    async fn send(
        &self,
        method: &str,
        path: &str,
        body: &str,
        limit: Duration,
    ) -> Response<Incoming> {
        let stream = UnixStream::connect(socket_path(self.folder.path()))
            .await
            .unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "rmesh")
            .header(TIMEOUT_HEADER, limit.as_millis().to_string())
            .body(Full::new(Bytes::from(body.to_owned())))
            .unwrap();
        sender.send_request(request).await.unwrap()
    }

    pub(super) async fn get(&self, path: &str) -> (u16, Value) {
        self.ask("GET", path, "", Duration::from_secs(5)).await
    }

    pub(super) async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        self.ask("POST", path, &body.to_string(), Duration::from_secs(5))
            .await
    }
}

#[tokio::test]
async fn metrics_are_served_as_what_scrapers_take() {
    let api = Api::start(Suspected::Answers);
    let response = api
        .send("GET", "/metrics", "", Duration::from_secs(5))
        .await;
    assert_eq!(response.status().as_u16(), 200);
    let kind = response.headers()["content-type"].to_str().unwrap();
    assert_eq!(kind, "text/plain; version=0.0.4; charset=utf-8");
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    let metrics = parse(std::str::from_utf8(&bytes).unwrap()).unwrap();
    assert_eq!(metrics.sum("rmesh_peers", &[]), Some(2.0));
}

#[tokio::test]
async fn the_first_page_and_the_tables_are_served() {
    let api = Api::start(Suspected::Answers);
    let (status, page) = api.get("/v1/status").await;
    assert_eq!(
        (status, &page["name"], &page["peers_total"]),
        (200, &json!("a"), &json!(2))
    );
    let (_, peers) = api.get("/v1/peers").await;
    assert_eq!(
        peers[1]["path"],
        json!({"kind": "relay", "peer": "b".repeat(32), "name": "b"})
    );
    let (_, endpoints) = api.get("/v1/endpoints").await;
    assert_eq!(
        endpoints["endpoints"][0]["addresses"],
        json!(["10.32.0.3/24"])
    );
    assert_eq!(api.get("/v1/attachments").await, (200, json!([])));
}

#[tokio::test]
async fn attaching_again_changes_nothing_and_detaching_removes() {
    let api = Api::start(Suspected::Answers);
    let body = json!({"target": "web", "ip": ["10.32.0.1/24"], "name": "shop"});
    let (status, first) = api.post("/v1/attach", body.clone()).await;
    assert_eq!(
        (status, &first["interface"]),
        (200, &json!("rmesh0")),
        "{first}"
    );
    assert_eq!(api.post("/v1/attach", body).await, (200, first.clone()));
    // The same container by another name, and without saying the address again.
    let (status, same) = api.post("/v1/attach", json!({"target": "pid:1"})).await;
    assert_eq!(
        (status, &same["mac"], &same["name"]),
        (200, &first["mac"], &json!("shop"))
    );
    let (status, error) = api
        .post(
            "/v1/attach",
            json!({"target": "web", "ip": ["10.32.0.9/24"]}),
        )
        .await;
    assert_eq!(status, 409, "{error}");
    let (_, gone) = api.post("/v1/detach", json!({"target": "web"})).await;
    assert_eq!(gone["detached"][0]["addresses"], json!(["10.32.0.1/24"]));
    assert!(api.ports.made.lock().unwrap().is_empty());
    let again = api.post("/v1/detach", json!({"target": "web"})).await;
    assert_eq!(again, (200, json!({"detached": []})));
}

#[tokio::test]
async fn a_container_without_a_wish_gets_an_address_and_gives_it_back() {
    let api = Api::start(Suspected::Answers);
    let (status, web) = api.post("/v1/attach", json!({"target": "web"})).await;
    assert_eq!(
        (status, &web["addresses"]),
        (200, &json!(["10.32.0.101/32"]))
    );
    let (_, again) = api.post("/v1/attach", json!({"target": "web"})).await;
    assert_eq!(again, web, "asked for twice");
    let body = json!({"target": "db", "subnet": ["10.32.0.0/24"]});
    let (_, db) = api.post("/v1/attach", body).await;
    assert_eq!(db["addresses"], json!(["10.32.0.102/24"]));
    let body = json!({"target": "db", "ifname": "eth1", "subnet": ["fd32::/64"]});
    let (status, error) = api.post("/v1/attach", body).await;
    assert_eq!(status, 400, "{error}");
    assert!(
        error["error"]["why"].as_str().unwrap().contains("IPv6"),
        "{error}"
    );
    assert_eq!(api.given.lock().unwrap().len(), 2, "leaked");
    api.post("/v1/detach", json!({"target": "web"})).await;
    let given = api.given.lock().unwrap().clone();
    assert_eq!(given.keys().collect::<Vec<_>>(), ["2/rmesh0"]);
}

#[tokio::test]
async fn an_attach_that_fails_leaks_no_address() {
    let api = Api::start(Suspected::Answers);
    let wish = json!({"target": "web", "ip": ["10.32.0.1/24", "10.32.0.9/24"]});
    let (status, error) = api.post("/v1/attach", wish).await;
    assert_eq!(status, 409, "{error}");
    let failure = &error["error"];
    assert!(
        failure["why"].as_str().unwrap().contains("db on host b"),
        "{error}"
    );
    assert!(
        failure["todo"].as_str().unwrap().contains("choose another"),
        "{error}"
    );
    assert!(api.given.lock().unwrap().is_empty(), "a later claim failed");
    api.ports.refuses.store(true, Ordering::SeqCst);
    let (status, _) = api.post("/v1/attach", json!({"target": "web"})).await;
    assert_eq!(status, 404);
    assert!(api.given.lock().unwrap().is_empty(), "the kernel refused");
    assert!(api.ports.made.lock().unwrap().is_empty());
}

#[tokio::test]
async fn an_address_in_use_on_this_host_is_refused_with_its_holder() {
    let api = Api::start(Suspected::Answers);
    api.post(
        "/v1/attach",
        json!({"target": "web", "ip": ["10.32.0.1/24"]}),
    )
    .await;
    let (status, error) = api
        .post(
            "/v1/attach",
            json!({"target": "db", "ip": ["10.32.0.1/16"]}),
        )
        .await;
    assert_eq!(status, 409);
    assert!(
        error["error"]["why"].as_str().unwrap().contains("by web"),
        "{error}"
    );
}

#[tokio::test]
async fn an_address_of_a_living_peer_is_refused_and_of_a_dead_one_taken() {
    let body = json!({"target": "db", "ip": ["10.32.0.3/24"]});
    let alive = Api::start(Suspected::Answers);
    let (status, error) = alive.post("/v1/attach", body.clone()).await;
    assert_eq!(status, 409);
    assert!(
        error["error"]["why"].as_str().unwrap().contains("peer c"),
        "{error}"
    );
    assert!(alive.ports.made.lock().unwrap().is_empty());
    let dead = Api::start(Suspected::Dies);
    let (status, attached) = dead.post("/v1/attach", body).await;
    assert_eq!(status, 200, "{attached}");
    let address: IpNet = attached["addresses"][0].as_str().unwrap().parse().unwrap();
    assert_eq!(address, "10.32.0.3/24".parse().unwrap());
}

#[tokio::test]
async fn nonsense_is_refused_in_the_one_form() {
    let api = Api::start(Suspected::Answers);
    let cases = [
        ("GET", "/v1/nothing", "", 404),
        ("POST", "/v1/status", "", 400),
        ("POST", "/v1/attach", "{", 400),
        ("POST", "/v1/attach", r#"{"target":"web","more":1}"#, 400),
        ("POST", "/v1/attach", r#"{"target":"a/b"}"#, 400),
        ("POST", "/v1/attach", r#"{"target":"nobody"}"#, 404),
        (
            "POST",
            "/v1/attach",
            r#"{"target":"web","ifname":"a b"}"#,
            400,
        ),
        (
            "POST",
            "/v1/attach",
            r#"{"target":"web","ip":["10.0.0.1/8","10.0.0.1/9"]}"#,
            400,
        ),
        (
            "POST",
            "/v1/attach",
            r#"{"target":"web","ip":["127.0.0.1/8"]}"#,
            400,
        ),
        ("POST", "/v1/connect", r#"{"peers":["a b"]}"#, 400),
        ("POST", "/v1/forget", r#"{"peers":["nobody"]}"#, 404),
    ];
    for (method, path, body, expected) in cases {
        let (status, answer) = api.ask(method, path, body, Duration::from_secs(5)).await;
        assert_eq!(status, expected, "{method} {path} {body}: {answer}");
        for word in ["what", "why", "todo"] {
            assert!(answer["error"][word].is_string(), "{answer}");
        }
    }
    let huge = " ".repeat(super::BODY_LEN_MAX + 1);
    let (status, _) = api
        .ask("POST", "/v1/attach", &huge, Duration::from_secs(5))
        .await;
    assert_eq!(status, 400);
}

#[tokio::test]
async fn no_request_outlives_its_time_limit() {
    let api = Api::start(Suspected::Answers);
    let (status, error) = api
        .ask("GET", "/v1/secret", "", Duration::from_millis(100))
        .await;
    assert_eq!(status, 504, "{error}");
}

#[tokio::test]
async fn only_the_owner_may_connect() {
    use std::os::unix::fs::PermissionsExt as _;
    let api = Api::start(Suspected::Answers);
    let about = socket_path(api.folder.path()).metadata().unwrap();
    assert_eq!(about.permissions().mode() & 0o777, 0o600);
}

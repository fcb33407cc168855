//! What fuzzers drive: every way in which bytes of others reach this crate.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::serve::Listener;
use ipnet::IpNet;
use rmesh_router::attach::{AttachError, Attachment, Request, TargetSpec};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

use crate::api::{
    AddressView, AdoptBody, AdoptReply, AttachBody, AttachmentView, CheckView, ClaimBody,
    ClaimReply, ConnectBody, DetachBody, DetachReply, EndpointsView, ErrorReply, ForgetBody,
    ForgetReply, IpamView, LeaveReply, PeerView, PeersReply, PoolBody, PoolReply, ReleaseBody,
    ReleaseReply, RemoveBody, RemoveReply, SecretReply, Service, StatusView, StopReply, router,
};
use crate::args::{parse_interface, parse_name};
use crate::daemon::{Containers, Handle, Ports};
use crate::duration;
use crate::peer_address::{PeerAddress, parse_socket_address};
use crate::{ledger, state};

/// A target's name and what it does with one input.
pub type Entry = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Entry] = &[
    ("api_request", api_request),
    ("api_body", api_body),
    ("api_answer", api_answer),
    ("state_file", state::fuzz),
    ("secret_file", state::fuzz_secret_file),
    ("ledger_note", ledger::fuzz),
    ("peer_address", peer_address),
    ("argument", argument),
];

/// Bytes between the two ends of a connection.
const PIPE_LEN: usize = 1 << 16;
/// What a client sends is answered, or given up, at once: nothing here waits for anything.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// One connection, and no other.
struct Once(Option<DuplexStream>);

impl Listener for Once {
    type Io = DuplexStream;
    type Addr = ();

    async fn accept(&mut self) -> (DuplexStream, ()) {
        match self.0.take() {
            Some(connection) => (connection, ()),
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<()> {
        Ok(())
    }
}

/// A kernel without containers.
struct NoPorts;

impl Ports for NoPorts {
    fn attach(&self, request: &Request) -> Result<Attachment, AttachError> {
        Err(AttachError::NoSuchNamespace {
            name: request.target.to_string(),
        })
    }

    fn detach(&self, _: &Attachment) -> Result<(), AttachError> {
        Ok(())
    }

    fn is_present(&self, _: &Attachment) -> bool {
        false
    }

    fn carried(&self, _: &Attachment) -> Result<Option<Vec<IpNet>>, AttachError> {
        Ok(None)
    }

    fn netns_inode(&self, target: &TargetSpec) -> Result<u64, AttachError> {
        Err(AttachError::NoSuchNamespace {
            name: target.to_string(),
        })
    }
}

/// Whatever a client of the local API may write on its connection. The daemon behind the server
/// is stopping, so that every well-formed request is refused.
fn api_request(bytes: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    let runtime = runtime.expect("a runtime");
    runtime.block_on(async {
        let (handle, _) = Handle::new();
        let containers = Arc::new(Containers::new(
            handle.clone(),
            Arc::new(NoPorts),
            Vec::new(),
        ));
        let service = Arc::new(Service { handle, containers });
        let (client, server) = duplex(PIPE_LEN);
        let server = tokio::spawn(axum::serve(Once(Some(server)), router(service)).into_future());
        let exchange = async {
            let (mut answers, mut requests) = tokio::io::split(client);
            let write = async {
                // A server that has heard enough stops listening.
                let _ = requests.write_all(bytes).await;
                let _ = requests.shutdown().await;
            };
            let mut answer = Vec::new();
            let (_, read) = tokio::join!(write, answers.read_to_end(&mut answer));
            if read.is_ok() && !answer.is_empty() {
                assert!(answer.starts_with(b"HTTP/1."), "no HTTP answer");
            }
        };
        let ended = tokio::time::timeout(ANSWER_LIMIT, exchange).await;
        assert!(ended.is_ok(), "the server holds a connection that is over");
        server.abort();
    });
}

/// What is read from JSON can be written, and is read again.
fn json<T: DeserializeOwned + Serialize>(bytes: &[u8]) {
    if let Ok(value) = serde_json::from_slice::<T>(bytes) {
        let text = serde_json::to_vec(&value).expect("what was read can be written");
        assert!(serde_json::from_slice::<T>(&text).is_ok());
    }
}

/// Bodies of requests.
fn api_body(bytes: &[u8]) {
    json::<AttachBody>(bytes);
    json::<DetachBody>(bytes);
    json::<ConnectBody>(bytes);
    json::<ForgetBody>(bytes);
    json::<ClaimBody>(bytes);
    json::<ReleaseBody>(bytes);
    json::<RemoveBody>(bytes);
    json::<AdoptBody>(bytes);
    json::<PoolBody>(bytes);
}

/// Bodies of answers, which the commands read.
fn api_answer(bytes: &[u8]) {
    json::<StatusView>(bytes);
    json::<Vec<PeerView>>(bytes);
    json::<EndpointsView>(bytes);
    json::<Vec<AttachmentView>>(bytes);
    json::<DetachReply>(bytes);
    json::<PeersReply>(bytes);
    json::<ForgetReply>(bytes);
    json::<StopReply>(bytes);
    json::<IpamView>(bytes);
    json::<Vec<AddressView>>(bytes);
    json::<CheckView>(bytes);
    json::<ClaimReply>(bytes);
    json::<ReleaseReply>(bytes);
    json::<RemoveReply>(bytes);
    json::<AdoptReply>(bytes);
    json::<PoolReply>(bytes);
    json::<LeaveReply>(bytes);
    json::<SecretReply>(bytes);
    json::<ErrorReply>(bytes);
}

/// How an operator names a peer.
fn peer_address(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(address) = text.parse::<PeerAddress>() {
        assert_eq!(address.to_string().parse(), Ok(address));
    }
    let _ = parse_socket_address(text);
}

/// Words of the command line that requests of the API hold too.
fn argument(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let _ = (
        duration::parse(text),
        parse_name(text),
        parse_interface(text),
    );
}

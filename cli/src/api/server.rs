//! The HTTP server on the Unix socket.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Extension, Request, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixListener;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use super::{
    AttachBody, AttachmentView, BODY_LEN_MAX, ConnectBody, DetachBody, DetachReply, EndpointsView,
    ErrorReply, ForgetBody, ForgetReply, LeaveReply, PeerView, PeersReply, SecretReply, StatusView,
    StopReply, TIMEOUT_DEFAULT, TIMEOUT_HEADER, convert, find, ipam,
};
use crate::daemon::{Call, Containers, Handle, durable};
use crate::duration::LIMIT_MAX;
use crate::failure::{Failure, FailureKind};
use crate::metrics;

/// Name of the socket in the run folder.
pub(crate) const SOCKET: &str = "rmesh.sock";
/// Requests answered at a time; beyond it they are refused.
const REQUESTS_MAX: usize = 64;

/// What the handlers work with.
pub(crate) struct Service {
    /// The task that owns the mesh.
    pub(crate) handle: Handle,
    /// Attaches and detaches.
    pub(crate) containers: Arc<Containers>,
}

#[derive(Clone, Copy)]
pub(super) struct Deadline(pub(super) Instant);

pub(super) type Shared = State<Arc<Service>>;
pub(super) type Answer<T> = Result<Json<T>, Failure>;
pub(super) type Body = Result<Bytes, BytesRejection>;

/// Path of the socket.
pub(crate) fn socket_path(run_dir: &Path) -> PathBuf {
    run_dir.join(SOCKET)
}

/// Opens the socket; only its owner can use it from the first moment.
pub(crate) fn bind(run_dir: &Path) -> io::Result<UnixListener> {
    let path = socket_path(run_dir);
    let temporary = run_dir.join("rmesh.sock.new");
    match fs::remove_file(&temporary) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(cause),
        _ => {}
    }
    let listener = UnixListener::bind(&temporary)?;
    fs::set_permissions(&temporary, Permissions::from_mode(0o600))?;
    fs::rename(&temporary, &path)?;
    Ok(listener)
}

/// All requests and their handlers.
pub(crate) fn router(service: Arc<Service>) -> Router {
    let requests = Arc::new(Semaphore::new(REQUESTS_MAX));
    Router::new()
        .route("/metrics", get(metrics))
        .route("/v1/status", get(status))
        .route("/v1/peers", get(peers))
        .route("/v1/endpoints", get(endpoints))
        .route("/v1/attachments", get(attachments))
        .route("/v1/secret", get(secret))
        .route("/v1/attach", post(attach))
        .route("/v1/detach", post(detach))
        .route("/v1/connect", post(connect))
        .route("/v1/forget", post(forget))
        .route("/v1/leave", post(leave))
        .route("/v1/stop", post(stop))
        .merge(ipam::routes())
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(DefaultBodyLimit::max(BODY_LEN_MAX))
        .layer(from_fn_with_state(requests, bound))
        .with_state(service)
}

/// Holds every request to its time limit and to the number allowed at a time.
async fn bound(
    State(requests): State<Arc<Semaphore>>,
    mut request: Request,
    next: Next,
) -> Response {
    let Ok(_permit) = requests.try_acquire() else {
        let why = format!("{REQUESTS_MAX} requests are being answered already");
        let failure = Failure::new(FailureKind::Unavailable, "cannot answer", why);
        return failure.todo("try again").into_response();
    };
    let limit = limit_of(&request);
    let deadline = Instant::now() + limit;
    request.extensions_mut().insert(Deadline(deadline));
    let path = request.uri().path().to_owned();
    match timeout_at(deadline, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let why = format!("{path} took longer than {limit:?}");
            Failure::new(FailureKind::Timeout, "gave up waiting", why)
                .todo("try again with a longer --timeout")
                .into_response()
        }
    }
}

fn limit_of(request: &Request) -> Duration {
    let header = request.headers().get(TIMEOUT_HEADER);
    let millis = header.and_then(|value| value.to_str().ok()?.parse().ok());
    millis
        .map_or(TIMEOUT_DEFAULT, Duration::from_millis)
        .min(LIMIT_MAX)
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.kind.status());
        let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(ErrorReply { error: self })).into_response()
    }
}

pub(super) fn read<T: DeserializeOwned>(body: Body) -> Result<T, Failure> {
    let wrong = |why: String| {
        Failure::new(FailureKind::Usage, "cannot read the request", why)
            .todo("see docs/api.md for what each request takes")
    };
    let bytes = body.map_err(|rejection| wrong(rejection.to_string()))?;
    serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))
}

async fn status(State(service): Shared) -> Answer<StatusView> {
    Ok(Json(convert::status(&service.handle.snapshot().await?)))
}

async fn metrics(State(service): Shared) -> Result<Response, Failure> {
    let snapshot = service.handle.snapshot().await?;
    // Long in a big mesh, and it looks into /proc: nobody waits for that but the client.
    let text = tokio::task::spawn_blocking(move || metrics::render(&snapshot)).await;
    let text = text.map_err(|error| Failure::failed("an internal task failed", error))?;
    Ok(([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response())
}

async fn peers(State(service): Shared) -> Answer<Vec<PeerView>> {
    Ok(Json(convert::peers(&service.handle.snapshot().await?)))
}

async fn endpoints(State(service): Shared) -> Answer<EndpointsView> {
    Ok(Json(convert::endpoints(&service.handle.snapshot().await?)))
}

async fn attachments(State(service): Shared) -> Answer<Vec<AttachmentView>> {
    Ok(Json(convert::attachments(
        &service.handle.snapshot().await?,
    )))
}

async fn secret(State(service): Shared) -> Answer<SecretReply> {
    let secret = service.handle.ask(Call::Secret).await?;
    Ok(Json(SecretReply { secret }))
}

async fn attach(
    State(service): Shared,
    Extension(Deadline(deadline)): Extension<Deadline>,
    body: Body,
) -> Answer<AttachmentView> {
    let body: AttachBody = read(body)?;
    let containers = Arc::clone(&service.containers);
    let attachment = whole(async move { containers.attach(body, deadline).await }).await?;
    Ok(Json(AttachmentView::from(&attachment)))
}

async fn detach(State(service): Shared, body: Body) -> Answer<DetachReply> {
    let body: DetachBody = read(body)?;
    let containers = Arc::clone(&service.containers);
    let detached = whole(async move { containers.detach(body).await }).await?;
    let detached = detached.iter().map(AttachmentView::from).collect();
    Ok(Json(DetachReply { detached }))
}

/// Runs work to its end even if the client goes away or its time is up.
pub(super) async fn whole<T: Send + Serialize + 'static>(
    work: impl Future<Output = Result<T, Failure>> + Send + 'static,
) -> Result<T, Failure> {
    let result = tokio::spawn(work).await;
    result.map_err(|error| Failure::failed("an internal task failed", error))?
}

async fn connect(State(service): Shared, body: Body) -> Answer<PeersReply> {
    let ConnectBody { peers, replace } = read(body)?;
    let call = |reply| Call::Connect {
        peers,
        replace,
        reply,
    };
    let (peers, saved) = service.handle.ask(call).await??;
    durable("the remembered peers", saved).await?;
    Ok(Json(PeersReply { peers }))
}

async fn forget(State(service): Shared, body: Body) -> Answer<ForgetReply> {
    let body: ForgetBody = read(body)?;
    let report = service.handle.snapshot().await?.report;
    let mut forgotten = Vec::new();
    for text in &body.peers {
        forgotten.extend(find::targets(&report, text)?);
    }
    let peers = forgotten.clone();
    let call = |reply| Call::Forget { peers, reply };
    let (peers, saved) = service.handle.ask(call).await?;
    durable("the remembered peers", saved).await?;
    Ok(Json(ForgetReply { forgotten, peers }))
}

async fn leave(
    State(service): Shared,
    Extension(Deadline(deadline)): Extension<Deadline>,
) -> Answer<LeaveReply> {
    let containers = Arc::clone(&service.containers);
    whole(async move {
        containers.leave(deadline).await?;
        Ok(LeaveReply { left: true })
    })
    .await
    .map(Json)
}

async fn stop(State(service): Shared) -> Answer<StopReply> {
    service.handle.tell(Call::Stop).await?;
    let pid = std::process::id();
    Ok(Json(StopReply { pid }))
}

async fn no_such_path(request: Request) -> Failure {
    let why = format!("there is no {}", request.uri().path());
    Failure::new(FailureKind::Missing, "cannot answer", why).todo("see docs/api.md")
}

async fn no_such_method(request: Request) -> Failure {
    let why = format!(
        "{} does not take {}",
        request.uri().path(),
        request.method()
    );
    Failure::new(FailureKind::Usage, "cannot answer", why).todo("see docs/api.md")
}

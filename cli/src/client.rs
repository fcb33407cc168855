//! The daemon's clients: one request over the Unix socket.

use std::io;
use std::path::Path;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::api::{ErrorReply, TIMEOUT_HEADER, socket_path};
use crate::args::{Global, RUN_DIR_DEFAULT, STATE_DIR_DEFAULT};
use crate::duration;
use crate::failure::{Failure, FailureKind};
use crate::state;

/// Largest answer taken, in bytes: 16,384 peers with all their candidates fit.
const ANSWER_LEN_MAX: usize = 256 << 20;
/// The daemon gives up first, and says what it waited for.
const GRACE: Duration = Duration::from_millis(500);

/// Asks the daemon for something.
pub(crate) fn get<T: DeserializeOwned>(global: &Global, path: &str) -> Result<T, Failure> {
    request(global, Method::GET, path, Vec::new())
}

/// Asks the daemon for something that is text.
pub(crate) fn get_text(global: &Global, path: &str) -> Result<String, Failure> {
    let answer = ask(global, Method::GET, path, Vec::new())?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Asks the daemon to do something.
pub(crate) fn post<T: DeserializeOwned>(
    global: &Global,
    path: &str,
    body: &impl Serialize,
) -> Result<T, Failure> {
    let body = serde_json::to_vec(body).map_err(|error| Failure::failed("cannot ask", error))?;
    request(global, Method::POST, path, body)
}

fn request<T: DeserializeOwned>(
    global: &Global,
    method: Method,
    path: &str,
    body: Vec<u8>,
) -> Result<T, Failure> {
    let answer = ask(global, method, path, body)?;
    serde_json::from_slice(&answer).map_err(|error| {
        Failure::failed("cannot understand the daemon's answer", error)
            .todo("is the daemon of another version? rmesh stop, then rmesh launch")
    })
}

fn ask(global: &Global, method: Method, path: &str, body: Vec<u8>) -> Result<Bytes, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|cause| Failure::failed("cannot ask the daemon", cause))?;
    let exchange = exchange(global, method, path, body);
    let limited =
        runtime.block_on(async { tokio::time::timeout(global.timeout + GRACE, exchange).await });
    let (status, answer) = limited.map_err(|_| {
        let why = format!("no answer from the daemon within {:?}", global.timeout);
        Failure::new(FailureKind::Timeout, "gave up waiting", why).todo(format!(
            "try a longer --timeout, or see its log, {}",
            log(global)
        ))
    })??;
    match (200..300).contains(&status) {
        true => Ok(answer),
        false => Err(refusal(status, &answer)),
    }
}

fn refusal(status: u16, answer: &[u8]) -> Failure {
    match serde_json::from_slice::<ErrorReply>(answer) {
        Ok(ErrorReply { mut error }) => {
            error.kind = FailureKind::from_status(status);
            error
        }
        Err(_) => Failure::failed("the daemon refused", format!("HTTP status {status}")),
    }
}

async fn exchange(
    global: &Global,
    method: Method,
    path: &str,
    body: Vec<u8>,
) -> Result<(u16, Bytes), Failure> {
    let lost = |cause: &dyn std::fmt::Display| {
        Failure::failed("lost the daemon while it was answering", cause)
            .todo(format!("see its log, {}", log(global)))
    };
    let stream = UnixStream::connect(socket_path(&global.run_dir)).await;
    let stream = stream.map_err(|cause| not_running(global, &cause))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| lost(&error))?;
    tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "rmesh")
        .header("content-type", "application/json")
        .header(TIMEOUT_HEADER, duration::millis(global.timeout))
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| lost(&error))?;
    let response = sender
        .send_request(request)
        .await
        .map_err(|error| lost(&error))?;
    let status = response.status().as_u16();
    let body = Limited::new(response.into_body(), ANSWER_LEN_MAX)
        .collect()
        .await;
    Ok((status, body.map_err(|error| lost(&error))?.to_bytes()))
}

fn not_running(global: &Global, cause: &io::Error) -> Failure {
    let socket = socket_path(&global.run_dir);
    if cause.kind() == io::ErrorKind::PermissionDenied {
        let why = format!("{} is for root only", socket.display());
        return Failure::failed("cannot talk to the daemon", why).todo("use sudo");
    }
    let why = format!("nobody answers at {} ({cause})", socket.display());
    let folders = [
        ("--run-dir", &global.run_dir, RUN_DIR_DEFAULT),
        ("--state-dir", &global.state_dir, STATE_DIR_DEFAULT),
    ];
    let given = folders
        .iter()
        .filter(|(_, folder, default)| **folder != Path::new(default));
    let given = given.map(|(flag, folder, _)| format!(" {flag} {}", folder.display()));
    let given: String = given.collect();
    Failure::new(
        FailureKind::Unavailable,
        "rmesh is not running on this host",
        why,
    )
    .todo(format!("start it with: sudo rmesh launch{given}"))
}

fn log(global: &Global) -> String {
    global.state_dir.join(state::LOG_FILE).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_to_launch_is_told_the_folders_that_were_given() {
        let todo = |line: &str| {
            let arguments = crate::args::parse(line.split_whitespace()).unwrap();
            not_running(&arguments.global, &io::ErrorKind::NotFound.into()).todo
        };
        let plain = "start it with: sudo rmesh launch";
        assert_eq!(todo("rmesh status"), plain);
        assert_eq!(
            todo("rmesh status --state-dir /s"),
            format!("{plain} --state-dir /s")
        );
        assert_eq!(
            todo("rmesh status --state-dir /s --run-dir /r"),
            format!("{plain} --run-dir /r --state-dir /s")
        );
    }
}

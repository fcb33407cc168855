//! A scraper of `GET /metrics`, by the socket a real one would use.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rmesh::metrics_reader::{Metrics, parse};
use rmesh_lab::Host;

const LIMIT: Duration = Duration::from_secs(10);

/// What the daemon on this host says of itself.
///
/// # Panics
/// If it does not answer, or anything but what is strictly right.
pub fn scrape(host: &Host) -> Metrics {
    let text = fetch(host).unwrap_or_else(|error| panic!("{}: {error}", host.name()));
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_default();
    assert!(head.starts_with("HTTP/1.0 200"), "{}: {head}", host.name());
    assert!(head.contains("text/plain; version=0.0.4"), "{head}");
    parse(body).unwrap_or_else(|error| panic!("{}: {error}", host.name()))
}

fn fetch(host: &Host) -> std::io::Result<String> {
    let mut stream = UnixStream::connect(host.run_dir().join("rmesh.sock"))?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

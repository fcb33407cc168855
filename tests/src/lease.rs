//! A client of the local API that gets addresses for its own words.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rmesh_lab::Host;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(10);

/// A client that keeps its connection.
pub struct LeaseClient {
    stream: UnixStream,
}

impl LeaseClient {
    /// A client of the daemon on this host.
    ///
    /// # Errors
    /// It does not serve.
    pub fn of(host: &Host) -> io::Result<Self> {
        let stream = UnixStream::connect(host.run_dir().join("rmesh.sock"))?;
        stream.set_read_timeout(Some(LIMIT))?;
        Ok(LeaseClient { stream })
    }

    /// An address for this word, as `a.b.c.d/n`.
    ///
    /// # Errors
    /// The daemon is gone before it has answered.
    ///
    /// # Panics
    /// It refuses, or answers anything but what was asked.
    pub fn allocate(&mut self, container: &str) -> io::Result<String> {
        let body = format!("{{\"container\":\"{container}\"}}");
        let request = format!(
            "POST /v1/ipam/allocate HTTP/1.1\r\nhost: rmesh\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        self.stream.write_all(request.as_bytes())?;
        let answer = self.answer()?;
        assert!(answer.starts_with("HTTP/1.1 200"), "{container}: {answer}");
        let (_, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
        let reply: Value = serde_json::from_str(body).expect("JSON");
        assert_eq!(reply["container"], container, "somebody else's answer");
        Ok(reply["address"].as_str().expect("an address").to_owned())
    }

    /// A whole answer: these are short and come in one piece or a few.
    fn answer(&mut self) -> io::Result<String> {
        let (mut text, mut buffer) = (String::new(), [0; 4_096]);
        while !(text.contains("\r\n\r\n") && text.trim_end().ends_with('}')) {
            let len = self.stream.read(&mut buffer)?;
            if len == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            text.push_str(&String::from_utf8_lossy(&buffer[..len]));
        }
        Ok(text)
    }
}

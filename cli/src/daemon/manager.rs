//! Words to the service manager that started the daemon, by systemd's protocol (`sd_notify(3)`): one datagram to the
//! socket that `NOTIFY_SOCKET` names, in the file system or abstract.

use std::env;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

/// A manager that does not take a datagram is not waited for longer than this.
const SEND_LIMIT: Duration = Duration::from_millis(250);
/// Signs of life within the time after which the manager takes the daemon for hung.
const SIGNS_PER_LIMIT: u32 = 3;

/// The service manager, if there is one.
pub(super) struct Manager {
    socket: Option<SocketAddr>,
    /// Time between signs of life, if the manager wants them.
    interval: Option<Duration>,
    next: Instant,
}

impl Manager {
    /// The one the environment names.
    pub(super) fn from_environment() -> Self {
        let text = |name| env::var(name).ok();
        let number = |name| text(name).and_then(|text| text.parse::<u64>().ok());
        let mine = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let limit = number("WATCHDOG_USEC").filter(|limit| mine && *limit > 0);
        let socket = env::var_os("NOTIFY_SOCKET").and_then(|name| {
            let address = address(name.as_bytes());
            let complain = |cause| tracing::warn!("cannot use NOTIFY_SOCKET: {cause}");
            address.map_err(complain).ok()
        });
        Manager {
            socket,
            interval: limit.map(|limit| Duration::from_micros(limit) / SIGNS_PER_LIMIT),
            next: Instant::now(),
        }
    }

    /// The daemon serves.
    pub(super) fn ready(&self) {
        self.tell("READY=1\nSTATUS=serving\n");
    }

    /// The daemon is about to end.
    pub(super) fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=stopping\n");
    }

    /// The control thread goes round; sent as often as the manager wants it.
    pub(super) fn alive(&mut self) {
        let Some(interval) = self.interval else {
            return;
        };
        let now = Instant::now();
        if now >= self.next {
            self.next = now + interval;
            self.tell("WATCHDOG=1\n");
        }
    }

    /// The longest time between two calls of [`Manager::alive`] that leaves the manager content.
    pub(super) fn patience(&self) -> Duration {
        let interval = self.interval.unwrap_or(Duration::MAX);
        interval.saturating_mul(SIGNS_PER_LIMIT - 1)
    }

    fn tell(&self, words: &str) {
        let Some(socket) = &self.socket else {
            return;
        };
        if let Err(cause) = send(socket, words) {
            tracing::warn!("cannot tell the service manager: {cause}");
        }
    }
}

/// `/path` or, for an abstract one, `@name`.
fn address(name: &[u8]) -> io::Result<SocketAddr> {
    match name {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        [b'/', ..] => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(name)),
        _ => Err(io::Error::other(
            "it names neither a path nor an abstract socket",
        )),
    }
}

fn send(socket: &SocketAddr, words: &str) -> io::Result<()> {
    let sender = UnixDatagram::unbound()?;
    sender.set_write_timeout(Some(SEND_LIMIT))?;
    sender.send_to_addr(words.as_bytes(), socket).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_paths_or_abstract_names() {
        let path = address(b"/run/systemd/notify").unwrap();
        assert!(
            path.as_pathname()
                .is_some_and(|path| path.ends_with("notify"))
        );
        let hidden = address(b"@notify").unwrap();
        assert_eq!(hidden.as_abstract_name(), Some(&b"notify"[..]));
        for wrong in [&b""[..], b"notify", b"vsock:2:1", &[b'/'; 200]] {
            assert!(address(wrong).is_err());
        }
    }

    #[test]
    fn a_manager_that_takes_nothing_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let _full = UnixDatagram::bind(&path).unwrap();
        let socket = SocketAddr::from_pathname(&path).unwrap();
        let start = Instant::now();
        // The kernel queues ten datagrams or so for one that does not read.
        let refused = (0..1_000).find_map(|_| send(&socket, "WATCHDOG=1\n").err());
        assert!(refused.is_some());
        assert!(start.elapsed() < SEND_LIMIT * 8, "{:?}", start.elapsed());
    }
}

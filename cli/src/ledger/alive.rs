//! A note in the run folder of when the daemon was last there, by the kernel's clock since boot, which
//! goes on while the host sleeps. A daemon that was away for long may have been removed meanwhile.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// How the line begins.
const HEAD: &str = "rmesh-alive 1";

/// The last sign of life of a daemon. It belongs to a token, which says of which boot of the kernel it is.
#[derive(Debug)]
pub struct Alive {
    path: PathBuf,
    file: Option<File>,
}

impl Alive {
    /// The one beside this token.
    pub fn beside(token: &Path) -> Self {
        Alive {
            path: token.with_file_name(super::LEDGER_ALIVE),
            file: None,
        }
    }

    /// For how long the daemon before has been away, rounded up; for ever if that cannot be said.
    pub fn down_for(&self) -> Duration {
        let noted = fs::read_to_string(&self.path).ok();
        let noted = noted.as_deref().and_then(parse);
        let down = noted.and_then(|then| uptime().checked_sub(then));
        down.unwrap_or(Duration::MAX)
    }

    /// Notes that the daemon is there. To be called at least every two seconds. If it fails the daemon
    /// will have been away for longer than it was, which is safe.
    pub fn note(&mut self) {
        if let Err(cause) = self.write(uptime()) {
            tracing::debug!("cannot write {}: {cause}", self.path.display());
        }
    }

    fn write(&mut self, now: Duration) -> io::Result<()> {
        let file = match self.file.take() {
            Some(file) => file,
            None => open(&self.path)?,
        };
        // Of one length, so that a dying process completes the call or does not begin it.
        file.write_all_at(line(now).as_bytes(), 0)?;
        self.file = Some(file);
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(path)
}

fn uptime() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn line(now: Duration) -> String {
    format!("{HEAD} {:016x}\n", now.as_millis())
}

fn parse(text: &str) -> Option<Duration> {
    let word = text.strip_prefix(HEAD)?.strip_suffix('\n')?.trim_start();
    let millis = u64::from_str_radix(word, 16).ok()?;
    (word.len() == 16).then(|| Duration::from_millis(millis))
}

/// What a fuzzer drives: a note as it was found.
#[cfg(feature = "fuzzing")]
pub(super) fn fuzz(bytes: &[u8]) {
    if let Some(then) = std::str::from_utf8(bytes).ok().and_then(parse) {
        assert_eq!(parse(&line(then)), Some(then));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_for_how_long_the_daemon_was_away_or_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let token = folder.path().join("token");
        let mut alive = Alive::beside(&token);
        assert_eq!(alive.down_for(), Duration::MAX, "there is no note");
        alive.note();
        alive.note();
        assert!(alive.down_for() < Duration::from_secs(5));
        let ago = uptime().saturating_sub(Duration::from_secs(30));
        alive.write(ago).unwrap();
        let down = alive.down_for();
        assert!(down >= uptime().min(Duration::from_secs(30)) && down < Duration::from_secs(40));
        let later = uptime() + Duration::from_secs(3_600);
        for text in ["", "rmesh-alive 1 12\n", &line(later)] {
            fs::write(&alive.path, text).unwrap();
            assert_eq!(alive.down_for(), Duration::MAX, "{text:?}");
        }
    }
}

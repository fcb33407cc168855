//! A note in the run folder of how far the ledger was written.
//!
//! It is one line of fixed length, so that writing it again is one call that a dying process completes or
//! does not begin. The kernel forgets it with everything in the run folder when the host starts anew;
//! where that folder outlives a boot, the note says of which boot it is.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::Standing;

/// How the line begins.
const HEAD: &str = "rmesh-ledger-token 1";
/// Longest token that is looked at, in bytes.
const LEN_MAX: u64 = 256;
/// Where the kernel tells one boot from the next.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// What a token says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    /// Whose ledger it is.
    pub(super) incarnation: u64,
    /// Number of its last durable write.
    pub(super) written: u64,
}

/// The token of one ledger.
#[derive(Debug)]
pub struct Token {
    path: PathBuf,
    boot: String,
    file: Option<File>,
}

impl Token {
    /// The token at that path, of this boot of the kernel.
    pub fn of_this_boot(path: &Path) -> Self {
        let boot = fs::read_to_string(BOOT_ID).unwrap_or_default();
        Self::new(path, boot.trim())
    }

    pub(super) fn new(path: &Path, boot: &str) -> Self {
        Token {
            path: path.into(),
            boot: boot.into(),
            file: None,
        }
    }

    /// What it says; nothing if there is none of this boot.
    pub(super) fn read(&self) -> Option<Mark> {
        let mut text = String::new();
        let file = File::open(&self.path).ok()?;
        file.take(LEN_MAX).read_to_string(&mut text).ok()?;
        self.parse(&text)
    }

    fn parse(&self, text: &str) -> Option<Mark> {
        let body = text.strip_suffix('\n')?;
        let (body, sum) = body.rsplit_once(' ')?;
        let mut words = body.strip_prefix(HEAD)?.split_ascii_whitespace();
        let mark = Mark {
            incarnation: number(words.next()?)?,
            written: number(words.next()?)?,
        };
        let is_whole = words.next()? == self.boot && words.next().is_none();
        (is_whole && !self.boot.is_empty() && sum == checksum(body)).then_some(mark)
    }

    /// What it says of a ledger that was found with this mark.
    pub(super) fn judge(&self, found: Mark) -> Standing {
        let Some(noted) = self.read() else {
            return Standing::Unproven;
        };
        // A new incarnation begins with a write of its own, which the note may not have followed yet.
        let follows = found.written > noted.written;
        match follows || found == noted {
            true => Standing::Current,
            false => Standing::RolledBack,
        }
    }

    /// Notes how far the ledger is durable. If that fails there is no token: an old one would let an
    /// old ledger pass.
    ///
    /// # Errors
    /// What the kernel says, if not even the old one could be removed.
    pub(super) fn write(&mut self, mark: Mark) -> io::Result<()> {
        let line = self.line(mark);
        match self
            .opened()
            .and_then(|file| file.write_all_at(line.as_bytes(), 0))
        {
            Ok(()) => Ok(()),
            Err(cause) => {
                tracing::warn!("cannot write {}: {cause}", self.path.display());
                self.remove()
            }
        }
    }

    /// Takes it away: nothing is known any more.
    pub(super) fn remove(&mut self) -> io::Result<()> {
        self.file = None;
        match fs::remove_file(&self.path) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(cause),
            _ => Ok(()),
        }
    }

    fn line(&self, mark: Mark) -> String {
        let Mark {
            incarnation,
            written,
        } = mark;
        let body = format!("{HEAD} {incarnation:016x} {written:016x} {}", self.boot);
        let sum = checksum(&body);
        format!("{body} {sum}\n")
    }

    fn opened(&mut self) -> io::Result<&File> {
        let file = match self.file.take() {
            Some(file) => file,
            None => open(&self.path)?,
        };
        Ok(self.file.insert(file))
    }
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(path)
}

fn number(word: &str) -> Option<u64> {
    u64::from_str_radix(word, 16)
        .ok()
        .filter(|_| word.len() == 16)
}

fn checksum(body: &str) -> String {
    let hash = Sha256::digest(body);
    let shown = hash.iter().take(8).map(|byte| format!("{byte:02x}"));
    shown.collect()
}

/// What a fuzzer drives: a token as it was found, and a whole one with that content.
#[cfg(feature = "fuzzing")]
pub(super) fn fuzz(bytes: &[u8]) {
    let token = Token::new(Path::new(""), "boot-1");
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let whole = format!("{HEAD} {text} boot-1");
    let whole = format!("{whole} {}\n", checksum(&whole));
    for text in [text, &whole] {
        if let Some(mark) = token.parse(text) {
            assert_eq!(token.parse(&token.line(mark)), Some(mark));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARK: Mark = Mark {
        incarnation: 7,
        written: 40,
    };

    fn token(folder: &Path) -> Token {
        Token::new(&folder.join("token"), "boot-1")
    }

    #[test]
    fn it_says_what_was_written_last_until_the_host_starts_anew() {
        let folder = tempfile::tempdir().unwrap();
        let mut token = token(folder.path());
        assert_eq!(token.read(), None);
        for written in [0, 40, u64::MAX] {
            let mark = Mark { written, ..MARK };
            token.write(mark).unwrap();
            assert_eq!(token.read(), Some(mark));
        }
        let later = Token::new(&folder.path().join("token"), "boot-2");
        assert_eq!(later.read(), None);
        token.remove().unwrap();
        token.remove().unwrap();
        assert_eq!(token.read(), None);
    }

    #[test]
    fn a_damaged_one_says_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut token = token(folder.path());
        token.write(MARK).unwrap();
        let whole = fs::read(folder.path().join("token")).unwrap();
        for bit in 0..whole.len() * 8 {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            fs::write(folder.path().join("token"), &damaged).unwrap();
            assert_eq!(token.read(), None, "bit {bit}");
        }
        for len in 0..whole.len() {
            fs::write(folder.path().join("token"), &whole[..len]).unwrap();
            assert_eq!(token.read(), None, "{len} bytes");
        }
    }

    #[test]
    fn an_older_ledger_and_another_one_are_told_from_one_that_went_on() {
        let folder = tempfile::tempdir().unwrap();
        let mut token = token(folder.path());
        let judge = |token: &Token, incarnation, written| {
            token.judge(Mark {
                incarnation,
                written,
            })
        };
        assert_eq!(judge(&token, 7, 40), Standing::Unproven);
        token.write(MARK).unwrap();
        assert_eq!(judge(&token, 7, 40), Standing::Current);
        assert_eq!(judge(&token, 7, 41), Standing::Current);
        assert_eq!(judge(&token, 8, 41), Standing::Current);
        assert_eq!(judge(&token, 7, 39), Standing::RolledBack);
        assert_eq!(judge(&token, 8, 40), Standing::RolledBack);
        assert_eq!(judge(&token, 0, 0), Standing::RolledBack);
    }
}

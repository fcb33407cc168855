//! The operator's secret file.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use zeroize::Zeroizing;

use crate::failure::{Failure, FailureKind};

/// Longest secret file in bytes: a passphrase of 256 bytes, its newline, and a margin so that a
/// wrong file is named as such by the secret's own check.
const SECRET_FILE_LEN_MAX: u64 = 4096;
/// Permission bits for anybody but the owner.
const OTHERS: u32 = 0o077;

/// Text of a secret file that only its owner can read; `-` stands for standard input.
pub(crate) fn read_secret(path: &Path) -> Result<Zeroizing<String>, Failure> {
    let what = || format!("cannot use the secret file {}", path.display());
    if path == Path::new("-") {
        return read_stdin().map_err(|cause| Failure::failed(what(), cause));
    }
    let file = File::open(path).map_err(|cause| Failure::failed(what(), cause))?;
    let about = file
        .metadata()
        .map_err(|cause| Failure::failed(what(), cause))?;
    if about.mode() & OTHERS != 0 {
        let why = format!("others may read it (mode {:04o})", about.mode() & 0o7777);
        let todo = format!("chmod 600 {}", path.display());
        return Err(Failure::new(FailureKind::Failed, what(), why).todo(todo));
    }
    read(file).map_err(|cause| Failure::failed(what(), cause))
}

/// Past the standard library's buffer, which would keep a copy as long as the process lives.
fn read_stdin() -> io::Result<Zeroizing<String>> {
    read(File::from(io::stdin().as_fd().try_clone_to_owned()?))
}

fn read(source: impl Read) -> io::Result<Zeroizing<String>> {
    // Growing would leave copies behind.
    let mut text = Zeroizing::new(String::with_capacity(2 * SECRET_FILE_LEN_MAX as usize));
    source.take(SECRET_FILE_LEN_MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// What a fuzzer drives: the content of a secret file.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz(bytes: &[u8]) {
    if let Ok(text) = read(bytes) {
        let _ = rmesh_gossip::crypto::secret::parse(&text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "correct horse battery\n").unwrap();
        for mode in [0o644, 0o640, 0o604, 0o620] {
            std::fs::set_permissions(file.path(), Permissions::from_mode(mode)).unwrap();
            let failure = read_secret(file.path()).unwrap_err();
            assert!(failure.why.contains("others"), "{failure}");
            assert!(failure.todo.starts_with("chmod 600"), "{failure}");
        }
        std::fs::set_permissions(file.path(), Permissions::from_mode(0o400)).unwrap();
        assert_eq!(
            read_secret(file.path()).unwrap().as_str(),
            "correct horse battery\n"
        );
    }

    #[test]
    fn a_missing_file_is_named() {
        let failure = read_secret(Path::new("/nowhere/secret")).unwrap_err();
        assert!(failure.what.contains("/nowhere/secret"), "{failure}");
    }
}

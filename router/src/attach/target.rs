//! How operators name containers.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::error::AttachError;
use crate::sys::netns::Netns;

/// A container: a named network namespace, a path to one, or a process inside one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TargetSpec {
    /// A name under `/run/netns`, as `ip netns` makes them.
    Named(String),
    /// An absolute path.
    Path(PathBuf),
    /// A process id.
    Pid(u32),
}

impl FromStr for TargetSpec {
    type Err = AttachError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || AttachError::TargetSyntax { text: text.into() };
        if let Some(pid) = text.strip_prefix("pid:") {
            if !pid.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(wrong()); // a sign
            }
            let pid: u32 = pid.parse().map_err(|_| wrong())?;
            return (pid > 0).then_some(TargetSpec::Pid(pid)).ok_or_else(wrong);
        }
        if text.contains('\0') {
            return Err(wrong());
        }
        if text.starts_with('/') {
            return Ok(TargetSpec::Path(text.into()));
        }
        // The name becomes one path component.
        if matches!(text, "" | "." | "..") || text.contains('/') || text.len() > 255 {
            return Err(wrong());
        }
        Ok(TargetSpec::Named(text.into()))
    }
}

impl fmt::Display for TargetSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TargetSpec::Named(name) => f.write_str(name),
            TargetSpec::Path(path) => path.display().fmt(f),
            TargetSpec::Pid(pid) => write!(f, "pid:{pid}"),
        }
    }
}

/// Inode of a target's network namespace.
pub fn netns_inode(target: &TargetSpec) -> Result<u64, AttachError> {
    Ok(Netns::open(target)?.inode())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_as_they_are_written() {
        for text in ["web", "/run/netns/web", "pid:1", "pid"] {
            let target: TargetSpec = text.parse().unwrap();
            assert_eq!(target.to_string(), text);
        }
        for text in [
            "", ".", "..", "a/b", "./a", "pid:", "pid:0", "pid:-1", "pid:+1", "pid:x", "a\0b",
        ] {
            assert!(text.parse::<TargetSpec>().is_err(), "{text:?}");
        }
    }
}

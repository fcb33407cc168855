//! The end of the daemon's log, wherever it goes.

use std::fs::{self, File};
use std::io::{self, Read, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

/// Lines shown.
const LINES_MAX: usize = 200;
/// Most that is read of a log, in bytes.
const LOG_LEN_MAX: u64 = 256 << 10;
/// The unit of `deploy/rmesh.service`, whose log is in the journal.
const UNIT: &str = "rmesh.service";

/// The last lines of the log in `folder`, or where else the daemon `pid` logs to.
pub(super) fn recent(own: &Path, pid: Option<u32>) -> Value {
    let stderr = pid.and_then(|pid| fs::read_link(format!("/proc/{pid}/fd/2")).ok());
    let elsewhere = stderr.filter(|path| path.is_file());
    let newest = [Some(own.to_owned()), elsewhere]
        .into_iter()
        .flatten()
        .filter_map(|path| Some((path.metadata().ok()?.modified().ok()?, path)))
        .max();
    match newest {
        Some((_, path)) => match lines_of_file(&path) {
            Ok(lines) => json!({ "source": path, "lines": lines }),
            Err(cause) => json!({ "source": path, "error": cause.to_string() }),
        },
        None => journal(),
    }
}

fn lines_of_file(path: &Path) -> io::Result<Vec<String>> {
    let mut lines = tail(path)?;
    if lines.len() < LINES_MAX {
        // Just after the log was put aside the interesting part is there.
        let mut aside = path.as_os_str().to_owned();
        aside.push(".1");
        let mut before = tail(&PathBuf::from(aside)).unwrap_or_default();
        before.append(&mut lines);
        lines = before;
    }
    Ok(last(lines))
}

fn tail(path: &Path) -> io::Result<Vec<String>> {
    let mut file = File::open(path)?;
    let start = file.metadata()?.len().saturating_sub(LOG_LEN_MAX);
    file.seek(SeekFrom::Start(start))?;
    let mut lines = read_lines(file)?;
    if start > 0 && !lines.is_empty() {
        // Its beginning is missing, and with it what would tell a secret.
        lines.remove(0);
    }
    Ok(lines)
}

fn read_lines(source: impl Read) -> io::Result<Vec<String>> {
    let mut bytes = Vec::new();
    source.take(LOG_LEN_MAX).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    Ok(text.lines().map(str::to_owned).collect())
}

fn last(mut lines: Vec<String>) -> Vec<String> {
    lines.split_off(lines.len().saturating_sub(LINES_MAX))
}

/// What systemd keeps of the unit. The report does not wait for it longer than for anything else.
fn journal() -> Value {
    let wanted = LINES_MAX.to_string();
    let child = Command::new("journalctl")
        .args([
            "--quiet",
            "--no-pager",
            "--output=short-iso",
            "--unit",
            UNIT,
        ])
        .args(["--lines", &wanted])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let lines = child.and_then(|mut child| {
        let lines = child.stdout.take().map(read_lines).transpose();
        // It may still be writing.
        let _ = child.kill();
        child.wait()?;
        lines
    });
    let lines = last(lines.ok().flatten().unwrap_or_default());
    if lines.is_empty() {
        return json!({ "error": "there is no log in the state folder, and none in the journal" });
    }
    json!({ "source": format!("journalctl --unit {UNIT}"), "lines": lines })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_come_from_both_files_after_the_log_was_put_aside() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("rmesh.log");
        let numbered = |from: usize, to: usize| -> String {
            (from..to).map(|n| format!("line {n}\n")).collect()
        };
        fs::write(folder.path().join("rmesh.log.1"), numbered(0, 300)).unwrap();
        fs::write(&own, numbered(300, 350)).unwrap();
        let shown = recent(&own, None);
        let lines = shown["lines"].as_array().unwrap();
        assert_eq!(lines.len(), LINES_MAX);
        assert_eq!(
            (&lines[0], &lines[199]),
            (&json!("line 150"), &json!("line 349"))
        );
    }

    #[test]
    fn a_huge_log_is_read_from_its_end_and_whole_lines_only() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("rmesh.log");
        let line = format!("{}\n", "x".repeat(9_999));
        fs::write(&own, line.repeat(100)).unwrap();
        let shown = recent(&own, None);
        let lines = shown["lines"].as_array().unwrap();
        assert_eq!(lines.len(), 26);
        assert!(lines.iter().all(|l| l.as_str().unwrap().len() == 9_999));
    }
}

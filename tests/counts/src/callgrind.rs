//! Counts by valgrind, which executes a program on a processor of its own: neither the machine nor
//! what else it does matters.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};

/// Functions of this program that valgrind looks out for.
const TURN: &str = "rmesh_counts::counted_turn";
const END: &str = "rmesh_counts::world_has_ended";

/// Instructions by function, without those of what it calls.
pub(crate) type Functions = BTreeMap<String, u64>;

/// Runs this program again, to go through one benchmark several times. Gives what each took.
pub(crate) fn count(name: &str) -> anyhow::Result<(u64, Vec<Functions>)> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("counts");
    let mut valgrind = Command::new("valgrind");
    valgrind
        .args(["--tool=callgrind", "-q", "--combine-dumps=yes"])
        .args(["--compress-strings=no", "--compress-pos=no"])
        .arg(format!("--callgrind-out-file={}", file.display()))
        .arg(format!("--toggle-collect=*{TURN}*"))
        .arg(format!("--dump-before=*{END}*"))
        .arg(std::env::current_exe()?)
        .args(["run", name]);
    let output = valgrind
        .output()
        .context("valgrind: apt-get install valgrind")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{name}: {}\n{errors}",
        output.status
    );
    let printed = String::from_utf8(output.stdout)?;
    let frames = printed
        .trim()
        .parse()
        .with_context(|| format!("{name} printed {printed}"))?;
    Ok((frames, parts(&file)?))
}

/// The parts of a file in callgrind's format that are not empty.
fn parts(file: &Path) -> anyhow::Result<Vec<Functions>> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let mut parts: Vec<Functions> = Vec::new();
    let (mut function, mut is_of_callee) = (String::new(), false);
    for line in text.lines() {
        if line.starts_with("part: ") {
            parts.push(Functions::new());
        } else if let Some(name) = line.strip_prefix("fn=") {
            name.clone_into(&mut function);
        } else if line.starts_with("calls=") {
            is_of_callee = true;
        } else if line.starts_with(|first: char| first.is_ascii_digit())
            && !std::mem::take(&mut is_of_callee)
        {
            let cost = line.split(' ').nth(1).and_then(|cost| cost.parse().ok());
            let cost: u64 = cost.with_context(|| format!("a line of costs: {line}"))?;
            let part = parts.last_mut().context("costs before the first part")?;
            *part.entry(function.clone()).or_default() += cost;
        }
    }
    parts.retain(|part| !part.is_empty());
    Ok(parts)
}

/// Whether a function was written in Rust: ours, the standard library's, a crate's. Those in C and assembly
/// (ciphers, copies, memory) choose what they do by what the processor can.
pub(crate) fn is_own(function: &str) -> bool {
    function.contains("::")
}

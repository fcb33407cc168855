//! What a report says of the daemon's process, without asking the daemon.

use std::collections::BTreeMap;
use std::fs;

use serde_json::{Value, json};

use super::host::{field, read};
use super::redact::REDACTED;

/// Variables whose value is never shown.
const SECRET_VARIABLES: [&str; 1] = ["RMESH_SECRET"];
/// Flags whose value is never shown.
const SECRET_FLAGS: [&str; 1] = ["--secret"];
/// Variables shown besides `RMESH_…`.
const VARIABLES: [&str; 4] = [
    "INVOCATION_ID",
    "NOTIFY_SOCKET",
    "RUST_BACKTRACE",
    "WATCHDOG_USEC",
];
/// Lines of `/proc/PID/status` that are shown.
const STATUS_FIELDS: [&str; 13] = [
    "CapAmb",
    "CapBnd",
    "CapEff",
    "CapInh",
    "CapPrm",
    "NoNewPrivs",
    "Seccomp",
    "State",
    "Threads",
    "Uid",
    "VmHWM",
    "VmRSS",
    "VmSwap",
];

/// The process with this id.
pub(super) fn facts(pid: u32) -> Value {
    let file = |name: &str| format!("/proc/{pid}/{name}");
    let status = read(&file("status")).unwrap_or_default();
    let fields = STATUS_FIELDS.iter();
    let status: BTreeMap<&str, String> = fields
        .filter_map(|name| Some((*name, field(&status, name)?)))
        .collect();
    let descriptors = fs::read_dir(file("fd")).ok().map(Iterator::count);
    let limits = read(&file("limits")).unwrap_or_default();
    let files_max = limits
        .lines()
        .find_map(|l| l.strip_prefix("Max open files"));
    let link = |name: &str| Some(fs::read_link(file(name)).ok()?.display().to_string());
    json!({
        "pid": pid,
        "program": link("exe"),
        "arguments": arguments(&words(&file("cmdline"))),
        "environment": environment(&words(&file("environ"))),
        "network_namespace": link("ns/net"),
        "mount_namespace": link("ns/mnt"),
        "own_network_namespace": fs::read_link("/proc/thread-self/ns/net").ok(),
        "status": status,
        "descriptors": descriptors,
        "descriptors_max": files_max.and_then(|line| line.split_whitespace().next()),
    })
}

/// Words that end with a zero byte.
fn words(path: &str) -> Vec<String> {
    let text = read(path).unwrap_or_default();
    text.split_terminator('\0').map(str::to_owned).collect()
}

fn arguments(words: &[String]) -> Vec<String> {
    let mut hide_next = false;
    let shown = words.iter().map(|word| {
        if std::mem::replace(&mut hide_next, SECRET_FLAGS.contains(&word.as_str())) {
            return REDACTED.to_owned();
        }
        match word.split_once('=') {
            Some((flag, _)) if SECRET_FLAGS.contains(&flag) => format!("{flag}={REDACTED}"),
            _ => word.clone(),
        }
    });
    shown.collect()
}

fn environment(words: &[String]) -> BTreeMap<&str, &str> {
    let pairs = words.iter().filter_map(|word| word.split_once('='));
    let shown = pairs.filter(|(name, _)| name.starts_with("RMESH_") || VARIABLES.contains(name));
    let hidden = |name: &str| SECRET_VARIABLES.contains(&name);
    shown
        .map(|(name, value)| (name, if hidden(name) { REDACTED } else { value }))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn the_secret_is_taken_out_of_arguments_and_environment() {
        let words =
            texts("rmesh launch --secret correct-horse --name --secret=battery-staple -- x");
        let shown = arguments(&words).join(" ");
        assert_eq!(
            shown,
            "rmesh launch --secret [redacted] --name --secret=[redacted] -- x"
        );
        let words =
            texts("RMESH_SECRET=correct-horse RMESH_PORT=7 HOME=/root RMESH_SECRET_FILE=/s");
        let shown = environment(&words);
        let expected = [
            ("RMESH_PORT", "7"),
            ("RMESH_SECRET", REDACTED),
            ("RMESH_SECRET_FILE", "/s"),
        ];
        assert_eq!(shown.into_iter().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn this_process_is_described() {
        let facts = facts(std::process::id());
        assert!(facts["status"]["VmRSS"].is_string(), "{facts}");
        assert!(facts["descriptors"].as_u64() > Some(2), "{facts}");
        assert_eq!(facts["network_namespace"], facts["own_network_namespace"]);
    }
}

//! `rmesh report`: everything for a bug report in one JSON document, and no secret in it.
//!
//! Every part is gathered on a thread of its own, and what is not there when the time is up is
//! named as missing: a report is made most of all when something hangs.

mod host;
mod log;
mod process;
mod redact;

use std::iter;
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Map, Value, json};

use crate::args::Global;
use crate::client;
use crate::commands::print_json;
use crate::failure::Failure;
use crate::state::{self, LOG_FILE, StateDir};
use redact::Redactor;

/// Version of the document's form.
const FORMAT: u32 = 1;
/// Entries of a list of the API that are shown; the rest is counted.
const ENTRIES_MAX: usize = 1_000;
/// Lines of the metrics: those of a mesh of a hundred peers.
const METRICS_MAX: usize = 4_000;
/// Sentences about what is wrong.
const PROBLEMS_MAX: usize = 200;

/// Gathers one part.
type Gather = Box<dyn FnOnce() -> Value + Send>;

/// What the threads send.
enum Gathered {
    Part(&'static str, Value),
    Secrets(Redactor),
}

/// Prints the report. It is a success whatever state the daemon is in.
pub(crate) fn run(global: &Global) -> Result<(), Failure> {
    let start = Instant::now();
    let mut parts = gather(global, start + global.timeout);
    let mut problems = problems(&parts);
    problems.truncate(PROBLEMS_MAX);
    parts.insert("problems".into(), problems.into());
    let about = json!({
        "format": FORMAT,
        "made_unix_s": unix_seconds(),
        "took_ms": crate::duration::millis(start.elapsed()),
        "time_limit_ms": crate::duration::millis(global.timeout),
    });
    parts.insert("report".into(), about);
    print_json(&parts)
}

/// All parts, cleaned of secrets.
fn gather(global: &Global, deadline: Instant) -> Map<String, Value> {
    let (sender, gathered) = mpsc::channel();
    let mut missing = Vec::new();
    for (name, gather) in sections(global) {
        let sender = sender.clone();
        // What nobody waits for any more is dropped.
        let work = move || drop(sender.send(Gathered::Part(name, gather())));
        start_thread(work);
        missing.push(name);
    }
    let state_dir = global.state_dir.clone();
    start_thread(move || drop(sender.send(Gathered::Secrets(secrets(&state_dir)))));
    let mut parts = Map::new();
    let mut redactor = None;
    while redactor.is_none() || !missing.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        match gathered.recv_timeout(left) {
            Ok(Gathered::Part(name, value)) => {
                missing.retain(|other| *other != name);
                parts.insert(name.into(), value);
            }
            Ok(Gathered::Secrets(found)) => redactor = Some(found),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
        }
    }
    for name in missing {
        let why = format!(
            "not there within {:?}: try a longer --timeout",
            global.timeout
        );
        parts.insert(name.into(), json!({ "error": why }));
    }
    // Without the state folder the secrets are known by their form and place alone.
    let redactor = redactor.unwrap_or_default();
    let mut value = Value::Object(parts);
    redactor.clean(&mut value);
    match value {
        Value::Object(parts) => parts,
        _ => Map::new(),
    }
}

fn start_thread(work: impl FnOnce() + Send + 'static) {
    // One that cannot start is named as missing.
    drop(
        thread::Builder::new()
            .name("rmesh-report".into())
            .spawn(work),
    );
}

fn sections(global: &Global) -> [(&'static str, Gather); 9] {
    let [mesh_asked, ring_asked, metrics_asked] = [(); 3].map(|()| global.clone());
    let (state_dir, run_dir) = (global.state_dir.clone(), global.run_dir.clone());
    let (lock_dir, log_dir) = (run_dir.clone(), run_dir.clone());
    let log = state_dir.join(LOG_FILE);
    [
        ("program", Box::new(program)),
        ("host", Box::new(host::machine)),
        ("network", Box::new(host::network)),
        (
            "daemon",
            Box::new(move || match state::holder(&lock_dir) {
                Some(pid) => process::facts(pid),
                None => json!({ "error": format!("no daemon runs in {}", lock_dir.display()) }),
            }),
        ),
        ("mesh", Box::new(move || mesh(&mesh_asked))),
        ("ring", Box::new(move || ring(&ring_asked))),
        ("metrics", Box::new(move || metrics(&metrics_asked))),
        (
            "folders",
            Box::new(move || json!({ "state": listing(&state_dir), "run": listing(&run_dir) })),
        ),
        (
            "log",
            Box::new(move || log::recent(&log, state::holder(&log_dir))),
        ),
    ]
}

fn program() -> Value {
    use std::env::consts::{ARCH, OS};
    let environment = match () {
        () if cfg!(target_env = "musl") => "musl",
        () if cfg!(target_env = "gnu") => "gnu",
        () => "other",
    };
    json!({
        "version": crate::VERSION,
        "target": format!("{ARCH}-{OS}-{environment}"),
        "debug_assertions": cfg!(debug_assertions),
    })
}

/// What the API shows of the mesh, but the secret.
fn mesh(global: &Global) -> Value {
    let rest = ["peers", "endpoints", "attachments"].map(|name| (name, bounded as Bounded));
    answers(global, ("status", |status, _| status), &rest)
}

/// What it shows of the ring of addresses, and whether that agrees with the containers.
fn ring(global: &Global) -> Value {
    let rest = ["ipam/addresses", "ipam/check"].map(|name| (name, bounded_deep as Bounded));
    answers(global, ("ipam", bounded_deep), &rest)
}

/// Cuts an answer to a number of entries.
type Bounded = fn(Value, usize) -> Value;

/// Answers of the API by the last word of their path; if there is no first one, nothing else is asked for.
fn answers(global: &Global, first: (&str, Bounded), rest: &[(&str, Bounded)]) -> Value {
    let deadline = Instant::now() + global.timeout;
    let mut answers = Map::new();
    for (at, (path, bounded)) in iter::once(&first).chain(rest).enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut asked = global.clone();
        // A daemon that hangs must not use up the time of everything else.
        asked.timeout = left.clamp(Duration::from_millis(1), global.timeout / 2);
        let answer = match client::get::<Value>(&asked, &format!("/v1/{path}")) {
            Ok(answer) => bounded(answer, ENTRIES_MAX),
            Err(failure) if at == 0 => return json!({ "error": one_line(&failure) }),
            Err(failure) => json!({ "error": one_line(&failure) }),
        };
        let name = path.rsplit('/').next().unwrap_or(path);
        answers.insert(name.into(), answer);
    }
    Value::Object(answers)
}

/// The metrics, line for line.
fn metrics(global: &Global) -> Value {
    let mut asked = global.clone();
    asked.timeout = global.timeout / 2;
    match client::get_text(&asked, "/metrics") {
        Ok(text) => bounded(text.lines().collect(), METRICS_MAX),
        Err(failure) => json!({ "error": one_line(&failure) }),
    }
}

fn one_line(failure: &Failure) -> String {
    format!("{}: {}", failure.what, failure.why)
}

fn listing(folder: &Path) -> Value {
    let listed = state::list(folder).map(serde_json::to_value);
    match listed {
        Ok(Ok(listing)) => listing,
        Ok(Err(error)) => json!({ "error": error.to_string() }),
        Err(cause) => json!({ "error": format!("{}: {cause}", folder.display()) }),
    }
}

/// The secrets of this host, so that they can be taken out.
fn secrets(state_dir: &Path) -> Redactor {
    let mut redactor = Redactor::default();
    let state = StateDir::existing(state_dir);
    let kept = [state.secret(), state.identity()];
    for key in kept.into_iter().flatten().flatten() {
        redactor.add_key(&key);
    }
    if let Ok(text) = std::env::var("RMESH_SECRET") {
        redactor.add_text(&text);
    }
    redactor
}

/// A list as `entries` and the number left out; lists in an object each for itself.
fn bounded(value: Value, max: usize) -> Value {
    match value {
        Value::Array(mut entries) => {
            let left_out = entries.len().saturating_sub(max);
            entries.truncate(max);
            json!({ "entries": entries, "left_out": left_out })
        }
        Value::Object(fields) => {
            let each = fields.into_iter().map(|(name, value)| match value {
                Value::Array(_) => (name, bounded(value, max)),
                other => (name, other),
            });
            Value::Object(each.collect())
        }
        other => other,
    }
}

/// The same for lists at any depth.
fn bounded_deep(value: Value, max: usize) -> Value {
    match value {
        Value::Array(entries) => {
            let entries = entries.into_iter().map(|entry| bounded_deep(entry, max));
            bounded(entries.collect(), max)
        }
        Value::Object(fields) => {
            let each = fields
                .into_iter()
                .map(|(name, value)| (name, bounded_deep(value, max)));
            Value::Object(each.collect())
        }
        other => other,
    }
}

/// What a reader should look at first: everything missing, damaged, or warned of.
fn problems(parts: &Map<String, Value>) -> Vec<String> {
    let mut problems = Vec::new();
    for (name, part) in parts {
        errors(name, part, &mut problems);
    }
    let part = |name: &str| parts.get(name).unwrap_or(&Value::Null);
    problems.extend(exposed(part("folders")));
    let entries = part("folders")["state"]["entries"].as_array();
    for entry in entries.into_iter().flatten() {
        if let Some(flaw) = entry["checksum"].as_str().filter(|text| *text != "ok") {
            let name = entry["name"].as_str().unwrap_or_default();
            problems.push(format!("state file {name}: {flaw}"));
        }
    }
    let status = &part("mesh")["status"];
    let warnings = status["warnings"].as_array().into_iter().flatten();
    problems.extend(warnings.filter_map(|warning| Some(warning.as_str()?.to_owned())));
    let ring = part("ring");
    let advice = ring["ipam"]["advice"]["entries"]
        .as_array()
        .into_iter()
        .flatten();
    problems.extend(advice.filter_map(|advice| Some(format!("addresses: {}", advice.as_str()?))));
    let differences = ring["check"]["differences"]["entries"].as_array();
    for difference in differences.into_iter().flatten() {
        let text = |name: &str| difference[name].as_str().unwrap_or_default();
        problems.push(format!("container {}: {}", text("container"), text("what")));
    }
    let version = &status["version"];
    if version.is_string() && *version != crate::VERSION {
        let mine = crate::VERSION;
        problems.push(format!(
            "the daemon is rmesh {version}, this program rmesh {mine}"
        ));
    }
    for target in status["targets"].as_array().into_iter().flatten() {
        if target["state"] != "connected" {
            let text = |name: &str| target[name].as_str().unwrap_or_default();
            problems.push(format!("peer {}: {}", text("name"), text("state")));
        }
    }
    problems
}

/// Folders that others may write in, and keys that others may use, as they are now.
fn exposed(folders: &Value) -> Vec<String> {
    let mode = |value: &Value| u32::from_str_radix(value["mode"].as_str().unwrap_or("0"), 8);
    let open = |value: &Value, bits: u32| mode(value).is_ok_and(|mode| mode & bits != 0);
    let mut exposed = Vec::new();
    for name in ["state", "run"] {
        if open(&folders[name], 0o022) {
            let mode = folders[name]["mode"].as_str().unwrap_or_default();
            exposed.push(format!(
                "the {name} folder: others may write in it (mode {mode})"
            ));
        }
    }
    let entries = folders["state"]["entries"].as_array();
    for entry in entries.into_iter().flatten() {
        let is_key = entry["name"] == "secret" || entry["name"] == "identity";
        if is_key && entry["kind"] == "file" && open(entry, 0o077) {
            let text = |name: &str| entry[name].as_str().unwrap_or_default();
            let (name, mode) = (text("name"), text("mode"));
            exposed.push(format!("the key {name}: others may use it (mode {mode})"));
        }
    }
    exposed
}

/// Errors of a part and of the parts in it.
fn errors(name: &str, part: &Value, problems: &mut Vec<String>) {
    let Some(fields) = part.as_object() else {
        return;
    };
    for (field, value) in fields {
        match value {
            Value::String(why) if field == "error" => problems.push(format!("{name}: {why}")),
            Value::Object(_) => errors(&format!("{name}.{field}"), value, problems),
            _ => {}
        }
    }
}

fn unix_seconds() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn global(folder: &Path, timeout: &str) -> Global {
        let line = format!(
            "rmesh report --timeout {timeout} --run-dir {0}/run --state-dir {0}/state",
            folder.display()
        );
        crate::args::parse(line.split_whitespace()).unwrap().global
    }

    #[test]
    fn without_a_daemon_everything_else_is_there_and_nothing_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let global = global(folder.path(), "10s");
        let parts = gather(&global, Instant::now() + global.timeout);
        assert!(parts["host"]["kernel"].is_string());
        assert!(parts["network"]["links"]["entries"].is_array());
        assert_eq!(parts["program"]["version"], crate::VERSION);
        let problems = problems(&parts).join("\n");
        for words in ["not running", "no daemon runs", "folders.state"] {
            assert!(problems.contains(words), "{words}: {problems}");
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_daemon_that_never_answers_costs_no_more_than_the_time_limit() {
        let folder = tempfile::tempdir().unwrap();
        let run = folder.path().join("run");
        std::fs::create_dir(&run).unwrap();
        let _silent =
            std::os::unix::net::UnixListener::bind(crate::api::socket_path(&run)).unwrap();
        let global = global(folder.path(), "300ms");
        let start = Instant::now();
        let parts = gather(&global, start + global.timeout);
        assert!(
            start.elapsed() < Duration::from_secs(2),
            "{:?}",
            start.elapsed()
        );
        assert!(parts["mesh"]["error"].is_string(), "{:?}", parts["mesh"]);
        assert!(parts["host"]["kernel"].is_string());
    }

    #[test]
    fn what_others_may_do_is_a_problem() {
        let key = |name: &str, mode: &str| json!({ "name": name, "kind": "file", "mode": mode });
        let folder = |mode: &str| {
            let entries = ["secret", "boot"].map(|name| key(name, mode));
            json!({ "mode": mode, "entries": entries })
        };
        let parts = json!({ "state": folder("0775"), "run": folder("0755") });
        let problems = exposed(&parts);
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(problems[0].contains("state folder") && problems[1].contains("secret"));
        assert!(exposed(&json!({ "state": { "error": "no" } })).is_empty());
        assert!(exposed(&json!({ "state": folder("0700"), "run": folder("0700") })).is_empty());
    }

    #[test]
    fn long_lists_are_cut_and_say_so() {
        let cut = bounded(json!([1, 2, 3]), 2);
        assert_eq!(cut, json!({ "entries": [1, 2], "left_out": 1 }));
        let cut = bounded(json!({ "a": [1], "b": 7 }), 2);
        assert_eq!(
            cut,
            json!({ "a": { "entries": [1], "left_out": 0 }, "b": 7 })
        );
        let cut = bounded_deep(json!([{ "a": [1, 2] }]), 1);
        let inner = json!({ "entries": [1], "left_out": 1 });
        assert_eq!(cut, json!({ "entries": [{ "a": inner }], "left_out": 0 }));
    }
}

//! The daemon's log as JSON: every line, from the first to a failed start, in the foreground and in the background.

use std::path::Path;
use std::time::Duration;

use rmesh_tests::story;
use rmesh_tests::story::{SECRET, Story, texts};
use serde_json::Value;

/// Every line of a log, each of which must be one object with the fields all lines have.
fn lines(log: &str) -> Vec<Value> {
    let read = |line: &str| -> Value {
        let value: Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line:?}"));
        let text = |name: &str| {
            value[name]
                .as_str()
                .unwrap_or_else(|| panic!("{name}: {line}"))
                .to_owned()
        };
        let timestamp = text("timestamp");
        assert!(
            timestamp.contains('T') && timestamp.ends_with('Z'),
            "{line}"
        );
        let level = text("level");
        assert!(
            ["ERROR", "WARN", "INFO", "DEBUG"].contains(&level.as_str()),
            "{line}"
        );
        assert!(!text("message").is_empty(), "{line}");
        assert!(text("target").starts_with("rmesh"), "{line}");
        value
    };
    log.lines().map(read).collect()
}

fn says(lines: &[Value], level: &str, words: &str) {
    let found = lines.iter().any(|line| {
        line["level"] == level && line["message"].as_str().is_some_and(|m| m.contains(words))
    });
    assert!(found, "no {level} line says {words:?}: {lines:#?}");
}

fn secret(story: &Story) -> String {
    story.file("secret", SECRET, 0o600).display().to_string()
}

#[test]
fn every_line_of_a_json_log_is_an_object() {
    let mut story = story!("log");
    let a = story.host("a");
    let secret = secret(&story);
    // A damaged file and a name that does not resolve make the daemon complain.
    std::fs::write(a.state_dir().join("peers"), "garbage").expect("a state file");
    let flags = [
        "--log-format",
        "json",
        "--secret-file",
        &secret,
        "--init-peers",
        "1",
        "nosuch.invalid",
    ];
    let router = story.launch_bare(&a, &flags, &[("RMESH_LOG", "debug")]);
    let _one = story.container(&a, "one", "10.32.0.1/24");
    story.succeed(&a, &["stop"]);
    assert!(
        router.process.wait(Duration::from_secs(10)).is_some(),
        "it does not stop"
    );
    let read = lines(&router.logged());
    println!("{} lines", read.len());
    says(&read, "WARN", "peers.corrupt-1");
    says(&read, "INFO", "serving");
    says(&read, "INFO", "stopped");

    // A start that fails is said in the same form, and once.
    let log = a.run_dir().join("failed.log");
    let words = ["--run-dir", "/proc/none", "launch", "--foreground"];
    let env = [("RMESH_LOG_FORMAT", "json")];
    let process = a
        .spawn(story.program(), &words, &env, &log)
        .expect("the program");
    let status = process.wait(Duration::from_secs(10)).expect("it ends");
    assert_eq!(status.code(), Some(1));
    let read = lines(&std::fs::read_to_string(&log).expect("a log"));
    assert_eq!(read.len(), 1, "{read:#?}");
    says(&read, "ERROR", "cannot launch");
}

#[test]
fn a_daemon_in_the_background_logs_in_the_same_form() {
    let mut story = story!("log-file");
    let a = story.host("a");
    let log = |name: &str| {
        let path: &Path = &a.state_dir().join(name);
        std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    story.succeed(&a, &["launch", "--log-format", "json"]);
    println!("{:?}", texts(&story.rmesh(&a, &["stop"])));
    let read = lines(&log("rmesh.log"));
    says(&read, "INFO", "serving");
    let before = log("rmesh.log").len();

    // The operator reads words, whatever the form of the log.
    let failed = story.rmesh(
        &a,
        &["launch", "--log-format", "json", "--bind", "192.0.2.99"],
    );
    // Should it have started after all, it must not stay.
    story.rmesh(&a, &["stop"]);
    assert_eq!(failed.status.code(), Some(1), "{failed:?}");
    let (_, error) = texts(&failed);
    assert!(
        error.contains("192.0.2.99") && !error.contains('{'),
        "{error}"
    );
    lines(&log("rmesh.log"));

    story.succeed(&a, &["launch"]);
    println!("{:?}", texts(&story.rmesh(&a, &["stop"])));
    let text = log("rmesh.log");
    let last = text[before..].lines().last().unwrap_or_default();
    assert!(last.contains("INFO stopped"), "text is the default: {last}");
    story.fail(&a, 2, &["launch", "--log-format", "xml"]);

    let file = a.state_dir().join("rmesh.log");
    std::fs::remove_file(&file).expect("the log");
    std::fs::create_dir(&file).expect("a folder in its place");
    let refused = story.fail(&a, 1, &["launch"]);
    assert!(refused.contains("to do: the log goes there"), "{refused}");
}

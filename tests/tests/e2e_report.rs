//! `rmesh report`: everything for a bug report, in whatever state the daemon is, and no secret.

use std::fs::{OpenOptions, Permissions};
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use rmesh_lab::Host;
use rmesh_tests::story;
use rmesh_tests::story::{Router, Story};
use serde_json::Value;

const PASSPHRASE: &str = "correct horse battery staple";
const SOON: Duration = Duration::from_secs(5);

/// The report, and how it reads.
fn report(story: &Story, host: &Host, flags: &[&str]) -> (Value, String) {
    let mut words = vec!["report"];
    words.extend(flags);
    let text = story.succeed(host, &words);
    let value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"));
    (value, text)
}

/// The 32 bytes that a state file keeps as hexadecimal digits.
fn kept_key(state_dir: &Path, name: &str) -> Vec<u8> {
    let text = std::fs::read_to_string(state_dir.join(name)).expect("a state file");
    let body = text.lines().nth(1).expect("its second line");
    let digits: String = serde_json::from_str(body).expect("a string");
    let bytes = (0..digits.len() / 2).map(|at| u8::from_str_radix(&digits[2 * at..2 * at + 2], 16));
    bytes
        .map(|byte| byte.expect("hexadecimal digits"))
        .collect()
}

/// Digits of `bits` bits each, as base32 and base64 have them, without padding.
fn digits(bytes: &[u8], bits: usize, alphabet: &[u8]) -> String {
    let all: Vec<u8> = bytes
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1))
        .collect();
    let groups = all.chunks(bits).map(|chunk| {
        let value = chunk
            .iter()
            .fold(0, |value, bit| value << 1 | usize::from(*bit));
        char::from(alphabet[value << (bits - chunk.len())])
    });
    groups.collect()
}

/// Everything that must not stand in a report.
fn forbidden(host: &Host) -> Vec<String> {
    let mut forms = vec![PASSPHRASE.to_owned()];
    let base64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for name in ["secret", "identity"] {
        let key = kept_key(&host.state_dir(), name);
        assert_eq!(key.len(), 32, "{name}");
        forms.push(key.iter().map(|byte| format!("{byte:02x}")).collect());
        forms.push(digits(&key, 5, b"abcdefghijklmnopqrstuvwxyz234567"));
        let plain = digits(&key, 6, base64);
        forms.push(plain.replace('+', "-").replace('/', "_"));
        forms.push(plain);
    }
    forms
}

fn holds_none_of(text: &str, forms: &[String]) {
    let lower = text.to_lowercase();
    for form in forms {
        assert!(!text.contains(form.as_str()), "{form} stands in {text}");
        assert!(
            !lower.contains(&form.to_lowercase()),
            "{form} stands in {text}"
        );
    }
}

fn holds_everything(value: &Value, own: IpAddr) {
    assert_eq!(value["program"]["version"], env!("CARGO_PKG_VERSION"));
    assert!(value["host"]["kernel"].is_string(), "{value}");
    assert_eq!(value["mesh"]["status"]["peers_reachable"], 1);
    assert!(value["mesh"]["status"]["uptime_ms"].is_u64());
    assert_eq!(value["mesh"]["peers"]["entries"][0]["name"], "b");
    assert_eq!(
        value["mesh"]["attachments"]["entries"][0]["addresses"][0],
        "10.32.0.1/24"
    );
    assert_eq!(
        value["mesh"]["endpoints"]["endpoints"]["entries"]
            .as_array()
            .map(Vec::len),
        Some(1)
    );
    let ring = &value["ring"];
    let pools = &ring["ipam"]["pools"]["entries"];
    assert_eq!(pools[0]["prefix"], "10.32.0.0/12", "{ring}");
    assert!(pools[0]["owners"]["entries"].is_array(), "{ring}");
    assert_eq!(ring["addresses"]["entries"][0]["address"], "10.32.0.1");
    assert_eq!(ring["check"]["containers"], 1, "{ring}");
    let lines = value["metrics"]["entries"].to_string();
    assert!(
        lines.contains("process_open_fds") && lines.contains("rmesh_ring_addresses{"),
        "{lines}"
    );
    assert_eq!(value["daemon"]["pid"], value["mesh"]["status"]["pid"]);
    let arguments = value["daemon"]["arguments"].to_string();
    assert!(
        arguments.contains("--foreground") && arguments.contains("reporter"),
        "{arguments}"
    );
    assert!(value["daemon"]["status"]["CapEff"].is_string());

    let files = value["folders"]["state"]["entries"]
        .as_array()
        .expect("the state folder");
    let identity = files
        .iter()
        .find(|file| file["name"] == "identity")
        .expect("the identity");
    assert_eq!(
        (&identity["mode"], &identity["checksum"]),
        (&"0600".into(), &"ok".into())
    );
    let ledger = files.iter().find(|file| file["name"] == "ledger");
    let ledger = ledger.expect("the ledger");
    assert_eq!(ledger["checksum"], "ok");
    let links = value["network"]["links"]["entries"].to_string();
    assert!(
        links.contains("\"rmesh\"") && links.contains("rmesh-tap"),
        "{links}"
    );
    let addresses = value["network"]["addresses"].to_string();
    assert!(addresses.contains(&own.to_string()), "{addresses}");
    assert!(
        value["network"]["routes"]
            .to_string()
            .contains("destination")
    );
    let setting = &value["network"]["settings"]["net/ipv6/conf/rmesh/disable_ipv6"];
    assert_eq!(setting, "1");
    let problems = value["problems"].to_string();
    assert!(problems.contains("192.0.2.77"), "{problems}");
}

fn launch(story: &mut Story, host: &Host, peers: &[&str]) -> Router {
    let mut arguments = vec!["--name", "reporter", "--secret", PASSPHRASE];
    arguments.extend(peers);
    story.launch_bare(host, &arguments, &[])
}

#[test]
fn a_report_of_a_running_peer_holds_everything_and_no_secret() {
    let mut story = story!("report");
    let [a, b] = story.hosts(["a", "b"]);
    let ab = story.link(&a, &b);
    let other = story.launch_bare(&b, &["--name", "b", "--secret", PASSPHRASE], &[]);
    let peer = ab.address(&b, false).to_string();
    let router = launch(&mut story, &a, &[&peer, "192.0.2.77"]);
    story.expect_mesh(SOON, &[&router, &other]);
    let _one = story.container(&a, "one", "10.32.0.1/24");

    // Somebody wrote all of it into the log.
    let forms = forbidden(&a);
    let mut log = OpenOptions::new()
        .append(true)
        .open(&router.log)
        .expect("the log");
    for form in &forms {
        writeln!(log, "poisoned rmesh1-{form} and {form} alone").expect("room on the disk");
        writeln!(log, "poisoned {}", form.to_uppercase()).expect("room on the disk");
    }
    // A passphrase is known to the report only where it was given; the daemon keeps none.
    let forms = &forms[1..];

    let start = Instant::now();
    let (value, text) = report(&story, &a, &[]);
    story.expect_took(Duration::from_secs(2), "a report", start.elapsed());
    println!("{} bytes", text.len());
    holds_none_of(&text, forms);
    assert!(text.contains("poisoned [redacted]"), "{text}");

    holds_everything(&value, ab.address(&a, false));

    // The mesh secret given to the report itself, as text, is taken out too.
    let program = story.program();
    let run_dir = a.run_dir().display().to_string();
    let state_dir = a.state_dir().display().to_string();
    let words = ["--run-dir", &run_dir, "--state-dir", &state_dir, "report"];
    let env = [("RMESH_SECRET", PASSPHRASE)];
    let output = a
        .command_with(program, &words, &env, SOON)
        .expect("a command");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success() && text.contains("poisoned"),
        "{text}"
    );
    holds_none_of(&text, &forbidden(&a)[1..]);
    assert!(
        !text.contains(PASSPHRASE),
        "the passphrase stands in {text}"
    );
}

#[test]
fn a_report_is_made_without_a_daemon_and_with_one_that_hangs() {
    let mut story = story!("report-down");
    let a = story.host("a");
    let (value, _) = report(&story, &a, &[]);
    let problems = value["problems"].to_string();
    assert!(problems.contains("rmesh is not running"), "{problems}");
    assert!(value["host"]["kernel"].is_string());

    let router = launch(&mut story, &a, &[]);
    let forms = forbidden(&a);
    router.process.pause().expect("SIGSTOP");
    let start = Instant::now();
    let (value, text) = report(&story, &a, &["--timeout", "1s"]);
    story.expect_took(
        Duration::from_millis(1_500),
        "a report of a hanging daemon",
        start.elapsed(),
    );
    assert!(value["mesh"]["error"].is_string(), "{text}");
    assert!(value["daemon"]["status"]["VmRSS"].is_string(), "{text}");
    assert!(
        value["log"]["lines"].to_string().contains("serving"),
        "{text}"
    );
    holds_none_of(&text, &forms);
    router.process.resume().expect("SIGCONT");
    router.kill();

    std::fs::write(a.state_dir().join("peers"), "garbage").expect("a state file");
    std::fs::write(a.state_dir().join("ledger"), "garbage").expect("a ledger");
    let (value, text) = report(&story, &a, &[]);
    let problems = value["problems"].to_string();
    assert!(
        problems.contains("state file peers: it is cut short"),
        "{problems}"
    );
    assert!(problems.contains("state file ledger: it is"), "{problems}");
    assert!(
        a.state_dir().join("peers").exists(),
        "a report changes nothing"
    );
    holds_none_of(&text, &forms);
    let help = story.succeed(&a, &["report", "--help"]);
    assert!(
        help.contains("no secret") && help.contains("names"),
        "{help}"
    );
}

#[test]
fn what_others_could_do_is_named_and_put_right_or_refused() {
    let mut story = story!("report-modes");
    let a = story.host("a");
    launch(&mut story, &a, &[]).kill();
    let secret = a.state_dir().join("secret");
    let set = |path: &Path, mode| {
        std::fs::set_permissions(path, Permissions::from_mode(mode)).expect("a mode");
    };
    let mode = |path: &Path| path.metadata().expect("a file").permissions().mode() & 0o7777;
    set(&a.state_dir(), 0o777);
    set(&a.run_dir(), 0o775);
    set(&secret, 0o644);
    let found = report(&story, &a, &[]).0["problems"].to_string();
    for words in ["the state folder", "the run folder", "the key secret"] {
        assert!(found.contains(words), "{words}: {found}");
    }

    let router = launch(&mut story, &a, &[]);
    assert_eq!(
        [mode(&a.state_dir()), mode(&a.run_dir()), mode(&secret)],
        [0o700, 0o700, 0o600]
    );
    let named = [
        router.logged(),
        story.status(&a)["warnings"].to_string(),
        report(&story, &a, &[]).0["problems"].to_string(),
    ];
    for named in named {
        for words in ["mode 0777", "mode 0775", "mode 0644"] {
            assert!(named.contains(words), "{words}: {named}");
        }
    }
    router.kill();

    std::os::unix::fs::chown(a.state_dir(), Some(1), None).expect("root");
    let said = story.fail(&a, 1, &["launch"]);
    let todo = format!("chown root {}", a.state_dir().display());
    assert!(said.contains(&todo), "{said}");
}

#[test]
fn a_daemon_under_systemd_has_its_log_in_the_journal() {
    let mut story = story!("report-journal");
    let a = story.host("a");
    // Stands in for journalctl; a secret may have been logged by another program.
    let fake = story.file(
        "journalctl",
        "#!/bin/sh\necho \"$@\"\nfor n in $(seq 300); do echo line $n; done\necho rmesh1-abcd\n",
        0o755,
    );
    let folder = fake.parent().expect("its folder").display().to_string();
    let path = format!("{folder}:{}", std::env::var("PATH").unwrap_or_default());
    let ask = || {
        let [run_dir, state_dir] = [a.run_dir(), a.state_dir()].map(|p| p.display().to_string());
        let words = [
            "--run-dir",
            &run_dir,
            "--state-dir",
            &state_dir,
            "--timeout",
            "2s",
            "report",
        ];
        let output = a.command_with(story.program(), &words, &[("PATH", &path)], SOON);
        let output = output.expect("a command that ends");
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice::<Value>(&output.stdout).expect("JSON")
    };
    let log = &ask()["log"];
    assert_eq!(log["source"], "journalctl --unit rmesh.service");
    let lines = log["lines"].as_array().expect("lines");
    assert_eq!((lines.len(), &lines[199]), (200, &"[redacted]".into()));
    assert_eq!(lines[198], "line 300");

    story.file("journalctl", "#!/bin/sh\nexec sleep 4\n", 0o755);
    let start = Instant::now();
    let log = &ask()["log"];
    let limit = Duration::from_millis(2_500);
    story.expect_took(limit, "a report without the journal", start.elapsed());
    assert!(log["error"].is_string(), "{log}");
}

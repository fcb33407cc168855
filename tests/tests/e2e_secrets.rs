//! No secret in what a daemon logs, however much it is asked to say.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rmesh_tests::story;

const PASSPHRASE: &str = "correct horse battery staple";
const SOON: Duration = Duration::from_secs(5);
const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// The 32 bytes that a state file keeps as hexadecimal digits.
fn kept_key(path: &Path) -> Vec<u8> {
    let text = fs::read_to_string(path).expect("a state file");
    let digits: String = serde_json::from_str(text.lines().nth(1).expect("a line")).expect("JSON");
    let byte = |at: usize| u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).expect("digits");
    (0..digits.len() / 2).map(byte).collect()
}

/// Digits of `bits` bits each, without padding.
fn digits(bytes: &[u8], bits: usize, alphabet: &[u8]) -> String {
    let all = bytes
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1));
    let all: Vec<u8> = all.collect();
    let groups = all.chunks(bits).map(|chunk| {
        let value = chunk
            .iter()
            .fold(0, |value, bit| value << 1 | usize::from(*bit));
        char::from(alphabet[value << (bits - chunk.len())])
    });
    groups.collect()
}

/// A key in every form in which somebody might print it, whole or by half.
fn forms(key: &[u8]) -> Vec<String> {
    let mut forms = vec![digits(key, 5, BASE32), digits(key, 6, BASE64)];
    for part in [key, &key[..16], &key[16..]] {
        forms.push(part.iter().map(|byte| format!("{byte:02x}")).collect());
        let listed = format!("{part:?}");
        forms.push(listed[1..listed.len() - 1].to_owned());
        let listed = format!("{part:02x?}");
        forms.push(listed[1..listed.len() - 1].to_owned());
    }
    forms
}

fn holds_none(what: &str, text: &[u8], forms: &[String], raw: &[&[u8]]) {
    let lower = String::from_utf8_lossy(text).to_lowercase();
    for form in forms {
        assert!(
            !lower.contains(&form.to_lowercase()),
            "{form} stands in {what}"
        );
    }
    for bytes in raw {
        assert!(
            !text.windows(bytes.len()).any(|w| w == *bytes),
            "raw bytes stand in {what}"
        );
    }
}

#[test]
fn a_log_of_everything_holds_no_secret_in_any_form() {
    let mut story = story!("secrets");
    let [a, b] = story.hosts(["a", "b"]);
    let ab = story.link(&a, &b);
    let env = [("RMESH_LOG", "trace")];
    let on_a = story.launch_bare(
        &a,
        &["--name", "a", "--secret", PASSPHRASE, "nosuch.invalid"],
        &env,
    );
    let peer = ab.address(&a, false).to_string();
    let on_b = story.launch_bare(
        &b,
        &[
            "--name",
            "b",
            "--secret",
            PASSPHRASE,
            &peer,
            "nosuch.invalid",
        ],
        &env,
    );
    story.expect_mesh(SOON, &[&on_a, &on_b]);
    let one = story.container(&a, "one", "10.32.0.1/24");
    let _two = story.container(&b, "two", "10.32.0.2/24");
    story.expect_ping(SOON, &one, "10.32.0.2".parse().expect("an address"));
    let secret_text = story.succeed(&a, &["secret"]);
    story.fail(&a, 1, &["launch", "--secret", "another passphrase of many"]);
    for router in [&on_a, &on_b] {
        let state = router.host.state_dir();
        let [secret, identity] = ["secret", "identity"].map(|name| kept_key(&state.join(name)));
        let mut all = vec![PASSPHRASE.to_owned(), secret_text.trim().to_owned()];
        all.extend([&secret, &identity].into_iter().flat_map(|key| forms(key)));
        let raw = [secret.as_slice(), &identity];
        let pid = router.process.pid();
        for name in ["cmdline", "environ"] {
            let text = fs::read(format!("/proc/{pid}/{name}")).expect("a process");
            holds_none(name, &text, &all, &raw);
        }
        story.succeed(&router.host, &["stop"]);
        let log = fs::read(&router.log).expect("a log");
        println!("{} bytes of log, {} forms", log.len(), all.len());
        let shown = String::from_utf8_lossy(&log);
        for word in ["DEBUG", "serving", "is up", "stopped"] {
            assert!(shown.contains(word), "no {word}: {shown}");
        }
        holds_none("the log", &log, &all, &raw);
    }
}

//! No secret in what a daemon logs, however much it is asked to say, and few copies of one in its memory.

use std::fs;
use std::io;
use std::os::unix::fs::FileExt as _;
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

/// Copies of the mesh secret in a daemon's memory: the one of the key that all who use it share.
const SECRET_COPIES_MAX: usize = 1;
/// Copies of the identity's seed: the same.
const IDENTITY_COPIES_MAX: usize = 1;
/// Bytes of a memory map looked at at once.
const WINDOW_LEN: usize = 1 << 20;

/// How often each of `needles` stands in the writable memory of a process, and where.
fn copies(pid: u32, needles: &[&[u8]]) -> io::Result<Vec<Vec<String>>> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let memory = fs::File::open(format!("/proc/{pid}/mem"))?;
    let mut found = vec![Vec::new(); needles.len()];
    for line in maps.lines() {
        let mut fields = line.split_whitespace();
        let (range, rights) = (fields.next(), fields.next());
        let name = fields.nth(3).unwrap_or("anonymous");
        let ends = range.and_then(|range| range.split_once('-'));
        let ends = ends.and_then(|(from, to)| {
            Some((
                u64::from_str_radix(from, 16).ok()?,
                u64::from_str_radix(to, 16).ok()?,
            ))
        });
        let Some((from, to)) = ends.filter(|_| rights.is_some_and(|r| r.starts_with("rw"))) else {
            continue;
        };
        let mut bytes = vec![0; (to - from) as usize];
        for (at, chunk) in (from..)
            .step_by(WINDOW_LEN)
            .zip(bytes.chunks_mut(WINDOW_LEN))
        {
            // A page that is not there has nothing.
            let _ = memory.read_at(chunk, at);
        }
        for (needle, places) in needles.iter().zip(&mut found) {
            let windows = bytes.windows(needle.len()).enumerate();
            let here = windows.filter(|(_, window)| window[0] == needle[0] && window == needle);
            places.extend(here.map(|(at, _)| format!("{name}+{at:x}")));
        }
    }
    Ok(found)
}

#[test]
fn a_daemons_memory_holds_one_copy_of_each_secret() {
    let mut story = story!("memory");
    let [a, b] = story.hosts(["a", "b"]);
    let ab = story.link(&a, &b);
    // The stories' usual secret is all zeros, which stand everywhere.
    let bytes: Vec<u8> = (0..32u8).map(|at| at.wrapping_mul(37) ^ 11).collect();
    let text = format!("rmesh1-{}", digits(&bytes, 5, BASE32));
    let file = story
        .file("memory-secret", &text, 0o600)
        .display()
        .to_string();
    let peer = ab.address(&a, false).to_string();
    let flags = ["--secret-file", &file, "--rekey-after", "1s", "--name"];
    let on_a = [&flags[..], &["a"]].concat();
    let on_b = [&flags[..], &["b", &peer]].concat();
    let routers = [
        story.launch_bare(&a, &on_a, &[]),
        story.launch_bare(&b, &on_b, &[]),
    ];
    story.expect_mesh(SOON, &routers.each_ref());
    let one = story.container(&a, "one", "10.32.0.1/24");
    let _two = story.container(&b, "two", "10.32.0.2/24");
    story.expect_ping(SOON, &one, "10.32.0.2".parse().expect("an address"));
    // Handshakes in both roles, records that are signed, and the secret shown to whoever may see it.
    story.succeed(&a, &["secret"]);
    std::thread::sleep(Duration::from_secs(4));
    for router in &routers {
        let state = router.host.state_dir();
        let [secret, identity] = ["secret", "identity"].map(|name| kept_key(&state.join(name)));
        let [base32, hex] = [digits(&secret, 5, BASE32), forms(&secret)[2].clone()];
        let hex_identity = forms(&identity)[2].clone();
        let needles = [
            ("the mesh secret", secret.as_slice(), SECRET_COPIES_MAX),
            ("the identity", identity.as_slice(), IDENTITY_COPIES_MAX),
            ("the secret's text", base32.as_bytes(), 0),
            ("the secret in its file's form", hex.as_bytes(), 0),
            (
                "the identity in its file's form",
                hex_identity.as_bytes(),
                0,
            ),
        ];
        let pid = router.process.pid();
        let found = copies(pid, &needles.map(|(_, bytes, _)| bytes)).expect("its memory");
        for ((what, _, _), places) in needles.iter().zip(&found) {
            println!("{}: {what}: {places:?}", router.host.name());
        }
        for ((what, _, most), places) in needles.iter().zip(&found) {
            assert!(places.len() <= *most, "{what} stands at {places:?}");
        }
        // A search that finds nothing shows nothing.
        assert!(found[..2].iter().all(|places| !places.is_empty()));
    }
}

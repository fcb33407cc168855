//! The first page of `status`, and what `launch` says.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use super::short;
use crate::api::{StatusView, TargetView};
use crate::duration;
use crate::peer_address::PORT_DEFAULT;
use crate::rate::Rate;

/// Warnings and troubled targets shown, so that the page fits one screen.
const LINES_MAX: usize = 5;

/// The first page.
pub(crate) fn status(view: &StatusView) -> String {
    let mut page = String::new();
    let mut line = |label: &str, value: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(page, "{label:<12}{value}");
    };
    let uptime = duration::age(Duration::from_millis(view.uptime_ms));
    let addresses: Vec<String> = view.addresses.iter().map(ToString::to_string).collect();
    let troubled = view
        .targets
        .iter()
        .filter(|target| target.state != "connected");
    let connected = view.targets.len() - troubled.clone().count();
    let id = short(&view.id);
    line("version", view.version.clone());
    line(
        "peer",
        format!("{} ({id}), pid {}, up {uptime}", view.name, view.pid),
    );
    line("mesh", mesh(view));
    line("encryption", view.encryption.clone());
    line(
        "listening",
        format!("{} at {}", ports(view), list(&addresses)),
    );
    line(
        "bridge",
        format!("{}, container MTU {}", view.bridge, view.mtu_bytes),
    );
    line("data path", view.capabilities.to_string());
    if let Some(words) = carrying(view) {
        line("carries", words);
    }
    line("containers", format!("{} attached", view.attached));
    line("addresses", view.ring.clone());
    line(
        "peers",
        format!(
            "{} of {} up{}",
            view.peers_reachable,
            view.peers_total,
            by_path(view)
        ),
    );
    line("configured", configured(connected, view.targets.len()));
    lines(&mut page, "  ", troubled.map(trouble).collect());
    lines(&mut page, "warning: ", view.warnings.clone());
    page
}

/// What is carried for others, where that is not all.
fn carrying(view: &StatusView) -> Option<String> {
    if view.no_relay {
        return Some("nothing for others".into());
    }
    let limit = Rate::new(view.relay_limit_bits_per_s?)?;
    let dropped = view.frames["drops"]["relay_limit"].as_u64();
    let over = dropped.map_or_else(String::new, |count| {
        format!(", {count} datagrams beyond that dropped")
    });
    Some(format!("at most {limit} for each other peer{over}"))
}

fn mesh(view: &StatusView) -> String {
    match view.state.as_str() {
        "alone" => "alone: no peers configured (add some with `rmesh connect PEER`)".into(),
        "joining" => "joining: waiting for the first answer".into(),
        "disconnected" => "disconnected: no peer is reachable; local traffic goes on".into(),
        state => state.into(),
    }
}

fn configured(connected: usize, total: usize) -> String {
    match total {
        0 => "none; this peer waits for others to call it".into(),
        total => format!("{connected} of {total} connected"),
    }
}

fn by_path(view: &StatusView) -> String {
    let (direct, relayed) = (view.peers_direct, view.peers_relayed);
    if direct + relayed + view.peers_tcp == 0 {
        return String::new();
    }
    let tcp = match view.peers_tcp {
        0 => String::new(),
        tcp => format!(", {tcp} by TCP"),
    };
    let plaintext = match view.peers_plaintext {
        0 => String::new(),
        plaintext => format!("; {plaintext} of them by VXLAN"),
    };
    format!(" ({direct} direct, {relayed} relayed{tcp}{plaintext})")
}

fn ports(view: &StatusView) -> String {
    match view.tcp_port {
        Some(tcp) if tcp == view.port => format!("UDP and TCP port {tcp}"),
        Some(tcp) => format!("UDP port {} and TCP port {tcp}", view.port),
        None => format!("UDP port {}", view.port),
    }
}

fn trouble(target: &TargetView) -> String {
    let wait = target.retry_in_ms.map(Duration::from_millis);
    let again = wait.map(|wait| format!(" (tried again in {})", duration::age(wait)));
    let again = again.unwrap_or_default();
    // "no answer from host1:6783: …" names the target itself.
    if target.state.contains(&target.name) {
        format!("{}{again}", target.state)
    } else {
        format!("{}: {}{again}", target.name, target.state)
    }
}

fn lines(page: &mut String, label: &str, mut items: Vec<String>) {
    let left_out = items.len().saturating_sub(LINES_MAX);
    items.truncate(LINES_MAX);
    for item in items {
        let _ = writeln!(page, "{label}{item}");
    }
    if left_out > 0 {
        let _ = writeln!(page, "{label}and {left_out} more: see --json");
    }
}

fn list(items: &[String]) -> String {
    match items {
        [] => "no address yet".into(),
        [a, b, c, _, ..] => format!("{a}, {b}, {c} and {} more", items.len() - 3),
        items => items.join(", "),
    }
}

/// The summary `launch` prints, and the line for the next host.
pub(crate) fn launched(view: &StatusView, founded: bool, state_dir: &Path) -> String {
    let mut text = String::new();
    let id = short(&view.id);
    let _ = writeln!(
        text,
        "rmesh {} is running as {} ({id}), pid {}, UDP port {}, {}",
        view.version, view.name, view.pid, view.port, view.encryption
    );
    if founded {
        let _ = writeln!(
            text,
            "founded a new mesh; its secret is in {}",
            state_dir.display()
        );
    }
    let targets: Vec<&str> = view
        .targets
        .iter()
        .map(|target| target.name.as_str())
        .collect();
    if !targets.is_empty() {
        let _ = writeln!(text, "calling {} (see `rmesh status`)", targets.join(", "));
    }
    let _ = writeln!(
        text,
        "to add a host, save what `rmesh secret` prints as mesh.secret (mode 0600) there, and run \
         on it:\n  rmesh launch --secret-file mesh.secret {}",
        own_address(view)
    );
    text
}

/// What the next host can call this one.
fn own_address(view: &StatusView) -> String {
    // IPv4 is the more likely one to be reachable from everywhere.
    let v4 = view.addresses.iter().find(|address| address.is_ipv4());
    let Some(address) = v4.or(view.addresses.first()) else {
        return "ADDRESS-OF-THIS-HOST".into();
    };
    match (address, view.port) {
        (address, PORT_DEFAULT) => address.to_string(),
        (IpAddr::V4(address), port) => format!("{address}:{port}"),
        (IpAddr::V6(address), port) => format!("[{address}]:{port}"),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn target(name: &str, state: &str, retry_in_ms: Option<u64>) -> TargetView {
        TargetView {
            name: name.into(),
            addresses: vec![],
            peer: None,
            state: state.into(),
            retry_in_ms,
        }
    }

    pub(crate) fn view() -> StatusView {
        let silent = "no answer from host3:6783: unreachable, or a different secret";
        StatusView {
            version: "0.1.0".into(),
            id: "a".repeat(32),
            name: "host1".into(),
            pid: 7,
            boot: 1,
            uptime_ms: 90_000,
            state: "connected".into(),
            encryption: "all encrypted".into(),
            tcp_port: None,
            no_relay: false,
            relay_limit_bits_per_s: None,
            peers_tcp: 0,
            port: 6783,
            addresses: vec!["2001:db8::1".parse().unwrap(), "192.0.2.1".parse().unwrap()],
            bridge: "rmesh".into(),
            mtu_bytes: 1328,
            capabilities: rmesh_router::PlaneCapabilities {
                tcp_super_frames: true,
                aes: true,
                workers: 2,
                ..Default::default()
            },
            peers_total: 3,
            peers_reachable: 2,
            peers_plaintext: 0,
            vxlan_dropped_in: 0,
            peers_direct: 1,
            peers_relayed: 1,
            targets: vec![
                target("host2:6783", "connected", None),
                target("host3:6783", silent, Some(4_000)),
            ],
            warnings: vec!["look here".into()],
            attached: 2,
            ring: "10.32.0.0/12; 2 used here; 3 owners; 3 witnesses, 1 may be lost".into(),
            control: Default::default(),
            frames: serde_json::json!({}),
        }
    }

    #[test]
    fn the_first_page_reads_like_this() {
        let expected = "\
version     0.1.0
peer        host1 (aaaaaaaaaaaa), pid 7, up 90s
mesh        connected
encryption  all encrypted
listening   UDP port 6783 at 2001:db8::1, 192.0.2.1
bridge      rmesh, container MTU 1328
data path   2 workers; super-frames of TCP, AES; without of UDP, UDP segmentation, UDP receive offload
containers  2 attached
addresses   10.32.0.0/12; 2 used here; 3 owners; 3 witnesses, 1 may be lost
peers       2 of 3 up (1 direct, 1 relayed)
configured  1 of 2 connected
  no answer from host3:6783: unreachable, or a different secret (tried again in 4s)
warning: look here
";
        assert_eq!(status(&view()), expected);
    }

    #[test]
    fn it_fits_one_screen_whatever_happens() {
        let mut view = view();
        view.warnings = (0..1000).map(|n| n.to_string()).collect();
        view.targets = vec![view.targets[1].clone(); 1000];
        view.addresses = vec![view.addresses[0]; 100];
        let page = status(&view);
        assert!(page.lines().count() <= 24, "{page}");
        assert!(page.contains("and 995 more"), "{page}");
    }

    #[test]
    fn launch_says_what_to_run_on_the_next_host() {
        let mut view = view();
        let text = launched(&view, true, Path::new("/s"));
        assert!(text.contains("founded a new mesh"), "{text}");
        assert!(
            text.ends_with("rmesh launch --secret-file mesh.secret 192.0.2.1\n"),
            "{text}"
        );
        view.addresses.truncate(1);
        view.port = 7;
        let text = launched(&view, false, Path::new("/s"));
        assert!(
            text.ends_with(" [2001:db8::1]:7\n") && !text.contains("founded"),
            "{text}"
        );
    }
}

//! How each of the others is set up: with its defaults, on packets of the underlay's length.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};

use super::ground::{Ground, INNER};

/// The programs a tunnel needs, in the order it names them.
pub(super) type Programs = Vec<PathBuf>;

/// MTU inside, on packets of 1,500 bytes: WireGuard's own choice, and what the frames of the others leave.
const PACKETS_MTU: u32 = 1_440;
const FRAMES_MTU: u32 = 1_420;

/// Where WireGuard's daemons listen for their configuration.
const WIREGUARD_SOCKETS: &str = "/var/run/wireguard";
const WIREGUARD_PORT: u16 = 51_820;
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Private and public keys of the two hosts (X25519), of no use but here.
const WIREGUARD_KEYS: [[&str; 2]; 2] = [
    [
        "c015b41681cddb850b704377b3618a2e8ee28bc821f5d60aeb827de587d9df4d",
        "a74ceeffb178e8a700525558c8d566d36d6b74831569d6cdcdf3dd48c67d3a38",
    ],
    [
        "b8f70799c2b2be2365e4c2e482398524fa852f2b6cda3840d64852329e713a64",
        "3a1e6e0b66d2e8cfb84878ddc823af5d7bb1ea14d5094556716981bef34dec6e",
    ],
];

const TAP: &str = "tap0";

fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().context("a path that is no text")
}

pub(super) fn boringtun(ground: &mut Ground, programs: &Programs) -> anyhow::Result<()> {
    let flags = ["--foreground", "--disable-drop-privileges"];
    wireguard(ground, &programs[0], &flags)
}

pub(super) fn wireguard_go(ground: &mut Ground, programs: &Programs) -> anyhow::Result<()> {
    wireguard(ground, &programs[0], &["-f"])
}

/// The sockets are in one folder for all namespaces, so interfaces are called by this process.
fn wireguard(ground: &mut Ground, program: &Path, flags: &[&str]) -> anyhow::Result<()> {
    if !Path::new(WIREGUARD_SOCKETS).exists() {
        std::fs::create_dir_all(WIREGUARD_SOCKETS)?;
        ground.clean_up(WIREGUARD_SOCKETS.into());
    }
    for of in 0..2 {
        let interface = format!("rb{}{of}", std::process::id());
        let socket = Path::new(WIREGUARD_SOCKETS).join(format!("{interface}.sock"));
        ground.clean_up(socket.clone());
        let arguments = [flags, &[&interface]].concat();
        let env = [("WG_PROCESS_FOREGROUND", "1"), ("WG_SUDO", "1")];
        ground.start(of, program, &arguments, &env)?;
        ground.wait_for_interface(of, &interface)?;
        ground.wait("socket", || UnixStream::connect(&socket).is_ok())?;
        let other = ground.address(1 - of);
        let set = format!(
            "set=1\nprivate_key={}\nlisten_port={WIREGUARD_PORT}\npublic_key={}\n\
             endpoint={other}:{WIREGUARD_PORT}\nallowed_ip={}/32\n\n",
            WIREGUARD_KEYS[of][0],
            WIREGUARD_KEYS[1 - of][1],
            INNER[1 - of],
        );
        configure(&socket, &set).context("the configuration")?;
        ground.end_in_host(of, &interface, PACKETS_MTU)?;
    }
    Ok(())
}

/// Speaks WireGuard's cross-platform configuration protocol.
fn configure(socket: &Path, set: &str) -> anyhow::Result<()> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    stream.write_all(set.as_bytes())?;
    let (mut answer, mut buffer) = (String::new(), [0; 256]);
    while !answer.ends_with("\n\n") {
        let len = stream.read(&mut buffer)?;
        ensure!(len > 0, "no answer but {answer:?}");
        answer.push_str(&String::from_utf8_lossy(&buffer[..len]));
    }
    ensure!(answer.trim() == "errno=0", "{answer}");
    Ok(())
}

pub(super) fn nebula(ground: &mut Ground, programs: &Programs) -> anyhow::Result<()> {
    let [program, certifier] = &programs[..] else {
        anyhow::bail!("two programs");
    };
    let authority = ground.folder(0)?;
    let [authority_cert, authority_key] = ["ca.crt", "ca.key"].map(|name| authority.join(name));
    let [crt, key] = [text(&authority_cert)?, text(&authority_key)?];
    let arguments = ["ca", "-name", "bench", "-out-crt", crt, "-out-key", key];
    ground.run(0, certifier, &arguments)?;
    for of in 0..2 {
        let folder = ground.folder(of)?;
        let [own_cert, own_key] = ["own.crt", "own.key"].map(|name| folder.join(name));
        let [own_cert, own_key] = [text(&own_cert)?, text(&own_key)?];
        let address = format!("{}/24", INNER[of]);
        let arguments = [
            "sign", "-ca-crt", crt, "-ca-key", key, "-name", INNER[of], "-ip", &address,
        ];
        let out = ["-out-crt", own_cert, "-out-key", own_key];
        ground.run(0, certifier, &[&arguments[..], &out].concat())?;
        let (inner, outer) = (INNER[1 - of], ground.address(1 - of));
        let is_lighthouse = of == 0;
        let lighthouses = if is_lighthouse {
            String::new()
        } else {
            format!("\"{inner}\"")
        };
        let file = folder.join("nebula.yml");
        let settings = format!(
            "pki: {{ca: {crt}, cert: {own_cert}, key: {own_key}}}\n\
             static_host_map: {{\"{inner}\": [\"{outer}:4242\"]}}\n\
             lighthouse: {{am_lighthouse: {is_lighthouse}, hosts: [{lighthouses}]}}\n\
             listen: {{host: 0.0.0.0, port: 4242}}\n\
             tun: {{dev: tun0, mtu: {PACKETS_MTU}}}\n\
             logging: {{level: warning}}\n\
             firewall:\n\
             \x20 outbound: [{{port: any, proto: any, host: any}}]\n\
             \x20 inbound: [{{port: any, proto: any, host: any}}]\n"
        );
        std::fs::write(&file, settings)?;
        ground.start(of, program, &["-config", text(&file)?], &[])?;
        ground.wait_for_interface(of, "tun0")?;
    }
    Ok(())
}

pub(super) fn tinc(ground: &mut Ground, programs: &Programs) -> anyhow::Result<()> {
    let (program, names) = (&programs[0], ["a", "b"]);
    for (of, name) in names.into_iter().enumerate() {
        let folder = ground.folder(of)?;
        std::fs::create_dir_all(folder.join("hosts"))?;
        let connect = if of == 1 { "ConnectTo = a\n" } else { "" };
        let settings =
            format!("Name = {name}\nMode = switch\nDeviceType = tap\nInterface = {TAP}\n{connect}");
        std::fs::write(folder.join("tinc.conf"), settings)?;
        let address = format!("Address = {}\n", ground.address(of));
        std::fs::write(folder.join("hosts").join(name), address)?;
        ground.run(of, program, &["-c", text(&folder)?, "-K2048"])?;
    }
    for of in 0..2 {
        let other = names[1 - of];
        let [from, to] = [ground.folder(1 - of)?, ground.folder(of)?];
        std::fs::copy(from.join("hosts").join(other), to.join("hosts").join(other))?;
        let pid_file = to.join("pid");
        let [config, pid_file] = [text(&to)?, text(&pid_file)?];
        let arguments = ["-D", "-c", config, "--pidfile", pid_file];
        ground.start(of, program, &arguments, &[])?;
        ground.wait_for_interface(of, TAP)?;
        ground.end_in_container(of, TAP, FRAMES_MTU)?;
    }
    Ok(())
}

/// It ends if its interface has no address, or its host no default route.
pub(super) fn vpncloud(ground: &mut Ground, programs: &Programs) -> anyhow::Result<()> {
    for of in 0..2 {
        let [own, other] = [of, 1 - of].map(|of| ground.address(of));
        let route = ["route", "add", "default", "via", &other.to_string()];
        ground.run(of, &programs[1], &route)?;
        let [listen, peer] = [own, other].map(|address| format!("{address}:3210"));
        let address = format!("10.87.0.{}/24", of + 1);
        let kind = [
            "--type", "tap", "--mode", "switch", "--device", TAP, "--ip", &address,
        ];
        let ends = ["--listen", &listen, "--peer", &peer, "--password", "bench"];
        let without = [
            "--algorithm",
            "aes256",
            "--no-port-forwarding",
            "--no-auto-claim",
        ];
        ground.start(
            of,
            &programs[0],
            &[&kind[..], &ends, &without].concat(),
            &[],
        )?;
        ground.wait_for_interface(of, TAP)?;
        ground.end_in_container(of, TAP, FRAMES_MTU)?;
    }
    Ok(())
}

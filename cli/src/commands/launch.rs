//! `rmesh launch`: settles the state, starts the daemon, waits until it serves.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rmesh_gossip::PlaintextPolicy;

use super::prepare::{Prepared, prepare};
use super::{print, print_json};
use crate::api::StatusView;
use crate::args::{Global, LaunchArgs};
use crate::client;
use crate::daemon::{self, Options, TcpPort};
use crate::failure::{Failure, FailureKind};
use crate::logging::{self, LogFormat};
use crate::render;
use crate::state::LOG_FILE;
use crate::without::without;

const WHAT: &str = "cannot launch";
/// Set for a daemon in the background: it leaves the terminal's session.
const BACKGROUND_VARIABLE: &str = "RMESH_IN_BACKGROUND";
/// Variables a daemon does not need and must not show in its environment.
const SECRET_VARIABLES: [&str; 2] = ["RMESH_SECRET", "RMESH_SECRET_FILE"];
const RENEWED: &str = "the identity of this host was missing, so it is a new peer of its mesh; the \
                       old one, if it still shows, goes by itself";
/// How often it is looked whether the daemon serves.
const LOOK_INTERVAL: Duration = Duration::from_millis(25);
/// A log longer than this, in bytes, is put aside at the next launch; one such is kept.
const LOG_LEN_MAX: u64 = 8 << 20;
/// How much of the log is shown if the daemon does not start, in bytes.
const LOG_TAIL: u64 = 4 << 10;

pub(super) fn run(global: &Global, args: LaunchArgs) -> Result<(), Failure> {
    if !args.foreground {
        return launch(global, args);
    }
    let format = args.log_format;
    logging::start(format);
    launch(global, args).map_err(|mut failure| {
        if format == LogFormat::Json {
            logging::log_failure(&failure);
            failure.logged = true;
        }
        failure
    })
}

fn launch(global: &Global, args: LaunchArgs) -> Result<(), Failure> {
    if !rustix::process::geteuid().is_root() {
        let why = "making bridges and entering containers is for root";
        return Err(Failure::failed(WHAT, why).todo("use sudo"));
    }
    let prepared = prepare(global, &args)?;
    if prepared.renewed {
        say(args.foreground, RENEWED);
    }
    if !args.foreground {
        return in_background(global, &args, prepared);
    }
    // The secret must not stay visible in /proc/PID/cmdline or environ: begin again without it.
    if args.secret.is_some() {
        let cause = daemon_command(global, &args)?.exec();
        return Err(Failure::failed(WHAT, cause));
    }
    in_foreground(global, args)
}

/// For the terminal of a launch, or the log of a daemon.
pub(super) fn say(foreground: bool, warning: &str) {
    match foreground {
        true => tracing::warn!("{warning}"),
        false => eprintln!("warning: {warning}"),
    }
}

fn in_foreground(global: &Global, args: LaunchArgs) -> Result<(), Failure> {
    if std::env::var_os(BACKGROUND_VARIABLE).is_some() {
        // Fails only for a process that leads a session already.
        let _ = rustix::process::setsid();
    }
    daemon::run(Options {
        run_dir: global.run_dir.clone(),
        state_dir: global.state_dir.clone(),
        name: args.name.unwrap_or_else(host_name),
        port: args.port,
        tcp_port: args.tcp_port.unwrap_or(TcpPort::Same),
        no_relay: args.no_relay,
        relay_limit: args.relay_limit,
        bind: args.bind,
        interface: args.bind_interface,
        advertise: args.advertise,
        mtu_bytes: args.mtu,
        bridge: args.bridge,
        workers: args.workers.map_or_else(one_a_core, usize::from),
        without: without(&args.without),
        rekey_after: args.rekey_after,
        plaintext: PlaintextPolicy {
            everywhere: args.no_encryption,
            trusted: args.trusted_subnets,
        },
        cidr: args.cidr,
        cidr6: args.cidr6,
        subnets: args.subnet,
        init_peers: args.init_peers.map(usize::from),
    })
}

/// At most so many workers unless more are asked for: each takes memory, and few hosts have as many flows
/// at once as would use them.
const WORKERS_UNASKED: usize = 8;

fn one_a_core() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    cores.min(WORKERS_UNASKED)
}

fn host_name() -> String {
    let name = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    let first = name.split('.').next().unwrap_or_default();
    if first.is_empty() {
        "unnamed".into()
    } else {
        first.into()
    }
}

/// This program again, as a daemon, with everything but the secret and the peers, which are in
/// the state already.
fn daemon_command(global: &Global, args: &LaunchArgs) -> Result<Command, Failure> {
    let program = std::env::current_exe().map_err(|cause| Failure::failed(WHAT, cause))?;
    let mut command = Command::new(program);
    command.args(daemon_arguments(global, args));
    for variable in SECRET_VARIABLES {
        command.env_remove(variable);
    }
    Ok(command)
}

fn daemon_arguments(global: &Global, args: &LaunchArgs) -> Vec<OsString> {
    let mut words: Vec<OsString> = vec!["launch".into(), "--foreground".into()];
    let mut flag = |name: &str, value: OsString| words.extend([name.into(), value]);
    flag("--run-dir", absolute(&global.run_dir).into());
    flag("--state-dir", absolute(&global.state_dir).into());
    if let Some(name) = &args.name {
        flag("--name", name.into());
    }
    flag("--port", args.port.to_string().into());
    match args.tcp_port {
        Some(TcpPort::At(port)) => flag("--tcp-port", port.to_string().into()),
        Some(TcpPort::Off) => flag("--tcp-port", "none".into()),
        Some(TcpPort::Same) | None => {}
    }
    for address in &args.bind {
        flag("--bind", address.to_string().into());
    }
    if let Some(interface) = &args.bind_interface {
        flag("--bind-interface", interface.into());
    }
    for address in &args.advertise {
        flag("--advertise", address.to_string().into());
    }
    flag("--mtu", args.mtu.to_string().into());
    flag("--bridge", args.bridge.clone().into());
    flag("--cidr", args.cidr.to_string().into());
    if let Some(net) = args.cidr6 {
        flag("--cidr6", net.to_string().into());
    }
    for net in &args.subnet {
        flag("--subnet", net.to_string().into());
    }
    if let Some(count) = args.init_peers {
        flag("--init-peers", count.to_string().into());
    }
    if let Some(count) = args.workers {
        flag("--workers", count.to_string().into());
    }
    for net in &args.trusted_subnets {
        flag("--trusted-subnets", net.to_string().into());
    }
    for feature in &args.without {
        flag("--without", feature.word().into());
    }
    flag("--log-format", args.log_format.word().into());
    if let Some(age) = args.rekey_after {
        flag("--rekey-after", format!("{}ms", age.as_millis()).into());
    }
    if let Some(rate) = args.relay_limit {
        flag("--relay-limit", rate.bits_per_s().to_string().into());
    }
    if args.no_encryption {
        words.push("--no-encryption".into());
    }
    if args.no_relay {
        words.push("--no-relay".into());
    }
    words
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.into())
}

fn in_background(global: &Global, args: &LaunchArgs, prepared: Prepared) -> Result<(), Failure> {
    let deadline = Instant::now() + global.timeout;
    let path = global.state_dir.join(LOG_FILE);
    let cannot = |cause: std::io::Error| {
        let todo = if path.is_dir() {
            format!(
                "the log goes there: move the folder {} away",
                path.display()
            )
        } else {
            let folder = global.state_dir.display();
            format!("the log goes there: see to {folder}, its file system and its permissions")
        };
        Failure::failed(WHAT, format!("{}: {cause}", path.display())).todo(todo)
    };
    let log = open_log(&path).map_err(cannot)?;
    let start = log.metadata().map_err(cannot)?.len();
    let mut command = daemon_command(global, args)?;
    command
        .env(BACKGROUND_VARIABLE, "1")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log.try_clone().map_err(cannot)?)
        .stderr(log);
    let mut child = command
        .spawn()
        .map_err(|cause| Failure::failed(WHAT, cause))?;
    let status = wait_until_serving(global, &mut child, deadline, &path, start)?;
    if prepared.passphrase {
        eprintln!(
            "note: the secret is a passphrase; whoever records the traffic can guess at it offline"
        );
    }
    if global.json {
        return print_json(&status);
    }
    print(&render::launched(
        &status,
        prepared.founded,
        &global.state_dir,
    ))
}

fn open_log(path: &Path) -> std::io::Result<File> {
    if path.metadata().is_ok_and(|about| about.len() > LOG_LEN_MAX) {
        std::fs::rename(path, path.with_extension("log.1"))?;
    }
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
}

fn wait_until_serving(
    global: &Global,
    child: &mut Child,
    deadline: Instant,
    log: &Path,
    start: u64,
) -> Result<StatusView, Failure> {
    loop {
        if let Ok(Some(status)) = child.try_wait() {
            let said = logging::messages(&tail(log, start));
            let why = format!("the router ended at once ({status}); it says:\n{said}");
            return Err(Failure::failed(WHAT, why.trim_end()));
        }
        match client::get::<StatusView>(global, "/v1/status") {
            Ok(status) if status.pid == child.id() => return Ok(status),
            _ if Instant::now() < deadline => std::thread::sleep(LOOK_INTERVAL),
            _ => {
                let why = format!("the router does not serve within {:?}", global.timeout);
                let todo = format!("see its log, {}; `rmesh stop` ends it", log.display());
                return Err(Failure::new(FailureKind::Timeout, "gave up waiting", why).todo(todo));
            }
        }
    }
}

/// The end of what the daemon wrote since `start`.
fn tail(log: &Path, start: u64) -> String {
    let read = || {
        let mut file = File::open(log)?;
        let len = file.metadata()?.len();
        file.seek(SeekFrom::Start(start.max(len.saturating_sub(LOG_TAIL))))?;
        let mut bytes = Vec::new();
        file.take(LOG_TAIL).read_to_end(&mut bytes)?;
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&bytes).into_owned())
    };
    read().unwrap_or_else(|cause| format!("({}: {cause})", log.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Verb, parse};

    #[test]
    fn an_interface_takes_the_place_of_addresses() {
        let arguments = parse("rmesh launch --bind-interface eth0".split_whitespace()).unwrap();
        let Verb::Launch(args) = &arguments.verb else {
            panic!()
        };
        let words = daemon_arguments(&arguments.global, args);
        let at = words.iter().position(|word| word == "--bind-interface");
        assert_eq!(words[at.unwrap() + 1], "eth0");
        let both = "rmesh launch --bind 192.0.2.1 --bind-interface eth0";
        assert!(parse(both.split_whitespace()).is_err());
    }

    #[test]
    fn the_daemon_gets_every_option_and_no_secret() {
        let line = "rmesh launch host1 --secret correct-horse-battery --name n --port 7 \
                    --bind 192.0.2.1 --advertise 192.0.2.9 --mtu 1400 --bridge br --workers 2 \
                    --cidr 10.0.0.0/9 --cidr6 fd32::/48 --subnet 10.1.0.0/16,fd32::/64 \
                    --init-peers 3 --log-format json --relay-limit 2M --no-encryption \
                    --trusted-subnets 192.0.2.0/24,2001:db8::/32 --run-dir /r --state-dir /s";
        let arguments = parse(line.split_whitespace()).unwrap();
        let Verb::Launch(args) = &arguments.verb else {
            panic!()
        };
        let words = daemon_arguments(&arguments.global, args);
        let words: Vec<&str> = words.iter().map(|w| w.to_str().unwrap()).collect();
        assert_eq!(
            words.join(" "),
            "launch --foreground --run-dir /r --state-dir /s --name n --port 7 --bind 192.0.2.1 \
             --advertise 192.0.2.9:6783 --mtu 1400 --bridge br --cidr 10.0.0.0/9 \
             --cidr6 fd32::/48 --subnet 10.1.0.0/16 --subnet fd32::/64 --init-peers 3 --workers 2 \
             --trusted-subnets 192.0.2.0/24 --trusted-subnets 2001:db8::/32 --log-format json \
             --relay-limit 2000000 --no-encryption"
        );
        let command = daemon_command(&arguments.global, args).unwrap();
        let removed = command.get_envs().filter(|(_, value)| value.is_none());
        assert_eq!(removed.count(), SECRET_VARIABLES.len());
    }
}

//! Least privilege: what a daemon gives up before it does anything.
//!
//! Capabilities and `no_new_privs` belong to threads and are inherited by those made later, so all
//! of this happens while the process has one thread.

use std::io;

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
    clear_ambient_capability_set, remove_capability_from_bounding_set, set_capabilities,
    set_no_new_privs,
};

use super::streams::TcpPort;
use crate::failure::Failure;

const WHAT: &str = "cannot start the router";
/// Ports below it are for the privileged, unless `net.ipv4.ip_unprivileged_port_start` says
/// otherwise.
const UNPRIVILEGED_PORT_MIN: u16 = 1024;

/// A capability that is kept, and what does not work without it.
type Needed = (CapabilitySet, &'static str, &'static str);

/// See capabilities(7); `e2e_privileges` takes each away and shows what fails.
const NEEDED: [Needed; 4] = [
    (
        CapabilitySet::NET_ADMIN,
        "CAP_NET_ADMIN",
        "neither bridge nor TAP can be made",
    ),
    (
        CapabilitySet::SYS_ADMIN,
        "CAP_SYS_ADMIN",
        "containers' network namespaces cannot be entered, so attach fails",
    ),
    (
        CapabilitySet::NET_RAW,
        "CAP_NET_RAW",
        "containers' addresses cannot be announced, so attach fails",
    ),
    (
        CapabilitySet::SYS_PTRACE,
        "CAP_SYS_PTRACE",
        "attach pid:N fails for processes of other users",
    ),
];
const BIND: Needed = (
    CapabilitySet::NET_BIND_SERVICE,
    "CAP_NET_BIND_SERVICE",
    "a port below 1024 cannot be opened",
);

/// Gives up every capability but those a daemon at these ports needs, in all five sets, any way
/// to gain one again, and core dumps.
///
/// # Errors
/// If the process has other threads already, lacks CAP_NET_ADMIN, or the kernel refuses.
pub(super) fn give_up(port: u16, tcp_port: TcpPort) -> Result<(), Failure> {
    let cannot = |doing: &str| {
        let doing = doing.to_owned();
        move |cause: io::Error| Failure::failed(WHAT, format!("cannot {doing}: {cause}"))
    };
    alone().map_err(cannot("give up privileges"))?;
    refuse_dumps().map_err(cannot("switch off core dumps"))?;
    set_no_new_privs(true)
        .map_err(io::Error::from)
        .map_err(cannot("set no_new_privs"))?;
    let keep = kept(port, tcp_port)?;
    shrink_to(keep).map_err(cannot("give up capabilities"))
}

/// Refuses if there are other threads, which would keep everything.
fn alone() -> io::Result<()> {
    let threads = std::fs::read_dir("/proc/self/task")?.count();
    if threads == 1 {
        return Ok(());
    }
    let why = format!("{threads} threads run already; this is an error in rmesh");
    Err(io::Error::other(why))
}

/// Memory holds keys. The limit does not hold for a core pattern that is a pipe, the other does;
/// it also keeps debuggers of the same user out.
fn refuse_dumps() -> io::Result<()> {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, none)?;
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

/// Those needed and there; complains of those that are not.
fn kept(port: u16, tcp_port: TcpPort) -> Result<CapabilitySet, Failure> {
    let here = capabilities(None).map_err(|cause| Failure::failed(WHAT, cause))?;
    let is_low = |port: u16| (1..UNPRIVILEGED_PORT_MIN).contains(&port);
    let is_tcp_low = matches!(tcp_port, TcpPort::At(port) if is_low(port));
    let bind = (is_low(port) || is_tcp_low).then_some(BIND);
    let mut kept = CapabilitySet::empty();
    for (capability, name, lost) in NEEDED.into_iter().chain(bind) {
        if here.permitted.contains(capability) {
            kept |= capability;
        } else if capability == CapabilitySet::NET_ADMIN {
            let why = format!("{name} is missing: {lost}");
            return Err(Failure::failed(WHAT, why).todo("use sudo, or see deploy/rmesh.service"));
        } else {
            tracing::warn!("{name} is missing: {lost}");
        }
    }
    Ok(kept)
}

fn shrink_to(keep: CapabilitySet) -> io::Result<()> {
    shrink_bounding(keep)?;
    match clear_ambient_capability_set() {
        // A kernel before 4.3 has no such set.
        Err(rustix::io::Errno::INVAL) | Ok(()) => {}
        Err(cause) => return Err(cause.into()),
    }
    let sets = CapabilitySets {
        effective: keep,
        permitted: keep,
        inheritable: CapabilitySet::empty(),
    };
    Ok(set_capabilities(None, sets)?)
}

/// Also of capabilities this program does not know yet.
fn shrink_bounding(keep: CapabilitySet) -> io::Result<()> {
    for number in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        match capability_is_in_bounding_set(capability) {
            Ok(true) if !keep.contains(capability) => {}
            Ok(_) => continue,
            // The kernel has no more.
            Err(_) => break,
        }
        match remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            Err(rustix::io::Errno::PERM) => {
                let so = "no_new_privs keeps it from mattering";
                tracing::info!("without CAP_SETPCAP the bounding set stays as it is; {so}");
                break;
            }
            Err(cause) => return Err(cause.into()),
        }
    }
    Ok(())
}

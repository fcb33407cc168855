//! Ending a daemon, whatever state it is in.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::{Ended, say};
use crate::api::{AttachmentView, DetachBody, DetachReply, LeaveReply, StopReply};
use crate::args::Global;
use crate::client;
use crate::failure::{Failure, FailureKind};
use crate::state;

/// How often it is looked whether the daemon has ended.
const LOOK_INTERVAL: Duration = Duration::from_millis(25);
/// A killed process is gone after that, unless the kernel itself hangs.
const DEATH_LIMIT: Duration = Duration::from_secs(2);

/// Ends the daemon that serves in the run folder, if one does: has it hand over its addresses, asks it to
/// stop, terminates it, kills it, each for a quarter of the time there is. Interfaces of containers that
/// are taken away with that are added to `interfaces`.
///
/// # Errors
/// If it is still there after all that.
pub(super) fn end(global: &Global, interfaces: &mut Vec<String>) -> Result<Option<Ended>, Failure> {
    let Some(pid) = state::holder(&global.run_dir) else {
        return Ok(None);
    };
    let step = global.timeout / 4;
    say(&format!(
        "asking the daemon (pid {pid}) to leave the mesh and to stop"
    ));
    hand_over(global, step, interfaces);
    if stop(global, step) && has_ended(global, step) {
        return Ok(Some(Ended {
            pid,
            how: "stopped",
        }));
    }
    say("it does not stop; terminating it");
    signal(pid, Signal::TERM)?;
    if has_ended(global, step) {
        return Ok(Some(Ended {
            pid,
            how: "terminated",
        }));
    }
    say("it does not end; killing it");
    signal(pid, Signal::KILL)?;
    if has_ended(global, DEATH_LIMIT) {
        return Ok(Some(Ended { pid, how: "killed" }));
    }
    let why = format!("pid {pid} does not die");
    Err(Failure::new(FailureKind::Timeout, super::WHAT, why).todo("nothing was removed; reboot"))
}

/// Has the daemon take its containers' interfaces away, whose names are added to `interfaces`, and give its
/// addresses to the other hosts. What it keeps they get by `rmesh rmpeer`, so that is no reason to stay.
fn hand_over(global: &Global, limit: Duration, interfaces: &mut Vec<String>) {
    let deadline = Instant::now() + limit;
    let left = || within(global, deadline.saturating_duration_since(Instant::now()));
    let attached = client::get::<Vec<AttachmentView>>(&left(), "/v1/attachments");
    for attachment in attached.unwrap_or_default() {
        let body = DetachBody {
            target: attachment.target,
            ifname: Some(attachment.interface),
        };
        match client::post::<DetachReply>(&left(), "/v1/detach", &body) {
            Ok(reply) => {
                let detached = reply.detached.into_iter();
                interfaces.extend(detached.map(|attachment| attachment.host_interface));
            }
            // It is removed without the daemon.
            Err(failure) => return say(&format!("{failure}")),
        }
    }
    if let Err(failure) = client::post::<LeaveReply>(&left(), "/v1/leave", &()) {
        say(&format!("{failure}"));
    }
}

/// Asks the daemon to stop; true if it agrees.
fn stop(global: &Global, limit: Duration) -> bool {
    client::post::<StopReply>(&within(global, limit), "/v1/stop", &()).is_ok()
}

fn within(global: &Global, limit: Duration) -> Global {
    Global {
        timeout: limit,
        ..global.clone()
    }
}

fn has_ended(global: &Global, limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        if state::holder(&global.run_dir).is_none() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(LOOK_INTERVAL);
    }
}

/// The lock was held a moment ago, so the id is the daemon's. Not an error if it has ended since.
fn signal(pid: u32, signal: Signal) -> Result<(), Failure> {
    let known = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let Some(pid) = known else {
        let why = "a daemon is running, but its lock file does not tell its process id";
        return Err(Failure::failed(super::WHAT, why).todo("end it by hand, then reset again"));
    };
    match kill_process(pid, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(cause) => Err(Failure::failed(
            super::WHAT,
            format!("cannot end {pid:?}: {cause}"),
        )),
    }
}

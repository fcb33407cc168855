//! Ending a daemon, whatever state it is in.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::{Ended, say};
use crate::api::StopReply;
use crate::args::Global;
use crate::client;
use crate::failure::{Failure, FailureKind};
use crate::state;

/// How often it is looked whether the daemon has ended.
const LOOK_INTERVAL: Duration = Duration::from_millis(25);
/// A killed process is gone after that, unless the kernel itself hangs.
const DEATH_LIMIT: Duration = Duration::from_secs(2);

/// Ends the daemon that serves in the run folder, if one does: asks it, then terminates it, then
/// kills it, each for a third of the time there is.
///
/// # Errors
/// If it is still there after all that.
pub(super) fn end(global: &Global) -> Result<Option<Ended>, Failure> {
    let Some(pid) = state::holder(&global.run_dir) else {
        return Ok(None);
    };
    let step = global.timeout / 3;
    say(&format!(
        "asking the daemon (pid {pid}) to leave the mesh and to stop"
    ));
    if leave(global, step) && has_ended(global, step) {
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

/// Asks the daemon to leave for good and to stop; true if it agrees. What a peer owes to others
/// before it leaves belongs before the call to stop.
fn leave(global: &Global, limit: Duration) -> bool {
    let global = Global {
        timeout: limit,
        ..global.clone()
    };
    client::post::<StopReply>(&global, "/v1/stop", &()).is_ok()
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

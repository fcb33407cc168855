//! Ending a daemon, whatever state it is in.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::{Done, Ended, say};
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
/// stop, terminates it, kills it, each for a quarter of the time there is. How it ended, and the interfaces of
/// containers that are taken away with that, go into `done`. Gives whether it handed over its addresses.
///
/// # Errors
/// If it is still there after all that.
pub(super) fn end(global: &Global, done: &mut Done) -> Result<bool, Failure> {
    let Some(pid) = state::holder(&global.run_dir) else {
        return Ok(false);
    };
    let step = global.timeout / 4;
    say(&format!(
        "asking the daemon (pid {pid}) to leave the mesh and to stop"
    ));
    let handed_over = hand_over(global, step, &mut done.interfaces)
        .inspect_err(|failure| {
            say(&format!(
                "it does not hand over its addresses: {}",
                failure.why
            ))
        })
        .is_ok();
    let how = terminate(global, pid, step)?;
    done.daemon = Some(Ended { pid, how });
    Ok(handed_over)
}

/// Ends the daemon by ever harder means; gives what it took.
fn terminate(global: &Global, pid: u32, step: Duration) -> Result<&'static str, Failure> {
    if stop(global, step) && has_ended(global, step) {
        return Ok("stopped");
    }
    // Whoever was killed a moment ago holds its lock until the kernel has cleared up.
    if state::holder(&global.run_dir).is_none() {
        return Ok("had ended");
    }
    say("it does not stop; terminating it");
    signal(pid, Signal::TERM)?;
    if has_ended(global, step) {
        return Ok("terminated");
    }
    say("it does not end; killing it");
    signal(pid, Signal::KILL)?;
    if has_ended(global, DEATH_LIMIT) {
        return Ok("killed");
    }
    let why = format!("pid {pid} does not die");
    Err(Failure::new(FailureKind::Timeout, super::WHAT, why).todo("nothing was removed; reboot"))
}

/// Has the daemon take its containers' interfaces away, whose names are added to `interfaces`, and give its
/// addresses to the other hosts. What it keeps they get by `rmesh rmpeer`, so that is no reason to stay.
fn hand_over(
    global: &Global,
    limit: Duration,
    interfaces: &mut Vec<String>,
) -> Result<(), Failure> {
    let deadline = Instant::now() + limit;
    let left = || within(global, deadline.saturating_duration_since(Instant::now()));
    for attachment in client::get::<Vec<AttachmentView>>(&left(), "/v1/attachments")? {
        let body = DetachBody {
            target: attachment.target,
            ifname: Some(attachment.interface),
        };
        // What it keeps is removed without it.
        let reply = client::post::<DetachReply>(&left(), "/v1/detach", &body)?;
        let detached = reply.detached.into_iter();
        interfaces.extend(detached.map(|attachment| attachment.host_interface));
    }
    client::post::<LeaveReply>(&left(), "/v1/leave", &()).map(|_| ())
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

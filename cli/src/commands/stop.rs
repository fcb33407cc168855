//! `rmesh stop`: ends the router; containers keep interfaces and local traffic.

use std::time::{Duration, Instant};

use super::{print_json, print_line};
use crate::api::StopReply;
use crate::args::Global;
use crate::client;
use crate::failure::{Failure, FailureKind};
use crate::state;

/// How often it is looked whether the daemon has ended.
const LOOK_INTERVAL: Duration = Duration::from_millis(25);

pub(super) fn run(global: &Global) -> Result<(), Failure> {
    let deadline = Instant::now() + global.timeout;
    let reply: StopReply = client::post(global, "/v1/stop", &())?;
    while state::holder(&global.run_dir).is_some() {
        if Instant::now() >= deadline {
            let why = format!(
                "pid {} has not ended within {:?}",
                reply.pid, global.timeout
            );
            return Err(
                Failure::new(FailureKind::Timeout, "gave up waiting", why).todo(format!(
                    "see its log; as a last resort: kill -9 {}",
                    reply.pid
                )),
            );
        }
        std::thread::sleep(LOOK_INTERVAL);
    }
    if global.json {
        return print_json(&reply);
    }
    print_line("stopped; containers keep their interfaces and the traffic among them on this host")
}

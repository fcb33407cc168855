//! `rmesh detach`: takes a container's interfaces away.

use super::print_json;
use crate::api::{DetachBody, DetachReply};
use crate::args::{DetachArgs, Global};
use crate::client;
use crate::failure::Failure;

pub(super) fn run(global: &Global, args: DetachArgs) -> Result<(), Failure> {
    let body = DetachBody {
        target: args.target.clone(),
        ifname: args.ifname,
    };
    let reply: DetachReply = client::post(global, "/v1/detach", &body)?;
    if reply.detached.is_empty() {
        eprintln!(
            "note: {} was not attached; `rmesh ps` shows what is",
            args.target
        );
    }
    if global.json {
        return print_json(&reply);
    }
    Ok(())
}

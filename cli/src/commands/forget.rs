//! `rmesh forget`: fewer remembered peers.

use super::{print_json, print_line};
use crate::api::{ForgetBody, ForgetReply};
use crate::args::{ForgetArgs, Global};
use crate::client;
use crate::failure::Failure;

pub(super) fn run(global: &Global, args: ForgetArgs) -> Result<(), Failure> {
    let body = ForgetBody { peers: args.peers };
    let reply: ForgetReply = client::post(global, "/v1/forget", &body)?;
    if global.json {
        return print_json(&reply);
    }
    for peer in &reply.forgotten {
        print_line(&format!("forgotten: {peer}"))?;
    }
    Ok(())
}

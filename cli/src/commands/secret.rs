//! `rmesh secret`: what the next host needs.

use super::{print_json, print_line};
use crate::api::SecretReply;
use crate::args::Global;
use crate::client;
use crate::failure::Failure;

pub(super) fn run(global: &Global) -> Result<(), Failure> {
    let reply: SecretReply = client::get(global, "/v1/secret")?;
    if global.json {
        return print_json(&reply);
    }
    print_line(&reply.secret)
}

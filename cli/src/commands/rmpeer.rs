//! `rmesh rmpeer`: takes over what a peer owned that will not come back.

use super::{print, print_json};
use crate::api::{RemoveBody, RemoveReply};
use crate::args::{Global, RmpeerArgs};
use crate::client;
use crate::failure::Failure;
use crate::render;

pub(super) fn run(global: &Global, args: RmpeerArgs) -> Result<(), Failure> {
    if args.force {
        eprintln!(
            "warning: forced: if {} still runs, or if most witnesses are gone, an address that only \
             the others know to be in use may be given twice",
            args.peer
        );
    }
    let body = RemoveBody {
        peer: args.peer,
        force: args.force,
    };
    let reply: RemoveReply = client::post(global, "/v1/peers/remove", &body)?;
    if global.json {
        return print_json(&reply);
    }
    print(&render::removed(&reply))
}

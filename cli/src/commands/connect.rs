//! `rmesh connect`: further peers, now and after every restart.

use super::{print_json, print_line};
use crate::api::{ConnectBody, PeersReply};
use crate::args::{ConnectArgs, Global};
use crate::client;
use crate::failure::Failure;

pub(super) fn run(global: &Global, args: ConnectArgs) -> Result<(), Failure> {
    let body = ConnectBody {
        peers: args.peers,
        replace: args.replace,
    };
    let reply: PeersReply = client::post(global, "/v1/connect", &body)?;
    if global.json {
        return print_json(&reply);
    }
    let peers: Vec<String> = reply.peers.iter().map(ToString::to_string).collect();
    print_line(&format!("remembered peers: {}", peers.join(", ")))?;
    print_line("see how they answer with: rmesh status")
}

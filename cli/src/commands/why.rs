//! `rmesh why`: each way from one peer to another.

use super::{print, print_json};
use crate::api::{PeerView, StatusView};
use crate::args::{Global, WhyArgs};
use crate::client;
use crate::failure::Failure;
use crate::why::Mesh;

pub(super) fn run(global: &Global, args: &WhyArgs) -> Result<(), Failure> {
    let status: StatusView = client::get(global, "/v1/status")?;
    let peers: Vec<PeerView> = client::get(global, "/v1/peers")?;
    let mesh = Mesh {
        me: &status,
        peers: &peers,
    };
    let answer = match &args.other {
        None => mesh.why(&status.id, &args.peer)?,
        Some(other) => mesh.why(&args.peer, other)?,
    };
    if global.json {
        return print_json(&answer);
    }
    print(&answer.to_string())
}

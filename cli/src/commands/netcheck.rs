//! `rmesh netcheck`: what this host's network allows.

use super::{print, print_json};
use crate::api::{PeerView, StatusView};
use crate::args::Global;
use crate::client;
use crate::failure::Failure;
use crate::netcheck::Netcheck;

pub(super) fn run(global: &Global) -> Result<(), Failure> {
    let status: StatusView = client::get(global, "/v1/status")?;
    let peers: Vec<PeerView> = client::get(global, "/v1/peers")?;
    let found = Netcheck::of(&status, &peers);
    if global.json {
        return print_json(&found);
    }
    print(&found.to_string())
}

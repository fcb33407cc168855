//! `rmesh attach`: gives a container an interface in the mesh.

use super::{print_json, print_line};
use crate::api::{AttachBody, AttachmentView};
use crate::args::{AttachArgs, Global};
use crate::client;
use crate::failure::Failure;

pub(super) fn run(global: &Global, args: AttachArgs) -> Result<(), Failure> {
    let body = AttachBody {
        target: args.target,
        ip: args.ip,
        subnet: args.subnet,
        no_ip: args.no_ip,
        ifname: args.ifname,
        name: args.name,
    };
    let attached: AttachmentView = client::post(global, "/v1/attach", &body)?;
    if global.json {
        return print_json(&attached);
    }
    attached
        .addresses
        .iter()
        .try_for_each(|address| print_line(&address.to_string()))
}

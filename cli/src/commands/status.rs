//! `rmesh status`: the first page, and the tables.

use super::{print, print_json};
use crate::api::{EndpointsView, PeerView, StatusView};
use crate::args::{Global, StatusArgs, Table};
use crate::client;
use crate::failure::Failure;
use crate::render;

pub(super) fn run(global: &Global, args: &StatusArgs) -> Result<(), Failure> {
    match args.table {
        None => show::<StatusView>(global, "/v1/status", render::status),
        Some(Table::Peers) => show::<Vec<PeerView>>(global, "/v1/peers", |p| render::peers(p)),
        Some(Table::Paths) => show::<Vec<PeerView>>(global, "/v1/peers", |p| render::paths(p)),
        Some(Table::Routes) => show::<Vec<PeerView>>(global, "/v1/peers", |p| render::routes(p)),
        Some(Table::Endpoints) => show::<EndpointsView>(global, "/v1/endpoints", render::endpoints),
    }
}

fn show<T: serde::de::DeserializeOwned + serde::Serialize>(
    global: &Global,
    path: &str,
    render: impl Fn(&T) -> String,
) -> Result<(), Failure> {
    let view: T = client::get(global, path)?;
    if global.json {
        return print_json(&view);
    }
    print(&render(&view))
}

//! `rmesh ps`: the attached containers of this host.

use super::{print, print_json};
use crate::api::AttachmentView;
use crate::args::Global;
use crate::client;
use crate::failure::Failure;
use crate::render;

pub(super) fn run(global: &Global) -> Result<(), Failure> {
    let attachments: Vec<AttachmentView> = client::get(global, "/v1/attachments")?;
    if global.json {
        return print_json(&attachments);
    }
    print(&render::attachments(&attachments))
}

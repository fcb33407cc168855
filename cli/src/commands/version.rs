//! `rmesh version`.

use super::{print_json, print_line};
use crate::args::Global;
use crate::failure::Failure;

pub(super) fn run(global: &Global) -> Result<(), Failure> {
    if global.json {
        return print_json(&serde_json::json!({ "version": crate::VERSION }));
    }
    print_line(&format!("rmesh {}", crate::VERSION))
}

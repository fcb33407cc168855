//! `rmesh completions`: what makes a shell complete rmesh's words.

use super::print;
use crate::args::{self, CompletionsArgs};
use crate::failure::Failure;

pub(super) fn run(args: &CompletionsArgs) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut args::command(), "rmesh", &mut script);
    print(&String::from_utf8_lossy(&script))
}

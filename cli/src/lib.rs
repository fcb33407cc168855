//! The program `rmesh`: the daemon's wiring, its local HTTP/JSON API and the commands.
//!
//! It is a library so that test programs can be the very program that was just built.

mod api;
mod args;
mod client;
mod commands;
mod daemon;
mod demo;
pub mod disk;
mod duration;
mod failure;
#[cfg(feature = "fuzzing")]
pub mod fuzz;
pub mod ledger;
mod logging;
mod metrics;
mod netcheck;
mod peer_address;
#[cfg(test)]
mod power_cut;
mod rate;
mod render;
mod report;
mod reset;
mod secret_word;
mod state;
mod subnet;
mod tcp;
mod why;
mod without;

use std::process::ExitCode;

pub use failure::{Failure, FailureKind};
#[cfg(feature = "fuzzing")]
pub use metrics::parse as metrics_reader;

/// Version of the program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Reads the arguments, runs one command, and says how it went: 0 done, 1 failed, 2 usage.
pub fn main() -> ExitCode {
    let arguments = match args::parse(std::env::args_os()) {
        Ok(arguments) => arguments,
        Err(error) => error.exit(),
    };
    match commands::run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.logged {
                eprintln!("{failure}");
            }
            failure.kind.exit_code()
        }
    }
}

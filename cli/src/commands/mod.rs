//! One verb a file.

mod attach;
mod completions;
mod connect;
mod detach;
mod forget;
mod ipam;
mod launch;
mod man;
mod netcheck;
mod prepare;
mod ps;
mod rmpeer;
mod secret;
mod status;
mod stop;
mod version;
mod why;

#[cfg(test)]
pub(crate) use prepare::settle;

use std::io::Write as _;

use serde::Serialize;

use crate::args::{Arguments, Verb};
use crate::demo;
use crate::failure::Failure;
use crate::report;
use crate::reset;

/// Runs one command.
pub(crate) fn run(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { global, verb } = arguments;
    match verb {
        Verb::Launch(args) => launch::run(&global, *args),
        Verb::Stop => stop::run(&global),
        Verb::Reset(args) => reset::run(&global, &args),
        Verb::Connect(args) => connect::run(&global, args),
        Verb::Forget(args) => forget::run(&global, args),
        Verb::Attach(args) => attach::run(&global, args),
        Verb::Detach(args) => detach::run(&global, args),
        Verb::Ipam(args) => ipam::run(&global, args),
        Verb::Rmpeer(args) => rmpeer::run(&global, args),
        Verb::Ps => ps::run(&global),
        Verb::Status(args) => status::run(&global, &args),
        Verb::Why(args) => why::run(&global, &args),
        Verb::Netcheck => netcheck::run(&global),
        Verb::Secret => secret::run(&global),
        Verb::Report => report::run(&global),
        Verb::Completions(args) => completions::run(&args),
        Verb::Man(args) => man::run(&global, &args),
        Verb::Version => version::run(&global),
        Verb::Demo(args) => demo::run(&args),
    }
}

/// Writes text to standard output; a reader that went away (`| head`) is no failure.
fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    let result = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    match result {
        Err(cause) if cause.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::failed("cannot write the answer", cause))
        }
        _ => Ok(()),
    }
}

/// Writes one line.
pub(crate) fn print_line(text: &str) -> Result<(), Failure> {
    print(&format!("{text}\n"))
}

/// Writes JSON.
pub(crate) fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value);
    let text = text.map_err(|error| Failure::failed("cannot write the answer", error))?;
    print_line(&text)
}

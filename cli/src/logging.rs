//! The daemon's log: lines for people, or one JSON object a line.

use std::io::IsTerminal as _;
use std::panic::PanicHookInfo;

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

use crate::failure::Failure;

/// What is logged, as `tracing_subscriber` filters; `info` if it is not set.
const FILTER_VARIABLE: &str = "RMESH_LOG";

/// Form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Lines for people
    Text,
    /// One JSON object a line: timestamp, level, target, message and fields
    Json,
}

impl LogFormat {
    /// The word on the command line.
    pub(crate) fn word(self) -> &'static str {
        match self {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        }
    }
}

/// Starts the log on standard error; in a daemon in the background that is the log file.
pub(crate) fn start(format: LogFormat) {
    let filter =
        EnvFilter::try_from_env(FILTER_VARIABLE).unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Text => {
            let ansi = std::io::stderr().is_terminal();
            log.with_target(false).with_ansi(ansi).try_init()
        }
        LogFormat::Json => {
            // A panic would write lines of its own.
            std::panic::set_hook(Box::new(log_panic));
            log.json()
                .flatten_event(true)
                .with_current_span(false)
                .with_span_list(false)
                .try_init()
        }
    };
    // Fails only if there is a log already.
    let _ = started;
}

fn log_panic(panic: &PanicHookInfo<'_>) {
    let message = panic.payload_as_str().unwrap_or("no message");
    let place = panic
        .location()
        .map(ToString::to_string)
        .unwrap_or_default();
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or_default();
    tracing::error!(place, thread, "panicked: {message}");
}

/// Logs why a daemon ends, where nothing but JSON may be written.
pub(crate) fn log_failure(failure: &Failure) {
    tracing::error!(todo = failure.todo, "{}: {}", failure.what, failure.why);
}

/// The words of a log for people, whatever its form.
pub(crate) fn messages(log: &str) -> String {
    let message = |line: &str| {
        let value: serde_json::Value = serde_json::from_str(line).ok()?;
        Some(value.get("message")?.as_str()?.to_owned())
    };
    let lines = log
        .lines()
        .map(|line| message(line).unwrap_or_else(|| line.to_owned()));
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_read_the_messages_of_both_forms() {
        let log = "{\"level\":\"ERROR\",\"message\":\"cannot bind\"}\n2026 INFO serving\n{cut";
        assert_eq!(messages(log), "cannot bind\n2026 INFO serving\n{cut");
    }
}

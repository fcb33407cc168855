//! How much TCP carries one way.

use std::io;
use std::time::Duration;

use super::machine;
use super::scene::Way;
use crate::throughput::{Connection, measure_all};

/// How long each carries; slow start is over after the time before it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Length {
    measured: Duration,
    warm_up: Duration,
}

impl Length {
    const LONG: Length = Length {
        measured: Duration::from_secs(2),
        warm_up: Duration::from_millis(500),
    };
    /// For many short ones: which core gets what is another matter with each set of connections.
    pub(super) const SHORT: Length = Length {
        measured: Duration::from_millis(600),
        warm_up: Duration::from_millis(200),
    };
}

/// What a way carried.
#[derive(Debug, Clone, Copy)]
pub(super) struct Carried {
    pub(super) gigabits_per_s: f64,
    /// Of the whole machine: both hosts and both ends.
    pub(super) cpu_s_per_gigabyte: f64,
}

impl Carried {
    /// Of a way that did not work.
    pub(super) const NOTHING: Carried = Carried {
        gigabits_per_s: f64::NAN,
        cpu_s_per_gigabyte: f64::NAN,
    };
}

/// Sends over so many connections at once.
pub(super) fn carry(way: &Way<'_>, streams: usize) -> Carried {
    carry_for(Length::LONG, way, streams)
}

/// The same for another time.
pub(super) fn carry_for(length: Length, way: &Way<'_>, streams: usize) -> Carried {
    let carried = try_carry_for(length, way, streams);
    carried.unwrap_or_else(|error| panic!("{}: {error}", way.address))
}

/// The same over what may not work.
///
/// # Errors
/// If a connection cannot be made, breaks or stalls.
pub(super) fn try_carry(way: &Way<'_>, streams: usize) -> io::Result<Carried> {
    try_carry_for(Length::LONG, way, streams)
}

fn try_carry_for(length: Length, way: &Way<'_>, streams: usize) -> io::Result<Carried> {
    let open = |_| Connection::open(way.from, way.to, way.address);
    let mut connections: Vec<Connection> = (0..streams).map(open).collect::<Result<_, _>>()?;
    run(&mut connections, length.warm_up)?;
    let before = machine::busy_s();
    let gigabits_per_s = run(&mut connections, length.measured)?;
    let spent = machine::busy_s() - before;
    let gigabytes = gigabits_per_s / 8.0 * length.measured.as_secs_f64();
    Ok(Carried {
        gigabits_per_s,
        cpu_s_per_gigabyte: spent / gigabytes,
    })
}

fn run(connections: &mut [Connection], time: Duration) -> io::Result<f64> {
    Ok(measure_all(connections, time)? / 1e3)
}

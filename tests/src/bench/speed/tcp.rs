//! How much TCP carries one way.

use std::io;
use std::time::Duration;

use super::machine;
use super::scene::Way;
use crate::throughput::{Connection, measure_all};

/// How long each carries; slow start is over after the time before it.
const MEASURED: Duration = Duration::from_secs(2);
const WARM_UP: Duration = Duration::from_millis(500);

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
    let carried = try_carry(way, streams);
    carried.unwrap_or_else(|error| panic!("{}: {error}", way.address))
}

/// The same over what may not work.
///
/// # Errors
/// If a connection cannot be made, breaks or stalls.
pub(super) fn try_carry(way: &Way<'_>, streams: usize) -> io::Result<Carried> {
    let open = |_| Connection::open(way.from, way.to, way.address);
    let mut connections: Vec<Connection> = (0..streams).map(open).collect::<Result<_, _>>()?;
    run(&mut connections, WARM_UP)?;
    let before = machine::busy_s();
    let gigabits_per_s = run(&mut connections, MEASURED)?;
    let spent = machine::busy_s() - before;
    let gigabytes = gigabits_per_s / 8.0 * MEASURED.as_secs_f64();
    Ok(Carried {
        gigabits_per_s,
        cpu_s_per_gigabyte: spent / gigabytes,
    })
}

fn run(connections: &mut [Connection], time: Duration) -> io::Result<f64> {
    Ok(measure_all(connections, time)? / 1e3)
}

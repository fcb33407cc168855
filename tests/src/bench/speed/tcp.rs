//! How much TCP carries one way.

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

/// Sends over so many connections at once.
pub(super) fn carry(way: &Way<'_>, streams: usize) -> Carried {
    let open = |_| {
        let opened = Connection::open(way.from, way.to, way.address);
        opened.unwrap_or_else(|error| panic!("{}: {error}", way.address))
    };
    let mut connections: Vec<Connection> = (0..streams).map(open).collect();
    run(&mut connections, WARM_UP, way);
    let before = machine::busy_s();
    let gigabits_per_s = run(&mut connections, MEASURED, way);
    let spent = machine::busy_s() - before;
    let gigabytes = gigabits_per_s / 8.0 * MEASURED.as_secs_f64();
    Carried {
        gigabits_per_s,
        cpu_s_per_gigabyte: spent / gigabytes,
    }
}

fn run(connections: &mut [Connection], time: Duration, way: &Way<'_>) -> f64 {
    let carried = measure_all(connections, time);
    carried.unwrap_or_else(|error| panic!("{}: {error}", way.address)) / 1e3
}

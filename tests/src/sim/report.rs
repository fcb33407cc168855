//! What a run has measured, and how it is shown.

use std::time::Duration;

use rmesh_wire::Instant;
use serde::Serialize;

use super::scenario::Options;

/// Counts while a world runs.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    /// Events the world has handled.
    pub(crate) events: u64,
    /// Bytes sent by all peers, IP and UDP headers included.
    pub(crate) bytes: u64,
    /// Most bytes any one peer sent in one second.
    pub(crate) peak_bytes: u64,
    /// Most datagrams caused by one input.
    pub(crate) transmits_per_turn_max: usize,
    /// Times a peer was given up.
    pub(crate) peer_downs: u64,
    /// Handshakes taken for a stranger's.
    pub(crate) handshakes_refused: u64,
    /// For each peer the second it sent last in, and what it sent in it.
    seconds: Vec<(u64, u64)>,
    /// What went to and from each peer.
    both_ways: Vec<Traffic>,
}

/// Datagrams of one peer, both ways together where nothing else is said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Those that it sent.
    pub sent: u64,
    /// Their bytes, IP and UDP headers included.
    pub sent_bytes: u64,
    /// Those that it got.
    pub received: u64,
    /// Their bytes.
    pub received_bytes: u64,
}

impl Meter {
    /// What went to and from a peer since the start.
    pub(crate) fn traffic(&self, peer: usize) -> Traffic {
        self.both_ways.get(peer).copied().unwrap_or_default()
    }

    fn traffic_mut(&mut self, peer: usize) -> &mut Traffic {
        let len = self.both_ways.len().max(peer + 1);
        self.both_ways.resize(len, Traffic::default());
        &mut self.both_ways[peer]
    }

    pub(crate) fn received(&mut self, to: usize, bytes: u64) {
        let traffic = self.traffic_mut(to);
        traffic.received += 1;
        traffic.received_bytes += bytes;
    }

    pub(crate) fn sent(&mut self, from: usize, now: Instant, bytes: u64) {
        let traffic = self.traffic_mut(from);
        traffic.sent += 1;
        traffic.sent_bytes += bytes;
        let second = now.as_nanos() / 1_000_000_000;
        if self.seconds.len() <= from {
            self.seconds.resize(from + 1, (0, 0));
        }
        let (last, sum) = &mut self.seconds[from];
        if second != *last {
            (*last, *sum) = (second, 0);
        }
        self.bytes += bytes;
        *sum += bytes;
        self.peak_bytes = self.peak_bytes.max(*sum);
    }
}

/// What one run has shown.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// What was run.
    pub options: Options,
    /// What must not be; empty if all is well.
    pub violations: Vec<String>,
    /// From each change, or from the end of all faults, until everybody agreed again.
    pub converged: Vec<Duration>,
    /// From the end of all faults until everybody agreed and everything worked.
    pub heal: Option<Duration>,
    /// Bytes a second and peer sends while nothing changes.
    pub idle_bytes_per_s: Option<f64>,
    /// The most any one peer sent in one second.
    pub peak_bytes_per_s: f64,
    /// Bytes of the heap a peer holds once all is quiet; only where they are counted
    /// ([`crate::heap`]).
    pub state_bytes: Option<u64>,
    /// Events the world has handled.
    pub events: u64,
    /// Handshakes taken for a stranger's, although all share one secret.
    pub handshakes_refused: u64,
    /// Most datagrams caused by one input.
    pub transmits_per_turn_max: usize,
    /// Simulated time.
    pub simulated: Duration,
    /// Real time.
    pub wall: Duration,
}

/// An outcome as one JSON object. What was not measured is null.
#[derive(Debug, Serialize)]
pub struct Summary {
    peers: usize,
    seed: u64,
    scenario: String,
    violations: Vec<String>,
    converge_p50_ms: Option<f64>,
    converge_p99_ms: Option<f64>,
    heal_ms: Option<f64>,
    idle_bytes_per_s: Option<f64>,
    peak_bytes_per_s: f64,
    state_bytes: Option<u64>,
    events: u64,
    wall_s: f64,
}

fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// The value below which `share` of all values lie.
pub fn quantile(values: &[Duration], share: f64) -> Option<Duration> {
    let mut sorted = values.to_vec();
    sorted.sort();
    let at = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(at.saturating_sub(1)).copied()
}

impl From<&Outcome> for Summary {
    fn from(outcome: &Outcome) -> Self {
        Summary {
            peers: outcome.options.peers,
            seed: outcome.options.seed,
            scenario: outcome.options.scenario.to_string(),
            violations: outcome.violations.clone(),
            converge_p50_ms: quantile(&outcome.converged, 0.5).map(milliseconds),
            converge_p99_ms: quantile(&outcome.converged, 0.99).map(milliseconds),
            heal_ms: outcome.heal.map(milliseconds),
            idle_bytes_per_s: outcome.idle_bytes_per_s.map(f64::round),
            peak_bytes_per_s: outcome.peak_bytes_per_s.round(),
            state_bytes: outcome.state_bytes,
            events: outcome.events,
            wall_s: (outcome.wall.as_secs_f64() * 1e3).round() / 1e3,
        }
    }
}

/// The outcome as a table for people.
pub fn table(outcome: &Outcome) -> String {
    let or_dash = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    let time = |value: Option<Duration>| or_dash(value.map(|d| format!("{} ms", milliseconds(d))));
    let options = &outcome.options;
    let rows = [
        ("peers", options.peers.to_string()),
        ("scenario", options.scenario.to_string()),
        ("seed", options.seed.to_string()),
        (
            "simulated",
            format!("{:.1} s", outcome.simulated.as_secs_f64()),
        ),
        ("converged, median", time(quantile(&outcome.converged, 0.5))),
        ("converged, 99 %", time(quantile(&outcome.converged, 0.99))),
        ("healed", time(outcome.heal)),
        (
            "idle, a peer",
            or_dash(outcome.idle_bytes_per_s.map(|b| format!("{b:.0} B/s"))),
        ),
        (
            "peak, a peer",
            format!("{:.0} B/s", outcome.peak_bytes_per_s),
        ),
        (
            "state, a peer",
            or_dash(
                outcome
                    .state_bytes
                    .map(|b| format!("{:.2} MB", b as f64 / 1e6)),
            ),
        ),
        (
            "busiest input",
            format!("{} datagrams", outcome.transmits_per_turn_max),
        ),
        ("events", outcome.events.to_string()),
        ("real time", format!("{:.2} s", outcome.wall.as_secs_f64())),
        ("violations", outcome.violations.len().to_string()),
    ];
    let mut text = String::new();
    for (label, value) in rows {
        text.push_str(&format!("{label:<20}{value}\n"));
    }
    for violation in &outcome.violations {
        text.push_str(&format!("  {violation}\n"));
    }
    if !outcome.violations.is_empty() {
        text.push_str(&format!("replay: {}\n", options.command()));
    }
    text
}

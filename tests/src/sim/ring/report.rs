//! What a run has shown.

use std::time::Duration;

use rmesh_ipam::{Answer, Refusal};

use super::host::Job;
use super::quiet::is_removal;
use super::story::RingOptions;

/// Counts of what happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Meter {
    /// Events the world has handled.
    pub events: u64,
    /// Ring messages that arrived.
    pub messages: u64,
    /// Bytes of ring messages sent, where wires are direct.
    pub sent_bytes: u64,
    /// Writes the disks did, or crashed at.
    pub commits: u64,
    /// Daemons killed, hosts switched off.
    pub crashes: u64,
    /// Addresses given to containers.
    pub allocated: u64,
    /// Of these, those of which the disk only said that they may be in use.
    pub early: u64,
    /// Containers that got none.
    pub refused: u64,
    /// Removals asked for in the season.
    pub removals: u64,
    /// Removals done.
    pub removed: u64,
    /// Removed peers that came back.
    pub returned: u64,
    /// Ledgers lost or damaged.
    pub disks_lost: u64,
    /// Ledgers restored from a backup.
    pub rollbacks: u64,
    /// Hosts wiped after they handed over what they had.
    pub left: u64,
}

impl Meter {
    pub(super) fn count(&mut self, job: &Job, result: &Result<Answer, Refusal>) {
        match (job, result) {
            (Job::Attach { .. }, Ok(_)) => self.allocated += 1,
            (Job::Attach { .. }, Err(_)) => self.refused += 1,
            (Job::Remove { .. }, Ok(answer)) if is_removal(answer) => self.removed += 1,
            _ => {}
        }
    }

    /// Adds another run's counts.
    pub fn add(&mut self, other: &Meter) {
        self.events += other.events;
        self.messages += other.messages;
        self.sent_bytes += other.sent_bytes;
        self.commits += other.commits;
        self.crashes += other.crashes;
        self.allocated += other.allocated;
        self.early += other.early;
        self.refused += other.refused;
        self.removals += other.removals;
        self.removed += other.removed;
        self.returned += other.returned;
        self.disks_lost += other.disks_lost;
        self.rollbacks += other.rollbacks;
        self.left += other.left;
    }
}

/// What one run has shown.
#[derive(Debug, Clone)]
pub struct RingOutcome {
    /// What was run.
    pub options: RingOptions,
    /// What must not be; empty if all is well.
    pub violations: Vec<String>,
    /// What led to it.
    pub story: Vec<String>,
    /// From when everybody reached everybody until all rings were equal.
    pub equal: Option<Duration>,
    /// Counts.
    pub meter: Meter,
    /// Simulated time.
    pub simulated: Duration,
    /// Real time.
    pub wall: Duration,
}

/// The outcome for people.
pub fn table(outcome: &RingOutcome) -> String {
    let mut text = format!(
        "{} peers, seed {}, {:?}: {:.1} s simulated in {:.3} s, rings equal after {:?}\n{:?}\n",
        outcome.options.peers,
        outcome.options.seed,
        outcome.options.wires,
        outcome.simulated.as_secs_f64(),
        outcome.wall.as_secs_f64(),
        outcome.equal,
        outcome.meter,
    );
    if outcome.violations.is_empty() {
        return text;
    }
    for line in outcome.story.iter().chain(&outcome.violations) {
        text.push_str(&format!("  {line}\n"));
    }
    text.push_str(&format!("replay: {}\n", outcome.options.command()));
    text
}

//! How fast a client of the local API gets addresses: one after the other, and many clients at once.
//! The ledger lies on the disk of this machine; what that takes for one sync is measured beside it.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use rmesh_lab::Host;

use super::{Bound, Figure};
use crate::lease::LeaseClient;
use crate::scrape::scrape;
use crate::story::Story;

/// Allocations one after the other.
const SEQUENTIAL: usize = 3_000;
/// Clients that allocate at once, and how often each.
const CLIENTS: usize = 50;
const EACH: usize = 60;
/// The predecessor does about 100 a second.
const SEQUENTIAL_MIN: f64 = 1_000.0;
/// Syncs that are timed.
const SYNCS: usize = 50;
/// A daemon has a ring within this time.
const FOUNDS_WITHIN: Duration = Duration::from_secs(5);

/// Entries made durable and commits that took.
fn written(host: &Host) -> (f64, f64) {
    let metrics = scrape(host);
    let count = |name| metrics.sum(name, &[]).unwrap_or_default();
    (
        count("rmesh_ledger_entries_total"),
        count("rmesh_ledger_commits_total"),
    )
}

/// What one sync of a short append takes where the ledgers lie, in milliseconds: the middle one.
fn sync_ms(folder: &Path) -> f64 {
    let path = folder.join("bench-sync");
    let mut file = File::create(&path).expect("a folder for state");
    let mut took: Vec<Duration> = (0..SYNCS)
        .map(|_| {
            file.write_all(&[7; 64]).expect("a disk that takes writes");
            let start = Instant::now();
            file.sync_data().expect("a disk that takes writes");
            start.elapsed()
        })
        .collect();
    took.sort();
    took[SYNCS / 2].as_secs_f64() * 1e3
}

pub(super) fn measure(program: &str) -> Vec<Figure> {
    let mut story = Story::new("bench-allocate", program);
    let host = story.host("a");
    let _router = story.launch(&host, &[]);
    story.expect_within(FOUNDS_WITHIN, "a founds a ring", || {
        scrape(&host)
            .sum("rmesh_ring_owners", &[])
            .is_some_and(|owners| owners > 0.0)
    });
    let mut figures = sequential(&host);
    figures.extend(parallel(&host));
    let sync = sync_ms(&host.state_dir());
    figures.push(Figure::new("allocate: one sync of the disk", "ms", sync));
    figures
}

fn sequential(host: &Host) -> Vec<Figure> {
    let mut client = LeaseClient::of(host).expect("a serving daemon");
    let before = written(host);
    let start = Instant::now();
    let mut took: Vec<f64> = (0..SEQUENTIAL)
        .map(|number| {
            let start = Instant::now();
            let address = client.allocate(&format!("one-{number}"));
            address.expect("a serving daemon");
            start.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    let rate = SEQUENTIAL as f64 / start.elapsed().as_secs_f64();
    let after = written(host);
    took.sort_by(f64::total_cmp);
    let part = |share: f64| took[(SEQUENTIAL as f64 * share) as usize];
    vec![
        Figure::new("allocate: one client", "a second", rate).bound(Bound::Above(SEQUENTIAL_MIN)),
        Figure::new("allocate: one client, half within", "ms", part(0.5)),
        Figure::new("allocate: one client, 99 % within", "ms", part(0.99)),
        Figure::new("allocate: one client, syncs", "", after.1 - before.1),
    ]
}

fn parallel(host: &Host) -> Vec<Figure> {
    let before = written(host);
    let start = Instant::now();
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            scope.spawn(move || {
                let mut connection = LeaseClient::of(host).expect("a serving daemon");
                for number in 0..EACH {
                    let address = connection.allocate(&format!("many-{client}-{number}"));
                    address.expect("a serving daemon");
                }
            });
        }
    });
    let seconds = start.elapsed().as_secs_f64();
    let after = written(host);
    let (count, syncs) = ((CLIENTS * EACH) as f64, after.1 - before.1);
    vec![
        Figure::new("allocate: 50 clients", "a second", count / seconds),
        Figure::new("allocate: 50 clients, syncs", "", syncs),
        Figure::new(
            "allocate: 50 clients, allocations a sync",
            "",
            count / syncs,
        )
        .bound(Bound::Above(2.0)),
    ]
}

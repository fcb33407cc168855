//! Addresses for clients of the API, answered before the disk has them: what a killed daemon answered is
//! there when it starts again.

use std::collections::BTreeMap;
use std::time::Duration;

use rmesh_lab::Host;
use rmesh_tests::lease::LeaseClient;
use rmesh_tests::scrape::scrape;
use rmesh_tests::story;
use rmesh_tests::story::Story;

/// Lives of the daemon, each of which ends by kill -9 amid answers.
const LIVES: u64 = 6;
const CLIENTS: usize = 4;
/// The shortest life; each is a little longer than the last.
const LIFE: Duration = Duration::from_millis(60);
/// What one client asks for in a life: all together fewer than the containers of a peer may have.
const EACH_MAX: u64 = 650;
const FOUNDS_WITHIN: Duration = Duration::from_secs(5);

fn expect_ring(story: &Story, host: &Host) {
    story.expect_within(FOUNDS_WITHIN, "there is a ring", || {
        let owners = scrape(host).sum("rmesh_ring_owners", &[]);
        owners.is_some_and(|owners| owners > 0.0)
    });
}

/// Asks until the daemon is gone; what was answered.
fn ask(host: &Host, life: u64, client: usize) -> Vec<(String, String)> {
    let mut connection = LeaseClient::of(host).expect("a serving daemon");
    let words = (0..EACH_MAX).map(|number| format!("vm-{life}-{client}-{number}"));
    words
        .map_while(|word| {
            let address = connection.allocate(&word).ok()?;
            Some((word, address))
        })
        .collect()
}

#[test]
fn what_a_killed_daemon_answered_is_there_when_it_starts_again() {
    let mut story = story!("leases");
    let host = story.host("a");
    let mut router = story.launch(&host, &[]);
    let mut known: BTreeMap<String, String> = BTreeMap::new();
    let (mut entries, mut commits) = (0.0, 0.0);
    for life in 0..LIVES {
        expect_ring(&story, &host);
        let answered = std::thread::scope(|scope| {
            let asks = (0..CLIENTS).map(|client| {
                let host = &host;
                scope.spawn(move || ask(host, life, client))
            });
            let asks: Vec<_> = asks.collect();
            std::thread::sleep(LIFE + Duration::from_micros(1_700) * life as u32);
            let metrics = scrape(&host);
            let count = |name| metrics.sum(name, &[]).unwrap_or_default();
            entries += count("rmesh_ledger_entries_total");
            commits += count("rmesh_ledger_commits_total");
            router.kill();
            let asks = asks.into_iter();
            asks.flat_map(|ask| ask.join().expect("a client"))
                .collect::<Vec<_>>()
        });
        println!("life {life}: {} answers", answered.len());
        assert!(!answered.is_empty());
        known.extend(answered);
        router = story.launch(&host, &[]);
        let mut client = LeaseClient::of(&host).expect("a serving daemon");
        expect_ring(&story, &host);
        for (word, address) in &known {
            assert_eq!(
                &client.allocate(word).expect("an answer"),
                address,
                "{word}"
            );
        }
    }
    let mut addresses: Vec<&String> = known.values().collect();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), known.len(), "an address was given twice");
    println!(
        "{} leases, {entries} entries in {commits} syncs",
        known.len()
    );
    assert!(entries > 2.0 * commits, "clients waited for the disk");
}

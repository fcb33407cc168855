//! Addresses that are answered before the disk has who has them, over a disk that is cut off at every write.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rmesh_ipam::{
    Answer, Event, Found, Founding, Identity, Ledger, Node, Range, Recovered, Request, RequestId,
};
use rmesh_wire::{Instant, PeerId};

use crate::disk::sim::{Fault, Image, SimDisk, Tears};
use crate::ledger::{self, Folded, LedgerFile, Place, Standing, Tail};

const FOLDER: &str = "/state";
const ME: PeerId = PeerId([1; 16]);
const REQUESTS: u64 = 60;
/// The disk takes what waits after so many requests: less often than one by one.
const COMMIT_EVERY: u64 = 7;
/// More than a life has.
const OPERATIONS_MAX: usize = 500;

/// As the daemon's ring has it.
fn fold(entries: &[&[u8]]) -> Result<Folded, String> {
    let ledger = Ledger::fold(entries.iter().copied(), Instant::ZERO);
    let ledger = ledger.map_err(|error| error.to_string())?;
    Ok(Folded {
        snapshot: ledger.snapshot(),
        incarnation: ledger.incarnation(),
    })
}

/// A host's folders: state on a disk that is cut off, the run folder in memory.
struct Host {
    disk: SimDisk,
    run: tempfile::TempDir,
}

struct Daemon {
    node: Node,
    file: LedgerFile,
    tail: Tail,
    queued: Vec<Vec<u8>>,
    answered: Vec<(IpAddr, String)>,
    /// Of these, how many before the disk had them.
    early: usize,
}

impl Host {
    fn place(&self) -> Place {
        Place {
            disk: Arc::new(self.disk.clone()),
            folder: FOLDER.into(),
            token: self.run.path().join("ledger-token"),
            fold,
        }
    }

    fn of(image: &Image) -> Self {
        let (disk, run) = (SimDisk::with(image), tempfile::tempdir().unwrap());
        Host { disk, run }
    }

    fn start(&self) -> Option<Daemon> {
        let (file, found) = self.place().open().ok()?;
        let mut tail = Tail::beside(&self.place().token);
        tail.begin(found.written);
        Some(Daemon {
            node: node(&found),
            file,
            tail,
            queued: Vec::new(),
            answered: Vec::new(),
            early: 0,
        })
    }
}

fn node(found: &ledger::Found) -> Node {
    let identity = Identity {
        me: ME,
        incarnation: 7,
        seed: [1; 32],
    };
    let entries = found.entries.iter().map(Vec::as_slice);
    let recovered = Recovered {
        ledger: Ledger::fold(entries, Instant::ZERO).unwrap(),
        written: found.written,
        found: match found.standing {
            Standing::Nothing => Found::Nothing,
            Standing::Current => Found::Current {
                down_for: Duration::ZERO,
            },
            Standing::Unproven => Found::Unproven,
            Standing::RolledBack => Found::RolledBack,
        },
    };
    let pool: ipnet::IpNet = "10.32.0.0/24".parse().unwrap();
    let pools = vec![Range::from(pool)];
    Node::new(
        identity,
        recovered,
        Founding::Found { pools },
        Instant::ZERO,
    )
}

impl Daemon {
    /// What the node wants written goes to the tail at once.
    fn hand_over(&mut self) {
        let mut entries = Vec::new();
        let mut last = 0;
        while let Some((number, entry)) = self.node.poll_write() {
            entries.push(entry);
            last = number;
        }
        // The first commit makes the token without which the tail is not found.
        let is_noted = self.file.written() > 0;
        if self.tail.hand_over(&entries) && is_noted {
            self.node.handle_handed_over(last, Instant::ZERO);
        }
        self.queued.append(&mut entries);
    }

    fn take_answers(&mut self, are_early: bool) {
        while let Some(event) = self.node.poll_event() {
            if let Event::Answer { id, result } = event
                && let Ok(Answer::Address(ip)) = result
            {
                self.answered.push((ip, format!("vm-{}", id.0)));
                self.early += usize::from(are_early);
            }
        }
    }

    /// Whether the disk took it.
    fn commit(&mut self) -> bool {
        let entries = std::mem::take(&mut self.queued);
        let Ok(written) = self.file.commit(&entries, Some(7)) else {
            return false;
        };
        self.tail.confirm(written);
        self.node.handle_written(written, Instant::ZERO);
        self.take_answers(false);
        true
    }

    /// Clients ask in a hurry until the disk is cut off.
    fn live(&mut self) {
        for id in 1..=REQUESTS {
            let request = Request::Allocate {
                container: format!("vm-{id}"),
                subnet: None,
                wants_v6: false,
            };
            let deadline = Instant::ZERO + Duration::from_secs(5);
            let node = &mut self.node;
            node.handle_request(RequestId(id), request, deadline, Instant::ZERO);
            self.hand_over();
            self.take_answers(true);
            if id % COMMIT_EVERY == 0 && !self.commit() {
                return;
            }
        }
    }
}

#[test]
fn a_killed_daemon_has_every_lease_and_a_cut_off_host_gives_none_of_them_to_others() {
    let (mut killed, mut cut, mut early, mut lost) = (0, 0, 0, 0);
    let mut is_whole = false;
    for at in 0..OPERATIONS_MAX {
        let disk = SimDisk::with_folders(&[Path::new(FOLDER)]);
        let host = Host {
            disk,
            run: tempfile::tempdir().unwrap(),
        };
        host.disk.fail(at, Fault::Cut);
        let Some(mut daemon) = host.start() else {
            continue;
        };
        daemon.live();
        early += daemon.early;
        for image in host.disk.survivors(Tears::Few) {
            let Some(again) = Host::of(&image).start() else {
                panic!("{at}: the ledger cannot be opened");
            };
            let report = again.node.report(Instant::ZERO);
            for one in &daemon.answered {
                if !report.allocated.contains(one) {
                    let words = again.node.explain_address(one.0);
                    assert!(words.starts_with("Resting"), "{at}: {one:?}: {words}");
                    lost += 1;
                }
            }
            cut += 1;
        }
        is_whole = daemon.answered.len() as u64 > REQUESTS / COMMIT_EVERY * COMMIT_EVERY;
        let again = Host {
            disk: SimDisk::with(&host.disk.visible()),
            ..host
        };
        let report = again.start().expect("a ledger").node.report(Instant::ZERO);
        for one in &daemon.answered {
            assert!(report.allocated.contains(one), "{at}: {one:?} is lost");
        }
        killed += 1;
        if is_whole {
            break;
        }
    }
    println!(
        "{killed} daemons killed; {cut} disks after a power cut; {early} early answers, {lost} times one lost"
    );
    assert!(is_whole, "a life has more operations");
    assert!(killed > 10 && early > 100 && lost > 0);
}

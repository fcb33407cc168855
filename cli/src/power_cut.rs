//! The power goes at every write of a daemon's life, and everything a disk may then hold is started
//! from.

mod leases;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use rmesh_gossip::crypto::secret;

use crate::args::{LaunchArgs, Verb, parse};
use crate::commands::settle;
use crate::daemon::{Remembered, remember};
use crate::disk::Disk as _;
use crate::disk::sim::{Content, Fault, Image, SimDisk, Tears};
use crate::failure::Failure;
use crate::peer_address::PeerAddress;
use crate::secret_word::SecretWord;
use crate::state::{File, StateDir};

const FOLDER: &str = "/var/lib/rmesh";
const SECRET: &str = "rmesh1-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const FOUND: &str = "";
const NAMES: [&str; 7] = [
    "identity",
    "secret",
    "boot",
    "peers",
    "hints",
    "attachments",
    "ring",
];

fn join() -> String {
    format!("--secret {SECRET} host1 host2")
}

fn new_disk() -> SimDisk {
    SimDisk::with_folders(&[Path::new("/var/lib")])
}

fn arguments(line: &str) -> LaunchArgs {
    let line = format!("rmesh launch {line}");
    match parse(line.split_whitespace()).unwrap().verb {
        Verb::Launch(args) => *args,
        _ => panic!("{line}"),
    }
}

fn open(disk: &SimDisk) -> Result<StateDir, Failure> {
    let state = StateDir::open_on(Arc::new(disk.clone()), Path::new(FOLDER));
    let told = |error: crate::state::StateError| Failure::failed("", &error).todo(error.todo());
    let state = state.map_err(told)?;
    state.recover().map_err(told)?;
    Ok(state)
}

/// What `rmesh launch` and the daemon it starts do with the disk until the mesh hears of this peer.
fn start(disk: &SimDisk, line: &str) -> Result<Remembered, Failure> {
    let args = arguments(line);
    settle(
        &open(disk)?,
        args.secret.as_ref().map(SecretWord::text),
        &args,
    )?;
    remember(&open(disk)?)
}

/// A start that must succeed, in the same mesh and as the same peer as one that the mesh may have
/// heard of, and leaves nothing but state files of mode 0600.
fn start_again(image: &Image, line: &str, announced: Option<&Remembered>) -> Remembered {
    let disk = SimDisk::with(image);
    let again = start(&disk, line).unwrap_or_else(|failure| panic!("{failure}\n{image:?}"));
    if let Some(announced) = announced {
        assert!(
            again.identity == announced.identity,
            "another identity\n{image:?}"
        );
        assert!(
            again.secret == announced.secret,
            "another secret\n{image:?}"
        );
        assert!(
            again.boot.counter > announced.boot.counter,
            "an old boot\n{image:?}"
        );
        assert_eq!(again.peers, announced.peers);
    }
    assert!(again.moved_aside.is_empty(), "{image:?}");
    check_files(&disk.visible(), true);
    again
}

/// Only state files (and, unless it is tidy, what a write is about to replace), for the owner only.
fn check_files(image: &Image, tidy: bool) {
    for (path, content) in image {
        let Content::File(mode, _) = content else {
            continue;
        };
        assert_eq!(*mode, 0o600, "{}", path.display());
        let name = path.file_name().unwrap().to_str().unwrap();
        let known = NAMES.contains(&name.strip_suffix(".new").unwrap_or(name));
        assert!(known && !(tidy && name.ends_with(".new")), "{name}");
    }
}

/// How many operations a start takes from that disk on.
fn operations(image: &Image, line: &str) -> usize {
    let disk = SimDisk::with(image);
    start(&disk, line).unwrap_or_else(|failure| panic!("{failure}"));
    disk.operations()
}

/// Everything that a cut at each operation of a start leaves, with what the mesh may have heard.
fn cuts(from: &Image, line: &str, tears: Tears) -> Vec<(BTreeSet<Image>, Option<Remembered>)> {
    let cut = |at| {
        let disk = SimDisk::with(from);
        disk.fail(at, Fault::Cut);
        let announced = start(&disk, line).ok();
        check_files(&disk.visible(), false);
        (disk.survivors(tears), announced)
    };
    (0..=operations(from, line)).map(cut).collect()
}

#[test]
fn a_cut_at_any_write_of_a_first_launch_leaves_a_disk_that_launches() {
    for line in [FOUND, &join()] {
        let cuts = cuts(&new_disk().visible(), line, Tears::Every);
        let mut starts = 0;
        for (images, announced) in &cuts {
            for image in images {
                let again = start_again(image, line, announced.as_ref());
                starts += 1;
                let joined = line != FOUND;
                assert_eq!(again.peers.len(), if joined { 2 } else { 0 });
                assert_eq!(*secret::format(&again.secret) == SECRET, joined);
            }
        }
        println!(
            "launch {line}: {} cuts, {starts} disks, all start",
            cuts.len()
        );
        assert!(cuts.last().unwrap().1.is_some() && starts > 200);
    }
}

#[test]
fn a_second_cut_during_the_next_start_does_no_harm_either() {
    let mut starts = 0;
    for line in [FOUND, &join()] {
        for (images, first) in cuts(&new_disk().visible(), line, Tears::Few) {
            for image in images {
                for (images, second) in cuts(&image, line, Tears::Few) {
                    for image in &images {
                        start_again(image, line, second.as_ref().or(first.as_ref()));
                        starts += 1;
                    }
                }
            }
        }
    }
    println!("{starts} disks after two cuts, all start");
}

#[test]
fn whoever_was_cut_while_joining_founds_no_mesh_later() {
    let (mut refused, mut joined, mut fresh) = (0, 0, 0);
    for (images, _) in cuts(&new_disk().visible(), &join(), Tears::Every) {
        for image in images {
            let holds = |name: &str| image.contains_key(&Path::new(FOLDER).join(name));
            match start(&SimDisk::with(&image), "") {
                Ok(started) if *secret::format(&started.secret) == SECRET => {
                    assert_eq!(started.peers.len(), 2);
                    joined += 1;
                }
                Ok(_) => {
                    assert!(!NAMES.into_iter().any(holds), "{image:?}");
                    fresh += 1;
                }
                Err(failure) => {
                    assert!(failure.todo.contains("--secret-file"), "{failure}");
                    refused += 1;
                }
            }
        }
    }
    println!("launched without arguments: {joined} join, {refused} refuse, {fresh} hold nothing");
    assert!(joined > 0 && refused > 0);
}

#[test]
fn no_boot_counter_is_used_twice_over_a_life_of_cuts() {
    let disk = new_disk();
    let first = start(&disk, FOUND).unwrap();
    // Every disk that may be there, with the last boot that the mesh heard of.
    let mut lives = vec![(disk.visible(), first)];
    let mut starts = 0;
    for _ in 0..3 {
        let mut next = Vec::new();
        for (image, announced) in &lives {
            for (images, started) in cuts(image, FOUND, Tears::Few) {
                for image in images {
                    let heard = started.as_ref().unwrap_or(announced);
                    let again = start_again(&image, FOUND, Some(heard));
                    starts += 1;
                    assert!(again.boot.counter <= heard.boot.counter + 2);
                }
            }
            let disk = SimDisk::with(image);
            let started = start(&disk, FOUND).unwrap();
            next.push((disk.visible(), started));
        }
        lives = next;
    }
    println!("{starts} starts, every boot above the last");
}

#[test]
fn a_cut_while_a_list_is_saved_leaves_the_old_or_the_new_one() {
    let settled = new_disk();
    let announced = start(&settled, FOUND).unwrap();
    let list = |names: &[&str]| -> Vec<PeerAddress> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    };
    let (old, new) = (list(&["host1"]), list(&["host1", "host2"]));
    open(&settled).unwrap().save(File::Peers, &old).unwrap();
    let image = settled.visible();
    let (mut kept_old, mut kept_new) = (0, 0);
    for cut in 0.. {
        let disk = SimDisk::with(&image);
        let state = open(&disk).unwrap();
        let first = disk.operations();
        disk.fail(first + cut, Fault::Cut);
        let saved = state.save(File::Peers, &new).is_ok();
        for image in disk.survivors(Tears::Every) {
            let again = start_again(&image, FOUND, None);
            assert!(again.identity == announced.identity);
            assert!(
                again.peers == new || (again.peers == old && !saved),
                "{image:?}"
            );
            kept_old += usize::from(again.peers == old);
            kept_new += usize::from(again.peers == new);
        }
        if saved {
            break;
        }
    }
    println!("{kept_old} old, {kept_new} new lists");
    assert!(kept_old > 50 && kept_new > 0);
}

#[test]
fn a_full_or_broken_disk_is_refused_by_name_and_the_next_launch_goes_on() {
    let fresh = new_disk().visible();
    let used = {
        let disk = new_disk();
        let started = start(&disk, FOUND).unwrap();
        (disk.visible(), Some(started))
    };
    let mut faults = 0;
    for (from, heard) in [(fresh, None), used] {
        for at in 0..operations(&from, FOUND) {
            for code in [libc::ENOSPC, libc::EIO] {
                let disk = SimDisk::with(&from);
                disk.fail(at, Fault::Error(code));
                if let Err(failure) = start(&disk, FOUND) {
                    let words = failure.to_string();
                    let named = words.contains("/var/lib") && words.contains("see to the disk");
                    assert!(named, "{words}");
                    faults += 1;
                }
                check_files(&disk.visible(), true);
                for image in disk.survivors(Tears::Few) {
                    start_again(&image, FOUND, heard.as_ref());
                }
                // The same disk again, now that it works.
                let again = start(&disk, FOUND).unwrap_or_else(|failure| panic!("{failure}"));
                assert!(
                    heard
                        .as_ref()
                        .is_none_or(|heard| heard.identity == again.identity)
                );
                for image in disk.survivors(Tears::Few) {
                    start_again(&image, FOUND, Some(&again));
                }
            }
        }
    }
    println!("{faults} faults, each refused by name");
    assert!(faults > 20);
}

#[test]
fn every_flipped_byte_is_named_and_no_identity_replaced() {
    let settled = new_disk();
    let started = start(&settled, &join()).unwrap();
    let (mut refused, mut moved) = (0, 0);
    for name in ["identity", "secret", "boot", "peers"] {
        let path = Path::new(FOLDER).join(name);
        let Some(Content::File(mode, bytes)) = settled.visible().get(&path).cloned() else {
            panic!("{name}");
        };
        for at in 0..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[at] ^= 0x10;
            let mut image = settled.visible();
            image.insert(path.clone(), Content::File(mode, bytes));
            let disk = SimDisk::with(&image);
            match start(&disk, FOUND) {
                Ok(again) => {
                    assert!(again.identity == started.identity && again.secret == started.secret);
                    let aside = path.with_extension("corrupt-1");
                    assert_eq!(again.moved_aside.first(), Some(&aside));
                    assert!(disk.exists(&aside).unwrap());
                    moved += 1;
                }
                Err(failure) => {
                    let words = failure.to_string();
                    assert!(words.contains(name) && words.contains("backup"), "{words}");
                    refused += 1;
                }
            }
        }
    }
    println!("{refused} refused by name, {moved} moved aside and reported");
    assert!(refused > 100 && moved > 100);
}

//! The power goes, or the disk fails, at every operation; and what is found then.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rmesh_ipam::log;

use super::*;
use crate::disk::Disk as _;
use crate::disk::sim::{Content, Fault, Image, SimDisk, Tears};

const FOLDER: &str = "/state";
const ENOSPC: i32 = 28;
const EIO: i32 = 5;
/// Whose the ledger of these tests is.
const ME: u64 = 7;

/// Keeps everything, so that each confirmed entry can be looked for.
fn keep(entries: &[&[u8]]) -> Result<Folded, String> {
    if entries.iter().any(|entry| *entry == b"of a newer version") {
        return Err("an entry is of a newer version".into());
    }
    Ok(Folded {
        snapshot: entries.iter().map(|entry| entry.to_vec()).collect(),
        incarnation: ME,
    })
}

/// Keeps the last entry only, as a state that is one number.
fn last(entries: &[&[u8]]) -> Result<Folded, String> {
    let mut folded = keep(entries)?;
    folded.snapshot = folded.snapshot.pop().into_iter().collect();
    Ok(folded)
}

struct Host {
    disk: SimDisk,
    run: tempfile::TempDir,
    fold: Fold,
}

impl Host {
    fn new(fold: Fold) -> Self {
        Self::with(SimDisk::with_folders(&[Path::new(FOLDER)]), fold)
    }

    fn with(disk: SimDisk, fold: Fold) -> Self {
        let run = tempfile::tempdir().unwrap();
        Host { disk, run, fold }
    }

    fn place(&self) -> Place {
        Place {
            disk: Arc::new(self.disk.clone()),
            folder: FOLDER.into(),
            token: self.run.path().join("ledger-token"),
            fold: self.fold,
        }
    }

    fn open(&self) -> (LedgerFile, Found) {
        self.place()
            .open()
            .unwrap_or_else(|error| panic!("{error}"))
    }
}

/// The entry of that number.
fn entry(number: u64) -> Vec<u8> {
    format!("entry {number}").into_bytes()
}

/// Entries from `first` on.
fn entries(first: u64, count: u64) -> Vec<Vec<u8>> {
    (first..first + count).map(entry).collect()
}

/// Commits of one to three entries, until one is refused; returns the number of the last confirmed.
fn live(host: &Host, commits: u64) -> u64 {
    let Ok((mut file, found)) = host.place().open() else {
        return 0;
    };
    let mut confirmed = found.written;
    for round in 0..commits {
        match file.commit(&entries(confirmed + 1, round % 3 + 1), Some(ME)) {
            Ok(written) => confirmed = written,
            Err(_) => break,
        }
    }
    confirmed
}

/// Whether these are the entries of a life of [`live`], no batch of which is there in part.
fn is_whole(found: &Found, before: u64) -> bool {
    let sizes = (0..).map(|round| round % 3 + 1);
    let ends: Vec<u64> = sizes
        .scan(before, |end, size| {
            *end += size;
            Some(*end)
        })
        .take_while(|end| *end <= found.written)
        .collect();
    let is_end = found.written == before || ends.last() == Some(&found.written);
    is_end && found.entries == entries(1, found.written)
}

fn image_of(bytes: &[u8]) -> Image {
    Image::from([
        (FOLDER.into(), Content::Folder),
        (Path::new("/").into(), Content::Folder),
        (
            Path::new(FOLDER).join(LEDGER),
            Content::File(0o600, bytes.to_vec()),
        ),
    ])
}

#[test]
fn what_was_confirmed_is_found_whatever_a_power_cut_at_any_operation_leaves() {
    let mut looked_at = 0;
    let mut starts = vec![Host::new(keep).disk.visible()];
    // A second life begins with the file of a first.
    let first = Host::new(keep);
    live(&first, 4);
    starts.push(first.disk.visible());
    for start in starts {
        let whole = Host::with(SimDisk::with(&start), keep);
        let before = whole.open().1.written;
        let whole = Host::with(SimDisk::with(&start), keep);
        live(&whole, 5);
        for at in 0..=whole.disk.operations() {
            let host = Host::with(SimDisk::with(&start), keep);
            host.disk.fail(at, Fault::Cut);
            let confirmed = live(&host, 5).max(before);
            for image in host.disk.survivors(Tears::Every) {
                // The run folder is empty after a power cut.
                let again = Host::with(SimDisk::with(&image), keep);
                let (_, found) = again.open();
                assert!(
                    found.written >= confirmed,
                    "{found:?}, {confirmed} confirmed"
                );
                assert!(is_whole(&found, before), "{found:?}");
                assert_eq!(found.aside, None);
                let has_ledger = image.contains_key(&Path::new(FOLDER).join(LEDGER));
                let expected = match has_ledger {
                    true => Standing::Unproven,
                    false => Standing::Nothing,
                };
                assert_eq!(found.standing, expected);
                looked_at += 1;
            }
        }
    }
    assert!(looked_at > 400, "{looked_at}");
    println!("{looked_at} states after a power cut looked at");
}

#[test]
fn what_a_second_power_cut_leaves_of_what_was_found_is_found_again() {
    let host = Host::new(keep);
    host.disk.fail(13, Fault::Cut);
    live(&host, 5);
    for image in host.disk.survivors(Tears::Every) {
        let whole = Host::with(SimDisk::with(&image), keep);
        let (_, found) = whole.open();
        for at in 0..=whole.disk.operations() {
            let again = Host::with(SimDisk::with(&image), keep);
            again.disk.fail(at, Fault::Cut);
            let opened = again.place().open().is_ok();
            for image in again.disk.survivors(Tears::Few) {
                let (_, third) = Host::with(SimDisk::with(&image), keep).open();
                // Whoever has opened it may tell others what it found.
                let expected = if opened { found.written } else { 0 };
                assert!(third.written >= expected, "{third:?}\n{found:?}");
                assert!(is_whole(&third, 0), "{third:?}");
            }
        }
    }
}

#[test]
fn a_killed_process_finds_its_ledger_current() {
    for at in 0.. {
        let host = Host::new(keep);
        host.disk.fail(at, Fault::Cut);
        let confirmed = live(&host, 5);
        let again = Host {
            disk: SimDisk::with(&host.disk.visible()),
            ..host
        };
        let (_, found) = again.open();
        assert!(found.written >= confirmed && is_whole(&found, 0));
        let expected: &[Standing] = match confirmed {
            0 => &[Standing::Nothing, Standing::Unproven],
            _ => &[Standing::Current],
        };
        assert!(expected.contains(&found.standing), "{at} {found:?}");
        if confirmed == 9 {
            return;
        }
    }
}

#[test]
fn an_old_copy_of_the_folder_is_told_by_the_token_and_a_new_boot_proves_nothing() {
    let host = Host::new(keep);
    live(&host, 2);
    let old = host.disk.visible();
    live(&host, 3);
    let restored = Host {
        disk: SimDisk::with(&old),
        ..host
    };
    assert_eq!(restored.open().1.standing, Standing::RolledBack);
    let token = Token::new(&restored.place().token, "another boot");
    let (_, found) = restored.place().open_with(token).unwrap();
    assert_eq!(found.standing, Standing::Unproven);
}

#[test]
fn without_a_voucher_there_is_no_token() {
    let host = Host::new(keep);
    live(&host, 2);
    let (mut file, found) = host.open();
    file.commit(&entries(found.written + 1, 1), None).unwrap();
    assert_eq!(host.open().1.standing, Standing::Unproven);
    let (mut file, _) = host.open();
    file.commit(&[], Some(ME)).unwrap();
    assert_eq!(host.open().1.standing, Standing::Current);
}

#[test]
fn a_ledger_that_cannot_be_used_is_moved_aside_and_a_new_one_begins() {
    let (mut whole, entries) = (log::begin(&[], 0), entries(1, 9));
    for entry in &entries {
        whole.extend(log::batches(std::slice::from_ref(entry)).concat());
    }
    let mut damaged = whole.clone();
    damaged[60] ^= 1;
    let mut newer = whole.clone();
    newer[12] += 1;
    let foreign = log::begin(&[b"of a newer version".to_vec()], 3);
    for bytes in [damaged, newer, foreign, b"{}".to_vec(), Vec::new()] {
        let host = Host::with(SimDisk::with(&image_of(&bytes)), keep);
        let mut token = Token::of_this_boot(&host.place().token);
        let mark = token::Mark {
            incarnation: ME,
            written: 9,
        };
        token.write(mark).unwrap();
        let (mut file, found) = host.open();
        assert_eq!((found.written, found.standing), (0, Standing::Nothing));
        let (aside, why) = found.aside.unwrap();
        assert_eq!(aside, Path::new("/state/ledger.corrupt-1"));
        assert!(!why.is_empty());
        assert_eq!(host.disk.read(&aside, u64::MAX).unwrap(), bytes);
        // The token was of the ledger that is lost.
        file.commit(&[entry(1)], Some(8)).unwrap();
        assert_eq!(host.open().1.entries, [entry(1)]);
    }
}

#[test]
fn a_disk_that_fails_at_any_operation_takes_nothing_away_and_works_when_opened_anew() {
    let whole = Host::new(keep);
    live(&whole, 5);
    for code in [ENOSPC, EIO] {
        for at in 0..whole.disk.operations() {
            let host = Host::new(keep);
            host.disk.fail(at, Fault::Error(code));
            let confirmed = live(&host, 5);
            let (mut file, found) = host.open();
            assert!(found.written >= confirmed && is_whole(&found, 0));
            let written = file
                .commit(&entries(found.written + 1, 2), Some(ME))
                .unwrap();
            assert_eq!(written, found.written + 2);
            // After the failed sync nobody knows what the old file holds; the new one is durable.
            for image in host.disk.survivors(Tears::Few) {
                let (_, found) = Host::with(SimDisk::with(&image), keep).open();
                assert_eq!(found.entries, entries(1, written), "{code} at {at}");
            }
        }
    }
}

/// Entries that make the file grow past the length at which it is written anew.
fn grow(file: &mut LedgerFile, until: usize, disk: &SimDisk) -> Result<(), LedgerError> {
    for round in 0..40u8 {
        let fat = [vec![round; 100_000], entry(u64::from(round))];
        file.commit(&fat, Some(ME))?;
        if disk.operations() >= until {
            break;
        }
    }
    Ok(())
}

fn ledger_len(disk: &SimDisk) -> usize {
    let path = Path::new(FOLDER).join(LEDGER);
    disk.read(&path, u64::MAX).unwrap().len()
}

#[test]
fn a_log_that_has_grown_is_written_anew_and_its_numbers_go_on() {
    let host = Host::new(last);
    let (mut file, _) = host.open();
    grow(&mut file, usize::MAX, &host.disk).unwrap();
    assert!(
        ledger_len(&host.disk) < 1_200_000,
        "{}",
        ledger_len(&host.disk)
    );
    assert_eq!(file.written(), 80);
    let (_, found) = host.open();
    assert_eq!((found.written, found.entries), (80, vec![entry(39)]));
    assert_eq!(found.standing, Standing::Current);
}

#[test]
fn a_power_cut_or_a_full_disk_while_it_is_written_anew_loses_nothing() {
    let host = Host::new(last);
    let (mut file, _) = host.open();
    let begin = host.disk.operations();
    grow(&mut file, usize::MAX, &host.disk).unwrap();
    let end = host.disk.operations();
    let mut compactions = 0;
    for at in begin..end {
        for fault in [Fault::Cut, Fault::Error(ENOSPC)] {
            let host = Host::new(last);
            let (mut file, _) = host.open();
            host.disk.fail(at, fault);
            let refused = grow(&mut file, at + 1, &host.disk).is_err();
            let confirmed = file.written();
            // A full disk while it is written anew is no reason to stop, but after the rename it is.
            compactions += usize::from(!refused);
            for image in host.disk.survivors(Tears::Few) {
                let (_, found) = Host::with(SimDisk::with(&image), last).open();
                assert!(found.written >= confirmed, "{fault:?} at {at}: {found:?}");
            }
        }
    }
    assert!(
        compactions > 0,
        "none failed while the file was written anew"
    );
}

#[test]
fn whatever_waits_while_the_disk_syncs_shares_the_next_sync() {
    let host = Host::new(keep);
    let (file, _) = host.open();
    let before = host.disk.operations();
    let (writer, mut news) = Writer::start(host.place(), Some(file)).unwrap();
    for number in 1..=500 {
        writer.write(vec![entry(number)], Some(ME));
    }
    writer.finish();
    let mut confirmed = Vec::new();
    while let Some(News::Written(number)) = news.blocking_recv() {
        confirmed.push(number);
    }
    assert!(confirmed.is_sorted() && confirmed.last() == Some(&500));
    let syncs = (host.disk.operations() - before) / 2;
    assert_eq!(syncs, confirmed.len());
    println!("500 entries handed over at once took {syncs} syncs");
    assert_eq!(host.open().1.entries, entries(1, 500));
}

#[test]
fn after_a_failed_write_the_ledger_comes_back_by_itself_without_what_was_refused() {
    let host = Host::new(keep);
    let (file, _) = host.open();
    host.disk
        .fail(host.disk.operations() + 3, Fault::Error(EIO));
    let retry = Duration::from_millis(20);
    let (mut writer, mut news) = Writer::start_with(host.place(), Some(file), retry).unwrap();
    writer.write(entries(1, 2), Some(ME));
    assert!(matches!(news.blocking_recv(), Some(News::Written(2))));
    writer.write(entries(3, 2), Some(ME));
    let Some(News::Failed(3, why)) = news.blocking_recv() else {
        panic!("the failed write was not told");
    };
    assert!(why.contains("/state/ledger"), "{why}");
    // What follows from the refused one goes the same way, even after the disk works again.
    writer.write(vec![entry(99)], Some(ME));
    let Some(News::Reopened(found)) = news.blocking_recv() else {
        panic!("it was not opened anew");
    };
    writer.write(vec![entry(99)], Some(ME));
    // The sync failed, not the append: the batch is there, and durable now.
    assert_eq!(found.entries, entries(1, 4));
    assert_eq!(found.standing, Standing::Current);
    writer.resume();
    writer.write(vec![entry(5)], Some(ME));
    assert!(matches!(news.blocking_recv(), Some(News::Written(5))));
    writer.finish();
    assert_eq!(host.open().1.entries, entries(1, 5));
}

/// What is on its way to the disk when the process dies or the host is cut off.
fn hand_over(host: &Host, found: &Found, count: u64) -> Tail {
    let mut tail = Tail::beside(&host.place().token);
    tail.begin(found.written);
    for number in found.written + 1..=found.written + count {
        assert!(tail.hand_over(&[entry(number)]), "memory takes it");
    }
    tail
}

#[test]
fn what_was_handed_over_outlives_the_process_at_every_operation_of_the_disk_but_not_the_host() {
    let whole = Host::new(keep);
    live(&whole, 12);
    let operations = whole.disk.operations();
    let (mut killed, mut cut) = (0, 0);
    for at in 0..=operations {
        let host = Host::new(keep);
        host.disk.fail(at, Fault::Cut);
        let Ok((mut file, found)) = host.place().open() else {
            continue;
        };
        // Each entry is handed over before the disk is asked; the first one has made the token.
        let mut tail = hand_over(&host, &found, 0);
        let (mut confirmed, mut handed_over) = (0, 0);
        for number in 1..=12 {
            assert!(tail.hand_over(&[entry(number)]));
            handed_over = number;
            match file.commit(&[entry(number)], Some(ME)) {
                Ok(written) => confirmed = written,
                Err(_) => break,
            }
            tail.confirm(confirmed);
        }
        for image in host.disk.survivors(Tears::Few) {
            let (_, found) = Host::with(SimDisk::with(&image), keep).open();
            assert!(
                (confirmed..=handed_over).contains(&found.written),
                "{found:?}"
            );
            cut += 1;
        }
        if confirmed == 0 {
            continue;
        }
        let again = Host {
            disk: SimDisk::with(&host.disk.visible()),
            ..host
        };
        for _ in 0..2 {
            let (_, found) = again.open();
            assert_eq!(found.standing, Standing::Current);
            assert_eq!(found.entries, entries(1, handed_over), "cut at {at}");
            assert!(!again.place().token.with_file_name(LEDGER_TAIL).exists());
        }
        killed += 1;
    }
    println!("{killed} processes killed, {cut} disks after a power cut");
    assert!(killed > 5 && cut > 20);
}

#[test]
fn a_tail_that_cannot_be_of_this_ledger_is_not_used() {
    // An older copy of the folder.
    let host = Host::new(keep);
    live(&host, 2);
    let old = host.disk.visible();
    let (mut file, found) = host.open();
    hand_over(&host, &found, 3);
    file.commit(&entries(found.written + 1, 1), Some(ME))
        .unwrap();
    let restored = Host {
        disk: SimDisk::with(&old),
        ..host
    };
    let (_, found) = restored.open();
    assert_eq!((found.standing, found.written), (Standing::RolledBack, 3));
    // Another boot.
    let host = Host::new(keep);
    live(&host, 2);
    let (_, found) = host.open();
    hand_over(&host, &found, 3);
    let token = Token::new(&host.place().token, "another boot");
    let (_, found) = host.place().open_with(token).unwrap();
    assert_eq!((found.standing, found.written), (Standing::Unproven, 3));
    // It was of the life before, and says nothing to the one after the next.
    assert_eq!(host.open().1.written, 3);
    // The ledger is lost.
    let host = Host::new(keep);
    live(&host, 2);
    let (_, found) = host.open();
    hand_over(&host, &found, 3);
    let lost = Host::with(SimDisk::with_folders(&[Path::new(FOLDER)]), keep);
    let lost = Host {
        disk: lost.disk,
        ..host
    };
    let (_, found) = lost.open();
    assert_eq!((found.standing, found.written), (Standing::Nothing, 0));
    assert_eq!(lost.open().1.written, 0);
}

#[test]
fn a_long_tail_is_begun_anew_and_keeps_what_is_not_durable() {
    let host = Host::new(keep);
    live(&host, 2);
    let (mut file, found) = host.open();
    let mut tail = hand_over(&host, &found, 0);
    let path = host.place().token.with_file_name(LEDGER_TAIL);
    let (mut longest, mut last) = (0, found.written);
    for _ in 0..200 {
        let some = entries(last + 1, 300);
        assert!(tail.hand_over(&some));
        last += 300;
        longest = longest.max(std::fs::metadata(&path).unwrap().len());
        // The disk is a little behind.
        tail.confirm(last - 40);
    }
    assert!((200_000..400_000).contains(&longest), "{longest}");
    file.commit(&entries(found.written + 1, 59_980), Some(ME))
        .unwrap();
    assert_eq!(host.open().1.entries, entries(1, last));
}

#[test]
fn where_no_tail_can_be_written_the_disk_is_waited_for_and_later_it_has_all() {
    let host = Host::new(keep);
    live(&host, 2);
    let (_, found) = host.open();
    let mut tail = hand_over(&host, &found, 0);
    let path = host.place().token.with_file_name("ledger-tail.new");
    std::fs::create_dir(&path).unwrap();
    assert!(!tail.hand_over(&entries(4, 2)));
    assert!(!tail.hand_over(&entries(6, 1)));
    std::fs::remove_dir(&path).unwrap();
    assert!(tail.hand_over(&entries(7, 1)));
    assert_eq!(host.open().1.entries, entries(1, 7));
}

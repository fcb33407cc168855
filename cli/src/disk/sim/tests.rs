//! The simulated disk behaves as the real one, and finds the mistakes it is there to find.

use super::super::RealDisk;
use super::*;

const FOLDER: &str = "/d";

fn disk() -> SimDisk {
    SimDisk::with_folders(&[Path::new(FOLDER)])
}

fn at(name: &str) -> PathBuf {
    Path::new(FOLDER).join(name)
}

/// What may be left of a file, `None` for a file that is not there.
fn left(disk: &SimDisk, name: &str) -> BTreeSet<Option<Vec<u8>>> {
    let images = disk.survivors(Tears::Every).into_iter();
    let bytes = |image: Image| match image.get(&at(name)) {
        Some(Content::File(_, bytes)) => Some(bytes.clone()),
        _ => None,
    };
    images.map(bytes).collect()
}

fn put(disk: &SimDisk, name: &str, bytes: &[u8], sync: bool) {
    let mut file = disk.create(&at(name)).unwrap();
    file.append(bytes).unwrap();
    if sync {
        file.sync().unwrap();
    }
}

#[test]
fn what_was_not_synced_survives_in_any_part_or_not_at_all() {
    let disk = disk();
    put(&disk, "a", b"abcd", false);
    let found = left(&disk, "a");
    let expected: [&[u8]; 7] = [b"", b"a", b"ab", b"abc", b"abcd", b"\0\0\0\0", b"\0\0cd"];
    assert!(found.contains(&None));
    for bytes in expected {
        assert!(found.contains(&Some(bytes.into())), "{bytes:?}");
    }
    disk.sync_folder(Path::new(FOLDER)).unwrap();
    assert!(!left(&disk, "a").contains(&None));
    disk.open(&at("a")).unwrap().sync().unwrap();
    assert_eq!(left(&disk, "a"), [Some(b"abcd".to_vec())].into());
}

#[test]
fn a_file_written_without_sync_before_its_rename_may_be_torn() {
    for (sync, safe) in [(false, false), (true, true)] {
        let disk = disk();
        put(&disk, "a", b"old", true);
        disk.sync_folder(Path::new(FOLDER)).unwrap();
        put(&disk, "new", b"new!", sync);
        disk.rename(&at("new"), &at("a")).unwrap();
        let whole = [Some(b"old".to_vec()), Some(b"new!".to_vec())];
        assert_eq!(
            left(&disk, "a").iter().all(|found| whole.contains(found)),
            safe
        );
    }
}

#[test]
fn a_rename_is_lost_unless_the_folder_is_synced() {
    let disk = disk();
    put(&disk, "new", b"x", true);
    disk.rename(&at("new"), &at("a")).unwrap();
    assert!(left(&disk, "a").contains(&None));
    disk.sync_folder(Path::new(FOLDER)).unwrap();
    assert_eq!(left(&disk, "a"), [Some(b"x".to_vec())].into());
    assert_eq!(left(&disk, "new"), [None].into());
}

#[test]
fn what_is_in_a_new_folder_is_lost_with_it() {
    let disk = disk();
    disk.make_folder(&at("inner")).unwrap();
    put(&disk, "inner/a", b"x", true);
    disk.sync_folder(&at("inner")).unwrap();
    assert!(left(&disk, "inner/a").contains(&None));
    disk.sync_folder(Path::new(FOLDER)).unwrap();
    assert_eq!(left(&disk, "inner/a"), [Some(b"x".to_vec())].into());
}

#[test]
fn after_a_failed_sync_nothing_is_durable_though_the_next_one_succeeds() {
    let disk = disk();
    put(&disk, "a", b"", true);
    disk.sync_folder(Path::new(FOLDER)).unwrap();
    let mut file = disk.open(&at("a")).unwrap();
    file.append(b"xy").unwrap();
    disk.fail(disk.operations(), Fault::Error(libc::EIO));
    assert_eq!(file.sync().unwrap_err().raw_os_error(), Some(libc::EIO));
    file.sync().unwrap();
    assert!(left(&disk, "a").contains(&Some(vec![])));
}

/// A log of records with a length and a sum, as a ledger keeps one: whoever opens it cuts off what is
/// torn, and puts a shortened copy in its place.
mod log {
    use super::*;

    const NAME: &str = "log";

    fn sum(bytes: &[u8]) -> u8 {
        let add = |sum: u8, byte: &u8| sum.rotate_left(3) ^ byte ^ 0x5a;
        bytes.iter().fold(0xa7, add)
    }

    fn record(bytes: &[u8]) -> Vec<u8> {
        [&[bytes.len() as u8], bytes, &[sum(bytes)]].concat()
    }

    /// The whole records, and how many bytes they take.
    fn parse(bytes: &[u8]) -> (Vec<Vec<u8>>, usize) {
        let (mut records, mut used) = (Vec::new(), 0);
        while let Some((&len, rest)) = bytes[used..].split_first() {
            let len = usize::from(len);
            match (rest.get(..len), rest.get(len)) {
                (Some(body), Some(&found)) if found == sum(body) => records.push(body.to_vec()),
                _ => break,
            }
            used += len + 2;
        }
        (records, used)
    }

    type Opened = (Vec<Vec<u8>>, Box<dyn DiskFile>);

    /// Opens the log, made if it is not there, and cuts off a torn tail.
    fn open(disk: &SimDisk) -> io::Result<Opened> {
        if !disk.exists(&at(NAME))? {
            let mut file = disk.create(&at(NAME))?;
            file.sync()?;
        }
        disk.sync_folder(Path::new(FOLDER))?;
        let bytes = disk.read(&at(NAME), u64::MAX)?;
        let (records, used) = parse(&bytes);
        let mut file = disk.open(&at(NAME))?;
        if used < bytes.len() {
            file.truncate(used as u64)?;
            file.sync()?;
        }
        Ok((records, file))
    }

    /// Appends two groups, each confirmed by a sync, then a snapshot that replaces the log; returns
    /// what was confirmed.
    fn work(disk: &SimDisk) -> Vec<Vec<u8>> {
        let mut confirmed = Vec::new();
        let mut run = || -> io::Result<()> {
            let (mut records, mut file) = open(disk)?;
            confirmed.clone_from(&records);
            for group in [
                [b"one".to_vec(), b"two".to_vec()],
                [b"three".to_vec(), vec![]],
            ] {
                let bytes: Vec<u8> = group.iter().flat_map(|body| record(body)).collect();
                file.append(&bytes)?;
                file.sync()?;
                records.extend(group);
                confirmed.clone_from(&records);
            }
            let mut snapshot = disk.create(&at("log.new"))?;
            let bytes: Vec<u8> = records.iter().flat_map(|body| record(body)).collect();
            snapshot.append(&bytes)?;
            snapshot.sync()?;
            disk.rename(&at("log.new"), &at(NAME))?;
            disk.sync_folder(Path::new(FOLDER))
        };
        let _ = run();
        confirmed
    }

    #[test]
    fn a_log_keeps_every_confirmed_record_and_its_torn_tail_is_cut() {
        let whole = disk();
        let all = work(&whole);
        assert_eq!(all.len(), 4);
        let (mut survivors, mut torn) = (0, 0);
        for cut in 0..=whole.operations() {
            let disk = disk();
            disk.fail(cut, Fault::Cut);
            let confirmed = work(&disk);
            for image in disk.survivors(Tears::Every) {
                survivors += 1;
                let after = SimDisk::with(&image);
                let before = after.read(&at(NAME), u64::MAX).unwrap_or_default().len();
                let (records, mut file) = open(&after).unwrap();
                assert!(records.starts_with(&confirmed), "{records:?} {confirmed:?}");
                assert!(all.starts_with(&records), "{records:?}");
                torn += usize::from(after.read(&at(NAME), u64::MAX).unwrap().len() < before);
                file.append(&record(b"more")).unwrap();
                assert_eq!(
                    parse(&after.read(&at(NAME), u64::MAX).unwrap())
                        .0
                        .last()
                        .unwrap(),
                    b"more"
                );
            }
        }
        println!(
            "{} cuts, {survivors} survivors, {torn} torn tails",
            whole.operations() + 1
        );
        assert!(torn > 10);
    }
}

#[test]
fn both_disks_do_and_refuse_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let real = outcomes(&RealDisk, folder.path());
    let simulated = outcomes(
        &SimDisk::with_folders(&[Path::new("/r/s")]),
        Path::new("/r/s"),
    );
    assert_eq!(real, simulated);
}

/// How every operation ends, on what is there and on what is not.
fn outcomes(disk: &dyn Disk, folder: &Path) -> Vec<String> {
    let at = |name: &str| folder.join(name);
    let mut outcomes = Vec::new();
    let mut note = |result: io::Result<String>| {
        outcomes.push(result.unwrap_or_else(|cause| format!("{:?}", cause.kind())));
    };
    let done = |()| "done".to_owned();
    let opened = |_: Box<dyn DiskFile>| "open".to_owned();
    note(disk.make_folder(&at("f")).map(done));
    note(disk.make_folder(&at("f")).map(done));
    note(disk.make_folder(&at("x/y")).map(done));
    note(disk.create(&at("x/y")).map(opened));
    note(disk.open(&at("a")).map(opened));
    note(disk.read(&at("a"), 9).map(|bytes| format!("{bytes:?}")));
    note(disk.remove(&at("a")).map(done));
    note(disk.rename(&at("a"), &at("b")).map(done));
    let mut file = disk.create(&at("a")).unwrap();
    note(disk.create(&at("a")).map(opened));
    note(file.append(b"hello").map(done));
    note(file.truncate(4).map(done));
    note(file.append(b"!").map(done));
    note(file.sync().map(done));
    note(disk.open(&at("a")).unwrap().append(b"?").map(done));
    for len_max in [0, 3, 99] {
        note(
            disk.read(&at("a"), len_max)
                .map(|bytes| format!("{bytes:?}")),
        );
    }
    note(disk.rename(&at("a"), &at("b")).map(done));
    note(disk.exists(&at("a")).map(|there| there.to_string()));
    note(disk.exists(&at("b")).map(|there| there.to_string()));
    note(disk.list(folder).map(|mut names| {
        names.sort();
        names.join(" ")
    }));
    note(disk.sync_folder(folder).map(done));
    note(disk.remove(&at("b")).map(done));
    note(disk.list(&at("f")).map(|names| names.join(" ")));
    outcomes
}

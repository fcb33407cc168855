//! A model of the disk a ledger is kept on: writes are confirmed late and in order, a crash keeps
//! any part of the one under way, and the whole can be lost, damaged or restored from a backup.

use rmesh_ipam::log;

use super::super::random::Random;

/// A file longer than this, in bytes, is begun anew from a snapshot.
const FILE_LEN_MAX: usize = 48 << 10;
/// Backups kept.
const BACKUPS_MAX: usize = 8;
/// A backup is made after one of so many commits.
const BACKUP_EVERY: usize = 12;

/// What a crash leaves of the write under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remains {
    /// Nothing.
    Nothing,
    /// Some first part of it.
    Torn,
    /// All of it, though it was never confirmed.
    Whole,
}

impl Remains {
    pub(super) fn any(random: &mut Random) -> Self {
        match random.below(3) {
            0 => Remains::Nothing,
            1 => Remains::Torn,
            _ => Remains::Whole,
        }
    }
}

/// What the host remembers in its run folder until it is rebooted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) incarnation: u64,
    pub(super) written: u64,
}

/// One write under way.
struct Flight {
    bytes: Vec<u8>,
    /// It becomes the whole file, by a rename.
    replaces: bool,
    number: u64,
}

/// A disk with one file.
#[derive(Default)]
pub(super) struct Disk {
    /// What would be read after a crash.
    file: Vec<u8>,
    queued: Vec<Vec<u8>>,
    queued_number: u64,
    flight: Option<Flight>,
    /// Writes that are not durable yet and outlive the process, but not the host, with their numbers.
    tail: Vec<(u64, Vec<u8>)>,
    backups: Vec<Vec<u8>>,
}

impl Disk {
    /// Takes an entry that is to be written.
    pub(super) fn queue(&mut self, number: u64, entry: Vec<u8>) {
        self.tail.push((number, entry.clone()));
        self.queued.push(entry);
        self.queued_number = number;
    }

    /// Whether a write is to be begun now.
    pub(super) fn is_due(&self) -> bool {
        self.flight.is_none() && !self.queued.is_empty()
    }

    /// Whether the file has grown so long that it should be begun anew.
    pub(super) fn is_long(&self) -> bool {
        self.file.len() > FILE_LEN_MAX
    }

    /// Begins to append everything queued. Returns its last number.
    pub(super) fn begin_append(&mut self) -> u64 {
        let entries = core::mem::take(&mut self.queued);
        let appended = log::batches(&entries).concat();
        let replaces = self.file.is_empty();
        let mut bytes = Vec::new();
        if replaces {
            bytes = log::begin(&[], 0);
        }
        bytes.extend_from_slice(&appended);
        self.fly(bytes, replaces, self.queued_number)
    }

    /// Begins to write a snapshot that stands for everything queued.
    pub(super) fn begin_snapshot(&mut self, snapshot: &[Vec<u8>], number: u64) -> u64 {
        self.queued.clear();
        self.fly(log::begin(snapshot, number), true, number)
    }

    fn fly(&mut self, bytes: Vec<u8>, replaces: bool, number: u64) -> u64 {
        self.flight = Some(Flight {
            bytes,
            replaces,
            number,
        });
        number
    }

    /// The write under way is durable. Returns its last number.
    pub(super) fn complete(&mut self, random: &mut Random) -> Option<u64> {
        let flight = self.flight.take()?;
        self.keep(&flight, flight.bytes.len());
        self.tail.retain(|(number, _)| *number > flight.number);
        if random.below(BACKUP_EVERY) == 0 {
            if self.backups.len() >= BACKUPS_MAX {
                let at = random.below(BACKUPS_MAX);
                self.backups.remove(at);
            }
            self.backups.push(self.file.clone());
        }
        Some(flight.number)
    }

    fn keep(&mut self, flight: &Flight, len: usize) {
        if !flight.replaces {
            self.file.extend_from_slice(&flight.bytes[..len]);
        } else if len == flight.bytes.len() {
            self.file.clone_from(&flight.bytes);
        }
    }

    /// The disk refuses the write under way. Returns its number.
    pub(super) fn refuse(&mut self) -> Option<u64> {
        self.queued.clear();
        self.flight.take().map(|flight| flight.number)
    }

    /// The process or the host is gone: what was only queued is lost.
    pub(super) fn crash(&mut self, remains: Remains, random: &mut Random) {
        self.queued.clear();
        let Some(flight) = self.flight.take() else {
            return;
        };
        let len = match remains {
            Remains::Nothing => 0,
            Remains::Torn => random.below(flight.bytes.len()),
            Remains::Whole => flight.bytes.len(),
        };
        self.keep(&flight, len);
    }

    /// What is durable, whatever is under way: every entry, and the number of the last write.
    /// `None` if there is no file, or none that can be trusted.
    pub(super) fn durable(&self) -> Option<(Vec<Vec<u8>>, u64)> {
        if self.file.is_empty() {
            return None;
        }
        let log = log::read(&self.file).ok()?;
        let entries = log.entries.iter().map(|entry| entry.to_vec()).collect();
        Some((entries, log.written))
    }

    /// The same with what outlives the process.
    pub(super) fn outliving(&self) -> Option<(Vec<Vec<u8>>, u64)> {
        let (mut entries, mut written) = self.durable()?;
        for (number, entry) in &self.tail {
            if *number == written + 1 {
                entries.push(entry.clone());
                written = *number;
            }
        }
        Some((entries, written))
    }

    /// What a starting daemon, whose ledger is no older one, finds beyond it; that is brought to the disk.
    pub(super) fn take_tail(&mut self) -> Option<(Vec<Vec<u8>>, u64)> {
        let (all, number) = self.outliving()?;
        let (_, written) = self.durable()?;
        let later = usize::try_from(number - written).unwrap_or_default();
        let tail = all[all.len() - later..].to_vec();
        self.file.extend(log::batches(&tail).concat());
        self.tail.clear();
        Some((all, number))
    }

    /// The host is gone, and what only its memory had.
    pub(super) fn forget_tail(&mut self) {
        self.tail.clear();
    }

    /// What a starting daemon finds. It cuts a torn tail and moves aside what is damaged.
    pub(super) fn recover(&mut self) -> Option<(Vec<Vec<u8>>, u64)> {
        let found = self.durable();
        match log::read(&self.file).map(|log| log.len) {
            Ok(len) => self.file.truncate(len),
            Err(_) => self.file.clear(),
        }
        found
    }

    /// The file is gone.
    pub(super) fn lose(&mut self) {
        self.file.clear();
        self.tail.clear();
        self.backups.clear();
    }

    /// Some bit of what was confirmed is another.
    pub(super) fn damage(&mut self, random: &mut Random) {
        let at = random.below(self.file.len());
        if let Some(byte) = self.file.get_mut(at) {
            *byte ^= 1 << random.below(8);
        }
    }

    /// Some older state of the file.
    pub(super) fn backup(&self, random: &mut Random) -> Option<Vec<u8>> {
        random.pick(&self.backups).cloned()
    }

    /// The file is `file` again; backups that are newer go with it.
    pub(super) fn restore(&mut self, file: Vec<u8>) {
        self.file = file;
        self.backups.clear();
    }

    /// Like [`Disk::durable`], of a backup.
    pub(super) fn entries_of(file: &[u8]) -> Option<(Vec<Vec<u8>>, u64)> {
        let log = log::read(file).ok()?;
        let entries = log.entries.iter().map(|entry| entry.to_vec()).collect();
        Some((entries, log.written))
    }
}

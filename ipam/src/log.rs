//! The form of the file that keeps a ledger: a head, then batches of entries.
//!
//! ```text
//! head    "rmesh-ledger" | version u8 | base u64 | snapshot u32 | sum u32
//! batch   len u32 | sum u32 | entries           len counts the bytes of the entries
//! entry   len u32 | bytes
//! ```
//!
//! Integers are big-endian; `sum` is a CRC-32 (IEEE 802.3) of everything before it in the head, and
//! of `len` and the entries in a batch. The first `snapshot` entries are a snapshot that stands for
//! all writes up to number `base`; those after them are numbered `base + 1` and up.
//!
//! A batch is what one append wrote, and the next append begins only after the disk has confirmed
//! the last. So a batch that is damaged with nothing whole behind it never was confirmed: it is a
//! torn tail and is cut. One that is damaged with a whole one behind it was confirmed, and the file
//! cannot be trusted.

use alloc::vec::Vec;

/// How a ledger file begins.
const MAGIC: &[u8; 12] = b"rmesh-ledger";
/// Version of the form.
const VERSION: u8 = 1;
/// Bytes of the head.
const HEAD_LEN: usize = MAGIC.len() + 1 + 8 + 4 + 4;
/// Bytes before the entries of a batch.
const BATCH_HEAD_LEN: usize = 8;
/// Bytes before an entry.
const ENTRY_HEAD_LEN: usize = 4;
/// Bytes of entries in one batch, at most: what is lost at once if a batch is torn was never
/// confirmed, so this bounds only the memory that a reader takes.
pub const BATCH_LEN_MAX: usize = 1 << 20;

/// Why a ledger file cannot be used. It has not been changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// It does not begin as a ledger file does.
    #[error("it is no ledger file")]
    NotALog,
    /// Another version of the form.
    #[error("it is of version {0} of the ledger file, this rmesh reads version {VERSION}")]
    Version(u8),
    /// Its head is damaged.
    #[error("its head is damaged")]
    Head,
    /// A batch that the disk had confirmed is damaged.
    #[error("it is damaged at byte {at}, with whole entries behind")]
    Damaged {
        /// Where, in bytes from its beginning.
        at: usize,
    },
    /// It ends within its snapshot, which was written whole before the file got its name.
    #[error("its snapshot is cut short")]
    Snapshot,
}

/// What a ledger file holds.
#[derive(Debug, PartialEq, Eq)]
pub struct Log<'a> {
    /// Every entry, in the order they were written.
    pub entries: Vec<&'a [u8]>,
    /// Number of the last write in it.
    pub written: u64,
    /// Bytes of the file that are whole; what follows is a torn tail, to be cut.
    pub len: usize,
}

/// The beginning of a file: a snapshot that stands for all writes up to number `base`.
///
/// Entries longer than a batch may be are left out; no entry comes near.
pub fn begin(snapshot: &[Vec<u8>], base: u64) -> Vec<u8> {
    let mut bytes = Vec::from(MAGIC.as_slice());
    bytes.push(VERSION);
    bytes.extend_from_slice(&base.to_be_bytes());
    let count = u32::try_from(snapshot.len()).unwrap_or(u32::MAX);
    bytes.extend_from_slice(&count.to_be_bytes());
    let sum = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&sum.to_be_bytes());
    for batch in batches(snapshot) {
        bytes.extend_from_slice(&batch);
    }
    bytes
}

/// What has to be appended for these entries, to be confirmed by the disk before the next.
pub fn batches(entries: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut batches = Vec::new();
    let mut body = Vec::new();
    for entry in entries {
        let len = ENTRY_HEAD_LEN + entry.len();
        if !body.is_empty() && body.len() + len > BATCH_LEN_MAX {
            batches.push(seal(&core::mem::take(&mut body)));
        }
        body.extend_from_slice(&length(entry).to_be_bytes());
        body.extend_from_slice(entry);
    }
    if !body.is_empty() {
        batches.push(seal(&body));
    }
    batches
}

fn seal(body: &[u8]) -> Vec<u8> {
    let len = length(body).to_be_bytes();
    let mut batch = Vec::with_capacity(BATCH_HEAD_LEN + body.len());
    batch.extend_from_slice(&len);
    batch.extend_from_slice(&sum(len, body).to_be_bytes());
    batch.extend_from_slice(body);
    batch
}

fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

fn sum(len: [u8; 4], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&len);
    hasher.update(body);
    hasher.finalize()
}

/// Reads a whole file.
///
/// # Errors
/// The file cannot be trusted. A torn tail is none: [`Log::len`] says where it begins.
pub fn read(bytes: &[u8]) -> Result<Log<'_>, LogError> {
    let (base, snapshot) = head(bytes)?;
    let mut entries = Vec::new();
    let mut at = HEAD_LEN;
    while let Some(body) = batch(bytes, at) {
        let Some(list) = split(body) else {
            return Err(LogError::Damaged { at });
        };
        entries.extend(list);
        at += BATCH_HEAD_LEN + body.len();
    }
    if (at + 1..bytes.len()).any(|later| batch(bytes, later).is_some()) {
        return Err(LogError::Damaged { at });
    }
    let later = entries
        .len()
        .checked_sub(snapshot)
        .ok_or(LogError::Snapshot)?;
    Ok(Log {
        entries,
        written: base.saturating_add(u64::try_from(later).unwrap_or(u64::MAX)),
        len: at,
    })
}

/// Number of the last write of the snapshot, and how many entries it has.
fn head(bytes: &[u8]) -> Result<(u64, usize), LogError> {
    let rest = bytes.strip_prefix(MAGIC).ok_or(LogError::NotALog)?;
    let (&version, rest) = rest.split_first().ok_or(LogError::Head)?;
    if version != VERSION {
        return Err(LogError::Version(version));
    }
    let (base, rest) = rest.split_first_chunk::<8>().ok_or(LogError::Head)?;
    let (snapshot, rest) = rest.split_first_chunk::<4>().ok_or(LogError::Head)?;
    let (sum, _) = rest.split_first_chunk::<4>().ok_or(LogError::Head)?;
    let whole = bytes.get(..HEAD_LEN - 4).ok_or(LogError::Head)?;
    if crc32fast::hash(whole).to_be_bytes() != *sum {
        return Err(LogError::Head);
    }
    let snapshot = usize::try_from(u32::from_be_bytes(*snapshot)).map_err(|_| LogError::Head)?;
    Ok((u64::from_be_bytes(*base), snapshot))
}

/// The entries of a whole batch at `at`.
fn batch(bytes: &[u8], at: usize) -> Option<&[u8]> {
    let (len, rest) = bytes.get(at..)?.split_first_chunk::<4>()?;
    let (expected, rest) = rest.split_first_chunk::<4>()?;
    let body_len = usize::try_from(u32::from_be_bytes(*len)).ok()?;
    // None is empty; a file system may leave zeros where nothing was written.
    if body_len == 0 || body_len > BATCH_LEN_MAX {
        return None;
    }
    let body = rest.get(..body_len)?;
    (sum(*len, body).to_be_bytes() == *expected).then_some(body)
}

fn split(mut body: &[u8]) -> Option<Vec<&[u8]>> {
    let mut entries = Vec::new();
    while !body.is_empty() {
        let (len, rest) = body.split_first_chunk::<4>()?;
        let len = usize::try_from(u32::from_be_bytes(*len)).ok()?;
        entries.push(rest.get(..len)?);
        body = rest.get(len..)?;
    }
    Some(entries)
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    fn entry(n: u8) -> Vec<u8> {
        vec![n; usize::from(n) + 1]
    }

    /// A file with a snapshot of two entries and three appends, and where each append begins.
    fn file() -> (Vec<u8>, Vec<usize>) {
        let mut bytes = begin(&[entry(1), entry(2)], 40);
        let mut starts = Vec::new();
        for append in [vec![entry(3)], vec![entry(4), entry(5)], vec![entry(6)]] {
            for batch in batches(&append) {
                starts.push(bytes.len());
                bytes.extend_from_slice(&batch);
            }
        }
        (bytes, starts)
    }

    #[test]
    fn what_was_written_is_read() {
        let (bytes, _) = file();
        let log = read(&bytes).unwrap();
        let expected: Vec<Vec<u8>> = (1..=6).map(entry).collect();
        assert_eq!(log.entries, expected);
        assert_eq!((log.written, log.len), (44, bytes.len()));
        assert_eq!(read(&begin(&[], 7)).unwrap().written, 7);
    }

    #[test]
    fn a_tail_torn_anywhere_is_cut_whatever_is_left_of_it() {
        let (bytes, starts) = file();
        let last = starts[2];
        for end in last..bytes.len() {
            assert_eq!(read(&bytes[..end]).unwrap().len, last);
            let mut zeros = bytes.clone();
            zeros[end..].fill(0);
            zeros.resize(bytes.len() + 4_096, 0);
            assert_eq!(read(&zeros).unwrap().len, last);
            assert_eq!(read(&zeros).unwrap().written, 43);
        }
    }

    #[test]
    fn damage_in_confirmed_entries_is_told_at_every_bit() {
        let (bytes, starts) = file();
        for bit in 0..starts[2] * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&damaged).is_err(), "bit {bit} went unnoticed");
        }
    }

    #[test]
    fn a_file_cut_within_its_snapshot_is_no_torn_tail() {
        let (bytes, _) = file();
        assert_eq!(read(&bytes[..HEAD_LEN]), Err(LogError::Snapshot));
        assert_eq!(read(&bytes[..HEAD_LEN - 1]), Err(LogError::Head));
        assert_eq!(read(b""), Err(LogError::NotALog));
        let mut newer = bytes;
        newer[MAGIC.len()] = 2;
        assert_eq!(read(&newer), Err(LogError::Version(2)));
    }

    #[test]
    fn many_entries_become_several_batches() {
        let entries: Vec<Vec<u8>> = (0..40).map(|n| vec![n; 60_000]).collect();
        assert!(batches(&entries).len() > 2);
        assert_eq!(read(&begin(&entries, 0)).unwrap().entries, entries);
    }
}

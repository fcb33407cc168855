//! What fuzzers drive: what peers send about addresses, and what the disk gives back as a ledger.

use alloc::vec::Vec;

use rmesh_wire::Instant;

use crate::entry::Entry as Write;
use crate::ledger::Ledger;
use crate::log;
use crate::message::Message;

mod kinds;
mod member;
mod seeds;

use member::Member;
pub use seeds::seeds;

/// A target's name and what it does with one input.
pub type Entry = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Entry] = &[("ipam_message", message), ("ipam_log", ledger_file)];

/// Steps of one input that a member takes.
const STEPS_MAX: usize = 256;
/// Bytes before the text of a step: what it is, and the length.
const STEP_HEAD_LEN: usize = 3;

/// An input as steps: what it is in a byte, a length of two, and that many bytes or all that is left.
fn steps(mut bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    core::iter::from_fn(move || {
        let (&[what, high, low], rest) = bytes.split_first_chunk::<STEP_HEAD_LEN>()?;
        let len = usize::from(u16::from_be_bytes([high, low]));
        let (text, rest) = rest.split_at(len.min(rest.len()));
        bytes = rest;
        Some((what, text))
    })
}

/// One step, as [`steps`] reads it.
fn step(what: u8, text: &[u8]) -> Vec<u8> {
    let len = u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes();
    [&[what], len.as_slice(), text].concat()
}

/// What two peers say to a founder, in time, beside what its own clients want: it answers every client in
/// time, and what it wrote is what it holds.
fn message(bytes: &[u8]) {
    let mut member = Member::founder();
    for (what, text) in steps(bytes).take(STEPS_MAX) {
        if let Some(message) = Message::decode(text) {
            assert_eq!(message.encode().as_deref(), Some(text));
        }
        member.take(what, text);
    }
    member.end();
}

/// A ledger file as it was found; and a whole one of these entries, and as much of it as a power cut
/// left.
fn ledger_file(bytes: &[u8]) {
    if let Ok(found) = log::read(bytes) {
        assert!(found.len <= bytes.len());
        fold(&found.entries);
    }
    let entries: Vec<Vec<u8>> = steps(bytes).map(|(_, text)| text.to_vec()).collect();
    let (snapshot, later) = entries.split_at(entries.len() / 2);
    let mut file = log::begin(snapshot, 7);
    let begun = file.len();
    log::batches(later)
        .iter()
        .for_each(|batch| file.extend_from_slice(batch));
    let found = log::read(&file).expect("a whole file");
    assert_eq!(found.entries, entries);
    assert_eq!(
        (found.written, found.len),
        (7 + later.len() as u64, file.len())
    );
    fold(&found.entries);
    let torn = begun + (file.len() - begun) / 2;
    match log::read(file.get(..torn).unwrap_or_default()) {
        Ok(left) => assert!(entries.iter().zip(&left.entries).all(|(a, b)| a == b)),
        // What is left of an entry may itself look like a batch: then rather too much is refused.
        Err(why) => assert_eq!(why, log::LogError::Damaged { at: begun }),
    }
}

/// Entries that are some lead to a state that its own snapshot leads to again.
fn fold(entries: &[&[u8]]) {
    let known: Vec<&[u8]> = entries
        .iter()
        .copied()
        .filter(|bytes| match Write::decode(bytes) {
            Ok(entry) => {
                assert_eq!(entry.encode().as_deref(), Ok(*bytes));
                true
            }
            Err(_) => false,
        })
        .collect();
    let all = Ledger::fold(entries.iter().copied(), Instant::ZERO);
    assert_eq!(all.is_ok(), known.len() == entries.len());
    drop(all);
    let ledger = Ledger::fold(known, Instant::ZERO).expect("entries that are some");
    let snapshot = ledger.snapshot();
    let again = Ledger::fold(snapshot.iter().map(Vec::as_slice), Instant::ZERO);
    let again = again.expect("a snapshot is entries");
    assert_eq!(again.snapshot(), snapshot);
}

//! Which floods were seen, and how many a source may send.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::{Duration, Instant};

use rmesh_wire::ShortId;
use rmesh_wire::flood::FloodHeader;

use super::bucket::Bucket;
use super::replay::ReplayWindow;
use super::stats::Reason;

/// Floods a second a source may send, and how many at once (DESIGN D7).
pub(crate) const FLOODS_PER_SECOND: u32 = 1_000;
/// Sources remembered: as many as the mesh may have peers.
const SOURCES_MAX: usize = 16_384;
/// 64-bit words of a source's window: 960 floods, about a second's worth.
const FLOOD_WORDS: usize = 16;

/// An allowance of [`FLOODS_PER_SECOND`], one second deep.
pub(crate) fn allowance(now: Instant) -> Bucket {
    Bucket::full(FLOODS_PER_SECOND, Duration::from_secs(1), now)
}

struct Source {
    boot: u64,
    /// The life before: what still comes of it is late.
    boot_before: Option<u64>,
    window: ReplayWindow<FLOOD_WORDS>,
    bucket: Bucket,
}

/// State of every source heard.
#[derive(Default)]
pub(crate) struct Floods {
    sources: HashMap<ShortId, Source>,
}

impl Floods {
    /// Whether a flood accepted from its tree parent is to be carried: new, and not a storm.
    pub(crate) fn accept(&mut self, header: &FloodHeader, now: Instant) -> Result<(), Reason> {
        let is_full = self.sources.len() >= SOURCES_MAX;
        let source = match self.sources.entry(header.source) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(_) if is_full => return Err(Reason::FloodParent),
            Entry::Vacant(new) => new.insert(Source {
                boot: header.boot,
                boot_before: None,
                window: ReplayWindow::default(),
                bucket: allowance(now),
            }),
        };
        if source.boot_before == Some(header.boot) {
            return Err(Reason::FloodRepeated);
        }
        if source.boot != header.boot {
            source.boot_before = Some(source.boot);
            source.boot = header.boot;
            source.window = ReplayWindow::default();
        }
        if !source.window.accept(header.sequence) {
            return Err(Reason::FloodRepeated);
        }
        source.bucket.take(now).then_some(()).ok_or(Reason::Storm)
    }

    /// Forgets the sources that are no longer `known`.
    pub(crate) fn retain(&mut self, known: impl Fn(ShortId) -> bool) {
        self.sources.retain(|&source, _| known(source));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flood(source: u8, boot: u64, sequence: u64) -> FloodHeader {
        FloodHeader {
            source: ShortId([source; 8]),
            boot,
            sequence,
        }
    }

    #[test]
    fn a_flood_is_carried_once_in_each_life_of_its_source() {
        let (mut floods, now) = (Floods::default(), Instant::now());
        assert_eq!(floods.accept(&flood(1, 1, 5), now), Ok(()));
        let repeated = Err(Reason::FloodRepeated);
        assert_eq!(floods.accept(&flood(1, 1, 5), now), repeated);
        assert_eq!(floods.accept(&flood(1, 1, 4), now), Ok(()), "reordered");
        assert_eq!(
            floods.accept(&flood(2, 1, 5), now),
            Ok(()),
            "another source"
        );
        assert_eq!(floods.accept(&flood(1, 2, 5), now), Ok(()), "restarted");
        assert_eq!(floods.accept(&flood(1, 1, 6), now), repeated, "late");
        floods.retain(|source| source == ShortId([2; 8]));
        assert_eq!(floods.sources.len(), 1);
    }

    #[test]
    fn a_storm_is_held_to_its_rate() {
        let (mut floods, start) = (Floods::default(), Instant::now());
        let mut carried = 0;
        for millisecond in 0..3_000u64 {
            let now = start + Duration::from_millis(millisecond);
            for part in 0..10 {
                let header = flood(1, 1, millisecond * 10 + part);
                carried += u32::from(floods.accept(&header, now).is_ok());
            }
        }
        let allowed = 4 * FLOODS_PER_SECOND;
        assert!((allowed - 10..=allowed).contains(&carried), "{carried}");
        assert_eq!(
            floods.accept(&flood(2, 1, 0), start),
            Ok(()),
            "others go on"
        );
    }
}

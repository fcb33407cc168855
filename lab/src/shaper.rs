//! One direction of an emulated wire, without any clock or socket: frames go in with the time, and
//! come out when their time has come. The same seed and the same frames give the same result.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    time::{Duration, Instant},
};

/// Frames under way in one direction; beyond it they are dropped and counted.
const FRAMES_MAX: usize = 65_536;
/// Bytes that wait for a limited rate unless a profile says otherwise: 100 ms at 20 Mbit/s.
const QUEUE_BYTES: usize = 256 << 10;
/// A reordered frame is held for this long beside its latency, so that later ones overtake it.
const HELD: Duration = Duration::from_millis(5);
/// Bytes of an Ethernet header, which sizes of IP packets leave out.
const ETHERNET_LEN: usize = 14;

/// What a wire does to what it carries, in one direction. The default does nothing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WireProfile {
    /// Time every frame is under way.
    pub latency: Duration,
    /// Most time beside it, chosen anew for each frame. Does not change their order.
    pub jitter: Duration,
    /// Share of frames that is lost, from 0 to 1.
    pub loss: f64,
    /// Share of frames that comes twice.
    pub duplication: f64,
    /// Share of frames that others overtake.
    pub reordering: f64,
    /// Bits a second, Ethernet headers included; `None` for no limit.
    pub rate_bits: Option<u64>,
    /// Bytes that may wait for the rate.
    pub queue_bytes: usize,
    /// Longest IP packet, in bytes: longer ones vanish without a word (an MTU black hole).
    pub packet_len_max: Option<usize>,
}

impl Default for WireProfile {
    fn default() -> Self {
        WireProfile {
            latency: Duration::ZERO,
            jitter: Duration::ZERO,
            loss: 0.0,
            duplication: 0.0,
            reordering: 0.0,
            rate_bits: None,
            queue_bytes: QUEUE_BYTES,
            packet_len_max: None,
        }
    }
}

/// What became of the frames of one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WireCounters {
    /// Handed to the far end, duplicates included.
    pub carried: u64,
    /// Lost by chance.
    pub lost: u64,
    /// Sent twice.
    pub duplicated: u64,
    /// Held back so that others overtake.
    pub reordered: u64,
    /// Too long for the silent size limit.
    pub too_long: u64,
    /// More than the rate or the memory allows.
    pub queue_full: u64,
    /// Checksums that the network card got wrong.
    pub damaged: u64,
}

/// A frame and when it leaves; the number keeps the order of those that leave together.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    at: Instant,
    number: u64,
    frame: Vec<u8>,
}

/// One direction of a wire.
pub(crate) struct Shaper {
    profile: WireProfile,
    random: SplitMix,
    counters: WireCounters,
    under_way: BinaryHeap<Reverse<Due>>,
    number: u64,
    /// When the last frame in order leaves, and when the limited rate is free again.
    last: Option<Instant>,
    free: Option<Instant>,
}

impl Shaper {
    pub(crate) fn new(seed: u64) -> Shaper {
        Shaper {
            profile: WireProfile::default(),
            random: SplitMix(seed),
            counters: WireCounters::default(),
            under_way: BinaryHeap::new(),
            number: 0,
            last: None,
            free: None,
        }
    }

    /// Frames from now on are treated like this; those under way stay as they are.
    pub(crate) fn set_profile(&mut self, profile: WireProfile) {
        self.profile = profile;
        self.last = None;
        self.free = None;
    }

    /// A frame was sent.
    pub(crate) fn handle_frame(&mut self, frame: &[u8], now: Instant) {
        let profile = self.profile;
        let limit = profile.packet_len_max.map(|len| len + ETHERNET_LEN);
        if limit.is_some_and(|limit| frame.len() > limit) {
            self.counters.too_long += 1;
            return;
        }
        if self.random.happens(profile.loss) {
            self.counters.lost += 1;
            return;
        }
        let Some(sent) = self.transmit(frame.len(), now) else {
            self.counters.queue_full += 1;
            return;
        };
        self.delay(frame, sent);
        if self.random.happens(profile.duplication) {
            self.counters.duplicated += 1;
            self.delay(frame, sent);
        }
    }

    /// The next frame that has arrived.
    pub(crate) fn poll_frame(&mut self, now: Instant) -> Option<Vec<u8>> {
        if self.poll_timeout()? > now {
            return None;
        }
        self.counters.carried += 1;
        self.under_way.pop().map(|Reverse(due)| due.frame)
    }

    /// When the next frame arrives.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.under_way.peek().map(|Reverse(due)| due.at)
    }

    pub(crate) fn counters(&self) -> WireCounters {
        self.counters
    }

    /// When the last bit of a frame is on the wire; `None` if it does not fit the queue.
    fn transmit(&mut self, len: usize, now: Instant) -> Option<Instant> {
        let Some(rate_bits) = self.profile.rate_bits else {
            return Some(now);
        };
        let time =
            |bytes: usize| Duration::from_secs_f64(bytes as f64 * 8.0 / rate_bits.max(1) as f64);
        let start = self.free.map_or(now, |free| free.max(now));
        if start.duration_since(now) > time(self.profile.queue_bytes) {
            return None;
        }
        let sent = start + time(len);
        self.free = Some(sent);
        Some(sent)
    }

    fn delay(&mut self, frame: &[u8], sent: Instant) {
        if self.under_way.len() >= FRAMES_MAX {
            self.counters.queue_full += 1;
            return;
        }
        let jitter = self.profile.jitter.mul_f64(self.random.fraction());
        let mut at = sent + self.profile.latency + jitter;
        if self.random.happens(self.profile.reordering) {
            self.counters.reordered += 1;
            at += HELD;
        } else {
            at = self.last.map_or(at, |last| last.max(at));
            self.last = Some(at);
        }
        self.number += 1;
        self.under_way.push(Reverse(Due {
            at,
            number: self.number,
            frame: frame.to_vec(),
        }));
    }
}

/// `SplitMix64` (Steele, Lea and Flood 2014): small, seeded, and good enough for dice.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// At least 0 and below 1.
    fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Throws the dice only if they matter, so that what is not asked for changes nothing.
    fn happens(&mut self, share: f64) -> bool {
        share > 0.0 && self.fraction() < share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Sends numbered frames of 100 bytes, one a millisecond; gives what arrives, and when.
    fn run(profile: WireProfile, seed: u64, count: u64) -> (Vec<(u64, Duration)>, WireCounters) {
        let start = Instant::now();
        let mut shaper = Shaper::new(seed);
        shaper.set_profile(profile);
        let mut arrived = Vec::new();
        for at in 0..count + 10_000 {
            let now = start + MS * u32::try_from(at).unwrap_or(u32::MAX);
            if at < count {
                let mut frame = vec![0; 100];
                frame[..8].copy_from_slice(&at.to_be_bytes());
                shaper.handle_frame(&frame, now);
            }
            while let Some(frame) = shaper.poll_frame(now) {
                let number = u64::from_be_bytes(*frame.first_chunk().expect("a number"));
                arrived.push((number, now - start));
            }
        }
        assert_eq!(shaper.poll_timeout(), None);
        (arrived, shaper.counters())
    }

    fn in_order(arrived: &[(u64, Duration)]) -> bool {
        arrived.is_sorted_by_key(|(number, _)| *number)
    }

    #[test]
    fn a_plain_wire_carries_everything_at_once() {
        let (arrived, counters) = run(WireProfile::default(), 1, 100);
        assert!(
            arrived
                .iter()
                .all(|(number, at)| *at == MS * *number as u32)
        );
        assert_eq!((arrived.len(), counters.carried), (100, 100));
    }

    #[test]
    fn latency_and_jitter_keep_the_order() {
        let profile = WireProfile {
            latency: MS * 20,
            jitter: MS * 10,
            ..WireProfile::default()
        };
        let (arrived, _) = run(profile, 1, 2_000);
        assert!(in_order(&arrived) && arrived.len() == 2_000);
        let late = arrived.iter().map(|(number, at)| *at - MS * *number as u32);
        let (least, most) = (
            late.clone().min().unwrap_or_default(),
            late.max().unwrap_or_default(),
        );
        assert!((MS * 20..MS * 22).contains(&least), "{least:?}");
        assert!((MS * 29..=MS * 31).contains(&most), "{most:?}");
    }

    #[test]
    fn loss_and_duplication_are_as_frequent_as_asked() {
        let profile = WireProfile {
            loss: 0.1,
            duplication: 0.05,
            ..WireProfile::default()
        };
        let (arrived, counters) = run(profile, 7, 20_000);
        assert!((1_800..2_200).contains(&counters.lost), "{counters:?}");
        assert!((800..1_000).contains(&counters.duplicated), "{counters:?}");
        assert_eq!(
            arrived.len() as u64,
            20_000 - counters.lost + counters.duplicated
        );
        assert_eq!(
            run(profile, 7, 20_000).1,
            counters,
            "the same seed, the same fate"
        );
        assert_ne!(run(profile, 8, 20_000).1, counters);
    }

    #[test]
    fn reordered_frames_are_overtaken_and_none_is_lost() {
        let profile = WireProfile {
            latency: MS * 3,
            reordering: 0.02,
            ..WireProfile::default()
        };
        let (mut arrived, counters) = run(profile, 3, 5_000);
        assert!((60..150).contains(&counters.reordered), "{counters:?}");
        assert!(!in_order(&arrived));
        arrived.sort_unstable();
        assert!(
            arrived
                .iter()
                .zip(0..)
                .all(|((number, _), expected)| *number == expected)
        );
    }

    #[test]
    fn a_rate_delays_and_its_queue_is_bounded() {
        // 100 bytes a millisecond are 800 kbit/s: twice the rate.
        let profile = WireProfile {
            rate_bits: Some(400_000),
            queue_bytes: 5_000,
            ..WireProfile::default()
        };
        let (arrived, counters) = run(profile, 1, 4_000);
        let share = counters.carried as f64 / 4_000.0;
        assert!((0.49..0.53).contains(&share), "{counters:?}");
        assert_eq!(counters.carried + counters.queue_full, 4_000);
        let longest = arrived
            .iter()
            .map(|(number, at)| *at - MS * *number as u32)
            .max();
        assert!(longest.unwrap_or_default() <= MS * 104, "{longest:?}");
    }

    #[test]
    fn too_long_packets_vanish() {
        let start = Instant::now();
        let mut shaper = Shaper::new(1);
        shaper.set_profile(WireProfile {
            packet_len_max: Some(1_400),
            ..WireProfile::default()
        });
        shaper.handle_frame(&[0; 1_414], start);
        shaper.handle_frame(&[0; 1_415], start);
        assert!(shaper.poll_frame(start).is_some() && shaper.poll_frame(start).is_none());
        assert_eq!(shaper.counters().too_long, 1);
    }
}

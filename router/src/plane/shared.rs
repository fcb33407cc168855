//! What the workers of a plane share beside the sessions: what floods need, and news of learned MACs.
//!
//! Behind locks, for no frame comes here whose destination is known and whose sender was heard lately
//! by the same worker. Floods are at most a thousand a second a source.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rmesh_wire::Mac;
use rmesh_wire::flood::FloodHeader;

use super::bucket::Bucket;
use super::carried::CarryLimit;
use super::fdb::Place;
use super::floods::{self, Floods};
use super::second_way::SecondWay;
use super::stats::Reason;

/// News that wait for one worker, at most. What has no place is told again when it is due next; until
/// then that worker floods what is for the MAC.
const NEWS_MAX: usize = 4_096;

/// What all workers of a plane share.
pub(crate) struct Shared {
    broadcasts: Mutex<Broadcasts>,
    news: Box<[News]>,
    /// Whether the control side is to be told when frames move.
    traffic_awaited: AtomicBool,
    /// What is carried for each peer, at most.
    pub(crate) carry_limit: Option<CarryLimit>,
}

/// What floods need.
pub(crate) struct Broadcasts {
    pub(crate) floods: Floods,
    pub(crate) second_way: SecondWay,
    own: Bucket,
    sequence: u64,
}

/// Where MACs were learned by the others, for one worker.
#[derive(Default)]
struct News {
    waits: AtomicBool,
    list: Mutex<Vec<(Mac, Place)>>,
}

impl Shared {
    pub(crate) fn new(workers: usize, now: Instant) -> Self {
        Shared {
            broadcasts: Mutex::new(Broadcasts {
                floods: Floods::default(),
                second_way: SecondWay::new(now),
                own: floods::allowance(now),
                sequence: 0,
            }),
            news: (0..workers).map(|_| News::default()).collect(),
            traffic_awaited: AtomicBool::new(false),
            carry_limit: None,
        }
    }

    /// Carries no more than so many bits a second for each peer.
    pub(crate) fn with_carry_limit(mut self, bits_per_s: Option<u64>, now: Instant) -> Self {
        self.carry_limit = bits_per_s.map(|bits_per_s| CarryLimit::new(bits_per_s, now));
        self
    }

    /// The next frame that moves is to be told.
    pub(crate) fn await_traffic(&self) {
        self.traffic_awaited.store(true, Ordering::Relaxed);
    }

    /// Whether frames that moved are to be told by whoever calls this: true for one worker only.
    pub(crate) fn takes_traffic(&self) -> bool {
        // Nearly always it is not awaited, and then nothing is written that others read.
        self.traffic_awaited.load(Ordering::Relaxed)
            && self.traffic_awaited.swap(false, Ordering::Relaxed)
    }

    pub(crate) fn broadcasts(&self) -> MutexGuard<'_, Broadcasts> {
        lock(&self.broadcasts)
    }

    /// Tells all workers but `worker` where a MAC is.
    pub(crate) fn tell(&self, worker: usize, mac: Mac, place: Place) {
        let others = self.news.iter().enumerate();
        for (_, news) in others.filter(|(number, _)| *number != worker) {
            let mut list = lock(&news.list);
            if list.len() < NEWS_MAX {
                list.push((mac, place));
                news.waits.store(true, Ordering::Release);
            }
        }
    }

    /// What the others told `worker` since the last time.
    pub(crate) fn news(&self, worker: usize) -> Option<Vec<(Mac, Place)>> {
        let news = self.news.get(worker)?;
        if !news.waits.load(Ordering::Relaxed) {
            return None;
        }
        let mut list = lock(&news.list);
        news.waits.store(false, Ordering::Relaxed);
        Some(std::mem::take(&mut *list))
    }
}

impl Broadcasts {
    /// The number of a flood that begins here, if it may.
    pub(crate) fn originate(&mut self, now: Instant) -> Result<u64, Reason> {
        if self.second_way.is_suppressed(now) {
            return Err(Reason::Suppressed);
        }
        if !self.own.take(now) {
            return Err(Reason::Storm);
        }
        self.sequence += 1;
        Ok(self.sequence)
    }

    /// Whether a flood that came from its tree parent is to be carried on; and if so, whether to the
    /// bridge as well.
    pub(crate) fn accept(&mut self, header: &FloodHeader, now: Instant) -> Result<bool, Reason> {
        self.floods.accept(header, now)?;
        Ok(!self.second_way.is_suppressed(now))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_reach_every_other_worker_once_and_are_bounded() {
        let shared = Shared::new(3, Instant::now());
        let mac = |n: u16| Mac([2, 0, 0, 0, (n >> 8) as u8, n as u8]);
        shared.tell(1, mac(1), Place::Local);
        assert_eq!(shared.news(1), None);
        for other in [0, 2] {
            assert_eq!(shared.news(other), Some(vec![(mac(1), Place::Local)]));
            assert_eq!(shared.news(other), None);
        }
        for number in 0..2 * NEWS_MAX as u16 {
            shared.tell(0, mac(number), Place::Local);
        }
        assert_eq!(shared.news(2).map(|list| list.len()), Some(NEWS_MAX));
    }

    #[test]
    fn floods_of_all_workers_are_numbered_and_held_to_one_rate() {
        let now = Instant::now();
        let shared = Shared::new(2, now);
        let numbers: Vec<u64> = (0..5_000)
            .map_while(|_| shared.broadcasts().originate(now).ok())
            .collect();
        let count = u64::from(floods::FLOODS_PER_SECOND);
        assert!((count - 1..=count + 1).contains(&(numbers.len() as u64)));
        assert!(numbers.iter().copied().eq(1..=numbers.len() as u64));
        assert_eq!(shared.broadcasts().originate(now), Err(Reason::Storm));
    }
}

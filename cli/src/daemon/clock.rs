//! The clock the mesh sees.

use rmesh_wire::Instant;
use rustix::time::{ClockId, Timespec, clock_gettime};

/// Nanoseconds since the daemon started; time asleep counts, so that sessions age in it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    start: u64,
}

impl Clock {
    /// A clock that starts now.
    pub(crate) fn start() -> Self {
        Clock { start: boot_time() }
    }

    /// The present.
    pub(crate) fn now(&self) -> Instant {
        Instant::from_nanos(boot_time().saturating_sub(self.start))
    }

    /// An instant by the kernel's clock since boot.
    pub(super) fn kernel_time(&self, at: Instant) -> Timespec {
        let nanos = at.as_nanos().saturating_add(self.start);
        Timespec {
            tv_sec: i64::try_from(nanos / 1_000_000_000).unwrap_or(i64::MAX),
            tv_nsec: i64::try_from(nanos % 1_000_000_000).unwrap_or(0),
        }
    }
}

fn boot_time() -> u64 {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds
        .saturating_mul(1_000_000_000)
        .saturating_add(nanoseconds)
}

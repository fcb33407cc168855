//! The one timer of the control thread.
//!
//! It goes by the mesh's own clock and is exact. tokio's timers are kept in a wheel, whose every
//! level wakes the thread once more before the time has come: an idle daemon slept half as long for it.

use std::io;
use std::os::fd::OwnedFd;

use rmesh_wire::Instant;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::unix::AsyncFd;

use super::clock::Clock;
use super::watch::register_owned;

/// Rings once at the time it is set for.
pub(super) struct Alarm {
    timer: AsyncFd<OwnedFd>,
    clock: Clock,
    set_for: Option<Instant>,
}

impl Alarm {
    /// One that is not set.
    pub(super) fn new(clock: Clock) -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Boottime, flags)?;
        Ok(Alarm {
            timer: register_owned(timer)?,
            clock,
            set_for: None,
        })
    }

    /// Lets it ring at `at` and at no other time; at once if that is over.
    pub(super) fn set(&mut self, at: Instant) -> io::Result<()> {
        if self.set_for == Some(at) {
            return Ok(());
        }
        let spec = Itimerspec {
            it_interval: Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            },
            it_value: self.clock.kernel_time(at),
        };
        timerfd_settime(self.timer.get_ref(), TimerfdTimerFlags::ABSTIME, &spec)?;
        self.set_for = Some(at);
        Ok(())
    }

    /// Waits until it rings. It may have rung for an earlier time than it is set for.
    pub(super) async fn rings(&mut self) {
        // How often it rang need not be read: the next setting forgets it.
        if let Ok(mut ready) = self.timer.readable().await {
            ready.clear_ready();
        }
        self.set_for = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn it_rings_at_its_time_each_time() {
        let clock = Clock::start();
        let mut alarm = Alarm::new(clock).unwrap();
        for _ in 0..3 {
            let at = clock.now() + Duration::from_millis(30);
            alarm.set(at + Duration::from_secs(60)).unwrap();
            alarm.set(at).unwrap();
            alarm.rings().await;
            assert!(clock.now() >= at);
            assert!(clock.now() < at + Duration::from_secs(20));
        }
        alarm.set(Instant::ZERO).unwrap();
        alarm.rings().await;
    }
}

//! An emulated wire: a TAP at each end and a thread that carries frames between them as two
//! [`WireProfile`]s say. TAPs offer the kernel no offloads, so every frame is whole, has its
//! checksums, and is no longer than the MTU. With a [`Card`] checksums are that one's business.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::AsFd,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, Timespec, eventfd, poll};

use crate::{
    Card, Namespace, card,
    error::lock,
    shaper::{Shaper, WireCounters, WireProfile},
    sys::{self, TapOffers},
};

/// Longest frame a TAP gives: an MTU of up to 9,000 and the header.
const FRAME_LEN_MAX: usize = 9_216;
/// Frames read from one end before what is due gets its turn.
const BATCH: usize = 64;

/// State shared with the thread; index 0 is the direction towards the first end.
#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    profiles: Mutex<[Option<WireProfile>; 2]>,
    counters: Mutex<[WireCounters; 2]>,
}

/// A running wire; it ends when this is dropped, and its TAPs go.
#[derive(Debug)]
pub(crate) struct Emulator {
    shared: Arc<Shared>,
    wake: Arc<rustix::fd::OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Emulator {
    /// Makes a TAP of the given name in each namespace and starts to carry.
    pub(crate) fn start(
        ends: [(&Namespace, &str); 2],
        seed: u64,
        card: Option<Card>,
    ) -> io::Result<Emulator> {
        let offers = match card {
            Some(_) => TapOffers::Checksums,
            None => TapOffers::Nothing,
        };
        let open = |interface: &str| sys::open_tap(interface, offers);
        let [near, far] = ends.map(|(at, interface)| at.enter(|| open(interface)));
        let shared = Arc::new(Shared::default());
        let wake = Arc::new(eventfd(
            0,
            rustix::event::EventfdFlags::NONBLOCK | rustix::event::EventfdFlags::CLOEXEC,
        )?);
        let mut carrier = Carrier {
            taps: [near?, far?],
            shapers: [Shaper::new(seed), Shaper::new(seed ^ u64::MAX)],
            shared: Arc::clone(&shared),
            wake: Arc::clone(&wake),
            buffer: vec![0; FRAME_LEN_MAX],
            card,
            damaged: [0; 2],
        };
        let thread = thread::Builder::new()
            .name("lab-wire".into())
            .spawn(move || carrier.run())?;
        Ok(Emulator {
            shared,
            wake,
            thread: Some(thread),
        })
    }

    /// Changes the direction towards end `end`.
    pub(crate) fn set_profile(&self, end: usize, profile: WireProfile) {
        if let Some(slot) = lock(&self.shared.profiles).get_mut(end) {
            *slot = Some(profile);
        }
        self.wake_up();
    }

    /// What became of the frames towards end `end`.
    pub(crate) fn counters(&self, end: usize) -> WireCounters {
        lock(&self.shared.counters)
            .get(end)
            .copied()
            .unwrap_or_default()
    }

    fn wake_up(&self) {
        // Fails only if the counter is full, and then the thread is woken already.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.wake_up();
        if let Some(thread) = self.thread.take() {
            // Panicking while dropping would end the process.
            let _ = thread.join();
        }
    }
}

struct Carrier {
    taps: [File; 2],
    shapers: [Shaper; 2],
    shared: Arc<Shared>,
    wake: Arc<rustix::fd::OwnedFd>,
    buffer: Vec<u8>,
    card: Option<Card>,
    /// What the card broke of what goes towards each end.
    damaged: [u64; 2],
}

impl Carrier {
    fn run(&mut self) {
        while !self.shared.stop.load(Ordering::Relaxed) {
            self.wait();
            for (shaper, profile) in self
                .shapers
                .iter_mut()
                .zip(lock(&self.shared.profiles).iter_mut())
            {
                if let Some(profile) = profile.take() {
                    shaper.set_profile(profile);
                }
            }
            for end in 0..2 {
                self.read(end);
            }
            for end in 0..2 {
                self.deliver(end);
            }
            *lock(&self.shared.counters) = [0, 1].map(|end| WireCounters {
                damaged: self.damaged[end],
                ..self.shapers[end].counters()
            });
        }
    }

    /// Sleeps until a frame comes, one is due, or something changes.
    fn wait(&self) {
        let now = Instant::now();
        let due = self.shapers.iter().filter_map(Shaper::poll_timeout).min();
        let left = due.map(|due| due.saturating_duration_since(now));
        let timeout = left.map(timespec);
        let [near, far] = &self.taps;
        let mut entries = [near.as_fd(), far.as_fd(), self.wake.as_fd()]
            .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
        // An interrupted or refused wait is tried again by the caller's loop.
        let _ = poll(&mut entries, timeout.as_ref());
        let _ = rustix::io::read(&self.wake, &mut [0; 8]);
    }

    /// Takes in what end `end` sent.
    fn read(&mut self, end: usize) {
        for _ in 0..BATCH {
            // EAGAIN, or the interface is down for a moment.
            let Ok(len) = (&self.taps[end]).read(&mut self.buffer) else {
                return;
            };
            let (to, frame) = (1 - end, &mut self.buffer[..len]);
            let frame = match self.card {
                None => frame,
                Some(card) => {
                    let Some((header, frame)) = frame.split_at_mut_checked(card::HEADER_LEN) else {
                        continue;
                    };
                    if !card.finish(header, frame, &mut self.damaged[to]) {
                        continue;
                    }
                    frame
                }
            };
            self.shapers[to].handle_frame(frame, Instant::now());
        }
    }

    /// Hands to end `end` what has arrived; what an interface that is down refuses is lost.
    fn deliver(&mut self, end: usize) {
        let now = Instant::now();
        while let Some(frame) = self.shapers[end].poll_frame(now) {
            let frame = match self.card {
                None => frame,
                Some(_) => [&[0; card::HEADER_LEN][..], &frame].concat(),
            };
            let _ = (&self.taps[end]).write(&frame);
        }
    }
}

fn timespec(time: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: time.subsec_nanos().into(),
    }
}

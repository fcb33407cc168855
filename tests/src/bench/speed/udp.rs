//! UDP: how many datagrams arrive, and how long one takes there and back.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::scene::Way;

/// Time one rate is sent at.
const SENT_FOR: Duration = Duration::from_millis(500);
/// What may be lost of a rate that counts.
const LOSS_MAX: f64 = 0.005;
/// A rate that loses more is lowered by twice what it lost, but not by less or more than these parts: with steps of one size
/// what is told is the size of the step.
const STEP_MIN: f64 = 0.015;
const STEP_MAX: f64 = 0.07;
const STEPS_MAX: usize = 32;
/// What is under way when the sender stops arrives within this time.
const DRAIN: Duration = Duration::from_millis(100);
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
const LEN_MAX: usize = 9_216;
const BUFFER_LEN: usize = 8 << 20;

/// What a way carried of datagrams of one length.
#[derive(Debug, Clone, Copy)]
pub(super) struct Datagrams {
    /// The best rate of which at most [`LOSS_MAX`] was lost, datagrams a second that arrived.
    pub(super) best_per_s: f64,
    /// What arrived of as many as the sender could send.
    pub(super) overloaded_per_s: f64,
}

/// Round trips, in microseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct RoundTrips {
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
}

struct Ends {
    near: UdpSocket,
    far: UdpSocket,
}

fn open(way: &Way<'_>) -> io::Result<Ends> {
    let any = SocketAddr::from(([0, 0, 0, 0], 0));
    let far = way
        .to
        .enter(|| UdpSocket::bind(SocketAddr::new(way.address, 0)))?;
    let near = way.from.enter(|| UdpSocket::bind(any))?;
    near.connect(far.local_addr()?)?;
    // What is lost is to be the way's loss, not that of a reader who had to wait for a core.
    rustix::net::sockopt::set_socket_recv_buffer_size_force(&far, BUFFER_LEN)?;
    near.set_read_timeout(Some(ANSWER_WITHIN))?;
    far.set_read_timeout(Some(DRAIN))?;
    Ok(Ends { near, far })
}

/// Searches for the best rate of datagrams with a payload of `len` bytes, from above.
///
/// # Errors
/// What a socket says.
pub(super) fn datagrams(way: &Way<'_>, len: usize) -> io::Result<Datagrams> {
    let ends = open(way)?;
    let (_, overloaded_per_s) = send_at(&ends, len, f64::INFINITY)?;
    let mut rate = overloaded_per_s * 1.1;
    for _ in 0..STEPS_MAX {
        let (sent_per_s, arrived_per_s) = send_at(&ends, len, rate)?;
        if arrived_per_s >= sent_per_s * (1.0 - LOSS_MAX) {
            let best_per_s = arrived_per_s;
            return Ok(Datagrams {
                best_per_s,
                overloaded_per_s,
            });
        }
        // What could not be sent at this rate need not be tried again.
        let lost = 1.0 - arrived_per_s / sent_per_s;
        rate = rate.min(sent_per_s) * (1.0 - (2.0 * lost).clamp(STEP_MIN, STEP_MAX));
    }
    Ok(Datagrams {
        best_per_s: 0.0,
        overloaded_per_s,
    })
}

/// Datagrams a second that were sent, and that arrived.
fn send_at(ends: &Ends, len: usize, per_s: f64) -> io::Result<(f64, f64)> {
    let is_over = AtomicBool::new(false);
    let (sent, arrived) = thread::scope(|scope| {
        let counter = scope.spawn(|| count(&ends.far, &is_over));
        let sent = send(&ends.near, len, per_s);
        thread::sleep(DRAIN);
        is_over.store(true, Ordering::Relaxed);
        let arrived = counter.join();
        (
            sent,
            arrived.unwrap_or_else(|p| std::panic::resume_unwind(p)),
        )
    });
    let (sent, took) = sent?;
    let seconds = took.as_secs_f64();
    Ok((sent as f64 / seconds, arrived as f64 / seconds))
}

fn send(near: &UdpSocket, len: usize, per_s: f64) -> io::Result<(u64, Duration)> {
    let payload = [0x5a; LEN_MAX];
    let payload = payload.get(..len).unwrap_or(&payload);
    let (start, mut sent) = (Instant::now(), 0u64);
    loop {
        let elapsed = start.elapsed();
        if elapsed >= SENT_FOR {
            return Ok((sent, elapsed));
        }
        if sent as f64 > elapsed.as_secs_f64() * per_s {
            std::hint::spin_loop();
            continue;
        }
        match near.send(payload) {
            Ok(_) => sent += 1,
            // The queue of the interface is full: that one was not sent.
            Err(error) if error.raw_os_error() == Some(105) => {}
            Err(error) => return Err(error),
        }
    }
}

fn count(far: &UdpSocket, is_over: &AtomicBool) -> u64 {
    let (mut buffer, mut arrived) = ([0; LEN_MAX], 0);
    loop {
        match far.recv(&mut buffer) {
            Ok(_) => arrived += 1,
            Err(_) if is_over.load(Ordering::Relaxed) => return arrived,
            Err(_) => {}
        }
    }
}

/// Sends so many datagrams, each `pause` after the answer to the one before.
///
/// # Errors
/// What a socket says, also if an answer does not come.
pub(super) fn round_trips(way: &Way<'_>, count: usize, pause: Duration) -> io::Result<RoundTrips> {
    let ends = open(way)?;
    let is_over = AtomicBool::new(false);
    let took = thread::scope(|scope| {
        scope.spawn(|| echo(&ends.far, &is_over));
        let took = ask(&ends.near, count, pause);
        is_over.store(true, Ordering::Relaxed);
        took
    });
    let mut took = took?;
    took.sort_unstable();
    let at = |part: f64| {
        let index = (took.len() as f64 * part) as usize;
        let found = took.get(index).or(took.last()).copied();
        found.unwrap_or_default().as_secs_f64() * 1e6
    };
    Ok(RoundTrips {
        p50_us: at(0.5),
        p99_us: at(0.99),
    })
}

fn ask(near: &UdpSocket, count: usize, pause: Duration) -> io::Result<Vec<Duration>> {
    let mut buffer = [0; 64];
    let mut took = Vec::with_capacity(count);
    for _ in 0..count {
        let start = Instant::now();
        near.send(&buffer)?;
        near.recv(&mut buffer)?;
        took.push(start.elapsed());
        if !pause.is_zero() {
            thread::sleep(pause);
        }
    }
    Ok(took)
}

fn echo(far: &UdpSocket, is_over: &AtomicBool) {
    let mut buffer = [0; 64];
    while !is_over.load(Ordering::Relaxed) {
        if let Ok((len, from)) = far.recv_from(&mut buffer) {
            // Whoever asked gives up if the answer is lost.
            let _ = far.send_to(&buffer[..len], from);
        }
    }
}

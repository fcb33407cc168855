//! What any tunnel in user space does at least: frames from a TAP to a UDP socket and back, by the kernel's
//! means for many at once, with nothing in between. It encrypts nothing, looks nothing up, believes what comes
//! and knows one peer: a measure of what is left to gain, and of nothing else.
//!
//! A thread for each direction. A super-frame is sent as it was read, its segments' headers between them, and
//! cut by the kernel into datagrams of one segment each; what comes of it in one row is written as one again.

use std::{
    fs::File,
    io::{self, IoSlice, Read, Write},
    net::{IpAddr, SocketAddr, UdpSocket},
    ops::Range,
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{SendAncillaryBuffer, SendFlags, sendmsg},
};

use crate::{
    Namespace,
    sys::{self, TapOffers},
};

const PORT: u16 = 6_999;
const SOCKET_BUFFER_LEN: usize = 4 << 20;
/// A frame and its virtio header.
const VIRTIO_LEN: usize = 10;
const FRAME_LEN_MAX: usize = VIRTIO_LEN + 14 + 65_535;
/// Received in one call: so many datagrams, or rows of them that the kernel has joined.
const BATCH: usize = 128;
const JOINED_LEN_MAX: usize = 65_536;
/// What the kernel cuts in one call, at most.
const SENT_LEN_MAX: usize = 65_000;
/// A thread that had work looks for more for so long before it sleeps.
const LOOK: Duration = Duration::from_micros(50);
/// How soon an end is noticed.
const SLEEP: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};
/// Ethernet and IPv4 without options: where TCP begins in a super-frame that is cut.
const TCP_AT: usize = 34;
/// In the virtio header: a super-frame of TCP over IPv4.
const TCP4: u8 = 1;

/// What is done to each piece of payload at both ends, as a cipher would: what it changes it changes back.
pub type Work = Arc<dyn Fn(&mut [u8]) + Send + Sync>;

/// One end, which carries until it is dropped.
#[derive(Debug)]
pub struct Forwarder {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // Panicking while dropping would end the process.
            let _ = thread.join();
        }
    }
}

impl Forwarder {
    /// Makes a TAP `interface` in a namespace, and carries between it and the end of the same kind at `to`.
    /// `overhead` bytes stand before each frame in its datagram, at least [`Forwarder::OVERHEAD_MIN`]; a whole
    /// segment and its headers are `frame_len` bytes.
    ///
    /// # Errors
    /// If the kernel refuses one of its parts.
    pub fn start(
        namespace: &Namespace,
        interface: &str,
        [own, to]: [IpAddr; 2],
        (overhead, frame_len): (usize, usize),
        work: Option<Work>,
    ) -> io::Result<Forwarder> {
        let (tap, socket) = namespace.enter(|| {
            let tap = sys::open_tap(interface, TapOffers::SuperFrames)?;
            let socket = UdpSocket::bind(SocketAddr::new(own, PORT))?;
            socket.connect(SocketAddr::new(to, PORT))?;
            socket.set_nonblocking(true)?;
            sys::make_room(&socket, SOCKET_BUFFER_LEN)?;
            sys::cut_datagrams(&socket, overhead + frame_len)?;
            sys::join_datagrams(&socket)?;
            io::Result::Ok((Arc::new(tap), Arc::new(socket)))
        })?;
        let stop = Arc::new(AtomicBool::new(false));
        let overhead = overhead.max(Self::OVERHEAD_MIN);
        let mut sender = Sender {
            tap: Arc::clone(&tap),
            socket: Arc::clone(&socket),
            overhead,
            segment_len: frame_len,
            frame: vec![0; FRAME_LEN_MAX],
            headers: Vec::new(),
            number: 0,
            work: work.clone(),
        };
        let mut receiver = Receiver {
            tap: Arc::clone(&tap),
            socket: Arc::clone(&socket),
            overhead,
            buffers: vec![vec![0; JOINED_LEN_MAX]; BATCH],
            lens: vec![(0, 0); BATCH],
            datagrams: Vec::new(),
            work,
        };
        let stops = [Arc::clone(&stop), Arc::clone(&stop)];
        let [one, other] = stops;
        let builder = || thread::Builder::new().name("lab-forwarder".into());
        let send = move || carry(&one, &Arc::clone(&sender.tap), || sender.turn());
        let receive = move || carry(&other, &Arc::clone(&receiver.socket), || receiver.turn());
        let threads = vec![builder().spawn(send)?, builder().spawn(receive)?];
        Ok(Forwarder { stop, threads })
    }

    /// Room for the virtio header, and for which part of which super-frame a datagram is.
    pub const OVERHEAD_MIN: usize = VIRTIO_LEN + 6;
}

/// Takes turns until told to stop; looks for a while where there is nothing, and then sleeps.
fn carry(stop: &AtomicBool, source: &impl AsFd, mut turn: impl FnMut() -> bool) {
    let mut idle_since = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        if turn() {
            idle_since = Instant::now();
        } else if idle_since.elapsed() > LOOK {
            let mut entry = [PollFd::new(source, PollFlags::IN)];
            // An interrupted wait is one that ended.
            let _ = poll(&mut entry, Some(&SLEEP));
        }
    }
}

struct Sender {
    tap: Arc<File>,
    socket: Arc<UdpSocket>,
    overhead: usize,
    segment_len: usize,
    frame: Vec<u8>,
    headers: Vec<u8>,
    number: u32,
    work: Option<Work>,
}

impl Sender {
    /// Sends one frame, whatever it is; whether there was one.
    fn turn(&mut self) -> bool {
        let Ok(len) = (&*self.tap).read(&mut self.frame) else {
            return false;
        };
        self.number = self.number.wrapping_add(1);
        let (virtio, frame) = self.frame[..len].split_at_mut(VIRTIO_LEN);
        let headers_len = match virtio[1] & 0x7f {
            TCP4 => TCP_AT + usize::from(frame[TCP_AT + 12] >> 4) * 4,
            _ => frame.len(),
        };
        let (frame, payload) = frame.split_at_mut(headers_len);
        let step = (self.segment_len - headers_len.min(self.segment_len)).max(1);
        let count = payload.len().div_ceil(step).max(1);
        let each = self.overhead + headers_len;
        self.headers.clear();
        self.headers.resize(each * count, 0);
        for (index, headers) in self.headers.chunks_exact_mut(each).enumerate() {
            headers[..VIRTIO_LEN].copy_from_slice(virtio);
            headers[VIRTIO_LEN..][..4].copy_from_slice(&self.number.to_be_bytes());
            headers[VIRTIO_LEN + 4..][..2].copy_from_slice(&(index as u16).to_be_bytes());
            headers[self.overhead..].copy_from_slice(frame);
            if count > 1 {
                add(&mut headers[self.overhead + 18..], 2, index as u32);
                let at = self.overhead + TCP_AT + 4;
                add(&mut headers[at..], 4, (index * step) as u32);
            }
        }
        if let Some(work) = &self.work {
            payload.chunks_mut(step).for_each(|piece| work(piece));
        }
        let payload = &*payload;
        let pieces = payload
            .chunks(step)
            .chain(payload.is_empty().then_some(payload));
        let parts: Vec<[IoSlice<'_>; 2]> = (self.headers.chunks_exact(each).zip(pieces))
            .map(|(headers, piece)| [IoSlice::new(headers), IoSlice::new(piece)])
            .collect();
        let most = (SENT_LEN_MAX / (each + step.min(payload.len()))).max(1);
        for run in parts.chunks(most) {
            let mut nothing = SendAncillaryBuffer::default();
            // What the kernel has no room for is lost, as on any wire.
            let _ = sendmsg(
                &self.socket,
                run.as_flattened(),
                &mut nothing,
                SendFlags::DONTWAIT,
            );
        }
        true
    }
}

/// Adds to a number of so many bytes at the beginning.
fn add(field: &mut [u8], len: usize, value: u32) {
    let old = field[..len]
        .iter()
        .fold(0u32, |sum, byte| sum << 8 | u32::from(*byte));
    field[..len].copy_from_slice(&old.wrapping_add(value).to_be_bytes()[4 - len..]);
}

struct Receiver {
    tap: Arc<File>,
    socket: Arc<UdpSocket>,
    overhead: usize,
    buffers: Vec<Vec<u8>>,
    /// Of each buffer, and of the datagrams in it.
    lens: Vec<(usize, usize)>,
    /// In which buffer, and where.
    datagrams: Vec<(usize, Range<usize>)>,
    work: Option<Work>,
}

impl Receiver {
    /// Writes what waits at the socket; whether there was something.
    fn turn(&mut self) -> bool {
        let received = sys::receive_many(&self.socket, &mut self.buffers, &mut self.lens);
        let Ok(filled) = received else { return false };
        self.datagrams.clear();
        for (number, (len, each)) in self.lens[..filled].iter().copied().enumerate() {
            let starts = (0..len).step_by(each.max(1));
            let datagrams = starts.map(|start| (number, start..len.min(start + each)));
            let least = self.overhead + TCP_AT;
            self.datagrams
                .extend(datagrams.filter(|(_, range)| range.len() >= least));
        }
        let (count, mut at) = (self.datagrams.len(), 0);
        while at < count {
            let rows = at + 1..count;
            let end = rows.into_iter().find(|next| !self.follows(*next));
            let end = end.unwrap_or(count);
            self.write(at..end);
            at = end;
        }
        true
    }

    /// Whether a datagram is the next part of the super-frame whose last part is the one before it.
    fn follows(&self, at: usize) -> bool {
        let place = |at: usize| {
            let place = &self.bytes(at)[VIRTIO_LEN..VIRTIO_LEN + 6];
            place
                .iter()
                .fold(0u64, |sum, byte| sum << 8 | u64::from(*byte))
        };
        place(at) == place(at - 1) + 1
    }

    fn bytes(&self, at: usize) -> &[u8] {
        let (buffer, range) = &self.datagrams[at];
        &self.buffers[*buffer][range.clone()]
    }

    fn write(&mut self, range: Range<usize>) {
        let (overhead, first) = (self.overhead, range.start);
        let head = self.bytes(first);
        let is_cut = head[1] & 0x7f == TCP4;
        let headers_len = match is_cut {
            true => TCP_AT + usize::from(head[overhead + TCP_AT + 12] >> 4) * 4,
            false => head.len() - overhead,
        };
        let payload_at = overhead + headers_len;
        if let Some(work) = self.work.clone() {
            for (buffer, place) in &self.datagrams[range.clone()] {
                work(&mut self.buffers[*buffer][place.start + payload_at..place.end]);
            }
        }
        let lens = range.clone().map(|at| self.bytes(at).len());
        let payload: usize = lens.map(|len| len - payload_at).sum();
        if is_cut {
            let (buffer, place) = self.datagrams[first].clone();
            let head = &mut self.buffers[buffer][place];
            finish(&mut head[overhead..payload_at], payload);
            if range.len() == 1 {
                // One segment is a frame like others: no kind, no segment length.
                head[1] = 0;
                head[4..6].fill(0);
            }
        }
        let head = self.bytes(first);
        let mut parts = vec![
            IoSlice::new(&head[..VIRTIO_LEN]),
            IoSlice::new(&head[overhead..payload_at]),
        ];
        let rest = range.map(|at| IoSlice::new(&self.bytes(at)[payload_at..]));
        parts.extend(rest.filter(|part| !part.is_empty()));
        // The interface may be down for a moment.
        let _ = (&*self.tap).write_vectored(&parts);
    }
}

/// Lengths and sums of IPv4 and TCP headers that are to stand before so much payload.
fn finish(headers: &mut [u8], payload: usize) {
    let len = headers.len() - 14 + payload;
    headers[16..18].copy_from_slice(&(len as u16).to_be_bytes());
    headers[24..26].fill(0);
    let own = !sum(&headers[14..TCP_AT], 0);
    headers[24..26].copy_from_slice(&own.to_be_bytes());
    // Addresses, protocol and length: what the kernel goes on from.
    let pseudo = sum(&headers[26..TCP_AT], 6 + (len - 20) as u32);
    headers[TCP_AT + 16..][..2].copy_from_slice(&pseudo.to_be_bytes());
}

/// The sum of 16-bit numbers with end-around carry (RFC 1071).
fn sum(bytes: &[u8], start: u32) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|two| u32::from(two[0]) << 8 | u32::from(two[1]));
    let sum = words.fold(start, u32::wrapping_add);
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

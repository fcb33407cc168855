//! How much a TCP connection between two containers carries in a given time.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use rmesh_lab::Namespace;

/// Bytes of one write.
const BLOCK_LEN: usize = 128 << 10;
/// How long a write or a read may stall: longer than any path needs to be found again.
const STALL_MAX: Duration = Duration::from_secs(20);

/// A connection that is kept from one measurement to the next.
pub struct Connection {
    near: TcpStream,
    far: TcpStream,
}

impl Connection {
    /// Connects from one namespace to `address`, an address of the other.
    ///
    /// # Errors
    /// If it is not answered within the time of a stall.
    pub fn open(from: &Namespace, to: &Namespace, address: IpAddr) -> io::Result<Connection> {
        let listener = to.enter(|| TcpListener::bind(SocketAddr::new(address, 0)))?;
        let address = listener.local_addr()?;
        let near = from.enter(|| TcpStream::connect_timeout(&address, STALL_MAX))?;
        let (far, _) = listener.accept()?;
        near.set_write_timeout(Some(STALL_MAX))?;
        far.set_read_timeout(Some(STALL_MAX))?;
        Ok(Connection { near, far })
    }

    /// Sends for `time`; gives the bytes a second of the far end, in millions of bits.
    ///
    /// # Errors
    /// If the connection breaks or stalls.
    pub fn measure(&mut self, time: Duration) -> io::Result<f64> {
        let (near, far) = (&mut self.near, &mut self.far);
        let start = Instant::now();
        let received = thread::scope(|scope| {
            let sender = scope.spawn(move || send(near, start + time));
            let received = receive(far, start + time);
            let sent = sender
                .join()
                .unwrap_or_else(|p| std::panic::resume_unwind(p))?;
            let (in_time, mut total) = received?;
            // What is under way belongs to nobody's next measurement.
            let mut block = vec![0; BLOCK_LEN];
            while total < sent {
                total += far.read(&mut block)? as u64;
            }
            Ok::<_, io::Error>(in_time)
        })?;
        Ok(received as f64 * 8.0 / time.as_secs_f64() / 1e6)
    }
}

fn send(stream: &mut TcpStream, until: Instant) -> io::Result<u64> {
    let (block, mut sent) = (vec![0x5a; BLOCK_LEN], 0);
    while Instant::now() < until {
        sent += stream.write(&block)? as u64;
    }
    // The receiver looks at the clock when something comes: without this it might have read
    // everything before the time was up, and wait.
    sent += stream.write(&block[..1])? as u64;
    Ok(sent)
}

/// Bytes until the time was up, and in all.
fn receive(stream: &mut TcpStream, until: Instant) -> io::Result<(u64, u64)> {
    let (mut block, mut received) = (vec![0; BLOCK_LEN], 0);
    loop {
        let count = stream.read(&mut block)? as u64;
        if Instant::now() >= until {
            return Ok((received, received + count));
        }
        received += count;
    }
}

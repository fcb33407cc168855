//! Datagrams for the control side, read by the thread that handles them.

use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll};
use std::time::Duration;

use rmesh_router::{Control, Inbound};
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

use super::watch::register_owned;

/// What workers tell, and what comes by the control side's own sockets.
pub(super) type Incoming = (mpsc::Receiver<Inbound>, Arrivals);

/// The sockets, and what is known to wait at them.
pub(super) struct Arrivals {
    control: Control,
    sockets: Vec<Socket>,
}

struct Socket {
    descriptor: AsyncFd<OwnedFd>,
    /// Something came, and not all of it has been read.
    waits: bool,
}

impl Arrivals {
    /// # Errors
    /// If the process has no descriptors left.
    pub(super) fn new(control: Control) -> io::Result<Self> {
        let socket = |descriptor| {
            Ok(Socket {
                descriptor: register_owned(descriptor)?,
                waits: false,
            })
        };
        let sockets: io::Result<_> = control.descriptors()?.into_iter().map(socket).collect();
        sockets.map(|sockets| Arrivals { control, sockets })
    }

    /// Waits until something may be read.
    pub(super) async fn come(&mut self) {
        poll_fn(|context| self.poll(context)).await;
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        for socket in &mut self.sockets {
            // Forgotten before it is read, so that nothing that comes meanwhile is missed.
            while let Poll::Ready(Ok(mut guard)) = socket.descriptor.poll_read_ready(context) {
                guard.clear_ready();
                socket.waits = true;
            }
        }
        match self.readable().next() {
            Some(_) => Poll::Ready(()),
            None => Poll::Pending,
        }
    }

    /// Numbers of the sockets where something waits that may be read.
    fn readable(&self) -> impl Iterator<Item = usize> {
        let may_read = self.control.rest(std::time::Instant::now()).is_zero();
        let numbered = self.sockets.iter().enumerate();
        let waiting = numbered.filter(|(_, socket)| socket.waits);
        let numbers = waiting.map(|(number, _)| number);
        numbers.filter(move |number| may_read || !self.control.is_strangers(*number))
    }

    /// What has come, or a part of it.
    pub(super) fn take(&mut self) -> Vec<Inbound> {
        let mut inbound = Vec::new();
        for number in self.readable().collect::<Vec<_>>() {
            let is_all = self.control.receive(number, &mut inbound);
            if let Some(socket) = self.sockets.get_mut(number) {
                socket.waits = !is_all;
            }
        }
        inbound
    }

    /// Time after which something may be read that may not be yet.
    pub(super) fn rest(&self) -> Option<Duration> {
        let numbered = self.sockets.iter().enumerate();
        let mut waiting = numbered.filter(|(_, socket)| socket.waits);
        let waits = waiting.any(|(number, _)| self.control.is_strangers(number));
        waits.then(|| self.control.rest(std::time::Instant::now()))
    }
}

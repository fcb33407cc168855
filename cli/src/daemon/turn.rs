//! The daemon's loop: one thing after another, and what follows from each.

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::unix::AsyncFd;

use super::call::Call;
use super::manager::Manager;
use super::pools::overlaps_here;
use super::start::Daemon;
use super::streams::Closed;
use ipnet::IpNet;
use rmesh_router::kernel::{AddressWatch, local_addresses};
use rmesh_wire::Instant;

/// Datagrams taken from the queue before anything else gets its turn.
const INBOUND_BATCH: usize = 256;
/// Times that what is due is done before the thread listens again, if more of it is due by then.
const ROUNDS_MAX: u32 = 8;
/// Shortest sleep, so that no timer can keep the thread busy for ever.
const SLEEP_MIN: Duration = Duration::from_millis(1);
/// Changes of interfaces come in bursts; they are looked at together after this time.
const ADDRESSES_SETTLE: Duration = Duration::from_millis(100);
/// What is done about once a second is done so long after the last time if the thread is awake anyway …
const SECOND_MIN: Duration = Duration::from_millis(800);
/// … and by then at the latest: a host with nothing else to do wakes for its probes, and not for this.
const SECOND_MAX: Duration = Duration::from_secs(2);
/// Changes of routes come in bursts too; meanwhile little can have gone wrong.
const ROUTES_SETTLE: Duration = Duration::from_millis(20);

/// Serves until a call asks to stop.
pub(super) async fn serve(daemon: &mut Daemon, manager: &mut Manager) -> io::Result<()> {
    let mut second: Option<Instant> = None;
    let mut look_again: Option<Instant> = None;
    let mut rounds = 0;
    let mut follow_routes: Option<Instant> = None;
    while !daemon.core.is_stopping() {
        let now = daemon.core.now();
        let due = do_due(daemon, manager, &mut second, now);
        // What the kernel refused leads to the next question at once: some of that without a sleep between.
        rounds = match due.is_some_and(|due| due <= daemon.core.now()) {
            true => rounds + 1,
            false => 0,
        };
        if (1..ROUNDS_MAX).contains(&rounds) {
            continue;
        }
        if look_again.take_if(|due| *due <= now).is_some() {
            look(daemon);
            daemon.core.compare_pools_again();
        }
        if follow_routes.take_if(|due| *due <= now).is_some() {
            daemon.core.handle_routes();
            daemon.core.settle();
        }
        if daemon.core.wants_running() {
            tell_running(daemon);
        }
        let rest = daemon.inbound.1.rest().map(|rest| now + rest);
        // A manager that wants more than that makes nobody go round all the time.
        let second_max = manager.patience().clamp(SECOND_MIN, SECOND_MAX);
        let second_due = second.unwrap_or(now) + second_max;
        let due = [due, look_again, follow_routes, rest].into_iter().flatten();
        let due = due.fold(second_due, Instant::min);
        daemon.alarm.set(due.max(now + SLEEP_MIN))?;
        tokio::select! {
            () = daemon.alarm.rings() => continue,
            () = daemon.inbound.1.come() => {
                for inbound in daemon.inbound.1.take() {
                    daemon.core.handle_inbound(inbound);
                }
            }
            Some(inbound) = daemon.inbound.0.recv() => {
                daemon.core.handle_inbound(inbound);
                for _ in 0..INBOUND_BATCH {
                    let Ok(inbound) = daemon.inbound.0.try_recv() else { break };
                    daemon.core.handle_inbound(inbound);
                }
            }
            Some(call) = daemon.calls.recv() => daemon.core.handle_call(call),
            Some(news) = daemon.ledger.recv() => {
                daemon.core.handle_ledger(news);
                while let Ok(news) = daemon.ledger.try_recv() {
                    daemon.core.handle_ledger(news);
                }
            }
            Some(resolved) = daemon.resolved.recv() => daemon.core.handle_resolved(resolved),
            () = heartbeats(daemon.heartbeats.as_ref()) => daemon.core.handle_heartbeats(),
            Some(remote) = closed(&mut daemon.closed) => daemon.core.handle_closed(remote),
            Some(addresses) = daemon.addresses.1.recv() => daemon.core.handle_addresses(addresses),
            () = drained(&daemon.watches[0]) => {
                let now = daemon.core.now();
                look_again.get_or_insert(now + ADDRESSES_SETTLE);
                follow_routes.get_or_insert(now + ROUTES_SETTLE);
            }
            () = drained(&daemon.watches[1]) => {
                follow_routes.get_or_insert(daemon.core.now() + ROUTES_SETTLE);
            }
        }
        daemon.core.settle();
    }
    Ok(())
}

/// Does what is due, and what is done about once a second, `second` the last time; gives when the next is due.
fn do_due(
    daemon: &mut Daemon,
    manager: &mut Manager,
    second: &mut Option<Instant>,
    now: Instant,
) -> Option<Instant> {
    let due = daemon.core.deadline();
    let is_second = second.is_none_or(|last| now >= last + SECOND_MIN);
    if !is_second && due.is_none_or(|due| due > now) {
        return due;
    }
    daemon.core.handle_timeout(now);
    if is_second {
        *second = Some(now);
        daemon.core.handle_second();
        manager.alive();
        if let Some(pools) = daemon.core.pools_to_compare() {
            compare(daemon, pools);
        }
    }
    daemon.core.settle();
    daemon.core.deadline()
}

/// Waits for news, and takes all of it.
async fn drained(watch: &AsyncFd<AddressWatch>) {
    if let Ok(mut ready) = watch.readable().await {
        ready.get_inner().drain();
        ready.clear_ready();
    }
}

/// Waits until heartbeats have arrived through the kernel's VXLAN; for ever where it is not used.
async fn heartbeats(arrivals: Option<&AsyncFd<OwnedFd>>) {
    let Some(arrivals) = arrivals else {
        return pending().await;
    };
    if let Ok(mut ready) = arrivals.readable().await {
        // All that has come is read before the next wait.
        ready.clear_ready();
    }
}

/// Waits until a TCP connection is over; for ever where there is no TCP.
async fn closed(news: &mut Closed) -> Option<SocketAddr> {
    match news {
        Some(news) => news.recv().await,
        None => pending().await,
    }
}

/// Compares what the containers carry with what the ring knows, outside this thread.
fn tell_running(daemon: &Daemon) {
    let containers = Arc::clone(&daemon.containers);
    tokio::spawn(async move {
        if let Err(failure) = containers.tell_running().await {
            tracing::warn!("{failure}");
        }
    });
}

/// Compares the pools with the routes of this host, outside this thread.
fn compare(daemon: &Daemon, pools: Vec<IpNet>) {
    let (bridge, handle) = (daemon.bridge.name().to_owned(), daemon.handle.clone());
    tokio::spawn(async move {
        let compared = tokio::task::spawn_blocking(move || overlaps_here(&pools, &bridge)).await;
        match compared {
            // It fails only at the end.
            Ok(Ok(overlaps)) => drop(handle.tell(Call::Overlaps(overlaps)).await),
            Ok(Err(error)) => tracing::warn!("{error}"),
            Err(error) => tracing::error!("the look at the routes failed: {error}"),
        }
    });
}

/// Looks at this host's addresses and containers, outside this thread.
fn look(daemon: &Daemon) {
    let containers = Arc::clone(&daemon.containers);
    tokio::spawn(async move {
        if let Err(failure) = containers.drop_vanished().await {
            tracing::warn!("{failure}");
        }
    });
    // With --bind, those addresses are all there are.
    if !daemon.bind.is_empty() {
        return;
    }
    let (bridge, found) = (daemon.bridge.clone(), daemon.addresses.0.clone());
    let only = daemon.interface.clone();
    let look = move || local_addresses(bridge.name(), only.as_deref());
    tokio::task::spawn_blocking(move || match look() {
        // If the last look has not been taken in yet, the next one comes with the next change.
        Ok(addresses) => drop(found.blocking_send(addresses)),
        Err(error) => tracing::warn!("{error}"),
    });
}

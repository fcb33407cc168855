//! The daemon's loop: one thing after another, and what follows from each.

use std::future::pending;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use rmesh_router::kernel::{Bridge, local_addresses};
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};

use super::call::Call;
use super::manager::Manager;
use super::pools::overlaps_here;
use super::start::Daemon;

/// How often the data plane's counts are looked at.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(100);
/// Datagrams taken from the queue before anything else gets its turn.
const INBOUND_BATCH: usize = 256;
/// Longest sleep: a clock that jumps (suspend) is noticed after that.
const SLEEP_MAX: Duration = Duration::from_secs(1);
/// Shortest sleep, so that no timer can keep the thread busy for ever.
const SLEEP_MIN: Duration = Duration::from_millis(1);
/// Changes of interfaces come in bursts; they are looked at together after this time.
const ADDRESSES_SETTLE: Duration = Duration::from_millis(100);

/// How often it is looked whether containers are kept from the host's ports: who loads a ruleset of
/// nftables usually removes all others first.
const GUARD_INTERVAL: Duration = Duration::from_secs(2);

/// Serves until a call asks to stop.
pub(super) async fn serve(daemon: &mut Daemon, manager: &mut Manager) {
    let mut sample = interval(SAMPLE_INTERVAL);
    sample.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut second = interval(Duration::from_secs(1));
    second.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut guard = interval(GUARD_INTERVAL);
    guard.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut look_again: Option<Instant> = None;
    while !daemon.core.is_stopping() {
        let wait = daemon.core.time_left().unwrap_or(SLEEP_MAX);
        if wait.is_zero() {
            daemon.core.handle_timeout();
            daemon.core.settle();
        }
        tokio::select! {
            Some(inbound) = daemon.inbound.recv() => {
                daemon.core.handle_inbound(inbound);
                for _ in 0..INBOUND_BATCH {
                    let Ok(inbound) = daemon.inbound.try_recv() else { break };
                    daemon.core.handle_inbound(inbound);
                }
            }
            () = sleep(wait.clamp(SLEEP_MIN, SLEEP_MAX)) => {}
            _ = sample.tick() => daemon.core.handle_sample(),
            _ = second.tick() => {
                daemon.core.handle_second();
                manager.alive();
                if let Some(pools) = daemon.core.pools_to_compare() {
                    compare(daemon, pools);
                }
            }
            _ = guard.tick() => see_to_guard(&daemon.bridge),
            Some(call) = daemon.calls.recv() => daemon.core.handle_call(call),
            Some(news) = daemon.ledger.recv() => {
                daemon.core.handle_ledger(news);
                while let Ok(news) = daemon.ledger.try_recv() {
                    daemon.core.handle_ledger(news);
                }
            }
            Some(resolved) = daemon.resolved.recv() => daemon.core.handle_resolved(resolved),
            () = heartbeats(daemon.heartbeats.as_ref()) => daemon.core.handle_heartbeats(),
            Some(addresses) = daemon.addresses.1.recv() => daemon.core.handle_addresses(addresses),
            changed = daemon.watch.readable() => {
                if let Ok(mut ready) = changed {
                    ready.get_inner().drain();
                    ready.clear_ready();
                }
                look_again.get_or_insert(Instant::now() + ADDRESSES_SETTLE);
            }
            () = sleep_until(look_again.unwrap_or_else(Instant::now)), if look_again.is_some() => {
                look_again = None;
                look(daemon);
                daemon.core.compare_pools_again();
            }
        }
        daemon.core.settle();
        if daemon.core.wants_running() {
            tell_running(daemon);
        }
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

/// Keeps containers from the host's ports, outside this thread.
fn see_to_guard(bridge: &Bridge) {
    let bridge = bridge.clone();
    tokio::task::spawn_blocking(move || match bridge.guard() {
        Ok(false) => {}
        Ok(true) => tracing::warn!(
            "somebody removed the nftables table that keeps containers from this host's ports; it \
             is there again"
        ),
        // It was said at the start.
        Err(error) => tracing::debug!("{error}"),
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
    tokio::task::spawn_blocking(move || match local_addresses(bridge.name()) {
        // If the last look has not been taken in yet, the next one comes with the next change.
        Ok(addresses) => drop(found.blocking_send(addresses)),
        Err(error) => tracing::warn!("{error}"),
    });
}

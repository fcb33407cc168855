//! The daemon: opens what it needs, then serves until it is asked to stop.

mod addresses;
mod alarm;
mod arrivals;
mod call;
mod clock;
mod containers;
mod core;
mod fast;
mod guard;
mod journal;
mod manager;
mod pools;
mod ports;
mod present;
mod privileges;
mod removal;
mod ring;
mod start;
mod streams;
mod targets;
mod turn;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

pub(crate) use call::{Call, Handle, Snapshot, durable};
pub(crate) use containers::Containers;
pub(crate) use pools::add as add_pool;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use ports::Ports;
pub(crate) use removal::{adopt, remove};
pub(crate) use ring::{RingView, fold, lost_in_words};
pub(crate) use start::Options;
#[cfg(test)]
pub(crate) use start::{Remembered, remember};
pub(crate) use streams::TcpPort;
pub(crate) use targets::TARGETS_MAX;

use crate::api;
use crate::failure::Failure;
use manager::Manager;
use start::Daemon;

/// Threads for work that blocks: lookups of names (16), containers, interfaces.
const BLOCKING_THREADS_MAX: usize = 32;
/// They end after so long without work: less than what pauses between the work that is done again and
/// again, which would keep in turn as many alive as once were needed.
const BLOCKING_THREAD_IDLE: Duration = Duration::from_secs(1);

/// Runs a daemon in this process until it is asked to stop.
pub(crate) fn run(options: Options) -> Result<(), Failure> {
    privileges::give_up(options.port, options.tcp_port)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .thread_keep_alive(BLOCKING_THREAD_IDLE)
        .build()
        .map_err(|cause| Failure::failed("cannot start the router", cause))?;
    let result = runtime.block_on(serve(options));
    // A lookup of a name may still hang in the system's resolver.
    runtime.shutdown_background();
    result
}

async fn serve(options: Options) -> Result<(), Failure> {
    let cannot = |cause: std::io::Error| Failure::failed("cannot start the router", cause);
    let mut terminate = signal(SignalKind::terminate()).map_err(cannot)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(cannot)?;
    let mut manager = Manager::from_environment();
    let mut daemon = start::start(options)?;
    let service = api::Service {
        handle: daemon.handle.clone(),
        containers: Arc::clone(&daemon.containers),
    };
    let listener = api::bind(&daemon.run_dir).map_err(cannot)?;
    let server = axum::serve(listener, api::router(Arc::new(service)));
    let server = tokio::spawn(server.into_future());
    daemon.core.settle();
    manager.ready();
    tracing::info!("serving");
    tokio::select! {
        ended = turn::serve(&mut daemon, &mut manager) => {
            ended.map_err(cannot)?;
            tracing::info!("stopping: asked to");
        }
        _ = terminate.recv() => tracing::info!("stopping: terminated"),
        _ = interrupt.recv() => tracing::info!("stopping: interrupted"),
    }
    manager.stopping();
    // Answers that are ready go out first, the one to `stop` among them.
    sleep(Duration::from_millis(20)).await;
    server.abort();
    let _ = std::fs::remove_file(api::socket_path(&daemon.run_dir));
    let Daemon {
        core, locks, guard, ..
    } = daemon;
    drop(guard);
    core.shut_down();
    drop(locks);
    tracing::info!("stopped");
    Ok(())
}

//! `rmesh demo`: a mesh of three virtual hosts on this machine, with real peers and real traffic.

mod interrupt;
mod stage;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use rmesh_lab::{Lab, probe, require_privileges};

use crate::args::DemoArgs;
use crate::failure::Failure;
use interrupt::Interrupt;
use stage::{Place, Stage};

/// Name of the lab; the demo cleans up what a killed one of this name left.
const LAB: &str = "demo";
/// How long the peers are given to find each other and the first ping to cross.
const MEET_LIMIT: Duration = Duration::from_secs(15);
/// Size of the transfer.
const TRANSFER_BYTES: u64 = 10_000_000;
/// How long the transfer may take.
const TRANSFER_LIMIT: Duration = Duration::from_secs(20);

/// Runs the demo and removes everything it made.
pub(crate) fn run(args: &DemoArgs) -> Result<(), Failure> {
    if let Err(error) = require_privileges() {
        return Err(not_privileged(&error.to_string()));
    }
    let interrupt = Interrupt::install()?;
    let lab =
        Lab::for_demo(LAB).map_err(|error| Failure::failed("cannot start the demo", error))?;
    let result = tour(lab, &interrupt, args.once);
    if interrupt.is_set() {
        say("interrupted; everything is removed");
        return Ok(());
    }
    result?;
    say("everything is removed");
    Ok(())
}

/// The whole of it; the lab ends with this function, however it ends.
fn tour(lab: Lab, interrupt: &Interrupt, once: bool) -> Result<(), Failure> {
    say("making three virtual hosts a - b - c; a and c are joined only through b");
    let mut stage = Stage::build(lab, interrupt)?;
    let result = show(&mut stage, interrupt);
    if result.is_err() && !interrupt.is_set() {
        stage.print_logs();
    }
    result?;
    if once {
        return Ok(());
    }
    hints(&stage);
    interrupt.wait();
    Ok(())
}

fn show(stage: &mut Stage, interrupt: &Interrupt) -> Result<(), Failure> {
    let start = Instant::now();
    stage.launch_all(interrupt)?;
    stage.wait_until_met(interrupt, MEET_LIMIT)?;
    let took = start.elapsed().as_millis();
    say(&format!(
        "all three peers know each other, {took} ms after the first launch"
    ));
    stage.attach_all()?;
    let (first, last) = (stage.first(), stage.last());
    ping(first, last, last.v4, interrupt)?;
    ping(last, first, first.v4, interrupt)?;
    ping(first, last, last.v6, interrupt)?;
    transfer(first, last, interrupt)?;
    say("\nhost a says of itself (rmesh status, rmesh status peers):");
    stage.print_status(first)
}

fn ping(from: &Place, to: &Place, address: IpAddr, interrupt: &Interrupt) -> Result<(), Failure> {
    interrupt.check()?;
    let what = format!(
        "ping from {} to {} ({address})",
        from.container_name, to.container_name
    );
    if probe::wait_ping(&from.container, address, MEET_LIMIT).is_none() {
        return Err(Failure::failed(
            what,
            format!("no answer within {MEET_LIMIT:?}"),
        ));
    }
    let report = probe::ping(&from.container, address, probe::PingOptions::default())
        .map_err(|cause| Failure::failed(what.clone(), cause))?;
    let mean = report.round_trips.iter().sum::<Duration>()
        / u32::try_from(report.round_trips.len().max(1)).unwrap_or(1);
    say(&format!(
        "{what}: {} of {} answered, {:.1} ms each",
        report.received,
        report.sent,
        mean.as_secs_f64() * 1000.0
    ));
    if report.received == 0 {
        return Err(Failure::failed(what, "no answers any more"));
    }
    Ok(())
}

fn transfer(from: &Place, to: &Place, interrupt: &Interrupt) -> Result<(), Failure> {
    interrupt.check()?;
    let what = format!("TCP from {} to {}", from.container_name, to.container_name);
    let (source, target) = (&from.container, &to.container);
    let report = probe::tcp_transfer(source, target, to.v4, TRANSFER_BYTES, TRANSFER_LIMIT)
        .map_err(|cause| Failure::failed(what.clone(), cause))?;
    if !report.intact {
        let why = format!(
            "{} of {} bytes arrived unchanged",
            report.received, report.sent
        );
        return Err(Failure::failed(what, why));
    }
    let megabits = report.received as f64 * 8.0 / 1e6 / report.elapsed.as_secs_f64().max(1e-6);
    say(&format!(
        "{what}: {} MB in {} ms, unchanged ({megabits:.0} Mbit/s)",
        report.received / 1_000_000,
        report.elapsed.as_millis()
    ));
    Ok(())
}

fn hints(stage: &Stage) {
    let (first, last) = (stage.first(), stage.last());
    let program = stage.program().display();
    let run_dir = first.host.run_dir();
    let run_dir = run_dir.display();
    say(&format!(
        "\nLook around, in another terminal, as root:\n  \
         {program} --run-dir {run_dir} status paths\n  \
         {program} --run-dir {run_dir} status endpoints\n  \
         {program} --run-dir {run_dir} ps\n  \
         nsenter --net={} ping {}\n  \
         nsenter --net={} sh        # a shell inside the container {}\n  \
         tail -f {}\n\
         Ctrl-C ends the demo and removes everything.",
        first.container.path().display(),
        last.v4,
        first.container.path().display(),
        first.container_name,
        first.log.display(),
    ));
}

fn say(text: &str) {
    // A closed terminal is no reason to leave namespaces behind.
    let _ = crate::commands::print_line(text);
}

/// The exact command to use instead.
fn not_privileged(why: &str) -> Failure {
    // The lab's message names its own command, which is not the one that fits here.
    let cause = why.split(". Run it").next().unwrap_or(why);
    let command = if std::env::var_os("CARGO").is_some() {
        "cargo run --release -- demo".to_owned()
    } else {
        let program = std::env::current_exe().unwrap_or_else(|_| "rmesh".into());
        format!("{} demo", program.display())
    };
    Failure::failed("cannot start the demo", cause)
        .todo(format!("sudo -E env \"PATH=$PATH\" {command}"))
}

//! Measures rmesh on virtual hosts of this machine.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use rmesh_tests::bench;

/// Counts what the simulated peers take.
#[global_allocator]
static ALLOCATOR: rmesh_tests::heap::Counting = rmesh_tests::heap::Counting;

/// The name under which this program is `rmesh` itself: what the lab's hosts run is then never
/// another build than what measures it.
const AS_RMESH: &str = "rmesh";

/// Measures rmesh on virtual hosts of this machine, and says which bounds hold.
///
/// Needs root, for network namespaces. Exits with 1 if a bound does not hold.
///
/// Examples:
///   rmesh-bench
///   rmesh-bench --only idle --rounds 5 --json figures.json
#[derive(Parser)]
#[command(version, verbatim_doc_comment)]
struct Arguments {
    /// Measure only these.
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    only: Vec<String>,
    /// How often to measure everything.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Write all values into a file, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw all figures into a file, as SVG.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Say what there is, and measure nothing.
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    let own_name = std::env::args_os().next().map(PathBuf::from);
    if own_name.is_some_and(|name| name.ends_with(AS_RMESH)) {
        return rmesh::main();
    }
    match measure(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("rmesh-bench: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn measure(arguments: &Arguments) -> anyhow::Result<bool> {
    let benchmarks = bench::select(&arguments.only).map_err(anyhow::Error::msg)?;
    if arguments.list {
        for benchmark in benchmarks {
            println!("{:<10} {}", benchmark.name, benchmark.about);
        }
        return Ok(true);
    }
    rmesh_lab::require_privileges()?;
    let folder = tempfile::tempdir()?;
    let program = folder.path().join(AS_RMESH);
    std::os::unix::fs::symlink(std::env::current_exe()?, &program)?;
    let program = program.display().to_string();
    let figures = bench::run(&benchmarks, arguments.rounds.into(), &program);
    print!("{}", bench::table(&figures));
    if let Some(path) = &arguments.json {
        std::fs::write(path, serde_json::to_string_pretty(&figures)?)?;
    }
    if let Some(path) = &arguments.svg {
        std::fs::write(path, bench::svg(&figures))?;
    }
    Ok(figures.iter().all(bench::Figure::holds))
}

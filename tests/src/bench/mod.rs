//! What rmesh costs, measured in the lab: each benchmark gives figures, each figure a median with
//! its spread over the rounds, beside the bound the project sets itself.

mod allocate;
mod chart;
mod figure;
mod flood;
mod idle;
mod lossy;
mod outage;
mod ring;
mod speed;

pub use chart::svg;
pub use figure::{Bound, Figure};

/// One benchmark.
pub struct Benchmark {
    /// What `--only` calls it.
    pub name: &'static str,
    /// What it measures, in a line.
    pub about: &'static str,
    /// Measures once; the same figures in the same order each time.
    measure: fn(&str) -> Vec<Figure>,
}

/// All of them, in the order they run.
pub const BENCHMARKS: &[Benchmark] = &[
    Benchmark {
        name: "idle",
        about: "a peer in a mesh of three in which nothing happens",
        measure: idle::measure,
    },
    Benchmark {
        name: "allocate",
        about: "addresses through the local API, by one client and by fifty at once",
        measure: allocate::measure,
    },
    Benchmark {
        name: "throughput",
        about: "TCP between containers of two hosts, beside the bare wire and the kernel's VXLAN; each cipher \
                and port; over a relay",
        measure: speed::wire,
    },
    Benchmark {
        name: "nic",
        about: "the same where the underlay joins what it receives",
        measure: speed::nic,
    },
    Benchmark {
        name: "veth",
        about: "the same where the underlay carries super-frames whole",
        measure: speed::veth,
    },
    Benchmark {
        name: "limit",
        about: "TCP through rmesh beside a forwarder in user space that does nothing else, not even encrypt",
        measure: speed::limit,
    },
    Benchmark {
        name: "plaintext",
        about: "TCP and UDP by the kernel's VXLAN as rmesh sets it up, beside one made by hand",
        measure: speed::plaintext,
    },
    Benchmark {
        name: "datagrams",
        about: "UDP beside the kernel's VXLAN: rates of large and small datagrams, round trips",
        measure: speed::datagrams,
    },
    Benchmark {
        name: "lossy",
        about: "TCP over a wire that loses 1 %, between containers beside their hosts",
        measure: lossy::measure,
    },
    Benchmark {
        name: "outage",
        about: "how long a silent cut under load stops traffic among three hosts, over 50 cuts",
        measure: outage::measure,
    },
    Benchmark {
        name: "flood",
        about: "an established session under floods of handshakes, spoofed and replayed",
        measure: flood::measure,
    },
    Benchmark {
        name: "ring",
        about: "the ring of 1,000 simulated peers: memory, bytes on the wire",
        measure: ring::measure,
    },
];

/// The benchmarks of these names, all if none is given.
///
/// # Errors
/// A name that none has.
pub fn select(names: &[String]) -> Result<Vec<&'static Benchmark>, String> {
    let unknown = |name: &&String| BENCHMARKS.iter().all(|b| b.name != name.as_str());
    if let Some(name) = names.iter().find(unknown) {
        let known: Vec<&str> = BENCHMARKS.iter().map(|b| b.name).collect();
        return Err(format!(
            "no benchmark is called {name}; there are: {}",
            known.join(", ")
        ));
    }
    let chosen = |b: &&Benchmark| names.is_empty() || names.iter().any(|name| name == b.name);
    Ok(BENCHMARKS.iter().filter(chosen).collect())
}

/// Runs the benchmarks `rounds` times, each round all of them, so that whatever else the machine
/// does in between falls on all alike. `program` is what the lab's hosts run.
pub fn run(benchmarks: &[&Benchmark], rounds: usize, program: &str) -> Vec<Figure> {
    let mut all: Vec<Figure> = Vec::new();
    for round in 1..=rounds {
        let mut at = 0;
        for benchmark in benchmarks {
            eprintln!("round {round} of {rounds}: {}", benchmark.name);
            for figure in (benchmark.measure)(program) {
                match all.get_mut(at) {
                    Some(known) => known.values.extend(figure.values),
                    None => all.push(figure),
                }
                at += 1;
            }
        }
    }
    all
}

/// The figures as a table.
pub fn table(figures: &[Figure]) -> String {
    let head = ["figure", "median", "spread", "bound", ""].map(String::from);
    let mut lines = vec![head];
    lines.extend(figures.iter().map(Figure::cells));
    let widths: Vec<usize> = (0..lines[0].len())
        .map(|column| lines.iter().map(|l| l[column].chars().count()).max())
        .map(Option::unwrap_or_default)
        .collect();
    let show = |line: &[String; 5]| {
        let cells = line
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    lines.iter().map(show).collect()
}

//! What was counted before, kept beside this program.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, bail};

/// What a count may differ by, with the compiler that the kept ones are of, and with another one.
const SAME_COMPILER: f64 = 0.05;
const OTHER_COMPILER: f64 = 0.15;
/// How the kept counts are made anew.
pub(crate) const RENEW: &str = "cargo run --release -p rmesh-counts -- --renew";

/// The compiler that built this, and for what.
const COMPILER: &str = env!("RMESH_COUNTS_COMPILER");
const TARGET: &str = env!("RMESH_COUNTS_TARGET");

/// Instructions a frame, by benchmark.
pub(crate) struct Baseline {
    compiler: String,
    target: String,
    counts: Vec<(String, f64)>,
}

/// How a count stands to the kept one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It takes as many instructions as before, nearly.
    Holds,
    Worse,
    Better,
    /// There is none to compare with.
    New,
}

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("baseline.txt")
}

impl Baseline {
    /// What was counted just now.
    pub(crate) fn of(counts: Vec<(String, f64)>) -> Self {
        Baseline {
            compiler: COMPILER.to_owned(),
            target: TARGET.to_owned(),
            counts,
        }
    }

    pub(crate) fn read() -> anyhow::Result<Self> {
        let path = path();
        let text = std::fs::read_to_string(&path);
        let text = text.with_context(|| format!("{}; make it: {RENEW}", path.display()))?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    pub(crate) fn write(&self) -> anyhow::Result<()> {
        std::fs::write(path(), self.text()).context("cannot keep the counts")
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let mut baseline = Baseline {
            compiler: String::new(),
            target: String::new(),
            counts: Vec::new(),
        };
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            match line.split_once(' ').map(|(name, rest)| (name, rest.trim())) {
                Some(("compiler", version)) => version.clone_into(&mut baseline.compiler),
                Some(("target", target)) => target.clone_into(&mut baseline.target),
                Some((name, count)) => {
                    let count = count
                        .parse()
                        .with_context(|| format!("the count of {name}"))?;
                    baseline.counts.push((name.to_owned(), count));
                }
                None if line.is_empty() => {}
                None => bail!("not a name and a count: {line}"),
            }
        }
        Ok(baseline)
    }

    fn text(&self) -> String {
        let mut text = format!(
            "# Instructions a frame takes. Made anew by: {RENEW}\n\
             compiler {}\ntarget {}\n",
            self.compiler, self.target
        );
        for (name, count) in &self.counts {
            // A String takes whatever is written.
            let _ = writeln!(text, "{name:<16} {count:.1}");
        }
        text
    }

    /// What a count may differ by here; `None` if it means nothing, and why it is not the usual.
    pub(crate) fn tolerance(&self) -> (Option<f64>, Option<String>) {
        let Baseline {
            compiler, target, ..
        } = self;
        if target != TARGET {
            let why = format!("kept for {target}, this is {TARGET}: nothing to compare with");
            return (None, Some(why));
        }
        if compiler != COMPILER {
            let why = format!(
                "kept of {compiler}, this is {COMPILER}: they may differ by {:.0} %",
                OTHER_COMPILER * 100.0
            );
            return (Some(OTHER_COMPILER), Some(why));
        }
        (Some(SAME_COMPILER), None)
    }

    /// The kept count, and how another one stands to it.
    pub(crate) fn judge(&self, name: &str, count: f64, tolerance: f64) -> (Option<f64>, Verdict) {
        let kept = self.counts.iter().find(|(known, _)| known == name);
        let Some(&(_, kept)) = kept else {
            return (None, Verdict::New);
        };
        let verdict = if count > kept * (1.0 + tolerance) {
            Verdict::Worse
        } else if count < kept * (1.0 - tolerance) {
            Verdict::Better
        } else {
            Verdict::Holds
        };
        (Some(kept), verdict)
    }

    /// Names that are kept and not among these.
    pub(crate) fn gone<'a>(&'a self, names: &'a [&str]) -> impl Iterator<Item = &'a str> {
        let kept = self.counts.iter().map(|(name, _)| name.as_str());
        kept.filter(|name| !names.contains(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_comes_back_and_is_compared() {
        let counted = Baseline::of(vec![("send".to_owned(), 100.0), ("relay".to_owned(), 7.25)]);
        let kept = Baseline::parse(&counted.text()).unwrap();
        assert_eq!(kept.text(), counted.text());
        assert_eq!(kept.tolerance(), (Some(SAME_COMPILER), None));
        let verdict = |name, count| kept.judge(name, count, SAME_COMPILER).1;
        assert_eq!(verdict("send", 105.0), Verdict::Holds);
        assert_eq!(verdict("send", 105.1), Verdict::Worse);
        assert_eq!(verdict("send", 95.0), Verdict::Holds);
        assert_eq!(verdict("send", 94.9), Verdict::Better);
        assert_eq!(verdict("flood", 1.0), Verdict::New);
        assert_eq!(kept.gone(&["send"]).collect::<Vec<_>>(), ["relay"]);
    }

    #[test]
    fn another_compiler_may_differ_more_and_another_target_by_anything() {
        let kept = Baseline::parse(&format!("compiler rustc 1.0\ntarget {TARGET}\n")).unwrap();
        assert_eq!(kept.tolerance().0, Some(OTHER_COMPILER));
        let kept = Baseline::parse(&format!("compiler {COMPILER}\ntarget z80\n")).unwrap();
        assert_eq!(kept.tolerance().0, None);
        assert!(Baseline::parse("send many\n").is_err());
        assert!(Baseline::parse("send\n").is_err());
    }
}

//! What happened, kept for telling the story of a violation.

use rmesh_wire::Instant;

/// Lines kept; the last ones tell the end of the story.
const LINES_MAX: usize = 200_000;
/// Lines of a story told.
const STORY_MAX: usize = 120;

/// Notes, if they are wanted.
#[derive(Default)]
pub(super) struct Trace {
    pub(super) is_kept: bool,
    pub(super) is_told: bool,
    lines: Vec<(Instant, Option<usize>, String)>,
}

impl Trace {
    /// Notes something about a host, or about all.
    pub(super) fn note(
        &mut self,
        now: Instant,
        host: Option<usize>,
        what: impl FnOnce() -> String,
    ) {
        if !self.is_kept && !self.is_told {
            return;
        }
        let what = what();
        if self.is_told {
            eprintln!("{}", line(now, host, &what));
        }
        if self.is_kept && self.lines.len() < LINES_MAX {
            self.lines.push((now, host, what));
        }
    }

    /// The lines that matter for `words`: those that contain one of them, and those about all.
    pub(super) fn story(&self, words: &[String]) -> Vec<String> {
        let matters = |(_, host, what): &&(Instant, Option<usize>, String)| {
            host.is_none() || words.iter().any(|word| what.contains(word))
        };
        let lines: Vec<String> = self
            .lines
            .iter()
            .filter(matters)
            .map(|(now, host, what)| line(*now, *host, what))
            .collect();
        let skipped = lines.len().saturating_sub(STORY_MAX);
        lines.into_iter().skip(skipped).collect()
    }
}

fn line(now: Instant, host: Option<usize>, what: &str) -> String {
    let seconds = now.since(Instant::ZERO).as_secs_f64();
    match host {
        Some(host) => format!("{seconds:9.4} peer{host}: {what}"),
        None => format!("{seconds:9.4} {what}"),
    }
}

//! `rmesh man`: the man pages, made of what `--help` shows.

use std::fmt::Write as _;
use std::fs;
use std::io;

use clap::Command;
use clap_mangen::Man;

use super::{print_json, print_line};
use crate::args::{self, Global, ManArgs};
use crate::failure::Failure;

/// Chapter of the manual: commands.
const CHAPTER: &str = "1";
/// What introduces the examples in `--help`.
const EXAMPLES: [&str; 2] = ["Examples:\n", "Example:\n"];
/// What introduces the exit codes there; every page has them.
const EXIT_CODES: &str = "Exit codes:";
const EXIT_STATUS: &str = "0 if it is done, 1 if it failed, 2 if the words or flags make no sense. Standard error says \
                           what failed, why, and what to do next.";
const FILES: [(&str, &str); 3] = [
    ("/run/rmesh/rmesh.sock", "The daemon's API, for root only."),
    (
        "/var/lib/rmesh",
        "Identity, secret, remembered peers and attached containers.",
    ),
    (
        "/var/lib/rmesh/rmesh.log",
        "The log of a daemon in the background.",
    ),
];

pub(super) fn run(global: &Global, args: &ManArgs) -> Result<(), Failure> {
    let cannot = |cause: io::Error| Failure::failed("cannot write the man pages", cause);
    fs::create_dir_all(&args.folder).map_err(cannot)?;
    let mut written = Vec::new();
    for (name, page) in pages().map_err(cannot)? {
        let path = args.folder.join(format!("{name}.{CHAPTER}"));
        fs::write(&path, page).map_err(cannot)?;
        written.push(path.display().to_string());
    }
    if global.json {
        return print_json(&written);
    }
    written.iter().try_for_each(|path| print_line(path))
}

/// Name and text of every page: the program's, and one for each command.
fn pages() -> io::Result<Vec<(String, String)>> {
    let mut program = args::command().disable_help_subcommand(true);
    // Gives the global flags to every command.
    program.build();
    let verbs = program.get_subcommands().filter(|verb| !verb.is_hide_set());
    let commands: Vec<(String, &Command)> = [(String::from("rmesh"), &program)]
        .into_iter()
        .chain(verbs.flat_map(|verb| with_own("rmesh", verb)))
        .collect();
    let names: Vec<&str> = commands.iter().map(|(name, _)| name.as_str()).collect();
    let pages = commands.iter().map(|(name, command)| {
        let page = page(name, command, &names)?;
        Ok((name.clone(), page))
    });
    pages.collect()
}

/// A command and those under it.
fn with_own<'a>(above: &str, command: &'a Command) -> Vec<(String, &'a Command)> {
    let name = format!("{above}-{}", command.get_name());
    let own = command.get_subcommands().filter(|verb| {
        let is_help = verb.get_name() == "help";
        !is_help && !verb.is_hide_set()
    });
    let below: Vec<(String, &Command)> = own.flat_map(|verb| with_own(&name, verb)).collect();
    [(name, command)].into_iter().chain(below).collect()
}

fn page(name: &str, command: &Command, names: &[&str]) -> io::Result<String> {
    let man = Man::new(command.clone()).section(CHAPTER);
    // No date, so that the same source always makes the same page.
    let (title, version) = (name.to_uppercase(), crate::VERSION);
    let head = format!(".TH \"{title}\" \"{CHAPTER}\" \"\" \"rmesh {version}\" rmesh\n");
    let mut page = head.into_bytes();
    man.render_name_section(&mut page)?;
    page.extend(synopsis(command).into_bytes());
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.get_subcommands().any(|verb| !verb.is_hide_set()) {
        man.render_subcommands_section(&mut page)?;
    }
    let help = command.get_after_help().map(ToString::to_string);
    page.extend(after_help(&help.unwrap_or_default()).into_bytes());
    page.extend(ending(name, names).into_bytes());
    let page = String::from_utf8_lossy(&page);
    let lines = page.lines().map(str::trim_end);
    Ok(lines.flat_map(|line| [line, "\n"]).collect())
}

/// As `--help` has it.
fn synopsis(command: &Command) -> String {
    let usage = command.clone().render_usage().to_string();
    let usage = usage.strip_prefix("Usage: ").unwrap_or(&usage);
    let (name, words) = match usage.find(['[', '<']) {
        Some(at) => usage.split_at(at),
        None => (usage, ""),
    };
    let (name, words) = (escaped(name.trim()), escaped(words.trim()));
    format!(".SH SYNOPSIS\n.B {name}\n{words}\n").replace("\n\n", "\n")
}

/// The end of `--help`, paragraph by paragraph: examples as they stand there, the rest as notes.
fn after_help(help: &str) -> String {
    let mut examples = String::new();
    let mut notes = String::new();
    for paragraph in help.split("\n\n").filter(|text| !text.trim().is_empty()) {
        let lines = EXAMPLES
            .iter()
            .find_map(|word| paragraph.strip_prefix(word));
        match lines {
            Some(lines) => {
                for line in lines.lines() {
                    let _ = writeln!(
                        examples,
                        "{}",
                        escaped(line.strip_prefix("  ").unwrap_or(line))
                    );
                }
            }
            None if paragraph.starts_with(EXIT_CODES) => {}
            None => {
                let _ = writeln!(notes, ".PP\n{}", escaped(paragraph.trim()));
            }
        }
    }
    let mut text = String::new();
    if !examples.is_empty() {
        let _ = write!(text, ".SH EXAMPLES\n.nf\n{examples}.fi\n");
    }
    if !notes.is_empty() {
        // A section begins with a paragraph of its own.
        let notes = notes.strip_prefix(".PP\n").unwrap_or(&notes);
        let _ = write!(text, ".SH NOTES\n{notes}");
    }
    text
}

/// What is the same on every page.
fn ending(name: &str, names: &[&str]) -> String {
    let mut text = format!(".SH \"EXIT STATUS\"\n{}\n.SH FILES\n", escaped(EXIT_STATUS));
    for (path, what) in FILES {
        let _ = writeln!(text, ".TP\n{}\n{}", escaped(path), escaped(what));
    }
    let others = names.iter().filter(|other| **other != name);
    let others: Vec<String> = others
        .map(|other| format!(".BR {} ({CHAPTER})", escaped(other)))
        .collect();
    let _ = writeln!(text, ".SH \"SEE ALSO\"\n{}", others.join(",\n"));
    text
}

/// Text that roff takes for nothing but text.
fn escaped(text: &str) -> String {
    let plain = text.replace('\\', "\\e").replace('-', "\\-");
    let lines = plain
        .lines()
        .map(|line| match line.starts_with(['.', '\'']) {
            true => format!("\\&{line}"),
            false => line.to_owned(),
        });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_visible_command_has_a_page_with_its_examples() {
        let pages = pages().unwrap();
        let mut expected = vec!["rmesh".to_owned()];
        let program = args::command();
        let visible = program.get_subcommands().filter(|verb| !verb.is_hide_set());
        for verb in visible {
            let name = format!("rmesh-{}", verb.get_name());
            expected.push(name.clone());
            for own in verb.get_subcommands() {
                let name = format!("{name}-{}", own.get_name());
                expected.push(name.clone());
                let below = own.get_subcommands();
                expected.extend(below.map(|verb| format!("{name}-{}", verb.get_name())));
            }
        }
        assert!(
            expected.contains(&"rmesh-ipam-claim".into()),
            "{expected:?}"
        );
        let names: Vec<&String> = pages.iter().map(|(name, _)| name).collect();
        assert_eq!(names, expected.iter().collect::<Vec<_>>());
        assert!(!names.iter().any(|name| name.ends_with("-man")));
        for (name, page) in &pages {
            for section in [
                "NAME",
                "SYNOPSIS",
                "DESCRIPTION",
                "OPTIONS",
                "\"EXIT STATUS\"",
                "FILES",
            ] {
                assert!(
                    page.contains(&format!(".SH {section}\n")),
                    "{name}: {section}\n{page}"
                );
            }
            let verb = program
                .get_subcommands()
                .find(|v| *name == format!("rmesh-{}", v.get_name()));
            let help = verb
                .unwrap_or(&program)
                .get_after_help()
                .map(ToString::to_string);
            if help.is_some_and(|help| help.contains("Example")) {
                let (_, examples) = page.split_once(".SH EXAMPLES\n.nf\n").unwrap();
                assert!(examples.contains("rmesh"), "{name}: {examples}");
            }
        }
    }

    #[test]
    fn no_line_of_help_is_taken_for_a_request() {
        let shown = after_help("Examples:\n  .x a\\b --flag\n\n'note");
        let expected = ".SH EXAMPLES\n.nf\n\\&.x a\\eb \\-\\-flag\n.fi\n.SH NOTES\n\\&'note\n";
        assert_eq!(shown, expected);
    }
}

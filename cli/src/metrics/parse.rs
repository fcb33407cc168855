//! A strict reader of Prometheus' text format 0.0.4, for tests: it refuses what a scraper would,
//! and what makes no sense besides.

use std::collections::{BTreeMap, BTreeSet};

/// Labels of a sample, by name.
pub type Labels = BTreeMap<String, String>;

/// One family of samples.
#[derive(Debug, Clone, PartialEq)]
pub struct Family {
    /// `counter` or `gauge`.
    pub kind: String,
    /// What it means.
    pub help: String,
    /// Values by labels.
    pub samples: BTreeMap<Labels, f64>,
}

/// All families by name.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metrics(pub BTreeMap<String, Family>);

impl Metrics {
    /// The sum of the samples of a family that have all of these labels; `None` if there is none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let has = |of: &Labels| {
            let wanted = labels.iter();
            let mut wanted =
                wanted.map(|(label, value)| of.get(*label).is_some_and(|v| v == value));
            wanted.all(|same| same)
        };
        let samples = self.0.get(name)?.samples.iter();
        let values: Vec<f64> = samples.filter(|(of, _)| has(of)).map(|(_, v)| *v).collect();
        (!values.is_empty()).then(|| values.iter().sum())
    }

    /// Every counter of `self` that is not in `later`, or is smaller there.
    pub fn fell(&self, later: &Metrics) -> Vec<String> {
        let counters = self.0.iter().filter(|(_, family)| family.kind == "counter");
        let series = counters.flat_map(|(name, family)| {
            let samples = family.samples.iter();
            samples.map(move |(labels, value)| (name, labels, value))
        });
        let value = |name: &String, labels| later.0.get(name)?.samples.get(labels);
        let fell =
            series.filter(|(name, labels, old)| value(name, *labels).is_none_or(|new| new < old));
        fell.map(|(name, labels, old)| {
            format!("{name}{labels:?}: {old} to {:?}", value(name, labels))
        })
        .collect()
    }
}

/// Reads a whole answer.
///
/// # Errors
/// The first line that is wrong, and why.
pub fn parse(text: &str) -> Result<Metrics, String> {
    let mut metrics = Metrics::default();
    let mut done = BTreeSet::new();
    let mut current: Option<(String, Option<String>)> = None;
    if !text.ends_with('\n') {
        return Err("the last line does not end".into());
    }
    for line in text.lines() {
        let wrong = |why: &str| format!("{why}: {line:?}");
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').ok_or_else(|| wrong("no help"))?;
            if !is_name(name) || !done.insert(name.to_owned()) {
                return Err(wrong("a bad name, or a family in two places"));
            }
            let help = unescape(help, false).ok_or_else(|| wrong("a bad escape"))?;
            current = Some((name.to_owned(), Some(help)));
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').ok_or_else(|| wrong("no type"))?;
            let help = current.as_mut().filter(|(of, _)| of == name);
            let help = help.and_then(|(_, help)| help.take());
            let help = help.ok_or_else(|| wrong("TYPE without HELP before it"))?;
            check_unit(name, kind).map_err(wrong)?;
            let family = Family {
                kind: kind.to_owned(),
                help,
                samples: BTreeMap::new(),
            };
            metrics.0.insert(name.to_owned(), family);
        } else {
            let (name, labels, value) = sample(line).map_err(wrong)?;
            let is_open = current.as_ref().is_some_and(|(of, _)| of == name);
            let family = metrics.0.get_mut(name).filter(|_| is_open);
            let family = family.ok_or_else(|| wrong("not below its HELP and TYPE"))?;
            if family.kind == "counter" && value < 0.0 {
                return Err(wrong("a counter below zero"));
            }
            if family.samples.insert(labels, value).is_some() {
                return Err(wrong("a series twice"));
            }
        }
    }
    Ok(metrics)
}

/// Counters are called so, and units stand before that.
fn check_unit(name: &str, kind: &str) -> Result<(), &'static str> {
    match kind {
        "counter" if name.ends_with("_total") => Ok(()),
        "gauge" if !name.ends_with("_total") => Ok(()),
        _ => Err("name and type do not go together"),
    }
}

fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes
        .next()
        .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn unescape(text: &str, in_quotes: bool) -> Option<String> {
    let mut plain = String::new();
    let mut rest = text.chars();
    while let Some(character) = rest.next() {
        plain.push(match character {
            '\\' => match rest.next()? {
                '\\' => '\\',
                'n' => '\n',
                '"' if in_quotes => '"',
                _ => return None,
            },
            '"' if in_quotes => return None,
            other => other,
        });
    }
    Some(plain)
}

fn sample(line: &str) -> Result<(&str, Labels, f64), &'static str> {
    let end = line.find(['{', ' ']).ok_or("no value")?;
    let (name, mut rest) = line.split_at(end);
    if !is_name(name) {
        return Err("a bad name");
    }
    let mut labels = Labels::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = read_labels(inside, &mut labels)?;
    }
    let value = rest.strip_prefix(' ').ok_or("no blank before the value")?;
    let plain = |b: u8| b.is_ascii_digit() || b == b'.' || b == b'-';
    if !value.bytes().all(plain) {
        return Err("not a plain number");
    }
    let value = value.parse().map_err(|_| "not a number")?;
    Ok((name, labels, value))
}

/// Reads `a="b",c="d"}` and gives what follows.
fn read_labels<'a>(mut rest: &'a str, labels: &mut Labels) -> Result<&'a str, &'static str> {
    loop {
        let (label, after) = rest.split_once("=\"").ok_or("a label without a value")?;
        let end = end_of_value(after).ok_or("a value without an end")?;
        let (value, after) = after.split_at(end);
        let value = unescape(value, true).ok_or("a bad escape")?;
        if !is_name(label) || labels.insert(label.to_owned(), value).is_some() {
            return Err("a bad label, or one twice");
        }
        match after.get(1..2) {
            Some(",") => rest = &after[2..],
            Some("}") => return Ok(&after[2..]),
            _ => return Err("neither a comma nor the end of the labels"),
        }
    }
}

/// Where the quotation mark is that ends a value.
fn end_of_value(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    })
}

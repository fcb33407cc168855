//! One measured quantity.

use serde::Serialize;

/// What a figure has to keep to.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// Not more than this.
    Below(f64),
    /// Not less than this.
    Above(f64),
}

/// One measured quantity over all rounds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figure {
    /// What it is.
    pub name: String,
    /// In what it is counted.
    pub unit: &'static str,
    /// A value each round.
    pub values: Vec<f64>,
    /// What the project promises, if it does.
    pub bound: Option<Bound>,
}

impl Figure {
    /// A figure with the value of one round.
    pub fn new(name: impl Into<String>, unit: &'static str, value: f64) -> Self {
        Figure {
            name: name.into(),
            unit,
            values: vec![value],
            bound: None,
        }
    }

    /// With a bound.
    #[must_use]
    pub fn bound(mut self, bound: Bound) -> Self {
        self.bound = Some(bound);
        self
    }

    /// The middle of the values.
    pub fn median(&self) -> f64 {
        let mut sorted = self.values.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        match sorted.get(middle) {
            Some(upper) if sorted.len() % 2 == 1 => *upper,
            Some(upper) => f64::midpoint(sorted[middle - 1], *upper),
            None => f64::NAN,
        }
    }

    /// Whether the median keeps to the bound.
    pub fn holds(&self) -> bool {
        match self.bound {
            Some(Bound::Below(most)) => self.median() <= most,
            Some(Bound::Above(least)) => self.median() >= least,
            None => true,
        }
    }

    pub(super) fn cells(&self) -> [String; 5] {
        let least = self.values.iter().copied().fold(f64::INFINITY, f64::min);
        let most = self
            .values
            .iter()
            .copied()
            .fold(f64::NEG_INFINITY, f64::max);
        let bound = match self.bound {
            Some(Bound::Below(most)) => format!("<= {}", number(most)),
            Some(Bound::Above(least)) => format!(">= {}", number(least)),
            None => String::new(),
        };
        let verdict = match (self.bound, self.holds()) {
            (None, _) => "",
            (_, true) => "holds",
            (_, false) => "FAILS",
        };
        [
            self.name.clone(),
            format!("{} {}", number(self.median()), self.unit),
            format!("{} to {}", number(least), number(most)),
            bound,
            verdict.to_owned(),
        ]
    }
}

/// Three digits that count, without an exponent.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_judged_and_the_spread_shown() {
        let mut figure = Figure::new("x", "MB", 30.0).bound(Bound::Below(20.0));
        assert!(!figure.holds());
        figure.values = vec![5.0, 30.0, 15.0, 17.0];
        assert!((figure.median() - 16.0).abs() < 1e-9);
        assert!(figure.holds());
        let expected = ["x", "16.0 MB", "5.00 to 30.0", "<= 20.0", "holds"];
        assert_eq!(figure.cells(), expected);
    }
}

//! The figures as a drawing: a bar a figure, all of one unit to one scale.

use std::fmt::Write as _;

use super::{Bound, Figure};

const WIDTH: usize = 960;
const LABEL_WIDTH: usize = 430;
const BAR_WIDTH: f64 = 400.0;
const ROW_HEIGHT: usize = 22;
const HOLDS: &str = "#3b7ea1";
const FAILS: &str = "#b5482f";

/// An SVG document: medians as bars, the spread as a line through their ends, bounds as dashes.
pub fn svg(figures: &[Figure]) -> String {
    let mut units: Vec<&str> = Vec::new();
    for figure in figures {
        if !units.contains(&figure.unit) {
            units.push(figure.unit);
        }
    }
    let rows = figures.len() + 2 * units.len();
    let mut body = String::new();
    let mut row = 0;
    for unit in units {
        let of_unit: Vec<&Figure> = figures.iter().filter(|f| f.unit == unit).collect();
        let most = of_unit
            .iter()
            .map(|figure| reach(figure))
            .fold(0.0, f64::max);
        let scale = if most > 0.0 { BAR_WIDTH / most } else { 0.0 };
        row += 1;
        let y = (row * ROW_HEIGHT) as f64;
        text(&mut body, (8.0, y), "bold", unit);
        for figure in of_unit {
            row += 1;
            bar(&mut body, row * ROW_HEIGHT, figure, scale);
        }
        row += 1;
    }
    let height = (rows + 1) * ROW_HEIGHT;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{body}</svg>\n"
    )
}

/// The largest value that is drawn of a figure.
fn reach(figure: &Figure) -> f64 {
    let bound = match figure.bound {
        Some(Bound::Below(value) | Bound::Above(value)) => value,
        None => 0.0,
    };
    let finite = figure
        .values
        .iter()
        .copied()
        .filter(|value| value.is_finite());
    finite.fold(bound, f64::max)
}

fn bar(body: &mut String, y: usize, figure: &Figure, scale: f64) {
    let y = y as f64;
    let start = LABEL_WIDTH as f64;
    let median = figure.median();
    let length = if median.is_finite() {
        median * scale
    } else {
        0.0
    };
    let color = if figure.holds() { HOLDS } else { FAILS };
    text(body, (8.0, y), "normal", &figure.name);
    // Writing to a String cannot fail.
    let _ = writeln!(
        body,
        "<rect x=\"{start}\" y=\"{:.1}\" width=\"{length:.1}\" height=\"12\" fill=\"{color}\"/>",
        y - 10.0
    );
    let finite = || {
        figure
            .values
            .iter()
            .copied()
            .filter(|value| value.is_finite())
    };
    let (least, most) = (
        finite().fold(f64::INFINITY, f64::min),
        finite().fold(0.0, f64::max),
    );
    if least.is_finite() {
        let (from, to) = (start + least * scale, start + most * scale);
        line(body, [(from, y - 4.0), (to, y - 4.0)], "black", "");
    }
    if let Some(Bound::Below(value) | Bound::Above(value)) = figure.bound {
        let x = start + value * scale;
        line(
            body,
            [(x, y - 13.0), (x, y + 5.0)],
            "black",
            " stroke-dasharray=\"3 2\"",
        );
    }
    let [_, shown, _, bound, _] = figure.cells();
    let shown = format!("{shown} {bound}");
    text(
        body,
        (start + BAR_WIDTH + 8.0, y),
        "normal",
        shown.trim_end(),
    );
}

fn line(body: &mut String, [from, to]: [(f64, f64); 2], color: &str, more: &str) {
    let _ = writeln!(
        body,
        "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"{color}\"{more}/>",
        from.0, from.1, to.0, to.1
    );
}

fn text(body: &mut String, (x, y): (f64, f64), weight: &str, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(
        body,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" font-weight=\"{weight}\">{words}</text>"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_has_a_bar_to_the_scale_of_its_unit() {
        let figures = [
            Figure::new("a & b", "MB", 10.0).bound(Bound::Below(20.0)),
            Figure::new("c", "MB", 40.0).bound(Bound::Below(20.0)),
            Figure::new("d", "s", f64::NAN),
        ];
        let drawn = svg(&figures);
        assert!(
            drawn.contains("width=\"100.0\" height=\"12\" fill=\"#3b7ea1\""),
            "{drawn}"
        );
        assert!(
            drawn.contains("width=\"400.0\" height=\"12\" fill=\"#b5482f\""),
            "{drawn}"
        );
        assert!(
            drawn.contains("a &amp; b") && !drawn.contains("NaN\" y"),
            "{drawn}"
        );
        assert_eq!(drawn.matches("stroke-dasharray").count(), 2);
    }
}

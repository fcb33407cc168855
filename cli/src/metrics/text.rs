//! Prometheus' text format 0.0.4: families of samples, with their meaning and kind before them.

use std::fmt::{Display, Write as _};

/// An answer that is being written. Names are the program's own and known to be valid; everything
/// else is escaped.
#[derive(Default)]
pub(super) struct Text(String);

impl Text {
    /// A family of numbers that only grow while the daemon lives; its name ends with `_total`.
    pub(super) fn counter(&mut self, name: &'static str, help: &str) -> Family<'_> {
        self.family(name, "counter", help)
    }

    /// A family of numbers that come and go.
    pub(super) fn gauge(&mut self, name: &'static str, help: &str) -> Family<'_> {
        self.family(name, "gauge", help)
    }

    fn family(&mut self, name: &'static str, kind: &str, help: &str) -> Family<'_> {
        self.0.push_str("# HELP ");
        self.0.push_str(name);
        self.0.push(' ');
        escape(&mut self.0, help, false);
        for word in ["\n# TYPE ", name, " ", kind, "\n"] {
            self.0.push_str(word);
        }
        Family { text: self, name }
    }

    /// All that was written.
    pub(super) fn finish(self) -> String {
        self.0
    }
}

/// A family whose samples are being written.
pub(super) struct Family<'a> {
    text: &'a mut Text,
    name: &'static str,
}

impl Family<'_> {
    /// One sample; no other of the family has the same labels.
    pub(super) fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) -> &mut Self {
        let out = &mut self.text.0;
        out.push_str(self.name);
        let mut before = '{';
        for (label, value) in labels {
            out.push(before);
            out.push_str(label);
            out.push_str("=\"");
            escape(out, value, true);
            out.push('"');
            before = ',';
        }
        if !labels.is_empty() {
            out.push('}');
        }
        // Writing to a string cannot fail.
        let _ = writeln!(out, " {value}");
        self
    }
}

/// A backslash and a line's end are escaped, in label values the quotation mark as well.
fn escape(out: &mut String, text: &str, in_quotes: bool) {
    for character in text.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '"' if in_quotes => out.push_str("\\\""),
            other => out.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_and_type_come_first_and_everything_is_escaped() {
        let mut text = Text::default();
        text.counter("x_bytes_total", "a \\ and a\nline's \"end\"")
            .sample(&[("a", "quote \" back \\ line\nend"), ("b", "ü{},=")], 7)
            .sample(&[("a", ""), ("b", "")], u64::MAX);
        text.gauge("y_seconds", "Time.").sample(&[], 0.000_000_43);
        let expected = concat!(
            "# HELP x_bytes_total a \\\\ and a\\nline's \"end\"\n",
            "# TYPE x_bytes_total counter\n",
            "x_bytes_total{a=\"quote \\\" back \\\\ line\\nend\",b=\"ü{},=\"} 7\n",
            "x_bytes_total{a=\"\",b=\"\"} 18446744073709551615\n",
            "# HELP y_seconds Time.\n",
            "# TYPE y_seconds gauge\n",
            "y_seconds 0.00000043\n",
        );
        assert_eq!(text.finish(), expected);
    }
}

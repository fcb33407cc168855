//! Rates as people write and read them.

use std::fmt;
use std::num::NonZero;
use std::str::FromStr;

/// Bits a second, more than none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate(NonZero<u64>);

/// Decimal, as rates of networks are.
const UNITS: [(char, u64); 3] = [('G', 1_000_000_000), ('M', 1_000_000), ('k', 1_000)];

impl Rate {
    /// So many bits a second.
    pub(crate) fn new(bits_per_s: u64) -> Option<Rate> {
        NonZero::new(bits_per_s).map(Rate)
    }

    /// Bits a second.
    pub(crate) fn bits_per_s(self) -> u64 {
        self.0.get()
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Rate, String> {
        let wrong = || format!("{text:?} is no rate in bits a second; write 500k, 20M or 1G");
        let unit = UNITS.iter().find(|(letter, _)| {
            let last = text.chars().last().unwrap_or_default();
            last.eq_ignore_ascii_case(letter)
        });
        let (number, factor) = match unit {
            Some((_, factor)) => (&text[..text.len() - 1], *factor),
            None => (text, 1),
        };
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let bits = number.checked_mul(factor).and_then(Rate::new);
        bits.ok_or_else(wrong)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = self.bits_per_s();
        match UNITS
            .iter()
            .find(|(_, factor)| bits.is_multiple_of(*factor))
        {
            Some((letter, factor)) => write!(f, "{} {letter}bit/s", bits / factor),
            None => write!(f, "{bits} bit/s"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_and_written() {
        for (text, bits, shown) in [
            ("500k", 500_000, "500 kbit/s"),
            ("20M", 20_000_000, "20 Mbit/s"),
            ("20m", 20_000_000, "20 Mbit/s"),
            ("1G", 1_000_000_000, "1 Gbit/s"),
            ("1234", 1_234, "1234 bit/s"),
        ] {
            let rate: Rate = text.parse().unwrap();
            assert_eq!((rate.bits_per_s(), rate.to_string()), (bits, shown.into()));
        }
        for text in [
            "",
            "0",
            "M",
            "1.5M",
            "-1k",
            "99999999999G",
            "10Mbit",
            "1\u{e9}",
        ] {
            assert!(text.parse::<Rate>().is_err(), "{text:?}");
        }
    }
}

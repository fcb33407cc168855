//! Durations as people write and read them.

use std::time::Duration;

/// Longest time limit accepted: an hour.
pub(crate) const LIMIT_MAX: Duration = Duration::from_secs(3600);

/// Reads `10` (seconds), `10s`, `1.5s`, `500ms` or `2m`.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no duration; write 10, 10s, 500ms or 2m");
    let (number, unit) = match text.find(|c: char| !c.is_ascii_digit() && c != '.') {
        Some(at) => text.split_at(at),
        None => (text, "s"),
    };
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let seconds = match unit {
        "ms" => number / 1000.0,
        "s" => number,
        "m" => number * 60.0,
        _ => return Err(wrong()),
    };
    let duration = Duration::try_from_secs_f64(seconds).map_err(|_| wrong())?;
    if duration.is_zero() || duration > LIMIT_MAX {
        return Err(format!(
            "{text:?} must be more than zero and at most an hour"
        ));
    }
    Ok(duration)
}

/// A short text for tables: `870us`, `3.2ms`, `12s`, `5m`, `3h`, `2d`.
pub(crate) fn short(duration: Duration) -> String {
    let micros = duration.as_micros();
    let seconds = duration.as_secs();
    match seconds {
        0 if micros < 1_000 => format!("{micros}us"),
        0 => format!("{:.1}ms", duration.as_secs_f64() * 1000.0),
        1..=119 => format!("{seconds}s"),
        120..=7_199 => format!("{}m", seconds / 60),
        7_200..=172_799 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Whole milliseconds.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Whole microseconds.
pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_meant_unless_a_unit_is_given() {
        assert_eq!(parse("10"), Ok(Duration::from_secs(10)));
        assert_eq!(parse("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(parse("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse("2m"), Ok(Duration::from_secs(120)));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "s",
            "-1",
            "0",
            "1h",
            "10 s",
            "1e3",
            "nan",
            "1..2",
            "9999999999999",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn tables_show_two_or_three_digits() {
        assert_eq!(short(Duration::from_micros(870)), "870us");
        assert_eq!(short(Duration::from_micros(3_240)), "3.2ms");
        assert_eq!(short(Duration::from_secs(61)), "61s");
        assert_eq!(short(Duration::from_secs(400)), "6m");
        assert_eq!(short(Duration::from_secs(200_000)), "2d");
    }
}

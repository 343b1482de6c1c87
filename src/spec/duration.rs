//! Durations as people write them in our files: `500ms`, `9s`, `4.5s`, `10m`, `2h`. Zero is refused where it is read.

use std::time::Duration;

/// Parses `500ms`, `9s`, `4.5s`, `10m` or `2h`; `None` for anything else, zero and more than a year included.
#[must_use]
pub fn parse(text: &str) -> Option<Duration> {
    let (number, unit_ms) = [("ms", 1.0), ("s", 1_000.0), ("m", 60_000.0), ("h", 3_600_000.0)]
        .into_iter()
        .find_map(|(unit, ms)| text.strip_suffix(unit).map(|n| (n, ms)))?;
    if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return None;
    }
    let ms = number.parse::<f64>().ok()? * unit_ms;
    let year = 366.0 * 24.0 * 3_600_000.0;
    (ms >= 1.0 && ms <= year).then(|| Duration::from_micros((ms * 1_000.0).round() as u64))
}

/// How a duration is shown to people: the largest unit that keeps it short (`450ms`, `4.5s`, `4m`, `2h`).
#[must_use]
pub fn show(d: Duration) -> String {
    let ms = d.as_millis();
    let trim = |x: f64| format!("{x:.1}").trim_end_matches(".0").to_owned();
    match ms {
        0..1_000 => format!("{ms}ms"),
        1_000..120_000 => format!("{}s", trim(d.as_secs_f64())),
        120_000..7_200_000 => format!("{}m", trim(d.as_secs_f64() / 60.0)),
        _ => format!("{}h", trim(d.as_secs_f64() / 3_600.0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, ms) in
            [("500ms", 500), ("9s", 9_000), ("4.5s", 4_500), ("10m", 600_000), ("2h", 7_200_000)]
        {
            assert_eq!(parse(text), Some(Duration::from_millis(ms)), "{text}");
        }
        for wrong in ["", "5", "s", "0s", "-1s", "1e3s", "5 s", "1.2.3s", "99999h", "5d"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn durations_are_shown_short() {
        for (ms, text) in [(450, "450ms"), (4_500, "4.5s"), (9_000, "9s"), (240_000, "4m"), (7_200_000, "2h")]
        {
            assert_eq!(show(Duration::from_millis(ms)), text);
        }
    }
}

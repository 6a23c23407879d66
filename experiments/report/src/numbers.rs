//! Numbers of a report for people.

use crate::statistics::Spread;
use crate::table::{Cell, NONE};

/// `61.23 ± 0.45`; without a deviation `61.23`.
pub fn spread(value: Option<Spread>) -> String {
    spread_with(value, percent)
}

/// `+1.23 ± 0.45`
pub fn signed_spread(value: Option<Spread>) -> String {
    spread_with(value, signed)
}

fn spread_with(value: Option<Spread>, mean: fn(f64) -> String) -> String {
    match value {
        None => NONE.to_owned(),
        Some(Spread { mean: value, deviation: None, .. }) => mean(value),
        Some(Spread { mean: value, deviation: Some(deviation), .. }) => format!("{} ± {deviation:.2}", mean(value)),
    }
}

/// A cell with the mean of some numbers and their deviation.
pub fn spread_cell(value: Option<Spread>) -> Cell {
    Cell::number(spread(value), value.map(|spread| spread.mean))
}

/// `61.23`
pub fn percent(value: f64) -> String {
    format!("{value:.2}")
}

/// `+1.23`; what rounds to nothing has no sign.
pub fn signed(value: f64) -> String {
    let text = format!("{value:+.2}");
    if text == "+0.00" || text == "-0.00" { "0.00".to_owned() } else { text }
}

/// `0.031`, `< 0.001`: a p-value.
pub fn probability(value: f64) -> String {
    if value < 0.001 { "< 0.001".to_owned() } else { format!("{value:.3}") }
}

/// `3.2 s`, `4 min 05 s`, `2 h 03 min`
pub fn duration(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    match whole {
        0..60 => format!("{:.1} s", seconds.max(0.0)),
        60..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => {
            let minutes = (whole + 30) / 60;
            format!("{} h {:02} min", minutes / 60, minutes % 60)
        }
    }
}

/// `512 MiB`, `3.4 GiB`
pub fn bytes(value: u64) -> String {
    let mebibytes = value as f64 / f64::from(1 << 20);
    if mebibytes < 1024.0 { format!("{mebibytes:.0} MiB") } else { format!("{:.1} GiB", mebibytes / 1024.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        assert_eq!(duration(3.21), "3.2 s");
        assert_eq!(duration(59.97), "1 min 00 s");
        assert_eq!(duration(245.0), "4 min 05 s");
        assert_eq!(duration(7380.0), "2 h 03 min");
        assert_eq!(duration(7199.9), "2 h 00 min");
        assert_eq!(bytes(512 << 20), "512 MiB");
        assert_eq!(bytes(3_650_722_201), "3.4 GiB");
        assert_eq!((probability(0.0312), probability(0.0001)), ("0.031".to_owned(), "< 0.001".to_owned()));
        assert_eq!(signed(-0.001), "0.00");
        assert_eq!(signed(1.234), "+1.23");
        assert_eq!(signed_spread(Some(Spread { count: 2, mean: -1.0, deviation: Some(0.5) })), "-1.00 ± 0.50");
        assert_eq!(spread(Some(Spread { count: 1, mean: 61.234, deviation: None })), "61.23");
    }
}

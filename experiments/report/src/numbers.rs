//! Numbers of a report for people.

use limbeck::task::Unit;

use crate::statistics::Spread;
use crate::table::{Cell, NONE};

/// `61.23`: a number with the decimals of its unit.
pub fn plain(value: f64, unit: Unit) -> String {
    format!("{value:.*}", unit.decimals)
}

/// `+1.23`; what rounds to nothing has no sign.
pub fn signed(value: f64, unit: Unit) -> String {
    let text = format!("{value:+.*}", unit.decimals);
    if text.chars().all(|letter| matches!(letter, '+' | '-' | '.' | '0')) { plain(0.0, unit) } else { text }
}

/// `61.23 ± 0.45`; without a deviation `61.23`.
pub fn spread(value: Option<Spread>, unit: Unit) -> String {
    value.map_or_else(|| NONE.to_owned(), |spread| plain(spread.mean, unit) + &deviation(spread, unit))
}

/// `+1.23 ± 0.45`
pub fn signed_spread(value: Option<Spread>, unit: Unit) -> String {
    value.map_or_else(|| NONE.to_owned(), |spread| signed(spread.mean, unit) + &deviation(spread, unit))
}

fn deviation(spread: Spread, unit: Unit) -> String {
    spread.deviation.map(|deviation| format!(" ± {}", plain(deviation, unit))).unwrap_or_default()
}

/// A cell with the mean of some numbers and their deviation.
pub fn spread_cell(value: Option<Spread>, unit: Unit) -> Cell {
    Cell::number(spread(value, unit), value.map(|spread| spread.mean))
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
        assert_eq!(signed(-0.001, Unit::PERCENT), "0.00");
        assert_eq!(signed(1.234, Unit::PERCENT), "+1.23");
        let (one, two) =
            (Spread { count: 1, mean: 61.234, deviation: None }, Spread { count: 2, mean: -1.0, deviation: Some(0.5) });
        assert_eq!(signed_spread(Some(two), Unit::PERCENT), "-1.00 ± 0.50");
        assert_eq!(signed_spread(Some(two), Unit::NATS), "-1.0000 ± 0.5000");
        assert_eq!(spread(Some(one), Unit::PERCENT), "61.23");
        assert_eq!(spread(None, Unit::PERCENT), NONE);
    }
}

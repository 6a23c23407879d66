//! Words that the report and the command share.

/// `7 433 860`
pub fn thousands(value: i64) -> String {
    let digits = value.unsigned_abs().to_string();
    let mut text = if value < 0 { "-".to_owned() } else { String::new() };
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// `1 epoch`, `2 epochs`
pub fn plural(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_stand_in_groups_of_three() {
        assert_eq!(thousands(7_433_860), "7 433 860");
        assert_eq!(thousands(999), "999");
        assert_eq!(thousands(-100), "-100");
        assert_eq!(thousands(-1000), "-1 000");
    }

    #[test]
    fn one_is_singular() {
        assert_eq!([plural(1, "epoch"), plural(2, "epoch")], ["1 epoch", "2 epochs"]);
    }
}

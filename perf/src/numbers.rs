//! Medians of rounds, and how a table shows them.

/// The median; of an even number of values the upper one.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Smallest and largest.
pub(crate) fn range(values: &[f64]) -> (f64, f64) {
    values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(*v), high.max(*v)))
}

/// Ratios of values of the same round.
pub(crate) fn ratios(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a / b).collect()
}

/// `12.3k` for 12,345.
pub(crate) fn short(value: f64) -> String {
    if value >= 1e6 {
        format!("{:.2}M", value / 1e6)
    } else if value >= 1e4 {
        format!("{:.1}k", value / 1e3)
    } else {
        format!("{value:.2}")
    }
}

#[cfg(test)]
mod tests {
    use super::{median, range, ratios, short};

    #[test]
    fn medians_do_not_mind_an_outlier() {
        assert!((median(&[3.0, 1.0, 900.0]) - 3.0).abs() < 1e-9);
        assert_eq!(range(&[3.0, 1.0, 900.0]), (1.0, 900.0));
        assert_eq!(ratios(&[4.0, 9.0], &[2.0, 3.0]), [2.0, 3.0]);
        assert_eq!((short(12_345.0), short(3.71)), ("12.3k".to_owned(), "3.71".to_owned()));
    }
}

//! Output for people and programs. A reader that went away (`| head`) ends the command quietly, without a panic.

use super::fail::Failure;
use serde_json::Value;
use std::io::{self, Write};

/// Prints text as it is.
///
/// # Errors
/// The output takes no more, for another reason than that nobody reads it.
pub(super) fn text(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(format!("cannot write the output: {error}")))
        }
        _ => Ok(()),
    }
}

/// Prints JSON over several lines.
///
/// # Errors
/// See [`text`].
pub(super) fn json(value: &Value) -> Result<(), Failure> {
    text(&format!("{value:#}\n"))
}

/// A number of bytes in the unit that shows it with three digits.
#[must_use]
pub(super) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut tenths = u128::from(bytes) * 10 / 1024;
    let mut unit = 0;
    while tenths >= 10_240 {
        tenths /= 1024;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

/// The name of a volume, grouped as a UUID.
#[must_use]
pub(super) fn uuid(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(36);
    for (at, byte) in bytes.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{bytes, uuid};

    #[test]
    fn a_volume_is_named_like_a_uuid() {
        assert_eq!(uuid(&[0xab; 16]), "abababab-abab-abab-abab-abababababab");
        assert_eq!(uuid(&[]), "");
    }

    #[test]
    fn bytes_are_told_in_the_unit_that_fits() {
        for (number, told) in
            [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (1 << 30, "1.0 GiB"), (u64::MAX, "15.9 EiB")]
        {
            assert_eq!(bytes(number), told);
        }
    }
}

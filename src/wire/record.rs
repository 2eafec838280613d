//! Size-versioned records, the pieces a hot body is made of.
//!
//! ```text
//! 0  u16 kind     4  u32 bytes that follow this header
//! 2  u16 fixed    8  fixed bytes: a struct; then byte strings, each u32 length + bytes
//! ```
//! A reader takes the part of the struct it knows: a shorter one is filled up with zeros, of a longer one the end
//! is skipped. So a field may be added at the end of a struct when zero means "as before".

use super::WireFault;
use zerocopy::{FromZeros, IntoBytes};

/// Bytes before the struct.
pub const RECORD_HEADER_BYTES: usize = 8;

/// One record, split but not understood.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// What it is.
    pub kind: u16,
    fixed: &'a [u8],
    tail: &'a [u8],
}

impl<'a> Record<'a> {
    /// The struct, filled up with zeros or cut to the part known here.
    #[must_use]
    pub fn fixed<T: FromZeros + IntoBytes + zerocopy::FromBytes>(&self) -> T {
        let mut value = T::new_zeroed();
        let out = value.as_mut_bytes();
        let known = out.len().min(self.fixed.len());
        out[..known].copy_from_slice(&self.fixed[..known]);
        value
    }

    /// The byte strings behind the struct.
    #[must_use]
    pub fn tail(&self) -> Tail<'a> {
        Tail { kind: self.kind, rest: self.tail }
    }
}

/// Reads byte strings one after the other.
#[derive(Debug)]
pub struct Tail<'a> {
    kind: u16,
    rest: &'a [u8],
}

impl<'a> Tail<'a> {
    /// The next string.
    ///
    /// # Errors
    /// [`WireFault::Short`].
    pub fn bytes(&mut self) -> Result<&'a [u8], WireFault> {
        let short = WireFault::Short { kind: self.kind };
        let (len, rest) = self.rest.split_first_chunk::<4>().ok_or_else(|| short.clone())?;
        let len = u32::from_le_bytes(*len) as usize;
        let (bytes, rest) = rest.split_at_checked(len).ok_or(short)?;
        self.rest = rest;
        Ok(bytes)
    }

    /// The next string, which must be a file name.
    ///
    /// # Errors
    /// [`WireFault::Short`], or [`WireFault::Invalid`] for bytes that are not a name.
    pub fn name(&mut self) -> Result<crate::base::Name<'a>, WireFault> {
        let bytes = self.bytes()?;
        crate::base::Name::parse(bytes)
            .map_err(|_| WireFault::Invalid { kind: self.kind, what: "a name that no file may have" })
    }

    /// Whether nothing is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }
}

/// Splits a body into records, in order; stops after the first fault.
#[derive(Debug)]
pub struct Records<'a> {
    rest: &'a [u8],
}

impl<'a> Records<'a> {
    /// Over the body of a frame.
    #[must_use]
    pub fn new(body: &'a [u8]) -> Self {
        Self { rest: body }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, WireFault>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let Some((head, rest)) = self.rest.split_first_chunk::<RECORD_HEADER_BYTES>() else {
            self.rest = &[];
            return Some(Err(WireFault::Short { kind: 0 }));
        };
        let kind = u16::from_le_bytes([head[0], head[1]]);
        let fixed = usize::from(u16::from_le_bytes([head[2], head[3]]));
        let len = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        let split = rest.split_at_checked(len).and_then(|(all, rest)| {
            let (fixed, tail) = all.split_at_checked(fixed)?;
            Some((Record { kind, fixed, tail }, rest))
        });
        match split {
            Some((record, rest)) => {
                self.rest = rest;
                Some(Ok(record))
            }
            None => {
                self.rest = &[];
                Some(Err(WireFault::Short { kind }))
            }
        }
    }
}

/// The struct without the words of zeros at its end, which a reader fills up again.
#[must_use]
pub fn without_zeros(mut fixed: &[u8]) -> &[u8] {
    while let Some((rest, [0, 0, 0, 0])) = fixed.split_last_chunk::<4>() {
        fixed = rest;
    }
    fixed
}

/// Appends one record to `out`.
pub fn push<T: IntoBytes + zerocopy::Immutable + ?Sized>(
    out: &mut Vec<u8>,
    kind: u16,
    fixed: &T,
    tail: &[&[u8]],
) {
    let fixed = fixed.as_bytes();
    let len = fixed.len() + tail.iter().map(|bytes| 4 + bytes.len()).sum::<usize>();
    out.reserve(RECORD_HEADER_BYTES + len);
    out.extend_from_slice(&kind.to_le_bytes());
    out.extend_from_slice(&u16::try_from(fixed.len()).unwrap_or(u16::MAX).to_le_bytes());
    out.extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(fixed);
    for bytes in tail {
        out.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
        out.extend_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::{Records, push};
    use crate::wire::WireFault;
    use zerocopy::little_endian::U32;

    #[test]
    fn an_older_struct_is_filled_up_and_a_newer_one_is_cut() {
        let mut body = Vec::new();
        push(&mut body, 5, &[U32::new(1)], &[b"tail"]);
        push(&mut body, 5, &[U32::new(1), U32::new(2), U32::new(3)], &[b"tail"]);
        let records: Vec<_> = Records::new(&body).map(Result::unwrap).collect();
        let two = |i: usize| records[i].fixed::<[U32; 2]>().map(U32::get);
        assert_eq!((two(0), two(1)), ([1, 0], [1, 2]));
        assert!(records.iter().all(|r| r.tail().bytes() == Ok(&b"tail"[..])));
    }

    #[test]
    fn a_cut_body_is_a_fault_at_every_length() {
        let mut body = Vec::new();
        push(&mut body, 9, &[U32::new(1)], &[b"name"]);
        for len in 1..body.len() {
            let last = Records::new(&body[..len]).last();
            assert!(matches!(last, Some(Err(WireFault::Short { .. }))), "{len}");
        }
    }
}

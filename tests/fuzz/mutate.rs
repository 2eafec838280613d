//! Mutations of an input: the same number of the same file gives the same bytes.

/// Longest result: longer ones find nothing that shorter ones do not.
const BYTES_MAX: usize = 16 << 10;

/// Numbers that lie beside a limit of something.
const EDGES: [u64; 12] = [
    0,
    1,
    7,
    0x7f,
    0xff,
    0xffff,
    i32::MAX as u64,
    u32::MAX as u64,
    u32::MAX as u64 + 1,
    i64::MAX as u64,
    i64::MAX as u64 + 1,
    u64::MAX,
];

/// A source of numbers (xorshift64*) and what is made of them.
pub(crate) struct Mutator(u64);

impl Mutator {
    /// For mutation `number` of the file `name`.
    pub(crate) fn new(name: &str, number: u64) -> Self {
        let seed = name.bytes().fold(number ^ 0x9e37_79b9_7f4a_7c15, |seed, byte| {
            (seed ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self(seed | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() >> 33).unwrap_or(0) % end.max(1)
    }

    /// One to four changes of `bytes`; `others` lend pieces.
    pub(crate) fn mutate(mut self, bytes: &[u8], others: &[&[u8]]) -> Vec<u8> {
        let mut out = bytes.to_vec();
        for _ in 0..=self.below(4) {
            self.change(&mut out, others);
        }
        out.truncate(BYTES_MAX);
        out
    }

    fn change(&mut self, out: &mut Vec<u8>, others: &[&[u8]]) {
        let at = self.below(out.len());
        let low = self.next().to_le_bytes()[0];
        match self.below(9) {
            0 => out.truncate(at),
            1 => out.insert(at, low),
            2 => {
                let end = (at + 1 + self.below(16)).min(out.len());
                drop(out.drain(at.min(end)..end));
            }
            3 | 4 => {
                // A number of one, two, four or eight bytes.
                let edge = EDGES[self.below(EDGES.len())].wrapping_sub(self.next() & 1).to_le_bytes();
                let width = 1 << self.below(4);
                for (byte, new) in out.iter_mut().skip(at).zip(&edge[..width]) {
                    *byte = *new;
                }
            }
            5 => {
                let other = others[self.below(others.len())];
                let from = self.below(other.len());
                out.truncate(at);
                out.extend_from_slice(&other[from.min(other.len())..]);
            }
            6 => out.extend_from_within(at.min(out.len())..),
            7 => {
                if let Some(byte) = out.get_mut(at) {
                    *byte ^= 1 << (low % 8);
                }
            }
            _ => {
                if let Some(byte) = out.get_mut(at) {
                    *byte = low;
                }
            }
        }
    }
}

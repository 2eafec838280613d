//! Which segments to empty or delete: a pure plan. Carrying it out needs the metadata too and is done by
//! `server::store`.

use super::Segment;
use crate::base::SegmentId;

/// A segment and how much of it is alive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentLife {
    /// The segment.
    pub segment: Segment,
    /// Bytes of the records of chunks that are alive.
    pub live_bytes: u64,
    /// Whether somebody still writes or waits to enter a chunk of it in the metadata: leave it alone.
    pub pinned: bool,
}

/// What is worth doing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Plan {
    /// Segments without a live chunk: to be deleted.
    pub dead: Vec<SegmentId>,
    /// Segments whose live chunks are worth moving, the one with the smallest living part first.
    pub compact: Vec<SegmentId>,
}

/// Small sealed segments (each restart after a crash leaves one) are put together when there are more than this.
const SMALL_SEGMENTS_MAX: usize = 8;

/// Parts in 8 of a segment that may be alive when it is worth compacting, and when it is so on a full disk: there
/// what frees an eighth is worth copying the rest.
const LIVE_PARTS: u64 = 4;
const LIVE_PARTS_SCARCE: u64 = 7;

/// Decides. A segment is worth compacting when less than half of it is alive, or less than most when room is `scarce`.
/// `full_bytes` is the size at which a segment is closed.
#[must_use]
pub fn plan(segments: &[SegmentLife], full_bytes: u32, scarce: bool) -> Plan {
    let parts = if scarce { LIVE_PARTS_SCARCE } else { LIVE_PARTS };
    let idle = || segments.iter().filter(|life| life.segment.deletable && !life.pinned);
    let is_small = |life: &&SegmentLife| life.segment.bytes < u64::from(full_bytes / 4);
    let many_small = idle().filter(|life| life.live_bytes > 0).filter(is_small).count() > SMALL_SEGMENTS_MAX;
    let dead = idle().filter(|life| life.live_bytes == 0).map(|life| life.segment.id).collect();
    let mut compact: Vec<&SegmentLife> = idle()
        .filter(|life| life.live_bytes > 0)
        .filter(|life| life.live_bytes < life.segment.bytes / 8 * parts || many_small && is_small(life))
        .collect();
    compact.sort_by_key(|life| ((life.live_bytes << 10) / life.segment.bytes.max(1), life.segment.id));
    Plan { dead, compact: compact.into_iter().map(|life| life.segment.id).collect() }
}

#[cfg(test)]
mod tests {
    use super::{SMALL_SEGMENTS_MAX, SegmentLife, plan};
    use crate::base::SegmentId;
    use crate::server::chunks::{SEGMENT_BYTES, Segment};

    fn life(id: u32, bytes: u64, live_bytes: u64) -> SegmentLife {
        let segment = Segment { id: SegmentId(id), bytes, sealed: true, deletable: true };
        SegmentLife { segment, live_bytes, pinned: false }
    }

    #[test]
    fn the_dead_go_the_half_empty_move_and_the_rest_stays() {
        let full = u64::from(SEGMENT_BYTES);
        let mut all =
            [life(1, full, 0), life(2, full, full / 2 - 1), life(3, full, full / 2), life(4, full, 10)];
        let planned = plan(&all, SEGMENT_BYTES, false);
        assert_eq!(planned.dead, [SegmentId(1)]);
        assert_eq!(planned.compact, [SegmentId(4), SegmentId(2)]);
        assert_eq!(plan(&all, SEGMENT_BYTES, true).compact, [SegmentId(4), SegmentId(2), SegmentId(3)]);
        all[0].pinned = true;
        all[1].segment.deletable = false;
        assert!(plan(&all, SEGMENT_BYTES, false).dead.is_empty());
        assert_eq!(plan(&all, SEGMENT_BYTES, false).compact, [SegmentId(4)]);
    }

    #[test]
    fn many_small_segments_are_put_together_and_few_are_not() {
        let small: Vec<_> = (1..).take(SMALL_SEGMENTS_MAX + 1).map(|id| life(id, 5000, 5000)).collect();
        assert_eq!(plan(&small, SEGMENT_BYTES, false).compact.len(), small.len());
        assert_eq!(plan(&small[1..], SEGMENT_BYTES, false).compact, []);
        assert_eq!(plan(&small, 5000, true).compact, [], "where segments are no larger they are not small");
    }
}

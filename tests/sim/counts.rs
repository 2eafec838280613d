//! What came to pass in a run.

#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Counts {
    pub(super) local: u64,
    pub(super) waited: u64,
    pub(super) here: u64,
    pub(super) kernel: u64,
    pub(super) asked: u64,
    pub(super) compared: u64,
    pub(super) recalls: u64,
    pub(super) fsyncs: u64,
    pub(super) lost: u64,
    pub(super) kills: u64,
    pub(super) power: u64,
    pub(super) crashes: u64,
    pub(super) cuts: u64,
    pub(super) taken_out: u64,
    pub(super) torn: u64,
}

impl Counts {
    pub(super) fn add(&mut self, other: &Self) {
        self.local += other.local;
        self.waited += other.waited;
        self.here += other.here;
        self.kernel += other.kernel;
        self.asked += other.asked;
        self.compared += other.compared;
        self.recalls += other.recalls;
        self.fsyncs += other.fsyncs;
        self.lost += other.lost;
        self.kills += other.kills;
        self.power += other.power;
        self.crashes += other.crashes;
        self.cuts += other.cuts;
        self.taken_out += other.taken_out;
        self.torn += other.torn;
    }
}

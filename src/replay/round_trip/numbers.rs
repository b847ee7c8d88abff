//! Numbers from which operations are drawn.

/// Numbers in an order that depends on nothing else (`splitmix64`).
pub(super) struct Numbers(pub(super) u64);

impl Numbers {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }
    pub(super) fn bits(&mut self) -> u32 {
        u32::try_from(self.next() >> 32).expect("half of it")
    }
    /// Any number, a small one, or the largest.
    pub(super) fn any(&mut self) -> u64 {
        match self.next() % 4 {
            0 => self.next(),
            1 => self.next() % 9,
            2 => self.next() % (1 << 47),
            _ => u64::MAX,
        }
    }
    pub(super) fn file(&mut self) -> String {
        ["f0", "a \"b\"\n"][usize::from(self.next().is_multiple_of(2))].to_owned()
    }
}

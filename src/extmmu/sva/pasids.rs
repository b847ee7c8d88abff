//! Numbers of address spaces (`iommu_alloc_global_pasid`): the lowest that is free.

use std::collections::BTreeSet;

/// The highest PASID that a device can send: 20 bits.
pub(super) const MAX: u32 = (1 << 20) - 1;

/// The PASIDs of one IOMMU; 0 is that of requests without one.
#[derive(Debug)]
pub(super) struct Pasids {
    used: BTreeSet<u32>,
    max: u32,
}

impl Pasids {
    pub(super) fn new(max: u32) -> Self {
        Self {
            used: BTreeSet::new(),
            max: max.min(MAX),
        }
    }
    pub(super) fn take(&mut self) -> Option<u32> {
        let free = (1..=self.max).find(|pasid| !self.used.contains(pasid))?;
        self.used.insert(free);
        Some(free)
    }
    pub(super) fn put(&mut self, pasid: u32) {
        self.used.remove(&pasid);
    }
}

#[cfg(test)]
mod tests {
    use super::Pasids;

    #[test]
    fn the_lowest_free_number_is_taken() {
        let mut pasids = Pasids::new(2);
        assert_eq!(
            [pasids.take(), pasids.take(), pasids.take()],
            [Some(1), Some(2), None]
        );
        pasids.put(1);
        assert_eq!(pasids.take(), Some(1));
    }
}

//! The configuration of an IOMMU.

use super::{mistake::SvaMistake, pasids::MAX};

/// The configuration of an IOMMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SvaConfig {
    /// The highest PASID, at most 2^20 - 1.
    pub pasids: u32,
    /// Entries of the IOTLB, for each process.
    pub iotlb: usize,
    /// Entries of each device's ATC.
    pub atc: usize,
    /// Page requests that the queue has room for: 1 to 2^19. Other numbers count as the nearest.
    pub queue: usize,
    /// The number of pages from which on a flush is one of everything.
    pub most_by_page: u64,
    /// A mistake made on purpose, for a test that must find it.
    pub mistake: Option<SvaMistake>,
}

impl Default for SvaConfig {
    fn default() -> Self {
        Self {
            pasids: MAX,
            iotlb: 64,
            atc: 64,
            queue: 64,
            most_by_page: 512,
            mistake: None,
        }
    }
}

//! Mistakes that tests must find.

mistakes! {
    /// Mistakes that registration caches have made or could make, for tests that must find them.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    #[non_exhaustive]
    #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
    pub enum RegMistake {
        /// No window reaches the regions: a hit gives the pages of a mapping that is gone (I33).
        DeafMonitor,
        /// The monitor learns of a window at its end, when the page has changed already (C48).
        LateMonitor,
        /// A window takes the regions that begin in its range, and no others.
        StartsOnly,
        /// A second window over a region in use deregisters it (C53).
        InvalidatesTwice,
        /// A registration that a window overtook keeps the pages that it had pinned before (C17).
        UncheckedPins,
        /// A registration that a window overtook never gives up its first pins (C11).
        LeaksOnFailure,
        /// Of two registrations of the same pages the first keeps its pins for good.
        DoublePin,
        /// A region that was evicted keeps its pins.
        LeaksOnEviction,
        /// An eviction gives up the pins, and the region is found as before.
        EvictsPinsOnly,
        /// An eviction takes a region in use.
        EvictsInUse,
        /// Pins are found by page: a region gives up those that another one has of its pages.
        KeyByPage,
        /// The refusal of a page is remembered until a window, and a new mapping opens none.
        KeepsRefusals,
    }
}

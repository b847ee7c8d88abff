//! Mistakes that tests must find.

mistakes! {
    /// Mistakes that drivers of this kind have made, for tests that must find them.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    #[non_exhaustive]
    pub enum PinMistake {
        /// An unmapping does not flush the IOTLBs, and unpins (I27).
        NoFlush,
        /// An unmapping also takes areas that were mapped while it waited (C35).
        TakesLaterAreas,
        /// An unmapping does not wait for those that pinned pages through an access (C35).
        UnpinsInUse,
        /// A map that fails half-way keeps the pins that it has made (O31).
        KeepsPins,
        /// The IOTLB is not flushed after dirty bits were cleared (I31).
        DirtyNotFlushed,
        /// A bitmap of larger pages than the device's says dirty only where all of a page is (I31).
        DirtyRoundsInward,
        /// The process's page that is pinned for reading is the one that other processes have too
        /// (C40).
        ReadsShared,
    }
}

//! Mistakes that tests must find.

mistakes! {
    /// Mistakes that drivers of this kind have made or could make, for tests that must find them.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    #[non_exhaustive]
    pub enum SvaMistake {
        /// A flush reaches the IOTLB alone: entries that have a PASID stay in the devices (C26).
        NoAtcFlush,
        /// The devices are flushed before the IOTLB, and fill themselves from it again (I17).
        AtcFirst,
        /// The last page of a range is not flushed (C33).
        ShortFlush,
        /// The size of a flush of everything is computed to nothing (C31).
        WholeMissed,
        /// Of several devices of a process only the first is flushed.
        FirstDeviceOnly,
        /// A flush returns before the devices have done it (C30).
        NoWait,
        /// A device uses a copy of a translation that it found before a flush.
        UsesUnlocked,
        /// A device remembers refusals, and no flush comes when a right is gained.
        KeepsRefusals,
        /// A group of page requests is answered a second time (I20).
        AnswersTwice,
        /// A page request that finds the queue full is not answered (I20).
        LosesOverflow,
        /// Unbinding leaves the entries of the PASID in the device (C27).
        UnbindKeepsAtc,
        /// Unbinding does not wait for the page requests of the PASID (I19).
        NoDrain,
    }
}

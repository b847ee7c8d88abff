//! Mistakes that tests must find.

mistakes! {
    /// Mistakes that drivers of this kind have made or could make, for tests that must find them.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    #[non_exhaustive]
    pub enum OdpMistake {
        /// A window takes the pages out of the list alone, and the adapter keeps them (I10).
        NoZap,
        /// A window does not wait for the adapter (I10).
        NoWait,
        /// The last page of a range stays in the table.
        ShortZap,
        /// A huge entry stays if the window covers a part of it.
        PartKeepsHuge,
        /// The table is filled after the lock was released (I12, C4).
        FillsLate,
        /// The adapter uses a copy of an entry that it found before a window.
        UsesUnlocked,
        /// A page that is there for reading is not asked for again for a write (C21).
        NeverUpgrades,
        /// The pages are not marked dirty that the adapter writes.
        LostDirty,
        /// A refusal is remembered, and no window comes when something is mapped later.
        KeepsRefusals,
        /// A page fault is answered a second time (I15).
        AnswersTwice,
        /// A child of an implicit region is ended while the parent still leads to it (C52).
        EndsLinked,
        /// Children that windows have emptied are not ended.
        NeverReaps,
    }
}

//! Mistakes that tests must find.

mistakes! {
    /// Mistakes that drivers of this kind have made or could make, for tests that must find them.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    #[non_exhaustive]
    #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
    pub enum GpuMistake {
        /// A window does not flush the TLBs.
        NoFlush,
        /// A window flushes the TLB of the first engine alone.
        FirstEngineOnly,
        /// A window flushes the first page of its range alone.
        FirstPageOnly,
        /// The flush comes at the end of the window.
        LateFlush,
        /// A window flushes entries of single pages alone.
        SmallFlush,
        /// In a window of a migration of its own the driver does nothing that it may leave (C4).
        FiltersOwn,
        /// The neighbours of a page at fault are entered without validation.
        BatchVouched,
        /// A batch replaces entries that TLBs know to be dirty, and flushes none.
        ReplacesDirty,
        /// Stores of engines leave no dirty bit.
        LostDirty,
        /// Aging passes entries of 2 MiB by.
        AgesSmallOnly,
        /// The refusal of a page is remembered until a window, and a new mapping opens none.
        KeepsRefusals,
        /// Atomic operations use any page that may be written, not those alone that processors
        /// cannot reach.
        SharedAtomics,
        /// A page counts as the device's alone after a window has taken it back.
        KeepsAlone,
    }
}

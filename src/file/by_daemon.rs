//! A block of an object that `khugepaged` looks at.

/// The limits of `khugepaged` for the pages of a block, and how the block is mapped.
#[derive(Clone, Copy, Debug)]
pub struct ByDaemon {
    /// The most pages that are not in memory.
    pub none: u32,
    /// The most pages in swap.
    pub swap: u32,
    /// The first page of the object that is mapped.
    pub mapped: u64,
    /// The mapping asks for huge pages.
    pub advised: bool,
}

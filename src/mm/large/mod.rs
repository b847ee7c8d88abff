//! Pages of 2 MiB: whether one process alone maps a private one, and their split for good.
//!
//! Splitting a *mapping* of a huge page only clears the mark of a leaf (`page_table/huge_leaf.rs`);
//! the page stays huge. Splitting the *page* splits every mapping of it and makes its frames single
//! pages. That happens when a part of the page is given up (`MADV_DONTNEED`, `MADV_FREE`) and no
//! other process maps it.
//!
//! | file | holds |
//! | --- | --- |
//! | `ownership` | which huge pages a range has, and whether this process alone maps them |
//! | `mappers` | which address spaces map a folio without being counted |
//! | `split` | splitting such a page |
//! | `folio` | which folios of objects an advice reaches as a whole |
//! | `object` | dropping the mappings of huge pages of objects |

mod folio;
mod mappers;
pub(in crate::mm) mod object;
pub(in crate::mm) mod ownership;
pub(in crate::mm) mod split;

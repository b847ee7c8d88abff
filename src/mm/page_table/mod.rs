//! The page table: four levels of 512 entries, as x86-64 has them.
//!
//! Guarantee: a lookup takes no lock and never waits. It runs under an epoch pin, and a table page
//! outlives every pin that could have seen it. Every change of an entry happens under the lock of
//! its leaf (`docs/adr/0002-leaf-locks-and-closures.md`). Which table pages exist is the same as on
//! Linux at every moment, because Linux makes it visible: it decides whether a window opens, and
//! whether a move goes by entries or by whole tables (`docs/adr/0004-windows-show-tables.md`).
//!
//! No page above the address space has an entry, whatever a caller asks: the index into the root is
//! compared, not masked ([`root_slot`](index::root_slot)), ranges are cut at the end of the address
//! space, and no table is made above it. An index below the root is masked, because the root has
//! decided by then which page is meant.
//!
//! | file | holds |
//! | --- | --- |
//! | `table` | [`PageTable`]: the way down, growth, the walk over a range |
//! | `view` | [`TableView`]: the table under an epoch pin |
//! | `node` | upper-level tables, slots and their reclamation: the unsafe code |
//! | `leaf` | the last level: 512 entries and their lock |
//! | `slot` | [`LeafAt`]: a leaf as found in its slot, perhaps shared with other spaces |
//! | `share` | sharing a leaf between address spaces, and leaving it |
//! | `free` | freeing tables |
//! | `relocate` | moving whole tables |
//! | `huge_leaf` | leaves that map a huge page, and their split |
//! | `index` | positions in the tables |
//! | `bench_table` | the table alone, for benchmarks |
//! | `tests` | tests of all of this |

#[cfg(feature = "internals")]
pub mod bench_table;

mod free;
mod huge_leaf;
mod index;
mod leaf;
mod node;
mod relocate;
mod share;
mod slot;
mod table;
#[cfg(test)]
mod tests;
mod view;

pub(super) use free::Bounds;
pub(super) use huge_leaf::{fill_part, shared_huge, split_leaf, zero_unused};
pub(super) use leaf::LockedLeaf;
pub(super) use node::Pin;
pub(super) use slot::{LeafAt, count_copies};
pub(super) use table::{PageTable, Tables};
pub(super) use view::TableView;

//! An ordered map of page ranges that never overlap. Finding a range, or a hole of a wanted size,
//! takes O(log n) steps however the ranges lie.
//!
//! The map is a B+-tree with wide nodes. Values stay in one table for as long as they live; nodes
//! hold plain page numbers, which a search reads without touching a value. An entry of an inner
//! node keeps three facts about its subtree: the start of the first range, the end of the last one,
//! and the widest hole *between* the two. A hole between neighbouring subtrees is visible one level
//! higher, from the end of one and the start of the other, so a change updates only the nodes on
//! its path. A search for a hole can enter a subtree in vain only where a bound of the search cuts
//! it, which is at most two per level.
//!
//! ```text
//!  inner   [10,95) gap 9               [120,400) gap 80      hole 95..120 is seen here
//!            |                            |
//!  leaf    [10,20) [29,60) [60,95) --> [120,200) [280,400)   hole 200..280: gap of the right entry
//!            |       |       |            |         |
//!  values   #4      #0      #1           #3        #2
//! ```
//!
//! Memory of removed ranges is kept for later ones. All of it is given back when the tree becomes
//! empty, unless it is that of a single leaf.
//!
//! | file | holds |
//! | --- | --- |
//! | `vma_tree` | [`VmaTree`]: fields, look-ups by page |
//! | `iter` | iteration in ascending order |
//! | `gaps` | the highest or lowest hole of a wanted size |
//! | `insert`, `remove`, `update` | the three kinds of change |
//! | `descend` | the way down to a leaf, remembered by the finger |
//! | `climb` | the way back up: sums and balance of the nodes above a change |
//! | `holes` | the widest hole of a node, and a bound for the others |
//! | `path`, `finger` | the nodes on such a way, and the one that was used last |
//! | `node` | one node: sorted keys and their search |
//! | `pool` | memory of nodes and values |
//! | `check` | every invariant, for tests |
//! | `tests` | random operations against a plain map |

mod climb;
mod descend;
mod finger;
mod gaps;
mod holes;
mod insert;
mod iter;
mod node;
mod path;
mod pool;
mod remove;
mod update;
mod vma_tree;

#[cfg(any(test, debug_assertions))]
mod check;
#[cfg(all(test, not(loom)))]
mod tests;

pub(crate) use remove::Emptied;
pub(crate) use vma_tree::{Span, VmaTree};

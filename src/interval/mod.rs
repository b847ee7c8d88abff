//! An ordered map of intervals that may overlap, with a search for those that overlap a range.
//!
//! Guarantee: the intervals of an [`IntervalTree`] that overlap a range are found in O(log n) plus
//! a little for each, in the order of their keys. An insertion or removal takes O(log n), however
//! the intervals lie. A tree of at most one interval allocates nothing.
//!
//! Up to eight intervals are a sorted list; more are a B+-tree with wide nodes. An entry of an
//! inner node keeps the lowest key and the highest end of its subtree, so a query sees from above
//! which subtrees can matter.
//!
//! ```text
//!  inner      10.. to 95                   40.. to 50
//!               |                             |
//!  leaf       [10,20) [29,95) [30,31)       [40,41) [40,50)
//!
//!  a query of [60,70) enters the left leaf alone
//! ```
//!
//! The memory of removed intervals is kept for later ones until few intervals are left.
//!
//! | file | holds |
//! | --- | --- |
//! | `interval_tree` | the map: one item, a short list, or a tree |
//! | `walk` | a query, as an iterator |
//! | `balance` | splitting and merging of nodes |
//! | `tree` | the tree: paths from the root to a leaf |
//! | `pool` | nodes by number |
//! | `node` | one node: arrays of keys, ends and items |
//! | `item` | intervals and their keys |
//! | `tests` | comparison with a plain list |

mod balance;
mod interval_tree;
mod item;
mod node;
mod pool;
mod tree;
mod walk;

#[cfg(all(test, not(loom)))]
mod tests;

pub(crate) use interval_tree::IntervalTree;
pub(crate) use item::Key;

//! All intervals of an [`IntervalTree`] that overlap a range are found in O(log n) and a little for each, and come in
//! the order of their keys; to add or to take out one is O(log n) however the intervals lie. A tree of none or one
//! allocates nothing.
//!
//! Up to eight intervals are a sorted list, beyond that a B+-tree with wide nodes. An entry of an inner node keeps the
//! lowest key and the highest end of its subtree, so that a query sees from above which subtrees can matter.
//!
//! ```text
//!  inner      10.. to 95                   40.. to 50
//!               |                             |
//!  leaf       [10,20) [29,95) [30,31)       [40,41) [40,50)       a query of [60,70) enters the left leaf alone
//! ```
//!
//! Memory of removed intervals is kept for later ones until few are left, when the nodes are given back.

mod balance;
mod interval_tree;
mod item;
mod node;
mod pool;
mod tree;
mod walk;

#[cfg(test)]
mod tests;

pub(crate) use interval_tree::IntervalTree;
pub(crate) use item::Key;

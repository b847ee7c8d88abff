//! An ordered map of intervals: one item, a short list, or a tree.

use super::{
    item::{Item, Key, NodeEntry},
    tree::Tree,
    walk::Overlapping,
};
use std::fmt;

/// The most intervals in the list.
const MANY: usize = 8;
/// The number of intervals at which a tree becomes a list: so far from [`MANY`] that no two
/// neighbouring changes both convert.
const FEW: usize = 4;

/// A map of non-empty, half-open intervals of `u64`, which may overlap and be equal, in the order
/// of their [`Key`]s.
pub(crate) struct IntervalTree<V> {
    form: Form<V>,
}

enum Form<V> {
    One(Option<Item<V>>),
    /// 2 to [`MANY`] intervals.
    List(Vec<Item<V>>),
    /// More than [`FEW`] intervals.
    Tree(Box<Tree<V>>),
}

impl<V> IntervalTree<V> {
    /// Makes an empty tree, without an allocation.
    pub(crate) const fn new() -> Self {
        Self {
            form: Form::One(None),
        }
    }

    /// Returns the number of intervals.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        match &self.form {
            Form::One(one) => usize::from(one.is_some()),
            Form::List(list) => list.len(),
            Form::Tree(tree) => tree.len,
        }
    }

    /// Returns true if there is no interval.
    #[cfg(all(test, not(loom)))]
    #[inline]
    pub(crate) const fn is_empty(&self) -> bool {
        matches!(self.form, Form::One(None))
    }

    /// Inserts the interval `[key.start, end)`.
    ///
    /// # Panics
    ///
    /// If the interval is empty, or the key is there already; the tree is unchanged then.
    pub(crate) fn insert(&mut self, key: Key, end: u64, value: V) {
        assert!(key.start < end, "an empty interval, {key:?} to {end}");
        let entry = NodeEntry { key, end };
        match &mut self.form {
            Form::One(one @ None) => *one = Some(Item { entry, value }),
            Form::One(one) => {
                let mut list = Vec::with_capacity(2);
                let at = one.as_slice().place(key).expect_err(TAKEN);
                list.extend(one.take());
                list.insert(at, Item { entry, value });
                self.form = Form::List(list);
            }
            Form::List(list) => {
                let at = list.place(key).expect_err(TAKEN);
                list.insert(at, Item { entry, value });
                if list.len() > MANY {
                    self.form = Form::Tree(Box::new(Tree::of(list.drain(..))));
                }
            }
            Form::Tree(tree) => tree.insert(Item { entry, value }),
        }
    }

    /// Removes the interval with that key. Returns its end and value.
    pub(crate) fn remove(&mut self, key: Key) -> Option<(u64, V)> {
        let item = match &mut self.form {
            Form::One(one) => one.take_if(|item| item.entry.key == key)?,
            Form::List(list) => {
                let at = list.place(key).ok()?;
                let item = list.remove(at);
                if list.len() == 1 {
                    self.form = Form::One(list.pop());
                }
                item
            }
            Form::Tree(tree) => {
                let item = tree.remove(key)?;
                if tree.len <= FEW {
                    self.form = Form::List(tree.drain());
                }
                item
            }
        };
        Some((item.entry.end, item.value))
    }

    /// Gives the interval with that key another number, which no other has, and returns its value.
    pub(crate) fn renumber(&mut self, key: Key, seq: u64) -> Option<&mut V> {
        let new = Key { seq, ..key };
        match &mut self.form {
            Form::One(one) => {
                let item = one.as_mut().filter(|item| item.entry.key == key)?;
                item.entry.key = new;
            }
            Form::List(_) | Form::Tree(_) => {
                let (end, value) = self.remove(key)?;
                self.insert(new, end, value);
            }
        }
        self.get_mut(new)
    }

    /// Returns end and value of the interval with that key.
    #[cfg(all(test, not(loom)))]
    pub(crate) fn get(&self, key: Key) -> Option<(u64, &V)> {
        let list = match &self.form {
            Form::One(one) => one.as_slice(),
            Form::List(list) => list,
            Form::Tree(tree) => return tree.get(key),
        };
        let item = &list[list.place(key).ok()?];
        Some((item.entry.end, &item.value))
    }

    /// Returns the value of the interval with that key.
    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut V> {
        let list = match &mut self.form {
            Form::One(one) => one.as_mut_slice(),
            Form::List(list) => list,
            Form::Tree(tree) => return tree.get_mut(key),
        };
        let at = list.place(key).ok()?;
        Some(&mut list[at].value)
    }

    /// Returns the lowest key that is not below this one. O(log n).
    pub(crate) fn at_or_above(&self, key: Key) -> Option<Key> {
        let list = match &self.form {
            Form::One(one) => one.as_slice(),
            Form::List(list) => list,
            Form::Tree(tree) => return tree.at_or_above(key),
        };
        let (Ok(at) | Err(at)) = list.place(key);
        list.get(at).map(|item| item.entry.key)
    }

    /// Returns true if an interval shares a number with `[start, end)`. O(log n).
    pub(crate) fn any_overlap(&self, start: u64, end: u64) -> bool {
        self.overlapping(start, end).next().is_some()
    }

    /// Iterates over the intervals that share a number with `[start, end)`, ascending by key; over
    /// none, if that range is empty.
    ///
    /// O(log n) for the query, and at most that for each hit; neighbouring hits share the work.
    #[inline]
    pub(crate) fn overlapping(&self, start: u64, end: u64) -> Overlapping<'_, V> {
        let list = match &self.form {
            Form::Tree(tree) if start < end => return Overlapping::of_tree(tree, start, end),
            Form::One(one) if start < end => one.as_slice(),
            Form::List(list) if start < end => list,
            _ => &[],
        };
        Overlapping::of_list(list, start, end)
    }

    /// Iterates over all intervals, ascending by key.
    pub(crate) fn iter(&self) -> Overlapping<'_, V> {
        // An interval is not empty, so it ends above 0 and starts below the highest number.
        self.overlapping(0, u64::MAX)
    }
}

/// The message of a panic in an insertion.
const TAKEN: &str = "each key is inserted once";

/// A sorted list of intervals.
trait Sorted {
    /// Returns the index of `key`, or as an error the index at which it would be inserted.
    fn place(&self, key: Key) -> Result<usize, usize>;
}

impl<V> Sorted for [Item<V>] {
    fn place(&self, key: Key) -> Result<usize, usize> {
        self.binary_search_by_key(&key, |item| item.entry.key)
    }
}

impl<V> Default for IntervalTree<V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'t, V> IntoIterator for &'t IntervalTree<V> {
    type Item = (Key, u64, &'t V);
    type IntoIter = Overlapping<'t, V>;

    fn into_iter(self) -> Overlapping<'t, V> {
        self.iter()
    }
}

impl<V: fmt::Debug> fmt::Debug for IntervalTree<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries = self.iter().map(|(key, end, value)| ((key, end), value));
        f.debug_map().entries(entries).finish()
    }
}

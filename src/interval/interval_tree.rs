//! An ordered map of intervals: a short list, or a tree.

use super::{
    item::{Item, Key, NodeEntry},
    tree::Tree,
    walk::Overlapping,
};
use std::fmt;

/// Intervals in the list at most.
const MANY: usize = 8;
/// With so few left a tree becomes a list: far enough from [`MANY`] that no two neighbouring changes both convert.
const FEW: usize = 4;

/// Map of non-empty, half-open intervals of `u64`, which may overlap and repeat, in the order of their [`Key`]s.
pub(crate) struct IntervalTree<V> {
    form: Form<V>,
}

enum Form<V> {
    One(Option<Item<V>>),
    /// 2 to [`MANY`].
    List(Vec<Item<V>>),
    /// More than [`FEW`].
    Tree(Box<Tree<V>>),
}

impl<V> IntervalTree<V> {
    /// The empty tree; allocates nothing.
    pub(crate) const fn new() -> Self {
        Self {
            form: Form::One(None),
        }
    }

    /// How many intervals.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        match &self.form {
            Form::One(one) => usize::from(one.is_some()),
            Form::List(list) => list.len(),
            Form::Tree(tree) => tree.len,
        }
    }

    /// Whether there is no interval.
    #[cfg(test)]
    #[inline]
    pub(crate) const fn is_empty(&self) -> bool {
        matches!(self.form, Form::One(None))
    }

    /// Adds the interval `[key.start, end)`.
    ///
    /// # Panics
    /// If it is empty, or the key is there already; nothing changes then.
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

    /// Takes out the interval with that key: its end and value.
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

    /// End and value of the interval with that key.
    #[cfg(test)]
    pub(crate) fn get(&self, key: Key) -> Option<(u64, &V)> {
        let list = match &self.form {
            Form::One(one) => one.as_slice(),
            Form::List(list) => list,
            Form::Tree(tree) => return tree.get(key),
        };
        let item = &list[list.place(key).ok()?];
        Some((item.entry.end, &item.value))
    }

    /// The value of the interval with that key.
    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut V> {
        let list = match &mut self.form {
            Form::One(one) => one.as_mut_slice(),
            Form::List(list) => list,
            Form::Tree(tree) => return tree.get_mut(key),
        };
        let at = list.place(key).ok()?;
        Some(&mut list[at].value)
    }

    /// The lowest key that is not below this one. O(log n).
    pub(crate) fn at_or_above(&self, key: Key) -> Option<Key> {
        let list = match &self.form {
            Form::One(one) => one.as_slice(),
            Form::List(list) => list,
            Form::Tree(tree) => return tree.at_or_above(key),
        };
        let (Ok(at) | Err(at)) = list.place(key);
        list.get(at).map(|item| item.entry.key)
    }

    /// Whether any interval shares a number with `[start, end)`. O(log n).
    pub(crate) fn any_overlap(&self, start: u64, end: u64) -> bool {
        self.overlapping(start, end).next().is_some()
    }

    /// The intervals that share at least one number with `[start, end)`, ascending by key; none if that is empty.
    ///
    /// O(log n) for the query, and at most that for each hit; neighbouring hits share it.
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

    /// All intervals, ascending by key.
    pub(crate) fn iter(&self) -> Overlapping<'_, V> {
        // An interval ends above 0 and starts below the highest number, as it is not empty.
        self.overlapping(0, u64::MAX)
    }
}

/// Why an insert panics.
const TAKEN: &str = "each key is inserted once";

/// A sorted list of intervals.
trait Sorted {
    /// The index of `key`, or else where it belongs.
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

//! Temporary.
use std::collections::BTreeMap;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Key {
    pub(crate) start: u64,
    pub(crate) seq: u64,
}
#[derive(Debug)]
pub(crate) struct IntervalTree<V>(BTreeMap<Key, (u64, V)>);
impl<V> IntervalTree<V> {
    pub(crate) const fn new() -> Self {
        Self(BTreeMap::new())
    }
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    pub(crate) fn insert(&mut self, key: Key, end: u64, value: V) {
        assert!(self.0.insert(key, (end, value)).is_none());
    }
    pub(crate) fn remove(&mut self, key: Key) -> Option<(u64, V)> {
        self.0.remove(&key)
    }
    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut V> {
        self.0.get_mut(&key).map(|v| &mut v.1)
    }
    pub(crate) fn overlapping(&self, start: u64, end: u64) -> impl Iterator<Item = (Key, u64, &V)> {
        self.0
            .iter()
            .filter(move |(k, v)| k.start < end && v.0 > start)
            .map(|(k, v)| (*k, v.0, &v.1))
    }
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

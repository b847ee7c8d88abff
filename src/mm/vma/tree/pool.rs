//! Memory of nodes and values: vectors indexed by `u32`. There are no pointers, hence no unsafe
//! code, and `fork` copies a tree as plain memory.

use super::node::{NONE, Node};

/// The number of the next element of a vector of this length.
fn number(len: usize) -> u32 {
    u32::try_from(len)
        .ok()
        .filter(|&id| id != NONE)
        .expect("fewer than 2^32 - 1 nodes and ranges fit in memory")
}

/// Makes room for one more element. Grows by a quarter: doubling would leave up to half of a large
/// tree unused.
fn reserve_one<T>(all: &mut Vec<T>, least: usize) {
    if all.len() == all.capacity() {
        all.reserve_exact(least.max(all.len() / 4));
    }
}

/// Nodes of one kind; free ones form a list through `next`.
#[derive(Clone)]
pub(super) struct Nodes<const WIDTH: usize, const INNER: bool> {
    all: Vec<Node<WIDTH, INNER>>,
    free: u32,
}

impl<const WIDTH: usize, const INNER: bool> Nodes<WIDTH, INNER> {
    pub(super) const fn new() -> Self {
        Self {
            all: Vec::new(),
            free: NONE,
        }
    }

    #[inline]
    pub(super) fn get(&self, id: u32) -> &Node<WIDTH, INNER> {
        &self.all[id as usize]
    }

    #[inline]
    pub(super) fn get_mut(&mut self, id: u32) -> &mut Node<WIDTH, INNER> {
        &mut self.all[id as usize]
    }

    /// Returns how many nodes were ever used, the free ones included.
    pub(super) const fn len(&self) -> usize {
        self.all.len()
    }

    fn pair(&mut self, left: u32, right: u32) -> [&mut Node<WIDTH, INNER>; 2] {
        self.all
            .get_disjoint_mut([left as usize, right as usize])
            .expect("two neighbours are two nodes")
    }

    /// Returns the number of an empty node.
    pub(super) fn alloc(&mut self) -> u32 {
        if self.free == NONE {
            let id = number(self.all.len());
            reserve_one(&mut self.all, 1);
            self.all.push(Node::EMPTY);
            return id;
        }
        let id = self.free;
        let node = self.get_mut(id);
        let next = std::mem::replace(&mut node.next, NONE);
        self.free = next;
        id
    }

    /// Frees node `id` for later use.
    pub(super) fn release(&mut self, id: u32) {
        let free = self.free;
        let node = self.get_mut(id);
        node.clear();
        node.next = free;
        self.free = id;
    }

    /// Moves the upper half of node `id` to a new right neighbour, and returns its number.
    pub(super) fn split(&mut self, id: u32) -> u32 {
        let new = self.alloc();
        let [left, right] = self.pair(id, new);
        right.next = left.next;
        left.next = new;
        Node::share(left, right, left.len() / 2);
        new
    }

    /// Shares the entries of two neighbours evenly.
    pub(super) fn even_out(&mut self, left: u32, right: u32) {
        let [left, right] = self.pair(left, right);
        Node::share(left, right, left.len().midpoint(right.len()));
    }

    /// Moves all entries from `right` into `left` and frees `right`.
    pub(super) fn merge(&mut self, left: u32, right: u32) {
        let [l, r] = self.pair(left, right);
        Node::share(l, r, l.len() + r.len());
        l.next = r.next;
        self.release(right);
    }

    #[cfg(all(test, not(loom)))]
    pub(super) const fn bytes(&self) -> usize {
        self.all.capacity() * size_of::<Node<WIDTH, INNER>>()
    }

    #[cfg(any(test, debug_assertions))]
    pub(super) fn used(&self) -> usize {
        let mut free = 0;
        let mut id = self.free;
        while id != NONE {
            free += 1;
            id = self.get(id).next;
        }
        self.all.len() - free
    }
}

/// Memory of one value.
#[derive(Clone)]
enum Slot<V> {
    Used(V),
    /// Free; the number of the next free one.
    Free(u32),
}

/// The values. Each keeps its number for life, however the nodes change.
#[derive(Clone)]
pub(super) struct Values<V> {
    all: Vec<Slot<V>>,
    free: u32,
}

impl<V> Values<V> {
    pub(super) const fn new() -> Self {
        Self {
            all: Vec::new(),
            free: NONE,
        }
    }

    #[inline]
    pub(super) fn get(&self, id: u32) -> &V {
        match &self.all[id as usize] {
            Slot::Used(value) => value,
            Slot::Free(_) => unreachable!("a leaf names only places in use"),
        }
    }

    #[inline]
    pub(super) fn get_mut(&mut self, id: u32) -> &mut V {
        match &mut self.all[id as usize] {
            Slot::Used(value) => value,
            Slot::Free(_) => unreachable!("a leaf names only places in use"),
        }
    }

    pub(super) fn put(&mut self, value: V) -> u32 {
        let id = self.free;
        if id == NONE {
            let id = number(self.all.len());
            reserve_one(&mut self.all, 4);
            self.all.push(Slot::Used(value));
            return id;
        }
        match std::mem::replace(&mut self.all[id as usize], Slot::Used(value)) {
            Slot::Free(next) => self.free = next,
            Slot::Used(_) => unreachable!("the free list names only empty places"),
        }
        id
    }

    #[cfg(all(test, not(loom)))]
    pub(super) const fn bytes(&self) -> usize {
        self.all.capacity() * size_of::<Slot<V>>()
    }

    #[cfg(any(test, debug_assertions))]
    pub(super) fn used(&self) -> usize {
        self.all
            .iter()
            .filter(|slot| matches!(slot, Slot::Used(_)))
            .count()
    }

    pub(super) fn take(&mut self, id: u32) -> V {
        match std::mem::replace(&mut self.all[id as usize], Slot::Free(self.free)) {
            Slot::Used(value) => {
                self.free = id;
                value
            }
            Slot::Free(_) => unreachable!("a leaf names only places in use"),
        }
    }
}

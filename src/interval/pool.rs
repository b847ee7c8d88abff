//! Nodes by number: they live in a vector, so there are no pointers and no unsafe code.

use super::node::{NONE, Node};

/// The nodes of one kind. The free ones form a list through `next` and own no items.
pub(super) struct Nodes<T, const WIDTH: usize> {
    all: Vec<Node<T, WIDTH>>,
    free: u32,
}

impl<T: Default, const WIDTH: usize> Nodes<T, WIDTH> {
    pub(super) const fn new() -> Self {
        Self {
            all: Vec::new(),
            free: NONE,
        }
    }

    #[inline]
    pub(super) fn get(&self, id: u32) -> &Node<T, WIDTH> {
        &self.all[id as usize]
    }

    #[inline]
    pub(super) fn get_mut(&mut self, id: u32) -> &mut Node<T, WIDTH> {
        &mut self.all[id as usize]
    }

    fn pair(&mut self, left: u32, right: u32) -> [&mut Node<T, WIDTH>; 2] {
        self.all
            .get_disjoint_mut([left as usize, right as usize])
            .expect("two neighbours are two nodes")
    }

    /// Returns the number of an empty node.
    pub(super) fn alloc(&mut self) -> u32 {
        if self.free != NONE {
            let id = self.free;
            self.free = self.get(id).next;
            self.get_mut(id).next = NONE;
            return id;
        }
        let id = u32::try_from(self.all.len()).ok().filter(|&id| id != NONE);
        if self.all.len() == self.all.capacity() {
            // By a quarter at a time: doubling would leave up to half of a large tree unused.
            self.all.reserve_exact((self.all.len() / 4).max(1));
        }
        self.all.push(Node::new());
        id.expect("fewer than 2^32 - 1 nodes fit in memory")
    }

    /// Takes back node `id`, whose entries are gone.
    pub(super) fn release(&mut self, id: u32) {
        debug_assert_eq!(self.get(id).len(), 0, "entries of a released node");
        self.get_mut(id).next = self.free;
        self.free = id;
    }

    /// Moves the upper half of node `id` to a new right neighbour, and returns the number of that.
    pub(super) fn split(&mut self, id: u32) -> u32 {
        let new = self.alloc();
        let [left, right] = self.pair(id, new);
        Node::share(left, right, left.len() / 2);
        new
    }

    /// Shares the entries of two neighbours evenly.
    pub(super) fn even_out(&mut self, left: u32, right: u32) {
        let [left, right] = self.pair(left, right);
        Node::share(left, right, left.len().midpoint(right.len()));
    }

    /// Moves everything from `right` into `left` and frees `right`.
    pub(super) fn merge(&mut self, left: u32, right: u32) {
        let [l, r] = self.pair(left, right);
        Node::share(l, r, l.len() + r.len());
        self.release(right);
    }
}

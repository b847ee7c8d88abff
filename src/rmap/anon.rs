//! The family tree of anonymous memory: `anon_vma`, `anon_vma_chain`.
//!
//! Guarantee: the counts below are exact at every moment, since a link takes them when made and gives them back
//! when dropped. Nothing else may be inferred from an `AnonVma`; its address is its identity.

use crate::sync::Mutex;
use smallvec::SmallVec;
use std::sync::Arc;

/// One node of the family tree.
pub(crate) struct AnonVma {
    /// The node forked from; none for a root.
    parent: Option<Arc<AnonVma>>,
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    /// Child nodes, plus one for a root (which is its own parent).
    children: u32,
    /// VMAs whose `anon_vma` this node is.
    active: u32,
    /// Chain entries that lead here.
    linked: u32,
}

impl AnonVma {
    fn root() -> Arc<Self> {
        let node = Self {
            parent: None,
            counts: Mutex::default(),
        };
        node.counts.lock().children = 1;
        Arc::new(node)
    }
    fn child_of(parent: &Arc<Self>) -> Arc<Self> {
        parent.counts.lock().children += 1;
        Arc::new(Self {
            parent: Some(Arc::clone(parent)),
            counts: Mutex::default(),
        })
    }
    fn link(&self) {
        self.counts.lock().linked += 1;
    }
    /// Drops one chain entry; the last one takes the node out of the family.
    fn unlink(&self) {
        let mut c = self.counts.lock();
        c.linked -= 1;
        if c.linked > 0 {
            return;
        }
        match &self.parent {
            // Two nodes' locks are only ever taken child first, so this cannot cycle.
            Some(parent) => parent.counts.lock().children -= 1,
            None => c.children -= 1,
        }
    }
    fn activate(&self) {
        self.counts.lock().active += 1;
    }
    fn deactivate(&self) {
        self.counts.lock().active -= 1;
    }
    /// May a forked VMA take this node over instead of a new one? (`anon_vma_clone`: no VMA of its own, at most
    /// one child.) Keeps the tree of a process that forks and exits again and again from growing.
    fn reusable(&self) -> bool {
        let c = self.counts.lock();
        c.children < 2 && c.active == 0
    }
}

/// A VMA's place in the family: its own node, and every node whose pages it may map.
pub(crate) struct AnonLink {
    node: Arc<AnonVma>,
    chain: SmallVec<[Arc<AnonVma>; 2]>,
}

impl AnonLink {
    /// A fresh family (first write fault of a VMA without a suitable neighbour).
    pub(crate) fn fresh() -> Self {
        Self::joining(AnonVma::root())
    }
    /// Shares a neighbour's node (`find_mergeable_anon_vma`).
    pub(crate) fn joining(node: Arc<AnonVma>) -> Self {
        node.link();
        node.activate();
        Self {
            chain: SmallVec::from_iter([Arc::clone(&node)]),
            node,
        }
    }
    /// The link of a forked child's VMA (`anon_vma_fork`).
    pub(crate) fn fork(&self) -> Self {
        let mut chain = SmallVec::new();
        let mut reused = None;
        for node in &self.chain {
            node.link();
            chain.push(Arc::clone(node));
            if reused.is_none() && node.reusable() {
                reused = Some(Arc::clone(node));
            }
        }
        let node = reused.unwrap_or_else(|| {
            let node = AnonVma::child_of(&self.node);
            node.link();
            chain.push(Arc::clone(&node));
            node
        });
        node.activate();
        Self { node, chain }
    }
    /// The VMA's own node.
    pub(crate) fn node(&self) -> &Arc<AnonVma> {
        &self.node
    }
    /// Never forked from a parent in this address space: only then may it be shared or merged freely.
    pub(crate) fn is_singular(&self) -> bool {
        self.chain.len() == 1
    }
}

/// `anon_vma_clone` for a split or a merge: same node, same chain.
impl Clone for AnonLink {
    fn clone(&self) -> Self {
        for node in &self.chain {
            node.link();
        }
        self.node.activate();
        Self {
            node: Arc::clone(&self.node),
            chain: self.chain.clone(),
        }
    }
}

/// `unlink_anon_vmas`.
impl Drop for AnonLink {
    fn drop(&mut self) {
        for node in &self.chain {
            node.unlink();
        }
        self.node.deactivate();
    }
}

impl std::fmt::Debug for AnonLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "AnonLink({:p} of {})",
            Arc::as_ptr(&self.node),
            self.chain.len()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::AnonLink;
    use std::sync::Arc;

    #[test]
    fn a_forked_link_is_not_singular_and_a_cloned_one_is() {
        let parent = AnonLink::fresh();
        let half = parent.clone();
        assert!(half.is_singular() && Arc::ptr_eq(half.node(), parent.node()));
        let child = parent.fork();
        assert!(!child.is_singular() && !Arc::ptr_eq(child.node(), parent.node()));
    }

    #[test]
    fn a_node_without_vmas_is_taken_over_by_the_next_fork() {
        let parent = AnonLink::fresh();
        let child = parent.fork();
        let grandchild = child.fork();
        let node = Arc::clone(child.node());
        drop(child);
        assert!(Arc::ptr_eq(grandchild.fork().node(), &node));
    }

    #[test]
    fn counts_return_to_nothing() {
        let a = AnonLink::fresh();
        let node = Arc::clone(a.node());
        let (b, c) = (a.clone(), a.fork());
        drop((a, c, b));
        let counts = node.counts.lock();
        assert_eq!((counts.linked, counts.active, counts.children), (0, 0, 0));
    }
}

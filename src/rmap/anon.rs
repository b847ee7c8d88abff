//! The family tree of anonymous memory (`anon_vma`, `anon_vma_chain`).
//!
//! Guarantee: the counts of a node are exact at every moment, because a link takes them when it is
//! made and gives them back when it is dropped. The tree of a node holds every VMA that may map one
//! of its pages.
//!
//! A fork gives a VMA a child node. Pages from before the fork belong to an ancestor, so a VMA is
//! in the trees of all nodes of its chain; pages that it gets later belong to its own node. The
//! rules follow Linux's exactly, because the merging of VMAs depends on them.

use super::{
    after_walks::{after_walks, has_tree_locked},
    new_place::NewPlace,
    owner::{FrameOwner, VisitPage, VisitPart},
    registry::Registry,
    target::{MappedAt, RmapCx, VmaPlacement},
    tree::{Frozen, RmapTree, next_seq},
};
use crate::{
    addr::{Pfn, Vpn, VpnRange},
    frame::{Large, Owner, OwnerId, PhysMem},
    interval::Key,
    sync::Mutex,
};
use smallvec::SmallVec;
use std::sync::{Arc, Weak};

/// A node of the family tree: the owner of anonymous pages.
pub(crate) struct AnonVma {
    id: OwnerId,
    registry: Arc<Registry>,
    /// The node that this one was forked from; `None` for a root.
    parent: Option<Arc<AnonVma>>,
    counts: Mutex<Counts>,
    tree: RmapTree,
}

#[derive(Default)]
struct Counts {
    /// The number of child nodes, plus one for a root, which is its own parent.
    children: u32,
    /// The number of VMAs whose own node this is.
    active: u32,
    /// The number of chain entries that lead here.
    linked: u32,
}

impl AnonVma {
    fn new(registry: &Arc<Registry>, parent: Option<Arc<Self>>, children: u32) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            id: registry.add(Weak::<Self>::clone(me)),
            registry: Arc::clone(registry),
            parent,
            counts: Mutex::new(Counts {
                children,
                ..Counts::default()
            }),
            tree: RmapTree::new(),
        })
    }
    fn new_root(registry: &Arc<Registry>) -> Arc<Self> {
        Self::new(registry, None, 1)
    }
    fn child_of(parent: &Arc<Self>) -> Arc<Self> {
        parent.counts.lock().children += 1;
        Self::new(&parent.registry, Some(Arc::clone(parent)), 0)
    }
    /// Counts one more chain entry; `own`: of a VMA whose own node this is.
    fn link(&self, own: bool) {
        let mut c = self.counts.lock();
        c.linked += 1;
        c.active += u32::from(own);
    }
    /// Drops one chain entry; the last one takes the node out of the family.
    fn unlink(&self, own: bool) {
        let mut c = self.counts.lock();
        c.active -= u32::from(own);
        c.linked -= 1;
        if c.linked > 0 {
            return;
        }
        match &self.parent {
            // The locks of two nodes are only ever taken child first, so this cannot deadlock.
            Some(parent) => parent.counts.lock().children -= 1,
            None => c.children -= 1,
        }
    }
    fn activate(&self) {
        self.counts.lock().active += 1;
    }
    /// Returns true if a forked VMA may take this node over instead of a new one: no VMA has it as
    /// its own, and it has at most one child (`anon_vma_clone`). This keeps the tree from growing
    /// in a process that forks and exits again and again.
    fn reusable(&self) -> bool {
        let c = self.counts.lock();
        c.children < 2 && c.active == 0
    }
    /// Returns the oldest ancestor.
    pub(crate) fn root(&self) -> &Self {
        let mut node = self;
        while let Some(parent) = &node.parent {
            node = parent;
        }
        node
    }
    /// Visits page `at` of every address space in which a VMA of this node covers it. Returns false
    /// if a visit did.
    pub(super) fn walk_page(&self, cx: RmapCx<'_>, at: Vpn, visit: &mut VisitPage<'_>) -> bool {
        let mut go_on = true;
        self.tree.walk(cx, 0, u64::MAX, |cx, spot, vma| {
            if vma.contains(at) {
                go_on = visit(cx, &MappedAt { at, ..*spot });
            }
            go_on
        });
        go_on
    }
    /// Returns the owner to note in a frame that is page `index` of this node.
    pub(crate) fn owner(&self, index: u64) -> Owner {
        Owner { id: self.id, index }
    }
}

impl FrameOwner for AnonVma {
    fn walk(&self, cx: RmapCx<'_>, index: u64, _pfn: Pfn, visit: &mut VisitPage<'_>) {
        self.tree
            .walk(cx, index, index + 1, |cx, spot, _: VpnRange| {
                visit(cx, spot)
            });
    }
    fn walk_huge(&self, cx: RmapCx<'_>, (from, to): (u64, u64), visit: &mut VisitPart<'_>) {
        self.tree.walk(cx, from, to, visit);
    }
    fn split_large(&self, mem: &PhysMem, cx: RmapCx<'_>, page: Large, (from, to): (u64, u64)) {
        let mut split = 0;
        self.tree.walk(cx, from, to, |cx, spot, part| {
            split += spot.space.split_large(cx, spot, part, page);
            // Read anew for each VMA: a fork may have mapped the page once more meanwhile.
            split < mem.large_mappings(page)
        });
        mem.end_large(page);
    }
}

impl Drop for AnonVma {
    fn drop(&mut self) {
        self.registry.remove(self.id);
    }
}

/// A VMA's place in the family: its own node, and every node whose pages it may map.
/// [`follow`](Self::follow) enters the VMA's place into the trees of all of them.
pub(crate) struct AnonLink {
    node: Arc<AnonVma>,
    /// The nodes, ancestors first, so that the locks of several are always taken in one order.
    chain: SmallVec<[Arc<AnonVma>; 2]>,
    placed: Option<Placed>,
}

#[derive(Clone, Copy)]
struct Placed {
    key: Key,
    end: u64,
    flags: u64,
}

impl AnonLink {
    /// Makes a link to a new family, for the first write fault of a VMA without a suitable
    /// neighbour.
    pub(crate) fn fresh(registry: &Arc<Registry>) -> Self {
        Self::joining(AnonVma::new_root(registry))
    }
    /// Makes a link to a neighbour's node (`find_mergeable_anon_vma`).
    pub(crate) fn joining(node: Arc<AnonVma>) -> Self {
        node.link(true);
        Self {
            chain: SmallVec::from_iter([Arc::clone(&node)]),
            node,
            placed: None,
        }
    }
    /// Makes the link of a forked child's VMA (`anon_vma_fork`).
    pub(crate) fn fork(&self) -> Self {
        let mut chain = SmallVec::new();
        let mut reused = None;
        for node in &self.chain {
            node.link(false);
            chain.push(Arc::clone(node));
            if reused.is_none() && node.reusable() {
                reused = Some(Arc::clone(node));
            }
        }
        let node = match reused {
            Some(node) => {
                node.activate();
                node
            }
            None => {
                let node = AnonVma::child_of(&self.node);
                node.link(true);
                chain.push(Arc::clone(&node));
                node
            }
        };
        Self {
            node,
            chain,
            placed: None,
        }
    }
    /// Returns the VMA's own node.
    pub(crate) fn node(&self) -> &Arc<AnonVma> {
        &self.node
    }
    /// Returns true if the chain has one node, that is, if the VMA was not forked from a parent:
    /// only then its node may be shared, and the VMA merged, freely.
    pub(crate) fn is_singular(&self) -> bool {
        self.chain.len() == 1
    }
    /// Enters the place of the VMA into the tree of every node in the chain. A walk in any of them
    /// meets the VMA at the old place, at the new one, or at both, at each moment
    /// (docs/adr/0005-reverse-maps-know-the-new-place-first.md).
    pub(crate) fn follow(&mut self, place: &VmaPlacement) {
        let (start, end, flags) = (place.pgoff, place.pgoff_end(), place.flags);
        match &mut self.placed {
            Some(p) if (p.key.start, p.end) == (start, end) => {
                if p.flags != flags {
                    p.flags = flags;
                    self.chain
                        .iter()
                        .for_each(|n| n.tree.set_flags(p.key, flags));
                }
            }
            placed => {
                let key = Key {
                    start,
                    seq: next_seq(),
                };
                let old = placed.map(|p| p.key);
                self.chain
                    .iter()
                    .for_each(|n| n.tree.insert(key, place, old));
                *placed = Some(Placed { key, end, flags });
            }
        }
    }
    /// Returns the trees that have the VMA.
    pub(crate) fn trees(&self) -> AnonTrees {
        AnonTrees {
            chain: self.chain.clone(),
            key: self.placed.map(|placed| placed.key),
        }
    }
    /// Notes the place to which the records lead by now ([`AnonTrees::lead_to`]).
    pub(crate) fn note_place(&mut self, place: NewPlace) {
        if let Some(placed) = &mut self.placed {
            placed.key.seq = place.seq;
        }
    }
}

/// The trees of a VMA's family that lead to it, and the VMA's record in them. They outlive the VMA.
pub(crate) struct AnonTrees {
    chain: SmallVec<[Arc<AnonVma>; 2]>,
    key: Option<Key>,
}

impl AnonTrees {
    /// Keeps walks in all of these trees out while entries move.
    pub(crate) fn freeze(&self) -> SmallVec<[Frozen<'_>; 2]> {
        self.chain.iter().map(|n| n.tree.freeze()).collect()
    }
    /// Lets the records lead to the new place of the VMA.
    pub(crate) fn lead_to(&self, frozen: &mut [Frozen<'_>], place: NewPlace) {
        let old = self.key.expect("a VMA that moves has a place");
        let trees = frozen.iter_mut();
        trees.for_each(|tree| tree.lead(old, place.seq, place.at));
    }
}

/// Makes a link with an equal node and chain for a split or a merge (`anon_vma_clone`). The link is
/// not entered into any tree yet.
impl Clone for AnonLink {
    fn clone(&self) -> Self {
        for node in &self.chain {
            node.link(Arc::ptr_eq(node, &self.node));
        }
        Self {
            node: Arc::clone(&self.node),
            chain: self.chain.clone(),
            placed: None,
        }
    }
}

/// Takes the VMA out of the trees and gives the counts back (`unlink_anon_vmas`).
impl Drop for AnonLink {
    fn drop(&mut self) {
        let placed = self.placed;
        if !has_tree_locked() {
            return leave(&self.chain, &self.node, placed);
        }
        let (chain, node) = (std::mem::take(&mut self.chain), Arc::clone(&self.node));
        after_walks(move || leave(&chain, &node, placed));
    }
}

/// Takes a VMA out of the trees of the nodes in `chain`, and gives its counts of them back.
fn leave(chain: &[Arc<AnonVma>], own: &Arc<AnonVma>, placed: Option<Placed>) {
    for node in chain {
        if let Some(placed) = placed {
            node.tree.remove(placed.key);
        }
        node.unlink(Arc::ptr_eq(node, own));
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
    use super::{AnonLink, Registry};
    use std::sync::Arc;

    #[test]
    fn a_forked_link_is_not_singular_and_a_cloned_one_is() {
        let parent = AnonLink::fresh(&Arc::<Registry>::default());
        let half = parent.clone();
        assert!(half.is_singular() && Arc::ptr_eq(half.node(), parent.node()));
        let child = parent.fork();
        assert!(!child.is_singular() && !Arc::ptr_eq(child.node(), parent.node()));
    }

    #[test]
    fn a_node_without_vmas_is_taken_over_by_the_next_fork() {
        let parent = AnonLink::fresh(&Arc::<Registry>::default());
        let child = parent.fork();
        let grandchild = child.fork();
        let node = Arc::clone(child.node());
        drop(child);
        assert!(Arc::ptr_eq(grandchild.fork().node(), &node));
    }

    #[test]
    fn counts_return_to_nothing() {
        let a = AnonLink::fresh(&Arc::<Registry>::default());
        let node = Arc::clone(a.node());
        let (b, c) = (a.clone(), a.fork());
        drop((a, c, b));
        let counts = node.counts.lock();
        assert_eq!((counts.linked, counts.active, counts.children), (0, 0, 0));
    }
}

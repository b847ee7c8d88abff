//! The segments of an owner.
//!
//! Guarantee: a segment is there only while all are there that it was made of, down to the one that
//! the owner made. The step that ends a segment ends those made of it as well, and none is made of
//! one that has ended.

use super::{
    error::XpmemError,
    segment::{Parent, SegId, Segment},
};
use crate::addr::VpnRange;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// The segments that are there.
#[derive(Default)]
pub(super) struct Segments(BTreeMap<SegId, Arc<Segment>>);

/// Segments that have just ended.
#[must_use]
pub(super) struct Ended {
    /// Those that were ended.
    roots: BTreeSet<SegId>,
    /// Those, and all that were made of them.
    all: BTreeMap<SegId, Arc<Segment>>,
}

impl Ended {
    /// Returns the ranges of those that were ended; the others lie inside them.
    pub(super) fn ranges(&self) -> impl Iterator<Item = VpnRange> + '_ {
        self.roots.iter().map(|id| self.all[id].range)
    }
    #[cfg(all(feature = "remote", target_os = "linux"))]
    pub(super) fn ids(&self) -> impl Iterator<Item = SegId> + '_ {
        self.all.keys().copied()
    }
}

impl Segments {
    /// Returns the number of segments.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
    pub(super) fn get(&self, id: SegId) -> Result<Arc<Segment>, XpmemError> {
        self.0.get(&id).cloned().ok_or(XpmemError::NoSegment(id))
    }
    pub(super) fn add(&mut self, segment: Segment) -> SegId {
        let id = SegId::fresh();
        self.0.insert(id, Arc::new(segment));
        id
    }
    /// Adds a segment that is made of another, unless that one has ended.
    pub(super) fn add_made(&mut self, segment: Segment, of: Parent) -> Result<SegId, XpmemError> {
        self.get(of.segment)?;
        Ok(self.add(segment))
    }
    /// Ends a segment, and all that were made of it.
    pub(super) fn end(&mut self, id: SegId) -> Result<Ended, XpmemError> {
        self.get(id)?;
        Ok(self.end_family([id].into()))
    }
    /// Ends the segments that were made of an attachment, and all that were made of these.
    pub(super) fn end_made_of(&mut self, attachment: u64) -> Ended {
        let made = |s: &Segment| s.parent.is_some_and(|p| p.attachment == attachment);
        let roots = self.0.iter().filter(|(_, s)| made(s)).map(|(id, _)| *id);
        let roots = roots.collect();
        self.end_family(roots)
    }
    /// Ends all segments.
    pub(super) fn end_all(&mut self) -> Ended {
        let roots = self.0.keys().copied().collect();
        self.end_family(roots)
    }
    fn end_family(&mut self, roots: BTreeSet<SegId>) -> Ended {
        let mut all = BTreeMap::new();
        if let Some(&first) = roots.first() {
            // Names ascend: a segment comes after the one that it was made of.
            for (id, segment) in self.0.range(first..) {
                let of = segment.parent.map(|parent| parent.segment);
                if roots.contains(id) || of.is_some_and(|of| all.contains_key(&of)) {
                    all.insert(*id, Arc::clone(segment));
                }
            }
        }
        for (id, segment) in &all {
            segment.end();
            self.0.remove(id);
        }
        Ended { roots, all }
    }
}

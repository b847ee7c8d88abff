//! The operations of a sequence of draws.
//!
//! A draw becomes an operation only with the processes that are alive at that point, so a shortened
//! sequence still makes sense.

use super::{
    dispatch::{looks, opening},
    draw::Draw,
    profile::Profile,
};
use crate::replay::Op;
use std::collections::VecDeque;

/// An iterator over the operations that a sequence of draws becomes.
pub(super) struct Stream<'d> {
    profile: Profile,
    /// The file of the case.
    file: u32,
    draws: std::slice::Iter<'d, Draw>,
    queue: VecDeque<(u32, Op)>,
    /// A look at every page comes before the next draw.
    look: bool,
    over: bool,
    fresh: u32,
}

impl<'d> Stream<'d> {
    /// Returns the stream of a case; `file` is the number of its file.
    pub(super) fn new(profile: Profile, file: u32, draws: &'d [Draw]) -> Self {
        Self {
            profile,
            file,
            draws: draws.iter(),
            queue: opening(profile, file).into(),
            look: false,
            over: false,
            fresh: 0,
        }
    }
    /// Returns the next operation and its process, which is one of `living`.
    pub(super) fn next(&mut self, living: &[u32]) -> Option<(u32, Op)> {
        loop {
            if let Some(next) = self.queue.pop_front() {
                return Some(next);
            }
            if std::mem::take(&mut self.look) {
                self.queue.extend(looks(self.profile, living));
            } else if let Some(draw) = self.draws.next() {
                self.fresh += 1;
                let next = self.profile.op(*draw, self.file, living, self.fresh);
                self.look = self.profile.looks_after(next.as_ref().map(|(_, op)| op));
                self.queue.extend(next);
            } else if std::mem::replace(&mut self.over, true) {
                return None;
            } else {
                self.look = self.profile.looks_at_the_end();
            }
        }
    }
}

//! Random operations: a draw is a few numbers, and becomes an operation with the processes that live by then, so that a
//! sequence that is made shorter still makes sense.

use super::profile::{self, Profile};
use crate::{addr::PAGE_SIZE, mm::Prot, replay::Op};
use proptest::prelude::*;
use std::collections::VecDeque;

/// Where the pages are.
pub(super) const BASE: u64 = 1 << 40;

/// The numbers of one operation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Draw {
    pub(super) kind: u32,
    pub(super) who: u32,
    pub(super) page: u64,
    pub(super) n: u64,
    pub(super) other: u64,
    pub(super) byte: u8,
}

/// Draws; smaller numbers are simpler operations on lower pages.
pub(super) fn draw() -> impl Strategy<Value = Draw> {
    (
        0..100_u32,
        0..6_u32,
        0..64_u64,
        1..9_u64,
        0..64_u64,
        1..=250_u8,
    )
        .prop_map(|(kind, who, page, n, other, byte)| Draw {
            kind,
            who,
            page,
            n,
            other,
            byte,
        })
}

pub(super) const fn at(page: u64) -> u64 {
    BASE + page * PAGE_SIZE
}

pub(super) const RW: Prot = Prot::READ.union(Prot::WRITE);

/// The operations that draws become, one after the other.
pub(super) struct Stream<'d> {
    profile: Profile,
    /// The file of the case.
    file: u32,
    draws: std::slice::Iter<'d, Draw>,
    queue: VecDeque<(u32, Op)>,
    /// Everything is looked at before the next draw.
    look: bool,
    over: bool,
    fresh: u32,
}

impl<'d> Stream<'d> {
    pub(super) fn new(profile: Profile, file: u32, draws: &'d [Draw]) -> Self {
        Self {
            profile,
            file,
            draws: draws.iter(),
            queue: profile::opening(profile, file).into(),
            look: false,
            over: false,
            fresh: 0,
        }
    }
    /// What is done next, and by whom.
    pub(super) fn next(&mut self, living: &[u32]) -> Option<(u32, Op)> {
        loop {
            if let Some(next) = self.queue.pop_front() {
                return Some(next);
            }
            if std::mem::take(&mut self.look) {
                self.queue.extend(profile::looks(self.profile, living));
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

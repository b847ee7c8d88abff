//! Page requests and their answers: each group of requests is answered once.
//!
//! The requests of a group wait until its last one has come. A thread that serves then makes the
//! pages present, and answers. A queue that is full takes no request: the hardware answers the last
//! request of a group by itself, with success, so that the device tries again; what has come of
//! incomplete groups is forgotten (`iopf_queue_discard_partial`).

use super::mistake::SvaMistake;
use crate::{
    addr::Vpn,
    error::FaultError,
    mm::Mm,
    notifier::Access,
    sync::{Condvar, Mutex},
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Weak,
};

/// The answer to a group of page requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Response {
    /// The device may try again (`IOMMU_PAGE_RESP_SUCCESS`). The page need not be present.
    Success,
    /// A page cannot be had (`IOMMU_PAGE_RESP_INVALID`). The wire has the code alone; the reason is
    /// for reports.
    Invalid(FaultError),
}

/// Counts of page requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestStats {
    /// Groups that devices have sent.
    pub groups: u64,
    /// Groups that were answered, in either way.
    pub answered: u64,
    /// Answers to groups that wait for none.
    pub stray: u64,
    /// Requests that found the queue full.
    pub overflows: u64,
}

impl RequestStats {
    /// Returns the number of groups that wait for an answer.
    pub fn waiting(&self) -> u64 {
        self.groups - self.answered
    }
}

/// A group: the device, the PASID under which it was sent, and a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct GroupId {
    pub(super) device: u64,
    pub(super) pasid: u32,
    pub(super) number: u64,
}

/// One page request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PageRequest {
    pub(super) group: GroupId,
    pub(super) page: Vpn,
    pub(super) access: Access,
    pub(super) is_last: bool,
}

/// The requests of a group, complete, and the process that its PASID stood for when it was sent.
pub(super) struct Group {
    pub(super) id: GroupId,
    pub(super) mm: Weak<Mm>,
    pub(super) requests: Vec<PageRequest>,
}

#[derive(Default)]
struct State {
    partial: Vec<PageRequest>,
    ready: VecDeque<Group>,
    serving: Vec<GroupId>,
    /// The groups that wait for an answer.
    waiting: BTreeSet<GroupId>,
    answers: BTreeMap<GroupId, Response>,
    stats: RequestStats,
}

/// The queue of page requests of one IOMMU.
pub(super) struct Requests {
    capacity: usize,
    mistake: Option<SvaMistake>,
    state: Mutex<State>,
    /// An answer was given, or a group became ready.
    moved: Condvar,
}

impl State {
    fn held(&self) -> usize {
        let ready: usize = self.ready.iter().map(|group| group.requests.len()).sum();
        ready + self.partial.len()
    }
    fn answer(&mut self, id: GroupId, response: Response) {
        if self.waiting.remove(&id) {
            self.answers.insert(id, response);
            self.stats.answered += 1;
        } else {
            self.stats.stray += 1;
        }
    }
}

impl Requests {
    pub(super) fn new(capacity: usize, mistake: Option<SvaMistake>) -> Self {
        Self {
            capacity: capacity.max(1),
            mistake,
            state: Mutex::default(),
            moved: Condvar::new(),
        }
    }
    pub(super) fn stats(&self) -> RequestStats {
        self.state.lock().stats
    }
    /// Takes a request of a process from a device.
    pub(super) fn send(&self, request: PageRequest, mm: &Weak<Mm>) {
        let mut state = self.state.lock();
        let id = request.group;
        if request.is_last {
            state.waiting.insert(id);
            state.stats.groups += 1;
        }
        if state.held() >= self.capacity {
            state.stats.overflows += 1;
            state.partial.clear();
            if request.is_last && self.mistake != Some(SvaMistake::LosesOverflow) {
                state.answer(id, Response::Success);
            }
        } else if request.is_last {
            let mut requests: Vec<_> = state.partial.extract_if(.., |r| r.group == id).collect();
            requests.push(request);
            let mm = Weak::clone(mm);
            state.ready.push_back(Group { id, mm, requests });
        } else {
            state.partial.push(request);
        }
        drop(state);
        self.moved.notify_all();
    }
    /// Answers a group whose PASID is not bound.
    pub(super) fn refuse(&self, id: GroupId, at: Vpn) {
        let mut state = self.state.lock();
        state.waiting.insert(id);
        state.stats.groups += 1;
        state.answer(id, invalid(at));
    }
    /// Takes a group to serve it; [`answer`](Self::answer) ends that.
    pub(super) fn take(&self) -> Option<Group> {
        let mut state = self.state.lock();
        let group = state.ready.pop_front()?;
        state.serving.push(group.id);
        Some(group)
    }
    pub(super) fn answer(&self, id: GroupId, response: Response) {
        let mut state = self.state.lock();
        state.serving.retain(|serving| *serving != id);
        state.answer(id, response);
        if self.mistake == Some(SvaMistake::AnswersTwice) {
            state.answer(id, response);
        }
        drop(state);
        self.moved.notify_all();
    }
    /// Returns the answer to a group, or `None` if a group is ready to be served; sleeps until
    /// either is there.
    pub(super) fn wait(&self, id: GroupId) -> Option<Response> {
        let mut state = self.state.lock();
        loop {
            if let Some(response) = state.answers.remove(&id) {
                return Some(response);
            }
            if !state.ready.is_empty() {
                return None;
            }
            self.moved.wait(&mut state);
        }
    }
    /// Returns the answer to a group if it was given.
    pub(super) fn answer_to(&self, id: GroupId) -> Option<Response> {
        self.state.lock().answers.remove(&id)
    }
    /// Answers the requests of a PASID of a device as invalid, and waits for those that are being
    /// served (`iopf_queue_flush_dev`). The device sends no more.
    pub(super) fn drain(&self, device: u64, pasid: u32) {
        if self.mistake == Some(SvaMistake::NoDrain) {
            return;
        }
        let is = |id: &GroupId| (id.device, id.pasid) == (device, pasid);
        let mut state = self.state.lock();
        state.partial.retain(|request| !is(&request.group));
        let ready = std::mem::take(&mut state.ready).into_iter();
        let (gone, kept): (Vec<Group>, Vec<Group>) = ready.partition(|group| is(&group.id));
        state.ready = VecDeque::from(kept);
        for group in gone {
            state.answer(group.id, invalid(group.requests[0].page));
        }
        self.moved.notify_all();
        while state.serving.iter().any(is) {
            self.moved.wait(&mut state);
        }
    }
}

/// The answer to requests of a process that is not there.
fn invalid(at: Vpn) -> Response {
    Response::Invalid(FaultError::NotMapped(at.addr()))
}

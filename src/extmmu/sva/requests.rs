//! Page requests and their answers: each group of requests is answered once.
//!
//! The requests of a group wait until its last one has come. A thread that serves then makes the
//! pages present, and answers. A queue that is full takes no request: the hardware answers the last
//! request of a group by itself, with success, so that the device tries again; what has come of
//! incomplete groups is forgotten (`iopf_queue_discard_partial`).

use super::mistake::SvaMistake;
use crate::{
    addr::{Vpn, VpnRange},
    error::FaultError,
    extmmu::fault_queue::{DeviceFault, FaultQueue},
    mm::Mm,
    notifier::Access,
    sync::Mutex,
};
use std::sync::Weak;

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

impl GroupId {
    /// Returns the device and the PASID.
    fn user(self) -> (u64, u32) {
        (self.device, self.pasid)
    }
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

/// Requests of groups whose last one has not come.
#[derive(Default)]
struct Partial {
    requests: Vec<PageRequest>,
    overflows: u64,
}

/// The most requests that a queue takes: as many as one of an SMMU (`SMMU_IDR1.PRIQS`).
const MOST: usize = 1 << 19;

/// The queue of page requests of one IOMMU.
pub(super) struct Requests {
    capacity: usize,
    mistake: Option<SvaMistake>,
    /// Locked before the queue.
    partial: Mutex<Partial>,
    pub(super) groups: FaultQueue<Group>,
}

impl DeviceFault for Group {
    type Id = GroupId;
    /// The device, and the PASID.
    type User = (u64, u32);
    type Answer = Response;

    fn id(&self) -> GroupId {
        self.id
    }
    fn user(&self) -> (u64, u32) {
        self.id.user()
    }
    fn gone(&self) -> Response {
        invalid(self.requests[0].page)
    }
}

impl Requests {
    pub(super) fn new(capacity: usize, mistake: Option<SvaMistake>) -> Self {
        Self {
            capacity: capacity.clamp(1, MOST),
            mistake,
            partial: Mutex::default(),
            groups: FaultQueue::new(mistake == Some(SvaMistake::AnswersTwice)),
        }
    }
    pub(super) fn stats(&self) -> RequestStats {
        let counts = self.groups.counts();
        RequestStats {
            groups: counts.raised,
            answered: counts.answered,
            stray: counts.stray,
            overflows: self.partial.lock().overflows,
        }
    }
    /// Returns the pages for which a device sends the requests of a group: all, or as many of the
    /// first and of the last ones as the queue takes. Those between would only be dropped.
    pub(super) fn sent(&self, pages: VpnRange) -> impl Iterator<Item = Vpn> + use<> {
        let most = u64::try_from(self.capacity).unwrap_or(u64::MAX);
        let first = pages.pages().min(most);
        let last = pages.pages().saturating_sub(most).max(first);
        let all = (0..first).chain(last..pages.pages());
        all.map(move |nth| pages.start().plus(nth))
    }
    /// Takes a request of a process from a device. Returns false if the queue is full.
    pub(super) fn send(&self, request: PageRequest, mm: &Weak<Mm>) -> bool {
        let mut partial = self.partial.lock();
        let id = request.group;
        if request.is_last {
            self.groups.expect(id);
        }
        let ready = self.groups.ready(|group| group.requests.len());
        if ready + partial.requests.len() >= self.capacity {
            partial.overflows += 1;
            partial.requests.clear();
            if request.is_last && self.mistake != Some(SvaMistake::LosesOverflow) {
                self.groups.answer_unserved(id, Response::Success);
            }
            return false;
        }
        if request.is_last {
            let own = partial.requests.extract_if(.., |r| r.group == id);
            let requests = own.chain([request]).collect();
            let mm = Weak::clone(mm);
            self.groups.push(Group { id, mm, requests });
        } else {
            partial.requests.push(request);
        }
        true
    }
    /// Answers a group whose PASID is not bound.
    pub(super) fn refuse(&self, id: GroupId, at: Vpn) {
        self.groups.expect(id);
        self.groups.answer_unserved(id, invalid(at));
    }
    /// Answers the requests of a PASID of a device as invalid, and waits for those that are being
    /// served (`iopf_queue_flush_dev`). The device sends no more.
    pub(super) fn drain(&self, user: (u64, u32)) {
        if self.mistake == Some(SvaMistake::NoDrain) {
            return;
        }
        let mut partial = self.partial.lock();
        partial.requests.retain(|r| r.group.user() != user);
        drop(partial);
        self.groups.drain(user);
    }
}

/// The answer to requests of a process that is not there.
fn invalid(at: Vpn) -> Response {
    Response::Invalid(FaultError::NotMapped(at.addr()))
}

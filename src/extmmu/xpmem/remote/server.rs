//! The thread that works on the questions of a partition: attach, make, detach, and faults.

use super::{
    limits::{PartitionLimits, RemoteConfig},
    socket::Socket,
    wire::{Attached, Grant, Reply, Request, ToRemote},
};
use crate::{
    addr::Vpn,
    ctx::CallCx,
    extmmu::xpmem::{
        attachment::Attachment,
        error::{Limited, XpmemError},
        fault::{Delivery, NotPut},
        lent::NotLent,
        owner::Owner,
        partition::Partition,
        segment::SegId,
        serial::fresh,
    },
    frame::{Lender, Loan, Place},
    mm::Machine,
    notifier::{Access, Cached},
};
use std::{
    collections::BTreeMap,
    sync::{Arc, mpsc::Receiver},
};

/// A token of the partition's choice, and its request.
pub(super) type Question = (u64, Request);

/// The worker of one partition.
pub(super) struct Server {
    owner: Arc<Owner>,
    partition: Arc<Partition>,
    socket: Arc<Socket>,
    access: Access,
    limits: PartitionLimits,
    attachments: BTreeMap<u64, HeldAttachment>,
    /// The memory that the partition was sent, by number, with its segment.
    sent: BTreeMap<u64, (SegId, Arc<Loan>)>,
}

/// An attachment, and the number of segments that were made of it.
struct HeldAttachment {
    attachment: Attachment,
    made: usize,
}

/// Also after a panic: the partition does not wait for this thread, and the memory that it was sent
/// is not used again.
impl Drop for Server {
    fn drop(&mut self) {
        self.partition.kill();
        self.sent.values().for_each(|(_, loan)| loan.end());
    }
}

/// Returns an error unless there are fewer than `most`.
fn fewer(there: usize, most: usize, what: Limited) -> Result<(), XpmemError> {
    if there < most {
        Ok(())
    } else {
        Err(XpmemError::Limit(most as u64, what))
    }
}

impl Server {
    pub(super) fn new(
        owner: &Arc<Owner>,
        partition: &Arc<Partition>,
        socket: &Arc<Socket>,
        config: RemoteConfig,
    ) -> Self {
        Self {
            owner: Arc::clone(owner),
            partition: Arc::clone(partition),
            socket: Arc::clone(socket),
            access: config.access,
            limits: config.limits,
            attachments: BTreeMap::new(),
            sent: BTreeMap::new(),
        }
    }
    /// Works on questions until the connection ends.
    pub(super) fn work(mut self, machine: &Arc<Machine>, asked: &Receiver<Question>) {
        let mut thread = machine.enter().expect("a new thread");
        let mut cx = thread.cx();
        while let Ok((token, request)) = asked.recv() {
            self.forget();
            // A fault sends its page itself, since no recall may come between.
            match self.work_on(&mut cx, token, request) {
                Ok(None) => {}
                Ok(Some(reply)) => self.reply(token, Ok(reply)),
                Err(why) => self.reply(token, Err(why)),
            }
        }
        // The segments that the partition made end with its attachments.
        for (_, held) in std::mem::take(&mut self.attachments) {
            held.attachment.detach(&mut cx);
        }
        self.abandon(&mut cx, |_| true);
    }
    fn reply(&self, token: u64, reply: Result<Reply, XpmemError>) {
        self.send(&ToRemote::Reply { token, reply });
    }
    fn send(&self, message: &ToRemote) {
        if !self.socket.send(message) {
            self.partition.kill();
        }
    }
    /// Tells the partition which of its memory has ended.
    fn forget(&mut self) {
        let (over, sent) = std::mem::take(&mut self.sent)
            .into_iter()
            .partition(|(_, (_, loan))| loan.is_over());
        self.sent = sent;
        let over: BTreeMap<_, _> = over;
        over.into_keys()
            .for_each(|id| self.send(&ToRemote::Forget { id }));
    }
    /// Ends the memory of these segments that the partition was sent.
    fn abandon(&mut self, cx: &mut CallCx<'_>, which: impl Fn(SegId) -> bool) {
        let loans: Vec<Arc<Loan>> = self
            .sent
            .values()
            .filter(|(segment, _)| which(*segment))
            .map(|(_, loan)| Arc::clone(loan))
            .collect();
        if !loans.is_empty() {
            self.owner.abandon(cx, &loans);
        }
    }
    fn work_on(
        &mut self,
        cx: &mut CallCx<'_>,
        token: u64,
        request: Request,
    ) -> Result<Option<Reply>, XpmemError> {
        match request {
            Request::Attach {
                segment,
                first,
                pages,
            } => self.attach(segment, first, pages).map(Some),
            Request::Make {
                handle,
                first,
                pages,
                access,
            } => self.make(handle, first, pages, access).map(Some),
            Request::Detach { handle } => self.detach(cx, handle).map(Some),
            Request::Page { handle, at, access } => {
                self.page(cx, token, (handle, at), access).map(|_told| None)
            }
        }
    }
    fn held(&self, handle: u64) -> Result<&HeldAttachment, XpmemError> {
        let held = self.attachments.get(&handle);
        held.ok_or(XpmemError::NoAttachment(handle))
    }
    fn attach(&mut self, segment: SegId, first: u64, pages: u64) -> Result<Reply, XpmemError> {
        let (there, most) = (self.attachments.len(), self.limits.attachments);
        fewer(there, most, Limited::Attachments)?;
        let owner = &self.owner;
        let attachment = owner.import(&self.partition, segment, first, pages)?;
        let (range, access) = attachment.extent()?;
        let handle = fresh();
        let held = HeldAttachment {
            attachment,
            made: 0,
        };
        self.attachments.insert(handle, held);
        Ok(Reply::Attached(Attached {
            handle,
            first: range.start().0,
            pages: range.pages(),
            access,
        }))
    }
    fn make(
        &mut self,
        handle: u64,
        first: u64,
        pages: u64,
        access: Access,
    ) -> Result<Reply, XpmemError> {
        let made = self.attachments.values().map(|held| held.made).sum();
        fewer(made, self.limits.segments, Limited::Segments)?;
        let held = self.attachments.get_mut(&handle);
        let held = held.ok_or(XpmemError::NoAttachment(handle))?;
        if access == Access::Write && self.access == Access::Read {
            return Err(XpmemError::ReadOnly(held.attachment.segment()));
        }
        let segment = held.attachment.make(first, pages, access)?;
        held.made += 1;
        Ok(Reply::Segment(segment))
    }
    fn detach(&mut self, cx: &mut CallCx<'_>, handle: u64) -> Result<Reply, XpmemError> {
        let held = self.attachments.remove(&handle);
        let held = held.ok_or(XpmemError::NoAttachment(handle))?;
        let segment = held.attachment.segment();
        held.attachment.detach(cx);
        let others = &mut self.attachments.values();
        if !others.any(|held| held.attachment.segment() == segment) {
            self.abandon(cx, |s| s == segment);
            self.forget();
        }
        Ok(Reply::Done)
    }
    fn page(
        &mut self,
        cx: &mut CallCx<'_>,
        token: u64,
        (handle, at): (u64, u64),
        access: Access,
    ) -> Result<(), XpmemError> {
        let entries = self.partition.entries();
        fewer(entries, self.limits.pages, Limited::Pages)?;
        let attachment = &self.held(handle)?.attachment;
        let (segment, (_, theirs)) = (attachment.segment(), attachment.extent()?);
        let writes = self.access == Access::Write && theirs == Access::Write;
        if access == Access::Write && !writes {
            return Err(XpmemError::ReadOnly(segment));
        }
        let mut page = Page {
            owner: &self.owner,
            socket: &self.socket,
            partition: &self.partition,
            limits: self.limits,
            segment,
            writes,
            sent: &mut self.sent,
            token,
            grant: None,
        };
        let held = self.attachments.get(&handle).expect("just seen");
        held.attachment.fault(cx, at, access, &mut page)
    }
}

/// A page on its way to the partition.
struct Page<'s> {
    owner: &'s Arc<Owner>,
    socket: &'s Socket,
    partition: &'s Partition,
    limits: PartitionLimits,
    segment: SegId,
    /// The partition may have the page for writing.
    writes: bool,
    sent: &'s mut BTreeMap<u64, (SegId, Arc<Loan>)>,
    token: u64,
    grant: Option<(Grant, Arc<Loan>)>,
}

impl Page<'_> {
    /// Returns an error if the partition may not be sent more memory.
    fn may_get_memory(&self) -> Result<(), NotPut> {
        let most = self.limits.memories.min(PartitionLimits::MOST_MEMORIES);
        fewer(self.sent.len(), most, Limited::Memories).map_err(NotPut::Refused)
    }
    /// Finds a place for the page. The partition's limit is asked before memory is made for it.
    fn place(&self, cached: &Cached, writable: bool) -> Result<Place, NotPut> {
        let (page, pfn) = (cached.range().start(), cached.translation().pfn());
        let lent = &self.owner.lent;
        let lender = || Box::new(Arc::downgrade(self.owner)) as Box<dyn Lender>;
        let limit = self.may_get_memory();
        let lender: Option<&dyn Fn() -> Box<dyn Lender>> = match &limit {
            Ok(()) => Some(&lender),
            Err(_) => None,
        };
        let placed = lent.lend(lender, (self.segment, writable), page, pfn);
        placed.map_err(|why| match why {
            NotLent::NoRoom => limit.expect_err("there may be no more"),
            NotLent::Elsewhere(place) => {
                let owner = Arc::clone(self.owner);
                NotPut::Elsewhere(Box::new(move |cx| {
                    if !place.recall(cx) {
                        owner.lent.take_from_nobody(pfn, &place);
                    }
                }))
            }
            NotLent::Host(why) => {
                NotPut::Refused(XpmemError::Host(why.raw_os_error().unwrap_or(0)))
            }
        })
    }
}

impl Delivery for Page<'_> {
    /// Then a page lies in one place for partitions that write it and for those that only read it
    /// so far.
    fn or_writable(&self) -> bool {
        self.writes
    }
    fn put(&mut self, cached: &Cached) -> Result<(), NotPut> {
        let writable = self.writes && cached.is_writable();
        let place = self.place(cached, writable)?;
        if !self.sent.contains_key(&place.loan.id()) {
            self.may_get_memory()?;
        }
        let Vpn(page) = place.page;
        let grant = Grant {
            page,
            memory: place.loan.id(),
            at: place.at() as u64,
            writable,
        };
        self.grant = Some((grant, place.loan));
        Ok(())
    }
    fn tell(&mut self) {
        let Some((grant, loan)) = self.grant.take() else {
            return;
        };
        // The memory is sent last, after all that can fail.
        let mut told = true;
        if !self.sent.contains_key(&loan.id()) {
            self.sent
                .insert(loan.id(), (self.segment, Arc::clone(&loan)));
            told = self.socket.send_memory(&loan, grant.writable);
        }
        let reply = ToRemote::Reply {
            token: self.token,
            reply: Ok(Reply::Page(grant)),
        };
        if !(told && self.socket.send(&reply)) {
            self.partition.kill();
        }
    }
}

//! The adapter: regions by key, transfers through its table, page faults, advice.

use super::{
    error::{OdpError, OdpFault},
    faults::{FaultStats, Key, PageFault},
    fill::OdpAdvice,
    implicit::ImplicitRegion,
    mistake::OdpMistake,
    region::{OdpConfig, Parts, Region},
    target::Target,
};
use crate::{
    addr::{Bytes, Vpn, VpnRange, by_page},
    ctx::CallCx,
    driver::TranslateError,
    error::ByteRange,
    extmmu::{
        bill::{Bill, Meter},
        fault_queue::FaultQueue,
    },
    mm::Mm,
    notifier::{Access, Cached, FaultRequest, Registration},
    sync::{IdSource, Mutex},
};
use std::{collections::BTreeMap, sync::Arc};

struct Entry {
    target: Target,
    registration: Option<Registration>,
}

/// An adapter that uses memory of processes by key.
///
/// # Examples
///
/// ```
/// use emmu::extmmu::odp::{Adapter, OdpConfig};
/// use emmu::{PAGE_SIZE, mm::{Advice, MmapArgs}, notifier::Access};
/// # let machine = emmu::Machine::new(Default::default());
/// # let mut thread = machine.enter()?;
/// # let mut cx = thread.cx();
/// # let mm = emmu::Mm::new(&machine);
///
/// let adapter = Adapter::new(OdpConfig::default());
/// let at = mm.mmap(&mut cx, &MmapArgs::anonymous(4 * PAGE_SIZE))?;
/// let key = adapter.register(&mut cx, &mm, (at, 4 * PAGE_SIZE), Access::Write)?;
///
/// adapter.write(&mut cx, key, at, b"R")?; // a page fault, then the write
/// assert_eq!((mm.load(&mut cx, at)?, adapter.faults().raised), (b'R', 1));
///
/// mm.madvise(&mut cx, at, PAGE_SIZE, Advice::DontNeed)?; // the window takes the entry out
/// let mut byte = [7];
/// adapter.read(&mut cx, key, at, &mut byte)?;
/// assert_eq!((byte, adapter.faults().raised), ([0], 2));
/// adapter.deregister(&mut cx, key)?;
/// # mm.exit(&mut cx);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Adapter {
    config: OdpConfig,
    regions: Mutex<(u32, BTreeMap<Key, Entry>)>,
    faults: FaultQueue<PageFault>,
    numbers: IdSource,
    meter: Arc<Meter>,
}

impl Adapter {
    /// Creates an adapter without regions.
    pub fn new(config: OdpConfig) -> Arc<Self> {
        Arc::new(Self {
            config,
            regions: Mutex::default(),
            faults: FaultQueue::new(config.mistake == Some(OdpMistake::AnswersTwice)),
            numbers: IdSource::starting_at(0),
            meter: Arc::default(),
        })
    }
    fn parts(&self, mm: &Arc<Mm>, access: Access) -> Parts {
        Parts {
            mm: Arc::downgrade(mm),
            access,
            config: self.config,
            meter: Arc::clone(&self.meter),
        }
    }
    fn add(&self, target: Target, registration: Option<Registration>) -> Key {
        let mut regions = self.regions.lock();
        regions.0 += 1;
        let key = Key(regions.0);
        regions.1.insert(
            key,
            Entry {
                target,
                registration,
            },
        );
        key
    }
    /// Registers the pages of `[addr, addr + len)` bytes of a process, up to this access
    /// (`ib_umem_odp_get`). Nothing need be mapped there, and nothing is faulted in.
    ///
    /// # Errors
    ///
    /// [`OdpError::BadRange`].
    pub fn register(
        &self,
        cx: &mut CallCx<'_>,
        mm: &Arc<Mm>,
        (addr, len): (u64, u64),
        access: Access,
    ) -> Result<Key, OdpError> {
        let pages = ByteRange { addr, len }.pages();
        let pages = pages.ok_or(OdpError::BadRange { addr, len })?;
        let parts = self.parts(mm, access);
        let new = |seat| Region::new(seat, pages, parts, None);
        let (region, registration) = mm.subscribe(cx, pages, new);
        Ok(self.add(Target::Explicit(region), Some(registration)))
    }
    /// Registers all of a process's memory, present and future, as an implicit region.
    pub fn register_implicit(&self, mm: &Arc<Mm>, access: Access) -> Key {
        let region = ImplicitRegion::new(self.parts(mm, access));
        self.add(Target::Implicit(region), None)
    }
    /// Registers all of a process's memory as one explicit region, on the list of the drivers of
    /// the whole address space: a window makes those faults repeat that are for its pages. The
    /// caller ends the registration.
    pub fn register_everything(
        &self,
        cx: &mut CallCx<'_>,
        mm: &Arc<Mm>,
    ) -> (Key, Arc<Region>, Registration) {
        let parts = self.parts(mm, Access::Write);
        let new = |seat| Region::new(seat, VpnRange::TASK, parts, None);
        let (region, registration) = mm.register(cx, new);
        let key = self.add(Target::Explicit(Arc::clone(&region)), None);
        (key, region, registration)
    }
    /// Ends a region: its page faults are answered, its subscription has ended, and the table has
    /// nothing of it.
    ///
    /// # Errors
    ///
    /// [`OdpError::NoKey`].
    pub fn deregister(&self, cx: &mut CallCx<'_>, key: Key) -> Result<(), OdpError> {
        let entry = self.regions.lock().1.remove(&key);
        let entry = entry.ok_or(OdpError::NoKey(key.0))?;
        self.faults.drain(key);
        match (&entry.target, entry.registration) {
            (Target::Implicit(implicit), _) => implicit.end_all(cx),
            (_, Some(registration)) => registration.unregister(cx),
            _ => {}
        }
        Ok(())
    }
    fn target(&self, key: Key) -> Option<Target> {
        let regions = self.regions.lock();
        regions.1.get(&key).map(|entry| entry.target.clone())
    }
    /// Returns the region of a key, for an [oracle](crate::oracle::Oracle::watch); of an implicit
    /// one the child of a page.
    pub fn region(&self, key: Key, addr: u64) -> Option<Arc<Region>> {
        self.target(key)?.find(Vpn::containing(addr))
    }
    /// Returns an implicit region.
    pub fn implicit(&self, key: Key) -> Option<Arc<ImplicitRegion>> {
        match self.target(key)? {
            Target::Implicit(implicit) => Some(implicit),
            Target::Explicit(_) => None,
        }
    }
    /// Reads bytes of a region as the adapter does; the bytes of one page are read at once.
    ///
    /// # Errors
    ///
    /// [`OdpFault`]; the bytes before the page that failed have been read.
    pub fn read(
        &self,
        cx: &mut CallCx<'_>,
        key: Key,
        addr: u64,
        out: &mut [u8],
    ) -> Result<(), OdpFault> {
        self.transfer(
            cx,
            (key, addr, Access::Read),
            out,
            |region, entry, (at, offset), part| {
                let frame = region.gate.follow(entry, at);
                frame.expect("an entry of this region").read(offset, part);
            },
        )
    }
    /// Writes bytes of a region as the adapter does; the bytes of one page are written at once.
    ///
    /// # Errors
    ///
    /// [`OdpFault`]; the bytes before the page that failed have been written.
    pub fn write(
        &self,
        cx: &mut CallCx<'_>,
        key: Key,
        addr: u64,
        bytes: &[u8],
    ) -> Result<(), OdpFault> {
        self.transfer(
            cx,
            (key, addr, Access::Write),
            bytes,
            |region, entry, place, part| {
                region.write_by(entry, place, part);
            },
        )
    }
    fn transfer<B: Bytes>(
        &self,
        cx: &mut CallCx<'_>,
        (key, addr, access): (Key, u64, Access),
        bytes: B,
        mut f: impl FnMut(&Region, &Cached, (Vpn, usize), B),
    ) -> Result<(), OdpFault> {
        by_page(addr, bytes, |page, offset, part| {
            let mut part = Some(part);
            let asked = (key, page.addr() + offset as u64, access);
            self.access(cx, asked, |region, entry| {
                f(region, entry, (page, offset), part.take().expect("once"));
            })
        })
    }
    /// Makes one access: through the table, or after the page fault has been answered.
    fn access(
        &self,
        cx: &mut CallCx<'_>,
        (key, addr, access): (Key, u64, Access),
        mut f: impl FnMut(&Region, &Cached),
    ) -> Result<(), OdpFault> {
        let at = Vpn::containing(addr);
        loop {
            let target = self.target(key).ok_or(OdpFault::Access(addr))?;
            if !target.pages().contains(at) || !target.allows(access) {
                return Err(OdpFault::Access(addr));
            }
            let region = target.find(at);
            if region.is_some_and(|region| region.hit(cx, at, access, &mut f).is_some()) {
                return Ok(());
            }
            if target.has_ended() {
                return Err(OdpFault::Gone(addr));
            }
            // This thread serves faults meanwhile.
            let number = self.raise(key, at.into(), access);
            let answer = self.faults.wait(number, || {
                self.serve_one(cx);
            });
            match answer {
                Ok(()) => {}
                Err(_) if target.has_ended() => return Err(OdpFault::Gone(addr)),
                Err(why) => return Err(OdpFault::Refused { addr, why }),
            }
        }
    }
    /// Raises a page fault for some pages of a region, and waits for nothing:
    /// [`serve_one`](Self::serve_one) serves it. Returns its number.
    pub fn raise(&self, key: Key, pages: VpnRange, access: Access) -> u64 {
        self.meter.requested();
        let number = self.numbers.next();
        self.faults.expect(number);
        self.faults.push(PageFault {
            number,
            key,
            pages,
            access,
        });
        number
    }
    /// Returns the answer to a fault of [`raise`](Self::raise), once: the queue resumes, or gets an
    /// error.
    pub fn answer(&self, number: u64) -> Option<Result<(), TranslateError>> {
        self.faults.answer_to(number)
    }
    /// Serves one page fault, and returns true if one was waiting. First ends children of its
    /// region that windows have emptied.
    pub fn serve_one(&self, cx: &mut CallCx<'_>) -> bool {
        let Some(fault) = self.faults.take() else {
            return false;
        };
        let first = fault.pages.start();
        let target = self.target(fault.key);
        if let Some(Target::Implicit(implicit)) = &target {
            implicit.reap(cx);
        }
        let gone = TranslateError::Detached { at: first };
        let filled = target.ok_or(gone).and_then(|target| {
            let served = fault.pages.intersect(target.pages()).ok_or(gone)?;
            self.fill(cx, &target, served, fault.access.into())
        });
        self.faults.answer(fault.number, filled.map(|_| ()));
        true
    }
    /// Fills the table for those pages that are in the region of the first one. Returns the number
    /// of pages that entered the table, and the rest of `pages`, in other children. A child that
    /// has ended meanwhile is looked for again.
    fn fill(
        &self,
        cx: &mut CallCx<'_>,
        target: &Target,
        pages: VpnRange,
        request: FaultRequest,
    ) -> Result<(u64, Option<VpnRange>), TranslateError> {
        let first = pages.start();
        loop {
            let region = target.make(cx, first);
            let region = region.ok_or(TranslateError::Detached { at: first })?;
            let own = pages
                .intersect(region.pages)
                .expect("the region of the first page");
            let filled = region.fill(cx, own, request);
            let ended = matches!(filled, Err(TranslateError::Detached { .. }));
            let is_linked = target
                .find(first)
                .is_some_and(|now| Arc::ptr_eq(&now, &region));
            if !ended || is_linked || target.has_ended() {
                return Ok((filled?, VpnRange::new(own.end(), pages.end())));
            }
            self.meter.retried();
        }
    }
    /// Prefetches the pages of `[addr, addr + len)` bytes of a region (`ib_advise_mr`). Returns the
    /// number of pages that entered the table; huge entries count in whole.
    ///
    /// # Errors
    ///
    /// [`OdpError`]: the pages before the one that cannot be had have entered the table.
    pub fn advise(
        &self,
        cx: &mut CallCx<'_>,
        key: Key,
        (addr, len): (u64, u64),
        advice: OdpAdvice,
    ) -> Result<u64, OdpError> {
        let target = self.target(key).ok_or(OdpError::NoKey(key.0))?;
        let pages = ByteRange { addr, len }.pages();
        let pages = pages.ok_or(OdpError::BadRange { addr, len })?;
        if !target.pages().covers(pages) {
            return Err(OdpError::Outside { addr, len });
        }
        if advice == OdpAdvice::PrefetchWrite && !target.allows(Access::Write) {
            return Err(OdpError::ReadOnly(key.0));
        }
        let mut entered = 0;
        let mut rest = Some(pages);
        while let Some(pages) = rest {
            let (filled, others) = self.fill(cx, &target, pages, advice.request())?;
            entered += filled;
            rest = others;
        }
        self.meter.prefetched(entered);
        Ok(entered)
    }
    /// Returns the counts of page faults.
    pub fn faults(&self) -> FaultStats {
        let counts = self.faults.counts();
        FaultStats {
            raised: counts.raised,
            answered: counts.answered,
            stray: counts.stray,
        }
    }
    /// Returns the bill of all regions.
    pub fn bill(&self) -> Bill {
        self.meter.bill()
    }
    /// Returns the meter that keeps the [`Bill`].
    pub fn meter(&self) -> &Meter {
        &self.meter
    }
}

impl std::fmt::Debug for Adapter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Adapter")
            .field("config", &self.config)
            .field("faults", &self.faults())
            .finish_non_exhaustive()
    }
}

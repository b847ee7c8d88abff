//! A device that mirrors an address space, with or without memory of its own, as the kernel's test
//! device does (`lib/test_hmm.c`).

use super::{PAGE, RW, World, at};
use emmu::{
    Errno, MemConfig,
    ctx::FolioCx,
    driver::*,
    frame::{DeviceKind, DeviceMemory},
    mm::{
        DeviceLost, DevicePages, DeviceRegistration, ExclusivePage, HomePage, MigrateArgs,
        MigrateSelect, MigrateTo, Migrated, Prot, Pte, Stays,
    },
};
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, Ordering},
};

/// A device with memory of its own (`struct dmirror_device`).
pub struct Board {
    pub memory: DeviceMemory,
    /// Set if the device has lost what it had.
    pub lost: AtomicBool,
    /// Set if the driver panics where it should copy a page home.
    pub panics: AtomicBool,
    /// The pages that were copied home.
    pub home: AtomicU32,
}

impl DevicePages for Board {
    fn migrate_to_ram(&self, page: &HomePage<'_>) -> Result<(), DeviceLost> {
        assert!(!self.panics.load(Ordering::Relaxed), "a driver's panic");
        if self.lost.load(Ordering::Relaxed) {
            return Err(DeviceLost);
        }
        self.home.fetch_add(1, Ordering::Relaxed);
        page.copy();
        Ok(())
    }
}

impl Board {
    /// Adds a device with so many frames, which no processor reaches.
    pub fn add(w: &World, frames: u32) -> (Arc<Self>, DeviceRegistration) {
        Self::add_kind(w, DeviceKind::Private, frames)
    }
    pub fn add_kind(w: &World, kind: DeviceKind, frames: u32) -> (Arc<Self>, DeviceRegistration) {
        let build = |memory| {
            Arc::new(Self {
                memory,
                lost: AtomicBool::new(false),
                panics: AtomicBool::new(false),
                home: AtomicU32::new(0),
            })
        };
        w.machine.add_device(kind, frames, build).unwrap()
    }
}

/// A mirror of an address space (`struct dmirror`).
pub struct Mirror {
    pub gate: Gate<OrderedStore<Vpn>, (), Atomic>,
    board: Option<Arc<Board>>,
    /// The windows in which entries were spared.
    pub spared: AtomicU32,
}

impl SpinningMmu for Mirror {
    fn invalidate<'i>(&self, cx: AtomicCallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
        let spared = self.board.as_ref().and_then(|b| inv.spare(&b.memory));
        match spared {
            Some(spared) => {
                self.spared.fetch_add(1, Ordering::Relaxed);
                self.gate.exclude_sparing(cx, inv, spared, |(), _, _| ())
            }
            None => self.gate.exclude(cx, inv, |(), _, _| ()),
        }
    }
    fn translations(&self, visit: &mut dyn FnMut(Translation)) -> bool {
        self.gate.audit(visit)
    }
}

/// The first byte of each page, and the number of faults of the device.
type Done = Result<(Vec<u8>, u32), Errno>;

impl Mirror {
    pub fn on(cx: &mut CallCx<'_>, mm: &Mm) -> Arc<Self> {
        Self::with(cx, mm, None)
    }
    pub fn with(cx: &mut CallCx<'_>, mm: &Mm, board: Option<Arc<Board>>) -> Arc<Self> {
        mm.register(cx, Self::new(board)).0
    }
    /// A mirror without memory, and its registration.
    pub fn registered(cx: &mut CallCx<'_>, mm: &Mm) -> (Arc<Self>, Registration) {
        mm.register(cx, Self::new(None))
    }
    fn new(board: Option<Arc<Board>>) -> impl FnOnce(Seat) -> Arc<Self> {
        move |seat| {
            let gate = Gate::new(seat, OrderedStore::default(), ());
            let spared = AtomicU32::new(0);
            Arc::new(Self {
                gate,
                board,
                spared,
            })
        }
    }
    fn board(&self) -> &Board {
        self.board.as_ref().expect("a device with memory")
    }
    fn ticket(&self, range: VpnRange, request: FaultRequest) -> RangeTicket<'_, Table> {
        let ticket = self.gate.range_ticket(range, request);
        match &self.board {
            Some(board) => ticket.allow_private(&board.memory),
            None => ticket,
        }
    }
    /// `dmirror_read`, `dmirror_write`: copies up to the first page that is not mirrored, and
    /// faults in the rest.
    fn copy(
        &self,
        cx: &mut CallCx<'_>,
        mm: &Mm,
        range: VpnRange,
        request: FaultRequest,
        mut page: impl FnMut(&mut GateGuard<'_, OrderedStore<Vpn>, (), Atomic>, Vpn) -> Option<u8>,
    ) -> Done {
        let (mut bytes, mut faults) = (Vec::new(), 0);
        loop {
            let rest = {
                let mut gate = self.gate.lock(cx);
                let at = range.start().plus(bytes.len() as u64);
                let copied: Vec<_> = (at.0..range.end().0)
                    .map_while(|at| page(&mut gate, Vpn(at)))
                    .collect();
                bytes.extend(copied);
                VpnRange::new(range.start().plus(bytes.len() as u64), range.end())
            };
            let Some(rest) = rest else {
                return Ok((bytes, faults));
            };
            faults += 1;
            let ticket = self.ticket(rest, request);
            let stopped = self.gate.translate_ticket(cx, mm, ticket, |permit| {
                let stopped = permit.stopped();
                // All or nothing, as `dmirror_do_fault`.
                if stopped.is_none() {
                    drop(permit.establish(|found| found.range().start()));
                }
                stopped
            });
            match stopped {
                Ok(None) => {}
                Ok(Some(fault)) => return Err(fault.errno()),
                Err(why) => return Err(why.errno()),
            }
        }
    }
    pub fn read(&self, cx: &mut CallCx<'_>, mm: &Mm, from: u64, n: u64) -> Done {
        self.copy(cx, mm, pages(from, n), FaultRequest::Read, |gate, at| {
            Some(gate.lookup(&at)?.read_u8(0))
        })
    }
    /// Writes page number plus one, modulo 256, to each page.
    pub fn write(&self, cx: &mut CallCx<'_>, mm: &Mm, from: u64, n: u64) -> Done {
        self.copy(cx, mm, pages(from, n), FaultRequest::Write, |gate, at| {
            let byte = (at.0 - pages(0, 1).start().0 + 1) as u8;
            gate.lookup_mut(&at)?.write(0, &[byte]);
            Some(byte)
        })
    }
    /// `HMM_DMIRROR_SNAPSHOT`: E error, `-` none, r and w small pages, R and W parts of huge ones,
    /// p and P pages on the device itself.
    pub fn snapshot(&self, cx: &mut CallCx<'_>, mm: &Mm, from: u64, n: u64) -> String {
        let ticket = self.ticket(pages(from, n), FaultRequest::Snapshot);
        let letter = |t: &Translation| {
            let own = self.board.as_ref().is_some_and(|b| b.memory.has(t.pfn()));
            match (own, t.range().pages() > 1, t.is_writable()) {
                (true, _, false) => "p",
                (true, _, true) => "P",
                (false, false, false) => "r",
                (false, false, true) => "w",
                (false, true, false) => "R",
                (false, true, true) => "W",
            }
        };
        let shown = self
            .gate
            .translate_ticket(cx, mm, ticket.allow_huge(), |permit| {
                let letter = |(pages, slot): (VpnRange, Slot)| {
                    let letter = match slot {
                        Slot::Inaccessible => "E",
                        Slot::Missing => "-",
                        Slot::Mapped(t) => letter(&t),
                    };
                    letter.repeat(pages.pages() as usize)
                };
                permit.slots().map(letter).collect()
            });
        shown.expect("a snapshot has no error")
    }
    /// Has pages migrate; `select` says which, and all that can go to `to`.
    pub fn migrate(
        &self,
        cx: &mut CallCx<'_>,
        mm: &Mm,
        (from, n): (u64, u64),
        select: MigrateSelect,
        to: MigrateTo,
    ) -> Result<Migrated, Errno> {
        let args = MigrateArgs {
            memory: &self.board().memory,
            range: pages(from, n),
            select,
        };
        let done = mm.migrate_vma(cx, &args, |_| to);
        done.map_err(|why| why.errno())
    }
    /// `hmm_migrate_sys_to_dev`: has pages migrate to the device, and reads them there. Returns the
    /// first byte of each.
    pub fn take_in(
        &self,
        cx: &mut CallCx<'_>,
        mm: &Mm,
        from: u64,
        n: u64,
    ) -> Result<Vec<u8>, Errno> {
        // `dmirror_migrate_to_device` asks that, not `migrate_vma_setup`.
        let readable = mm.maps(cx).iter().any(|m| {
            let covers = m.start <= at(from) && at(from) < m.end;
            covers && m.perms().starts_with('r')
        });
        if !readable {
            return Err(Errno::EINVAL);
        }
        let done = self.migrate(cx, mm, (from, n), MigrateSelect::SYSTEM, MigrateTo::Device)?;
        for (page, moved) in done.pages {
            if moved.is_ok() {
                self.map(cx, mm, page);
            }
        }
        let gate = self.gate.lock(cx);
        let page = |at: Vpn| gate.lookup(&at).map(|frame| frame.read_u8(0));
        let bytes: Option<Vec<u8>> = pages(from, n).iter().map(page).collect();
        bytes.ok_or(Errno::ENOENT)
    }
    /// Maps a page as it is, on the device or in memory.
    pub fn map(&self, cx: &mut CallCx<'_>, mm: &Mm, page: Vpn) {
        let ticket = self.ticket(page.into(), FaultRequest::Snapshot);
        let map = |permit: RangePermit<'_, _, _, _>| drop(permit.establish(|_| page));
        self.gate.translate_ticket(cx, mm, ticket, map).unwrap();
    }
    /// `HMM_DMIRROR_EXCLUSIVE`: has pages alone, and maps them for writing.
    pub fn exclusive(&self, cx: &mut CallCx<'_>, mm: &Mm, from: u64, n: u64) -> Result<(), Errno> {
        for page in pages(from, n).iter() {
            let memory = self.board.as_ref().map(|b| &b.memory);
            let map = |exclusive: &ExclusivePage<'_>, mut cx: FolioCx<'_>| {
                let ticket = self.gate.ticket(page, Access::Write);
                let pending = exclusive.resolve(&mut cx, ticket).unwrap();
                let permit = pending.and_then(|pending| pending.admit(&mut cx).ok());
                permit.map(|permit| drop(permit.establish(page))).is_some()
            };
            let mapped = mm.make_device_exclusive(cx, page.addr(), memory, map);
            assert!(mapped.map_err(|why| why.errno())?, "nobody else is there");
        }
        Ok(())
    }
    /// Returns true if the device has a translation of the page.
    pub fn has(&self, cx: &mut CallCx<'_>, page: u64) -> bool {
        self.gate.lock(cx).lookup(&pages(page, 1).start()).is_some()
    }
}

type Table = Gate<OrderedStore<Vpn>, (), Atomic>;

pub fn pages(from: u64, n: u64) -> VpnRange {
    World::pages(from, from + n)
}
pub fn pattern(from: u64, n: u64) -> Vec<u8> {
    (from..from + n).map(|n| (n + 1) as u8).collect()
}

/// A world with private memory on pages 0 to `n`, and a pool of huge pages.
pub fn world_of(n: u64, prot: Prot, pool: u64) -> World {
    let mut w = World::with_pool(
        MemConfig {
            frames: 8192,
            swap: 64,
            ..MemConfig::default()
        },
        pool,
    );
    if n > 0 {
        w.map(0, n, prot);
    }
    w
}
/// Writes page number plus one, modulo 256, to each page, as a processor.
pub fn fill(w: &mut World, from: u64, n: u64) {
    let mut cx = w.thread.cx();
    (from..from + n).for_each(|n| w.mm.store(&mut cx, at(n), (n + 1) as u8).unwrap());
}
/// Reads the first byte of each page, as a processor.
pub fn bytes(w: &mut World, from: u64, n: u64) -> Vec<u8> {
    let mut cx = w.thread.cx();
    let load = |n| w.mm.load(&mut cx, at(n)).unwrap();
    (from..from + n).map(load).collect()
}
/// Unmaps pages.
pub fn unmap(w: &mut World, from: u64, n: u64) {
    w.mm.munmap(&mut w.thread.cx(), at(from), n * PAGE).unwrap();
}

/// Pages `0..n`, of which each is its number plus one, and a device.
pub struct There {
    pub w: World,
    pub board: Arc<Board>,
    pub mirror: Arc<Mirror>,
    pub registration: DeviceRegistration,
}

impl There {
    /// All pages are in memory.
    pub fn at_home(n: u64) -> Self {
        Self::with(DeviceKind::Private, n)
    }
    pub fn with(kind: DeviceKind, n: u64) -> Self {
        let mut w = world_of(n, RW, 0);
        fill(&mut w, 0, n);
        let (board, registration) = Board::add_kind(&w, kind, 1024);
        let mirror = Mirror::with(&mut w.thread.cx(), &w.mm, Some(board.clone()));
        Self {
            w,
            board,
            mirror,
            registration,
        }
    }
    /// All pages are on the device.
    pub fn new(n: u64) -> Self {
        let mut t = Self::at_home(n);
        assert_eq!(t.go(0, n), vec![Ok(()); n as usize]);
        assert_eq!(t.board.memory.in_use() as u64, n);
        t.w.told();
        t
    }
    /// Has pages migrate to the device.
    pub fn go(&mut self, from: u64, n: u64) -> Vec<Result<(), Stays>> {
        let (cx, to) = (&mut self.w.thread.cx(), MigrateTo::Device);
        let select = MigrateSelect::SYSTEM;
        let done = self.mirror.migrate(cx, &self.w.mm, (from, n), select, to);
        done.unwrap()
            .pages
            .into_iter()
            .map(|(_, why)| why)
            .collect()
    }
    /// Whether the device has the page, and may write it.
    pub fn there(&mut self, n: u64) -> Option<bool> {
        match self.w.pte(n) {
            Pte::Device { pfn, write } => {
                assert!(self.board.memory.has(pfn));
                Some(write)
            }
            _ => None,
        }
    }
    pub fn copies(&mut self, page: u64) -> bool {
        self.w.told();
        self.w.put(page, 77);
        !self.w.told().is_empty()
    }
    pub fn end(mut self) {
        self.w.check_rmap();
        self.w.mm.exit(&mut self.w.thread.cx());
        assert_eq!(self.board.memory.in_use(), 0, "frames left on the device");
        let cx = &mut self.w.thread.cx();
        self.w.machine.remove_device(cx, self.registration).unwrap();
        self.w.end();
    }
}

//! `migrate_vma`: pages of a range go to the memory of a device, or come home.

use crate::mm::{
    entry::flags::VmFlags,
    fault::{
        device::{Selection, Stays, migration::Migration},
        scope::FaultScope,
    },
    machine::{DevicePages, HomePage},
    space::Mm,
    vma::Vma,
};
use crate::{
    addr::{PAGE_SIZE, PMD_PAGES, Vpn, VpnRange},
    ctx::{CallCx, rank},
    error::{ByteRange, MigrateError},
    frame::{DeviceMemory, Frame, PhysMem},
};
use bitflags::bitflags;

bitflags! {
    /// The kinds of pages that a migration selects (`enum migrate_vma_direction`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct MigrateSelect: u32 {
        /// Pages of memory, and holes of private memory.
        const SYSTEM = 1;
        /// Pages that lie on the device, beyond the reach of processors.
        const DEVICE_PRIVATE = 1 << 1;
        /// Pages that lie on the device, and processors reach.
        const DEVICE_COHERENT = 1 << 2;
    }
}

/// A request to migrate pages (`struct migrate_vma`).
#[derive(Clone, Copy, Debug)]
pub struct MigrateArgs<'d> {
    /// The device's memory.
    pub memory: &'d DeviceMemory,
    /// The pages, a part of one mapping.
    pub range: VpnRange,
    /// The pages that move, of these.
    pub select: MigrateSelect,
}

/// A page that may migrate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MigrateSource {
    /// The page.
    pub at: Vpn,
    /// True for a hole and a zero page: the new page is zero.
    pub is_hole: bool,
    /// True for a page that lies on the device.
    pub on_device: bool,
}

/// The place that a page migrates to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MigrateTo {
    /// A frame of the device; a page that is there already stays.
    Device,
    /// A frame of memory; a hole stays a hole.
    System,
    /// The page stays.
    Nowhere,
}

/// The outcome of a migration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Migrated {
    /// Each page of the range, ascending, and the reason for which it stayed.
    pub pages: Vec<(Vpn, Result<(), Stays>)>,
}

impl Migrated {
    /// Returns the number of pages that moved.
    pub fn moved(&self) -> usize {
        self.pages.iter().filter(|(_, moved)| moved.is_ok()).count()
    }
}

impl Mm {
    /// Has pages of `args.range` migrate; `to` says for each that can where it goes.
    ///
    /// The selected pages become marks in a window with the event `Migrate` and the device as its
    /// owner. The owner may keep translations of pages of its own memory in it, unless those are
    /// selected ([`Invalidation::spare`](crate::notifier::Invalidation::spare)). Other mappings of
    /// the pages become marks as well, in windows without an owner. `to` is called with the frames
    /// locked and the mmap lock held shared, and must not call the address space. Then bytes are
    /// copied, those of pages that come home by the driver
    /// ([`DevicePages::migrate_to_ram`](crate::mm::DevicePages::migrate_to_ram)), and the marks
    /// become entries. A page that cannot move stays as it was, and is no error. The call takes
    /// time and memory in proportion to the pages of the range.
    ///
    /// # Errors
    ///
    /// [`MigrateError`]; nothing changed, and no window was opened.
    ///
    /// # Examples
    ///
    /// ```
    /// use emmu::{PAGE_SIZE, addr::{Vpn, VpnRange}, frame::{DeviceKind, DeviceMemory}, mm::*};
    /// use std::sync::Arc;
    ///
    /// struct Device(DeviceMemory);
    /// impl DevicePages for Device {}
    /// # let machine = emmu::Machine::new(Default::default());
    /// # let mut thread = machine.enter()?;
    /// # let mut cx = thread.cx();
    /// # let mm = emmu::Mm::new(&machine);
    ///
    /// let (device, registration) = machine.add_device(DeviceKind::Private, 64, |memory| Arc::new(Device(memory)))?;
    /// let at = mm.mmap(&mut cx, &MmapArgs::anonymous(PAGE_SIZE))?;
    /// mm.store(&mut cx, at, 7)?;
    ///
    /// let page = VpnRange::single(Vpn::containing(at));
    /// let args = MigrateArgs { memory: &device.0, range: page, select: MigrateSelect::SYSTEM };
    /// assert_eq!(mm.migrate_vma(&mut cx, &args, |_| MigrateTo::Device)?.moved(), 1);
    /// assert_eq!((device.0.in_use(), machine.mem().in_use()), (1, 0));
    ///
    /// assert_eq!(mm.load(&mut cx, at)?, 7); // comes home
    /// assert_eq!(device.0.in_use(), 0);
    /// machine.remove_device(&mut cx, registration).expect("it has no page");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn migrate_vma(
        &self,
        cx: &mut CallCx<'_>,
        args: &MigrateArgs<'_>,
        to: impl FnMut(&MigrateSource) -> MigrateTo,
    ) -> Result<Migrated, MigrateError> {
        let (range, bytes) = (args.range, args.bytes());
        if !args.memory.is_of(self.machine().mem()) {
            return Err(MigrateError::WrongMachine);
        }
        // Huge pages across the ends of the range are split.
        let whole = VpnRange::new(
            range.start().align_down(PMD_PAGES),
            range.end().align_up(PMD_PAGES),
        );
        let (done, _) = self.with_fault_scope(cx, whole.unwrap_or(range), |scope| {
            let vma = scope.layout.vmas.get(range.start());
            let vma = vma.filter(|vma| vma.range().covers(range));
            let vma = vma.ok_or(MigrateError::Range(bytes))?;
            if !vma.migrates_to_devices() {
                return Err(MigrateError::Unsuitable(bytes.addr));
            }
            Ok(scope.migrate(vma, args, to))
        });
        done
    }
}

impl MigrateArgs<'_> {
    fn bytes(&self) -> ByteRange {
        ByteRange {
            addr: self.range.start().addr(),
            len: self.range.pages().saturating_mul(PAGE_SIZE),
        }
    }
    fn selection(&self) -> Selection {
        Selection {
            owner: self.memory.id(),
            system: self.select.contains(MigrateSelect::SYSTEM),
            private: self.select.contains(MigrateSelect::DEVICE_PRIVATE),
            coherent: self.select.contains(MigrateSelect::DEVICE_COHERENT),
        }
    }
}

impl Vma {
    /// Returns true if pages of the VMA may go to a device (`migrate_vma_setup`).
    fn migrates_to_devices(&self) -> bool {
        let kept = VmFlags::HUGETLB | VmFlags::SPECIAL | VmFlags::NONLINEAR;
        !self.flags.intersects(kept) && !self.is_secret()
    }
}

impl<'h> FaultScope<'h> {
    fn migrate(
        &mut self,
        vma: &Vma,
        args: &MigrateArgs<'_>,
        mut to: impl FnMut(&MigrateSource) -> MigrateTo,
    ) -> Migrated {
        let mm = self.lease.mm;
        let mem = mm.machine().mem();
        let select = args.selection();
        let mut migration = Migration::new(mm, self.lease.cx.descend::<rank::Folio, _>());
        let collected = migration.collect(vma, args.range, &select, None);
        let unmapped = migration.unmap();
        let mut pages: Vec<_> = (collected.stay.into_iter())
            .chain(unmapped.into_iter().map(|at| (at, Stays::InUse)))
            .map(|(at, why)| (at, Err(why)))
            .collect();
        for moving in &mut migration.pages {
            let source = MigrateSource {
                at: moving.at,
                is_hole: false,
                on_device: mem.is_device(moving.old.pfn()),
            };
            let to = Some(to(&source)).filter(|&to| to != MigrateTo::Device || !source.on_device);
            match frame_for(mem, args, to.unwrap_or(MigrateTo::Nowhere)) {
                Ok(frame) => moving.go_to(mem, frame),
                Err(why) => moving.stays = why,
            }
        }
        let mut holes = Vec::new();
        for at in collected.holes {
            let source = MigrateSource {
                at,
                is_hole: true,
                on_device: false,
            };
            let to = Some(to(&source)).filter(|&to| to != MigrateTo::System);
            match frame_for(mem, args, to.unwrap_or(MigrateTo::Nowhere)) {
                Ok(frame) => holes.push((at, frame)),
                Err(why) => pages.push((at, Err(why))),
            }
        }
        let driver = mm.machine().devices.find(select.owner);
        migration.hand_over(|page| copy(driver.as_deref(), mem, page));
        pages.extend(migration.outcomes());
        drop(migration);
        pages.extend(self.insert_pages(vma, holes, args.range.end(), &select));
        self.lease.settle_exports();
        pages.sort_by_key(|(at, _)| *at);
        Migrated { pages }
    }
}

/// Allocates the frame that a page goes to.
fn frame_for<'m>(
    mem: &'m PhysMem,
    args: &MigrateArgs<'_>,
    to: MigrateTo,
) -> Result<Frame<'m>, Stays> {
    match to {
        MigrateTo::Device => mem.alloc_on(args.memory).ok_or(Stays::NoFrame),
        MigrateTo::System => mem.alloc().map_err(|_| Stays::NoFrame),
        MigrateTo::Nowhere => Err(Stays::Driver),
    }
}

/// Copies a page: its driver does, if the page comes home. Returns false if the driver cannot.
fn copy(driver: Option<&dyn DevicePages>, mem: &PhysMem, page: &HomePage<'_>) -> bool {
    if mem.is_device(page.from().pfn()) {
        return driver.is_some_and(|driver| driver.migrate_to_ram(page).is_ok());
    }
    page.copy();
    true
}

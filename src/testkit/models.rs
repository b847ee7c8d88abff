//! The models of this library as devices of the kit, correct or with one of their mistakes.

pub(super) mod bystander;
mod gpu;
mod pinned;
mod regcache;

pub use gpu::gpu;
pub use pinned::pinned;
pub use regcache::regcache;

use super::{
    Broken, Kit,
    device::{Attached, Declared, Device, Holds, Refused},
};
use crate::{
    addr::{PAGE_SIZE, TASK_PAGES, Vpn, VpnRange},
    ctx::CallCx,
    extmmu::{
        gru::{Gru, GruConfig, GruContext, GruFault, GruMistake, GruSpace},
        kvm::{AccessedBits, Exit, MemSlot, PfnCache, SlotFlags, Vcpu, Vm, VmConfig},
        xpmem::{
            Attachment, Manners, Owner, OwnerConfig, Partition, PartitionId, SegId, XpmemError,
        },
    },
    frame::AtomicOp,
    mm::{Mm, MmapArgs},
    notifier::{Access, ExternalMmu},
    sync::{Mutex, Ordering},
};
use std::{collections::BTreeMap, sync::Arc};

/// A virtual processor whose guest memory is the whole address space.
struct Guest {
    vm: Arc<Vm>,
    vcpu: Vcpu,
    config: VmConfig,
}

/// Returns the kit of a virtual machine.
pub fn kvm(config: VmConfig) -> Kit {
    Kit::attaching(move |cx, mm| {
        let (vm, registration) = whole_machine(cx, mm, config);
        let vcpu = vm.vcpu(cx);
        Attached {
            mmu: Arc::clone(&vm) as Arc<dyn ExternalMmu>,
            device: Arc::new(Guest { vm, vcpu, config }),
            registration,
        }
    })
}

fn whole_machine(
    cx: &mut CallCx<'_>,
    mm: &Arc<Mm>,
    config: VmConfig,
) -> (Arc<Vm>, crate::notifier::Registration) {
    let (vm, registration) = Vm::create(cx, mm, config);
    vm.set_memory(cx, MemSlot::ALL_MEMORY)
        .expect("all of memory fits");
    (vm, registration)
}

fn left_guest(exit: Exit) -> Refused {
    match exit {
        Exit::Fault { why, .. } => Refused::Fault(why),
        Exit::Gone => Refused::Gone,
        other => Refused::Other(other.to_string()),
    }
}

fn counted(vm: &Vm) -> Option<String> {
    let active = vm.active_windows();
    (active > 0).then(|| format!("{active} windows are in progress"))
}

impl Device for Guest {
    fn read(&self, cx: &mut CallCx<'_>, _mm: &Mm, addr: u64) -> Result<u8, Refused> {
        self.vcpu.load(cx, addr).map_err(left_guest)
    }
    fn write(&self, cx: &mut CallCx<'_>, _mm: &Mm, addr: u64, byte: u8) -> Result<(), Refused> {
        self.vcpu.store(cx, addr, byte).map_err(left_guest)
    }
    fn declares(&self) -> Declared {
        Declared {
            references: self.config.references,
            ages: true,
            holds: match self.config.accessed {
                AccessedBits::Present => Holds::Table,
                AccessedBits::Absent => Holds::Tlb,
            },
            atomics: true,
            logs_writes: true,
            ..Declared::default()
        }
    }
    fn unsettled(&self) -> Option<String> {
        counted(&self.vm)
    }
    fn fetch_update(
        &self,
        cx: &mut CallCx<'_>,
        _mm: &Mm,
        addr: u64,
        f: &mut dyn FnMut(u64) -> u64,
    ) -> Result<u64, Refused> {
        let mut atomic = |op| self.vcpu.atomic(cx, addr, op, Ordering::SeqCst);
        loop {
            let current = atomic(AtomicOp::Load).map_err(left_guest)?;
            let new = f(current);
            let swap = AtomicOp::CompareExchange { current, new };
            if atomic(swap).map_err(left_guest)? == current {
                return Ok(current);
            }
        }
    }
    /// The first call turns logging on.
    fn take_written(&self, cx: &mut CallCx<'_>, _mm: &Mm, pages: VpnRange) -> Vec<VpnRange> {
        let all = MemSlot::ALL_MEMORY;
        let Ok(written) = self.vm.dirty_log(cx, all.id) else {
            let flags = SlotFlags::LOG_DIRTY_PAGES;
            let logs = self.vm.set_memory(cx, MemSlot { flags, ..all });
            logs.expect("the flags of a slot may change");
            return Vec::new();
        };
        let written = written.into_iter().map(|nth| Vpn(all.hva.0 + nth));
        let written = written.filter(|page| pages.contains(*page));
        written.map(VpnRange::single).collect()
    }
}

/// The host's use of guest pages, through gfn-to-pfn caches.
struct HostUser {
    vm: Arc<Vm>,
    caches: Mutex<BTreeMap<u64, Arc<PfnCache>>>,
}

/// Returns the kit of a virtual machine's gfn-to-pfn caches.
pub fn pfn_caches(config: VmConfig) -> Kit {
    Kit::attaching(move |cx, mm| {
        let (vm, registration) = whole_machine(cx, mm, config);
        let caches = Mutex::default();
        Attached {
            mmu: Arc::clone(&vm) as Arc<dyn ExternalMmu>,
            device: Arc::new(HostUser { vm, caches }),
            registration,
        }
    })
}

impl HostUser {
    fn cache(&self, addr: u64) -> Arc<PfnCache> {
        let page = addr & !(PAGE_SIZE - 1);
        let mut caches = self.caches.lock();
        let cache = caches
            .entry(page)
            .or_insert_with(|| Arc::new(self.vm.pfn_cache(page)));
        Arc::clone(cache)
    }
}

fn in_page(addr: u64) -> usize {
    usize::try_from(addr % PAGE_SIZE).expect("less than a page")
}

impl Device for HostUser {
    fn read(&self, cx: &mut CallCx<'_>, _mm: &Mm, addr: u64) -> Result<u8, Refused> {
        let mut byte = [0];
        let cache = self.cache(addr);
        let done = cache.read(cx, in_page(addr), &mut byte);
        done.map(|()| byte[0]).map_err(left_guest)
    }
    fn write(&self, cx: &mut CallCx<'_>, _mm: &Mm, addr: u64, byte: u8) -> Result<(), Refused> {
        let cache = self.cache(addr);
        let done = cache.write(cx, in_page(addr), &[byte]);
        done.map_err(left_guest)
    }
    fn declares(&self) -> Declared {
        Declared {
            always_writes: true,
            ..Declared::default()
        }
    }
    fn unsettled(&self) -> Option<String> {
        counted(&self.vm)
    }
}

/// A GRU context.
struct Instructions {
    grus: Vec<Arc<Gru>>,
    space: Arc<GruSpace>,
    context: GruContext,
}

/// More contexts than a GRU loads at once, so that none of others stays.
const CONTEXTS: usize = 64;

/// Returns the kit of a GRU.
pub fn gru(config: GruConfig, mistake: Option<GruMistake>) -> Kit {
    Kit::attaching(move |cx, mm| {
        let grus = Gru::several(1, config);
        let (space, registration) = GruSpace::attach(cx, mm, &grus, mistake);
        let context = GruContext::new(&space, 0).expect("there is a GRU");
        Attached {
            mmu: Arc::clone(&space) as Arc<dyn ExternalMmu>,
            device: Arc::new(Instructions {
                grus,
                space,
                context,
            }),
            registration,
        }
    })
}

fn excepted(fault: GruFault) -> Refused {
    match fault {
        GruFault::Fault { why, .. } => Refused::Fault(why),
        GruFault::Gone => Refused::Gone,
    }
}

impl Device for Instructions {
    fn read(&self, cx: &mut CallCx<'_>, _mm: &Mm, addr: u64) -> Result<u8, Refused> {
        let mut byte = [0];
        let done = self.context.read(cx, addr, &mut byte);
        done.map(|()| byte[0]).map_err(excepted)
    }
    fn write(&self, cx: &mut CallCx<'_>, _mm: &Mm, addr: u64, byte: u8) -> Result<(), Refused> {
        let done = self.context.write(cx, addr, &[byte]);
        done.map_err(excepted)
    }
    fn declares(&self) -> Declared {
        Declared {
            holds: Holds::Tlb,
            is_displaced: true,
            ..Declared::default()
        }
    }
    fn unsettled(&self) -> Option<String> {
        let active = self.space.active();
        (active > 0).then(|| format!("{active} windows are active"))
    }
    fn displace(&self, cx: &mut CallCx<'_>, mm: &Mm) {
        let other = Mm::new(mm.machine());
        let addr = other.mmap(cx, &MmapArgs::anonymous(PAGE_SIZE));
        let addr = addr.expect("an empty address space has room");
        let (space, registration) = GruSpace::attach(cx, &other, &self.grus, None);
        let all = (0..CONTEXTS).map(|_| GruContext::new(&space, 0).expect("there is a GRU"));
        let all: Vec<GruContext> = all.collect();
        for context in &all {
            context.write(cx, addr, &[1]).expect("mapped");
        }
        drop(all);
        other.unregister(cx, registration);
        other.exit(cx);
    }
}

/// A partition that has the whole address space attached; when it dies, or is fenced off, another
/// takes its place.
struct Importer {
    owner: Arc<Owner>,
    segment: SegId,
    attachment: Mutex<Arc<Attachment>>,
    config: OwnerConfig,
}

/// Returns the kit of an XPmem owner with a partition, which answers recalls as `manners` says. A
/// partition that is cut off is replaced by another, which answers at once.
pub fn xpmem(config: OwnerConfig, manners: Manners) -> Kit {
    Kit::attaching(move |cx, mm| {
        let (owner, registration) = Owner::attach(cx, mm, config);
        let segment = owner.make(VpnRange::TASK, Access::Write);
        let attachment = import(&owner, segment, manners).expect("all of the segment");
        Attached {
            mmu: Arc::clone(&owner) as Arc<dyn ExternalMmu>,
            device: Arc::new(Importer {
                owner,
                segment,
                attachment: Mutex::new(attachment),
                config,
            }),
            registration,
        }
    })
}

fn import(
    owner: &Arc<Owner>,
    segment: SegId,
    manners: Manners,
) -> Result<Arc<Attachment>, XpmemError> {
    let partition = Partition::new(PartitionId(1));
    partition.set_manners(manners);
    let attachment = owner.import(&partition, segment, 0, TASK_PAGES)?;
    Ok(Arc::new(attachment))
}

impl Importer {
    /// Runs `f`, with a partition that lives.
    fn with<T>(
        &self,
        mut f: impl FnMut(&Attachment) -> Result<T, XpmemError>,
    ) -> Result<T, Refused> {
        loop {
            let attachment = Arc::clone(&self.attachment.lock());
            match f(&attachment) {
                Err(XpmemError::CutOff(_)) => {
                    let next = import(&self.owner, self.segment, Manners::Prompt);
                    *self.attachment.lock() = next.map_err(not_imported)?;
                }
                done => return done.map_err(not_imported),
            }
        }
    }
}

fn not_imported(why: XpmemError) -> Refused {
    match why {
        XpmemError::Fault { why, .. } => Refused::Fault(why),
        XpmemError::NoSegment(_) => Refused::Gone,
        other => Refused::Other(other.to_string()),
    }
}

impl Device for Importer {
    fn read(&self, cx: &mut CallCx<'_>, _mm: &Mm, addr: u64) -> Result<u8, Refused> {
        let mut byte = [0];
        self.with(|a| a.read(cx, addr, &mut byte)).map(|()| byte[0])
    }
    fn write(&self, cx: &mut CallCx<'_>, _mm: &Mm, addr: u64, byte: u8) -> Result<(), Refused> {
        self.with(|a| a.write(cx, addr, &[byte]))
    }
    fn declares(&self) -> Declared {
        Declared {
            references: self.config.references,
            sleeps: true,
            ..Declared::default()
        }
    }
    fn break_acknowledgement(&self, how: Broken) -> bool {
        self.attachment.lock().partition().set_manners(match how {
            Broken::Dies => Manners::Dies,
            Broken::Hangs => Manners::Hangs,
            Broken::Twice => Manners::Twice,
        });
        true
    }
    fn unsettled(&self) -> Option<String> {
        let recalls = self.owner.recalls();
        (recalls != 0).then(|| format!("{recalls} recalls are in progress"))
    }
}

//! What the models of external MMUs cost: accesses that hit, misses, and windows over pages that
//! they translate, beside the same access of the address space itself and a hash map that is looked
//! up, filled and cleared. A device that pins gets no windows: its entries go when it unmaps them.

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use emmu::{
    Contents, Machine, MachineConfig, MemConfig, Mm, PAGE_SIZE,
    addr::{Vpn, VpnRange},
    ctx::CallCx,
    extmmu::{
        References,
        gpu::{Engine, Gpu, GpuConfig},
        gru::{Gru, GruConfig, GruContext, GruSpace},
        kvm::{Gfn, MemSlot, SlotFlags, Vcpu, Vm, VmConfig},
        odp::{Adapter, Key, OdpConfig},
        pinned::{Domain, DomainConfig, Ioas, IoasConfig, IoasMap},
        regcache::{RegCache, RegCacheConfig},
        sva::{Iommu, SvaBond, SvaConfig, SvaDevice},
        xpmem::{Attachment, Owner, OwnerConfig, Partition, PartitionId},
    },
    mm::{Advice, MmapArgs, Prot},
    notifier::Access,
};
use std::{
    collections::HashMap,
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

const BASE: u64 = 1 << 40;
const MOST: u64 = 1 << 16;

/// A device on an address space.
enum Device {
    Kvm(Vcpu),
    Gru(GruContext),
    Xpmem(Attachment),
    Gpu(Engine),
    RegCache(Arc<RegCache>),
    Odp(Arc<Adapter>, Key),
    Sva(Arc<SvaDevice>, SvaBond),
    #[cfg(feature = "vm-memory")]
    Iommu(slices::Memory),
}

/// Those that windows concern.
const KINDS: &[&str] = &[
    "kvm",
    "gru",
    "xpmem",
    "gpu",
    "regcache",
    "odp",
    "sva",
    #[cfg(feature = "vm-memory")]
    "iommu",
];

fn device(cx: &mut CallCx<'_>, mm: &Arc<Mm>, kind: &str) -> Device {
    match kind {
        "kvm" => Device::Kvm(vcpu(cx, mm)),
        "gru" => {
            let grus = Gru::several(1, GruConfig::default());
            let (space, _stays) = GruSpace::attach(cx, mm, &grus, None);
            Device::Gru(GruContext::new(&space, 0).unwrap())
        }
        "gpu" => {
            let (gpu, _stays) = Gpu::attach(cx, mm, None, GpuConfig::default());
            Device::Gpu(gpu.engine(0))
        }
        "regcache" => {
            // Room for all: what is measured is windows, not evictions.
            let config = RegCacheConfig {
                regions: usize::MAX,
                pages: MOST,
                ..RegCacheConfig::default()
            };
            Device::RegCache(RegCache::attach(cx, mm, config).0)
        }
        "odp" => {
            let adapter = Adapter::new(OdpConfig::default());
            let key = adapter.register(cx, mm, (BASE, MOST * PAGE_SIZE), Access::Write);
            Device::Odp(adapter, key.expect("a range"))
        }
        "sva" => {
            // Room for all, as above.
            let iommu = Iommu::new(SvaConfig {
                iotlb: MOST as usize,
                atc: MOST as usize,
                ..SvaConfig::default()
            });
            let device = SvaDevice::new(&iommu);
            let bond = iommu.bind(cx, mm, &device).expect("the first");
            Device::Sva(device, bond)
        }
        #[cfg(feature = "vm-memory")]
        "iommu" => Device::Iommu(slices::memory(cx, mm)),
        _ => Device::Xpmem(importer(cx, mm)),
    }
}

fn vcpu(cx: &mut CallCx<'_>, mm: &Arc<Mm>) -> Vcpu {
    let (vm, _stays) = Vm::create(cx, mm, VmConfig::default());
    let slot = MemSlot {
        id: 0,
        gfn: Gfn(0),
        pages: MOST,
        hva: Vpn::containing(BASE),
        flags: SlotFlags::empty(),
    };
    vm.set_memory(cx, slot).expect("it fits");
    vm.vcpu(cx)
}
fn importer(cx: &mut CallCx<'_>, mm: &Arc<Mm>) -> Attachment {
    let config = OwnerConfig {
        references: References::None,
        ..OwnerConfig::default()
    };
    let (owner, _stays) = Owner::attach(cx, mm, config);
    let first = Vpn::containing(BASE);
    let pages = VpnRange::new(first, first.plus(MOST)).expect("some");
    let segment = owner.make(pages, Access::Write);
    let partition = Partition::new(PartitionId(1));
    let attached = owner.import(&partition, segment, 0, MOST);
    attached.expect("all of it")
}

impl Device {
    fn read(&self, cx: &mut CallCx<'_>, page: u64) {
        let mut byte = [0];
        let at = page * PAGE_SIZE;
        match self {
            Self::Kvm(vcpu) => vcpu.read(cx, at, &mut byte).expect("in the slot"),
            Self::Gru(context) => context.read(cx, BASE + at, &mut byte).expect("mapped"),
            Self::Xpmem(attached) => attached.read(cx, at, &mut byte).expect("attached"),
            Self::Gpu(engine) => engine.read(cx, BASE + at, &mut byte).expect("mapped"),
            Self::RegCache(cache) => cache.read(cx, BASE + at, &mut byte).expect("mapped"),
            Self::Odp(adapter, key) => adapter
                .read(cx, *key, BASE + at, &mut byte)
                .expect("mapped"),
            Self::Sva(device, bond) => device
                .read(cx, bond.pasid(), BASE + at, &mut byte)
                .expect("mapped"),
            #[cfg(feature = "vm-memory")]
            Self::Iommu(memory) => byte[0] = slices::read(cx, memory, at),
        }
        black_box(byte);
    }
}

/// Guest memory behind an IOMMU for rust-vmm's devices.
#[cfg(feature = "vm-memory")]
mod slices {
    use super::{Arc, BASE, CallCx, MOST, Mm, PAGE_SIZE};
    use emmu::extmmu::{
        iommu::{IommuConfig, LeasedMemory, ProcessIommu},
        vm_memory::GuestRegion,
    };
    use vm_memory::{Bytes, GuestAddress, IommuMemory};

    pub(super) type Memory = IommuMemory<LeasedMemory, ProcessIommu>;

    pub(super) fn memory(cx: &mut CallCx<'_>, mm: &Arc<Mm>) -> Memory {
        let whole = GuestRegion {
            guest: GuestAddress(0),
            len: MOST * PAGE_SIZE,
            process: BASE,
        };
        let (iommu, _stays) = ProcessIommu::attach(cx, mm, &[whole], IommuConfig::default());
        iommu.memory()
    }
    pub(super) fn read(cx: &mut CallCx<'_>, memory: &Memory, at: u64) -> u8 {
        cx.lend(|| memory.read_obj(GuestAddress(at)))
            .expect("mapped")
    }
}

/// An address space with all pages touched, and perhaps a device on it.
fn with<T>(
    kind: Option<&str>,
    f: impl FnOnce(&mut CallCx<'_>, &Arc<Mm>, Option<&Device>) -> T,
) -> T {
    // A slice is an address of the host.
    let contents = match kind {
        Some("iommu") => Contents::Real,
        _ => Contents::None,
    };
    let machine = Machine::new(MachineConfig {
        memory: MemConfig {
            frames: 1 << 18,
            contents,
            swap: 0,
        },
        ..MachineConfig::default()
    });
    let mut thread = machine.enter().expect("one machine a thread");
    let mut cx = thread.cx();
    let mm = Mm::new(&machine);
    mm.mmap(&mut cx, &MmapArgs::anonymous(MOST * PAGE_SIZE).fixed(BASE))
        .expect("there is room");
    store(&mut cx, &mm, MOST);
    let device = kind.map(|kind| device(&mut cx, &mm, kind));
    let out = f(&mut cx, &mm, device.as_ref());
    mm.exit(&mut cx);
    out
}

fn store(cx: &mut CallCx<'_>, mm: &Mm, pages: u64) {
    for page in 0..pages {
        mm.store(cx, BASE + page * PAGE_SIZE, 1).expect("mapped");
    }
}

/// One page, again and again.
fn hit(c: &mut Criterion) {
    let mut group = c.benchmark_group("hit");
    for &kind in KINDS {
        with(Some(kind), |cx, _, device| {
            let device = device.expect("asked for");
            group.bench_function(kind, |b| b.iter(|| device.read(cx, 7)));
        });
    }
    with(None, |cx, mm, _| {
        let (ioas, domain) = pinning(cx);
        ioas.map(cx, mm, pages_of(8)).expect("it can be pinned");
        let mut byte = [0];
        let at = 7 * PAGE_SIZE;
        group.bench_function("pinned", |b| b.iter(|| domain.read(at, &mut byte)));
    });
    with(None, |cx, mm, _| {
        let at = BASE + 7 * PAGE_SIZE;
        group.bench_function("load", |b| b.iter(|| mm.load(cx, black_box(at))));
    });
    let map: HashMap<u64, u64> = (0..MOST).map(|n| (n, n)).collect();
    group.bench_function("floor", |b| b.iter(|| map.get(&black_box(7)).copied()));
    group.finish();
}

/// A window over that many pages, all translated, that takes nothing but the translations: rights
/// are given and taken. With `refill`, the time in which all are translated again.
fn windows(c: &mut Criterion, name: &str, refill: bool) {
    let mut group = c.benchmark_group(name);
    group
        .sample_size(10)
        .measurement_time(Duration::from_secs(2));
    for pages in [1, 512, MOST] {
        for kind in KINDS.iter().copied().map(Some).chain([None]) {
            let label = BenchmarkId::new(kind.unwrap_or("nobody"), pages);
            with(kind, |cx, mm, device| {
                let touch = |cx: &mut CallCx<'_>| {
                    for page in 0..if device.is_some() { pages } else { 0 } {
                        device.expect("asked for").read(cx, page);
                    }
                };
                touch(cx);
                group.bench_function(label, |b| {
                    b.iter_custom(|times| {
                        let mut took = Duration::ZERO;
                        for _ in 0..times {
                            let began = Instant::now();
                            let rw = Prot::READ | Prot::WRITE;
                            mm.mprotect(cx, BASE, pages * PAGE_SIZE, Prot::READ)
                                .expect("mapped");
                            let window = began.elapsed();
                            mm.mprotect(cx, BASE, pages * PAGE_SIZE, rw)
                                .expect("mapped");
                            let began = Instant::now();
                            touch(cx);
                            took += if refill { began.elapsed() } else { window };
                        }
                        took
                    });
                });
            });
        }
    }
    group.finish();
}

/// The pages of [`discard`].
const DISCARDED: u64 = 512;

/// Discards of pages that are all translated, in one call, and in one for each page.
fn discard(c: &mut Criterion) {
    let mut group = c.benchmark_group("discard");
    group
        .sample_size(10)
        .measurement_time(Duration::from_secs(2));
    for (name, pages) in [("range", DISCARDED), ("pages", 1)] {
        for kind in KINDS.iter().copied().map(Some).chain([None]) {
            let label = BenchmarkId::new(kind.unwrap_or("nobody"), name);
            with(kind, |cx, mm, device| {
                group.bench_function(label, |b| {
                    b.iter_custom(|times| {
                        let mut took = Duration::ZERO;
                        for _ in 0..times {
                            store(cx, mm, DISCARDED);
                            for page in 0..device.map_or(0, |_| DISCARDED) {
                                device.expect("asked for").read(cx, page);
                            }
                            let began = Instant::now();
                            for first in (0..DISCARDED).step_by(pages as usize) {
                                let (at, len) = (BASE + first * PAGE_SIZE, pages * PAGE_SIZE);
                                mm.madvise(cx, at, len, Advice::DontNeed).expect("mapped");
                            }
                            took += began.elapsed();
                        }
                        took
                    });
                });
            });
        }
    }
    group.finish();
}

/// An I/O address space with a device.
fn pinning(cx: &mut CallCx<'_>) -> (Arc<Ioas>, Arc<Domain>) {
    let ioas = Ioas::new(IoasConfig::default());
    let domain = ioas.attach(cx, DomainConfig::default());
    (ioas, domain.expect("nothing is mapped"))
}

/// The first pages, from I/O address 0 on.
fn pages_of(pages: u64) -> IoasMap {
    IoasMap {
        iova: Some(0),
        addr: BASE,
        len: pages * PAGE_SIZE,
        access: Access::Write,
    }
}

/// A device that pins: pages are mapped and unmapped again, in one call each.
fn pinned(c: &mut Criterion) {
    let mut group = c.benchmark_group("pinned");
    group
        .sample_size(10)
        .measurement_time(Duration::from_secs(2));
    for pages in [1, 512, MOST] {
        for unmaps in [false, true] {
            let name = if unmaps { "unmap" } else { "map" };
            with(None, |cx, mm, _| {
                let (ioas, domain) = pinning(cx);
                group.bench_function(BenchmarkId::new(name, pages), |b| {
                    b.iter_custom(|times| {
                        let mut took = Duration::ZERO;
                        for _ in 0..times {
                            let began = Instant::now();
                            ioas.map(cx, mm, pages_of(pages)).expect("it can be pinned");
                            let mapped = began.elapsed();
                            // The IOTLB has some of them.
                            for page in 0..pages.min(64) {
                                domain.read(page * PAGE_SIZE, &mut [0]).expect("mapped");
                            }
                            let began = Instant::now();
                            ioas.unmap_all().expect("in no use");
                            took += if unmaps { began.elapsed() } else { mapped };
                        }
                        took
                    });
                });
            });
        }
    }
    group.finish();
}

fn invalidation(c: &mut Criterion) {
    windows(c, "invalidation", false);
}
fn refault(c: &mut Criterion) {
    windows(c, "refault", true);
}

criterion_group!(benches, hit, invalidation, refault, discard, pinned);
criterion_main!(benches);

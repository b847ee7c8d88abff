//! What threads use of each model, and what must not be left of it.

use super::{BASE, PAGE, PAGES, World, iommus};
use emmu::{
    Mm,
    addr::{Vpn, VpnRange},
    ctx::CallCx,
    extmmu::{
        gpu::{Gpu, GpuBoard, GpuConfig},
        gru::{Gru, GruConfig, GruContext, GruSpace},
        kvm::{Gfn, MemSlot, SlotFlags, Vm, VmConfig},
        odp::{Adapter, Key, OdpAdvice, OdpConfig},
        regcache::{RegCache, RegCacheConfig},
        xpmem::{Owner, OwnerConfig, Partition, PartitionId},
    },
    frame::DeviceKind,
    mm::DeviceRegistration,
    notifier::Access,
};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

/// One access of a device, and what it may do beside.
pub(super) struct Turn {
    /// The byte, counted from the first of the memory.
    pub(super) at: u64,
    /// Pages from there on.
    pub(super) pages: u64,
    pub(super) byte: u8,
    pub(super) luck: u64,
}

impl Turn {
    /// The address in the process.
    pub(super) fn addr(&self) -> u64 {
        BASE + self.at
    }
    /// The address of the page, and the bytes of all pages.
    pub(super) fn bytes(&self) -> (u64, u64) {
        (self.addr() & !(PAGE - 1), self.pages * PAGE)
    }
    /// True in half of the turns.
    pub(super) fn writes(&self) -> bool {
        self.luck.is_multiple_of(2)
    }
    pub(super) fn access(&self) -> Access {
        match self.writes() {
            true => Access::Write,
            false => Access::Read,
        }
    }
    /// True in one turn of `n`, whatever the access is.
    pub(super) fn is_one_in(&self, n: u64) -> bool {
        (self.luck / 2).is_multiple_of(n)
    }
}

/// What one thread uses of a model. Returns true if the access was made.
pub(super) type Use<'m> = Box<dyn FnMut(&mut CallCx<'_>, &Turn) -> bool + Send + 'm>;

/// A model on the address space.
pub(super) trait Model: Send + Sync {
    fn name(&self) -> &'static str;
    fn user(&self, cx: &mut CallCx<'_>, thread: usize) -> Use<'_>;
    /// Ends it, after the process and its users: nothing is left of it.
    fn end(self: Box<Self>, cx: &mut CallCx<'_>);
}

fn whole() -> VpnRange {
    let (first, end) = (Vpn::containing(BASE), Vpn::containing(BASE + PAGES * PAGE));
    VpnRange::new(first, end).expect("some pages")
}

/// Attaches every model, each under the watch of the oracle. Returns the XPmem owner as well.
pub(super) fn attach_all(cx: &mut CallCx<'_>, w: &World) -> (Vec<Box<dyn Model>>, Arc<Owner>) {
    let exporter = Exporter::attach(cx, w);
    let owner = Arc::clone(&exporter.owner);
    let mut models: Vec<Box<dyn Model>> = vec![
        Box::new(Guest::attach(cx, w)),
        Box::new(Instructions::attach(cx, w)),
        Box::new(exporter),
        Box::new(Card::attach(cx, w, DeviceKind::Private)),
        Box::new(Card::attach(cx, w, DeviceKind::Coherent)),
        Box::new(Rdma::attach(w)),
        Box::new(Registered::attach(cx, w, true)),
        Box::new(Registered::attach(cx, w, false)),
    ];
    models.extend(iommus::attach_all(cx, w));
    #[cfg(all(feature = "host-mapping", feature = "vm-memory"))]
    models.extend(super::host_memory::HostMemory::attach(cx, w));
    (models, owner)
}

/// KVM: a virtual processor for each thread, and pages that the host caches.
struct Guest(Arc<Vm>);

impl Guest {
    fn attach(cx: &mut CallCx<'_>, w: &World) -> Self {
        let (vm, _stays) = Vm::create(cx, &w.mm, VmConfig::default());
        let slot = MemSlot {
            id: 0,
            gfn: Gfn(0),
            pages: PAGES,
            hva: Vpn::containing(BASE),
            flags: SlotFlags::empty(),
        };
        vm.set_memory(cx, slot).unwrap();
        w.oracle.watch(&w.mm, vm.clone());
        Self(vm)
    }
}

impl Model for Guest {
    fn name(&self) -> &'static str {
        "KVM"
    }
    fn user(&self, cx: &mut CallCx<'_>, _: usize) -> Use<'_> {
        let vcpu = self.0.vcpu(cx);
        let cached: Vec<_> = (0..4).map(|n| self.0.pfn_cache(n * 32 * PAGE)).collect();
        Box::new(move |cx, turn| {
            if turn.is_one_in(4) {
                let cache = &cached[turn.luck as usize / 8 % cached.len()];
                let refreshed = cache.refresh(cx).is_ok();
                return refreshed && cache.write(cx, 0, &[turn.byte]).is_ok();
            }
            match turn.writes() {
                true => vcpu.store(cx, turn.at, turn.byte).is_ok(),
                false => vcpu.load(cx, turn.at).is_ok(),
            }
        })
    }
    fn end(self: Box<Self>, cx: &mut CallCx<'_>) {
        assert_eq!((self.0.in_progress(), self.0.entries(cx)), ((0, 0), 0));
    }
}

/// The GRU: a context for each thread, on one of two chips.
struct Instructions(Arc<GruSpace>);

impl Instructions {
    fn attach(cx: &mut CallCx<'_>, w: &World) -> Self {
        let config = GruConfig {
            preload: 2,
            ..GruConfig::default()
        };
        let (space, _stays) = GruSpace::attach(cx, &w.mm, &Gru::several(2, config), None);
        w.oracle.watch(&w.mm, space.clone());
        Self(space)
    }
}

impl Model for Instructions {
    fn name(&self) -> &'static str {
        "GRU"
    }
    fn user(&self, _: &mut CallCx<'_>, thread: usize) -> Use<'_> {
        let context = GruContext::new(&self.0, thread).unwrap();
        Box::new(move |cx, turn| match turn.writes() {
            true => context.write(cx, turn.addr(), &[turn.byte]).is_ok(),
            false => context.read(cx, turn.addr(), &mut [0]).is_ok(),
        })
    }
    fn end(self: Box<Self>, _: &mut CallCx<'_>) {
        assert_eq!(self.0.active(), 0);
    }
}

/// XPmem: an importer for each thread, all in one partition.
struct Exporter {
    owner: Arc<Owner>,
    partition: Arc<Partition>,
}

impl Exporter {
    fn attach(cx: &mut CallCx<'_>, w: &World) -> Self {
        // Nobody hangs here.
        let config = OwnerConfig {
            deadline: Duration::from_secs(600),
            ..OwnerConfig::default()
        };
        let (owner, _stays) = Owner::attach(cx, &w.mm, config);
        w.oracle.watch(&w.mm, owner.clone());
        let partition = Partition::new(PartitionId(1));
        Self { owner, partition }
    }
}

impl Model for Exporter {
    fn name(&self) -> &'static str {
        "XPmem"
    }
    fn user(&self, _: &mut CallCx<'_>, _: usize) -> Use<'_> {
        let segment = self.owner.make(whole(), Access::Write);
        let attached = self.owner.import(&self.partition, segment, 0, PAGES);
        let attached = attached.unwrap();
        Box::new(move |cx, turn| match turn.writes() {
            true => attached.write(cx, turn.at, &[turn.byte]).is_ok(),
            false => attached.read(cx, turn.at, &mut [0]).is_ok(),
        })
    }
    fn end(self: Box<Self>, _: &mut CallCx<'_>) {
        assert_eq!((self.owner.recalls(), self.partition.entries()), (0, 0));
    }
}

/// A GPU with memory of one kind: an engine for each thread; pages go there and come home.
struct Card {
    mm: Arc<Mm>,
    gpu: Arc<Gpu>,
    kind: DeviceKind,
    board: Arc<GpuBoard>,
    memory: DeviceRegistration,
}

impl Card {
    fn attach(cx: &mut CallCx<'_>, w: &World, kind: DeviceKind) -> Self {
        let (board, memory) = GpuBoard::add(&w.machine, kind, 64).unwrap();
        let config = GpuConfig {
            migrate_after: Some(8),
            ..GpuConfig::default()
        };
        let (gpu, _stays) = Gpu::attach(cx, &w.mm, Some(&board), config);
        w.oracle.watch(&w.mm, gpu.clone());
        Self {
            mm: Arc::clone(&w.mm),
            gpu,
            kind,
            board,
            memory,
        }
    }
}

impl Model for Card {
    fn name(&self) -> &'static str {
        match self.kind {
            DeviceKind::Private => "GPU",
            DeviceKind::Coherent => "coherent GPU",
        }
    }
    fn user(&self, _: &mut CallCx<'_>, thread: usize) -> Use<'_> {
        let engine = self.gpu.engine(thread);
        Box::new(move |cx, turn| {
            let (first, len) = turn.bytes();
            match turn.luck / 2 % 32 {
                0 => drop(self.gpu.evict(cx)),
                1 | 2 => drop(self.gpu.to_device(cx, first, len)),
                3 => drop(self.gpu.to_system(cx, first, len)),
                4..8 => return engine.update(cx, first, |word| word + 1).is_ok(),
                _ => {}
            }
            match turn.writes() {
                true => engine.write(cx, turn.addr(), &[turn.byte]).is_ok(),
                false => engine.read(cx, turn.addr(), &mut [0]).is_ok(),
            }
        })
    }
    fn end(self: Box<Self>, cx: &mut CallCx<'_>) {
        assert_eq!((self.gpu.entries(cx), self.board.memory().in_use()), (0, 0));
        let removed = self.mm.machine().remove_device(cx, self.memory);
        assert!(removed.is_ok(), "pages are left on it");
    }
}

/// An RDMA adapter: a region of everything, and one of each thread that comes and goes.
struct Rdma {
    mm: Arc<Mm>,
    adapter: Arc<Adapter>,
    everything: Key,
    own: Mutex<Vec<Key>>,
}

impl Rdma {
    fn attach(w: &World) -> Self {
        let adapter = Adapter::new(OdpConfig {
            child_pages: 64,
            ..OdpConfig::default()
        });
        Self {
            mm: Arc::clone(&w.mm),
            everything: adapter.register_implicit(&w.mm, Access::Write),
            adapter,
            own: Mutex::default(),
        }
    }
    fn register(&self, cx: &mut CallCx<'_>, turn: &Turn) -> Key {
        let registered = self
            .adapter
            .register(cx, &self.mm, turn.bytes(), Access::Write);
        registered.unwrap()
    }
    /// Ends the region of a thread, and makes another one.
    fn register_again(&self, cx: &mut CallCx<'_>, thread: usize, turn: &Turn) {
        let old = self.own.lock().unwrap()[thread];
        self.adapter.deregister(cx, old).unwrap();
        let new = self.register(cx, turn);
        self.own.lock().unwrap()[thread] = new;
    }
}

impl Model for Rdma {
    fn name(&self) -> &'static str {
        "ODP"
    }
    fn user(&self, cx: &mut CallCx<'_>, _: usize) -> Use<'_> {
        let adapter = &self.adapter;
        let everywhere = Turn {
            at: 0,
            pages: PAGES,
            byte: 0,
            luck: 0,
        };
        let first = self.register(cx, &everywhere);
        let mut own = self.own.lock().unwrap();
        own.push(first);
        let thread = own.len() - 1;
        Box::new(move |cx, turn| {
            if turn.is_one_in(16) {
                self.register_again(cx, thread, turn);
            }
            let key = match turn.is_one_in(2) {
                true => self.own.lock().unwrap()[thread],
                false => self.everything,
            };
            if turn.is_one_in(5) {
                let advice = match turn.writes() {
                    true => OdpAdvice::PrefetchWrite,
                    false => OdpAdvice::PrefetchNoFault,
                };
                return adapter.advise(cx, key, turn.bytes(), advice).is_ok();
            }
            match turn.writes() {
                true => adapter.write(cx, key, turn.addr(), &[turn.byte]).is_ok(),
                false => adapter.read(cx, key, turn.addr(), &mut [0]).is_ok(),
            }
        })
    }
    fn end(self: Box<Self>, cx: &mut CallCx<'_>) {
        let own = self.own.into_inner().unwrap();
        for key in own.into_iter().chain([self.everything]) {
            self.adapter.deregister(cx, key).unwrap();
        }
        let faults = self.adapter.faults();
        assert_eq!((faults.waiting(), faults.stray), (0, 0), "{faults:?}");
        assert_eq!(self.mm.subscriptions(), 0);
    }
}

/// A registration cache, whose regions are pinned or are not.
struct Registered(Arc<RegCache>);

impl Registered {
    fn attach(cx: &mut CallCx<'_>, w: &World, pinned: bool) -> Self {
        let config = RegCacheConfig {
            pinned,
            regions: 8,
            pages: 32,
            ..RegCacheConfig::default()
        };
        let (cache, _stays) = RegCache::attach(cx, &w.mm, config);
        w.oracle.watch(&w.mm, cache.clone());
        Self(cache)
    }
}

impl Model for Registered {
    fn name(&self) -> &'static str {
        match self.0.config().pinned {
            true => "registration cache",
            false => "registration cache without pins",
        }
    }
    fn user(&self, _: &mut CallCx<'_>, _: usize) -> Use<'_> {
        let cache = &self.0;
        Box::new(move |cx, turn| {
            if turn.is_one_in(4) {
                // A handle outlives windows: the region goes with it.
                let (first, len) = turn.bytes();
                let bytes = (first, len.min(4 * PAGE) as usize);
                let Ok(handle) = cache.acquire(cx, bytes, turn.access()) else {
                    return false;
                };
                let _windows = cache.stats(cx);
                return handle.read(cx, first, &mut [0; 64]).is_ok();
            }
            match turn.writes() {
                true => cache.write(cx, turn.addr(), &[turn.byte]).is_ok(),
                false => cache.read(cx, turn.addr(), &mut [0]).is_ok(),
            }
        })
    }
    fn end(self: Box<Self>, cx: &mut CallCx<'_>) {
        let _deregistered = self.0.collect(cx);
        let stats = self.0.stats(cx);
        assert_eq!((stats.regions, stats.waiting), (0, 0), "{stats:?}");
    }
}

//! The cache: transfers, and the regions that serve them.

use super::{
    error::RegError,
    handle::RegionHandle,
    mistake::RegMistake,
    regions::{Regions, Table},
};
use crate::{
    ctx::CallCx,
    error::ByteRange,
    extmmu::bill::{Bill, Meter},
    mm::Mm,
    notifier::{Access, Gate, OrderedStore, Registration, ShadowEntry, ShadowStore},
};
use std::sync::{Arc, Weak};

/// The settings of a registration cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct RegCacheConfig {
    /// Regions are pinned. Pages that cannot be pinned for long are registered without.
    pub pinned: bool,
    /// The most regions that are kept. Regions in use may be more.
    pub regions: usize,
    /// The most pages of the regions that are kept.
    pub pages: u64,
    /// Pages are registered in aligned blocks of so many, where all of the block can be had.
    pub block: u64,
    /// A mistake.
    pub mistake: Option<RegMistake>,
}

impl Default for RegCacheConfig {
    fn default() -> Self {
        Self {
            pinned: true,
            regions: 32,
            pages: 128,
            block: 4,
            mistake: None,
        }
    }
}

/// Counts of a cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct RegStats {
    /// The regions that are found.
    pub regions: usize,
    /// Their pages.
    pub pages: u64,
    /// Regions that are found no more and not deregistered yet.
    pub waiting: usize,
    /// Requests that a region served.
    pub hits: u64,
    /// Requests that had to register.
    pub misses: u64,
    /// Regions that made room for others.
    pub evictions: u64,
}

/// A cache of registered regions of one address space, and the adapter that transfers to and from
/// them.
///
/// # Examples
///
/// ```
/// use emmu::{PAGE_SIZE, extmmu::regcache::{RegCache, RegCacheConfig}, mm::{Advice, MmapArgs}};
/// # let machine = emmu::Machine::new(Default::default());
/// # let mut thread = machine.enter()?;
/// # let mut cx = thread.cx();
/// # let mm = emmu::Mm::new(&machine);
///
/// let (cache, registration) = RegCache::attach(&mut cx, &mm, RegCacheConfig::default());
/// let at = mm.mmap(&mut cx, &MmapArgs::anonymous(4 * PAGE_SIZE))?;
/// cache.write(&mut cx, at, b"sent")?;
/// cache.write(&mut cx, at + 100, b"again")?;
/// let stats = cache.stats(&mut cx);
/// assert_eq!((stats.misses, stats.hits), (1, 1), "the second transfer finds the region");
///
/// // The pages go: the region is found no more, and deregistered after the window.
/// mm.munmap(&mut cx, at, 4 * PAGE_SIZE)?;
/// assert_eq!(cache.stats(&mut cx).waiting, 1);
/// assert_eq!((cache.collect(&mut cx), machine.mem().in_use()), (1, 0));
/// assert!(cache.read(&mut cx, at, &mut [0]).is_err());
/// mm.unregister(&mut cx, registration);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct RegCache {
    pub(super) mm: Weak<Mm>,
    pub(super) gate: Table,
    pub(super) config: RegCacheConfig,
    pub(super) meter: Meter,
}

impl RegCache {
    /// Registers a cache on an address space.
    pub fn attach(
        cx: &mut CallCx<'_>,
        mm: &Arc<Mm>,
        config: RegCacheConfig,
    ) -> (Arc<Self>, Registration) {
        mm.register(cx, |seat| {
            Arc::new(Self {
                mm: Arc::downgrade(mm),
                gate: Gate::new(seat, OrderedStore::default(), Regions::default()),
                config,
                meter: Meter::default(),
            })
        })
    }
    /// Registers the bytes `[addr, addr + len)` for transfers, or finds the region that has them.
    /// The region stays registered until the handle is dropped.
    ///
    /// # Errors
    ///
    /// [`RegError::Range`], [`RegError::Fault`], [`RegError::Gone`]. Nothing is registered then.
    pub fn acquire(
        &self,
        cx: &mut CallCx<'_>,
        (addr, len): (u64, usize),
        access: Access,
    ) -> Result<RegionHandle<'_>, RegError> {
        let bytes = ByteRange {
            addr,
            len: len as u64,
        };
        let range = bytes.pages().ok_or(RegError::Range(bytes))?;
        self.collect(cx);
        let mut gate = self.gate.lock(cx);
        if let Some(region) = gate.state().hit(range, access) {
            gate.state().hits += 1;
            return Ok(RegionHandle::new(&self.gate, region));
        }
        gate.state().misses += 1;
        let mut refused = gate.state().refused.range(range.start()..range.end());
        if let Some((_, why)) = refused.next() {
            return Err((*why).into());
        }
        drop(gate);
        let registered = self.register(cx, range, access);
        if let Err(RegError::Fault(why)) = registered
            && self.made(RegMistake::KeepsRefusals)
        {
            self.gate.lock(cx).state().refused.insert(why.at, why);
        }
        registered.map(|region| RegionHandle::new(&self.gate, region))
    }
    /// Reads `out.len()` bytes from `addr` on.
    ///
    /// # Errors
    ///
    /// Those of [`acquire`](Self::acquire): no byte was read.
    pub fn read(&self, cx: &mut CallCx<'_>, addr: u64, out: &mut [u8]) -> Result<(), RegError> {
        self.transfer(cx, (addr, out.len()), Access::Read, |handle, cx| {
            handle.read(cx, addr, out)
        })
    }
    /// Writes all of `bytes` from `addr` on.
    ///
    /// # Errors
    ///
    /// Those of [`acquire`](Self::acquire): no byte was written.
    pub fn write(&self, cx: &mut CallCx<'_>, addr: u64, bytes: &[u8]) -> Result<(), RegError> {
        self.transfer(cx, (addr, bytes.len()), Access::Write, |handle, cx| {
            handle.write(cx, addr, bytes)
        })
    }
    fn transfer(
        &self,
        cx: &mut CallCx<'_>,
        bytes: (u64, usize),
        access: Access,
        mut f: impl FnMut(&RegionHandle<'_>, &mut CallCx<'_>) -> Result<(), RegError>,
    ) -> Result<(), RegError> {
        if bytes.1 == 0 {
            return Ok(());
        }
        loop {
            let handle = self.acquire(cx, bytes, access)?;
            let done = f(&handle, cx);
            drop(handle);
            self.collect(cx);
            if !matches!(done, Err(RegError::Invalidated(_))) {
                return done;
            }
        }
    }
    /// Deregisters the regions that windows, merges and evictions have left, but for those in use.
    /// Returns their number. Each request does this first.
    pub fn collect(&self, cx: &mut CallCx<'_>) -> usize {
        let mut gate = self.gate.lock(cx);
        let gone = gate.state().idle_doomed();
        for region in &gone {
            let others = gate.state().overlapping(region.range);
            let covered = |at| others.iter().any(|other| other.range.contains(at));
            // Entries of pages that the window spared, unless another region has them now.
            let mut alone = Vec::new();
            let mut look = |entry: &ShadowEntry| alone.push(entry.vpn());
            gate.store().for_each_in(region.range, &mut look);
            for at in alone.into_iter().filter(|at| !covered(*at)) {
                gate.forget(&at);
            }
            if self.made(RegMistake::KeyByPage) {
                others.iter().for_each(|other| other.deregister());
            }
        }
        drop(gate);
        gone.iter().for_each(|region| region.deregister());
        gone.len()
    }
    /// Returns the counts.
    pub fn stats(&self, cx: &mut CallCx<'_>) -> RegStats {
        let mut gate = self.gate.lock(cx);
        let regions = gate.state();
        RegStats {
            regions: regions.len(),
            pages: regions.pages(),
            waiting: regions.waiting(),
            hits: regions.hits,
            misses: regions.misses,
            evictions: regions.evictions,
        }
    }
    /// Returns the settings.
    pub fn config(&self) -> &RegCacheConfig {
        &self.config
    }
    /// Returns the counts of windows, faults and pins so far.
    pub fn bill(&self) -> Bill {
        self.meter.bill()
    }
    /// Returns the meter that keeps the [`Bill`].
    pub fn meter(&self) -> &Meter {
        &self.meter
    }
    pub(super) fn made(&self, mistake: RegMistake) -> bool {
        self.config.mistake == Some(mistake)
    }
}

impl std::fmt::Debug for RegCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RegCache")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

//! A device of TLBs alone, put on trial: a cache of translations through which a device reads, and
//! never writes. `cargo run --features testkit --example read_cache`; `cargo test` as well.

use emmu::driver::*;
use emmu::testkit::{Declared, Device, Refused, conformance};
use std::{collections::BTreeMap, sync::Arc};

/// The gate has no store. Its state is the TLB, so the lock that guards the TLB is the lock that a
/// window takes.
struct ReadCache(Gate<NoStore, BTreeMap<Vpn, Cached>, Atomic>);

impl ReadCache {
    fn new(seat: Seat) -> Arc<Self> {
        Arc::new(Self(Gate::new(seat, NoStore, BTreeMap::new())))
    }
}

impl SpinningMmu for ReadCache {
    fn invalidate<'i>(&self, mut cx: AtomicCallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
        self.0.exclude_with(&mut cx, inv, |tlb, gone, _| {
            tlb.retain(|_, cached| !cached.range().overlaps(gone.range()));
        })
    }
    fn translations(&self, visit: &mut dyn FnMut(Translation)) -> bool {
        let mut show = |cached: &Cached| visit(cached.translation());
        self.0
            .audited_parts(|_, tlb| tlb.values().for_each(&mut show))
    }
}

impl Device for ReadCache {
    fn read(&self, cx: &mut CallCx<'_>, mm: &Mm, addr: u64) -> Result<u8, Refused> {
        let (at, offset) = (Vpn::containing(addr), (addr % PAGE_SIZE) as usize);
        let mut gate = self.0.lock(cx); // held until the byte is read
        if let Some(cached) = gate.state().get(&at) {
            let frame = self.0.follow(cached, at).expect("of this gate and page");
            return Ok(frame.read_u8(offset));
        }
        drop(gate); // a miss may open windows
        Ok(self.0.translate(cx, mm, at, Access::Read, |mut permit| {
            let cached = permit.cached();
            permit.state().insert(at, cached);
            permit.frame().read_u8(offset)
        })?)
    }
    fn declares(&self) -> Declared {
        Declared::default().reads_only()
    }
}

fn main() {
    println!("{}", conformance(ReadCache::new));
}

emmu::conformance_tests!(ReadCache::new);

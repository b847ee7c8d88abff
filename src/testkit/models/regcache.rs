//! The kit of a registration cache.

use crate::{
    ctx::CallCx,
    extmmu::{
        References,
        regcache::{RegCache, RegCacheConfig, RegError},
    },
    mm::Mm,
    notifier::ExternalMmu,
    testkit::{
        Kit,
        device::{Attached, Declared, Device, Holds, Refused},
    },
};
use std::sync::Arc;

/// An adapter that transfers to and from registered regions.
struct Adapter(Arc<RegCache>);

/// Returns the kit of a registration cache.
pub fn regcache(config: RegCacheConfig) -> Kit {
    Kit::attaching(move |cx, mm| {
        let (cache, registration) = RegCache::attach(cx, mm, config);
        Attached {
            mmu: Arc::clone(&cache) as Arc<dyn ExternalMmu>,
            device: Arc::new(Adapter(cache)),
            registration,
        }
    })
}

fn not_transferred(why: RegError) -> Refused {
    match why {
        RegError::Fault(fault) => Refused::Fault(fault.why),
        RegError::Gone => Refused::Gone,
        other => Refused::Other(other.to_string()),
    }
}

impl Device for Adapter {
    fn read(&self, cx: &mut CallCx<'_>, _mm: &Mm, addr: u64) -> Result<u8, Refused> {
        let mut byte = [0];
        let done = self.0.read(cx, addr, &mut byte);
        done.map(|()| byte[0]).map_err(not_transferred)
    }
    fn write(&self, cx: &mut CallCx<'_>, _mm: &Mm, addr: u64, byte: u8) -> Result<(), Refused> {
        self.0.write(cx, addr, &[byte]).map_err(not_transferred)
    }
    fn declares(&self) -> Declared {
        let pinned = self.0.config().pinned;
        Declared {
            holds: Holds::Tlb,
            references: if pinned {
                References::Held
            } else {
                References::None
            },
            always_writes: pinned,
            pins: pinned,
            ..Declared::default()
        }
    }
}

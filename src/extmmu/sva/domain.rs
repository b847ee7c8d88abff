//! One process on one IOMMU: the IOTLB, the flush, and the release (`struct iommu_domain` of type
//! SVA).

use super::{atc::Atc, config::SvaConfig, mistake::SvaMistake};
use crate::{
    addr::{Vpn, VpnRange},
    ctx::AtomicCallbackCx,
    extmmu::bill::Meter,
    mm::Mm,
    notifier::{SecondaryTlb, TlbGate, TlbSeat, Translation},
    sync::{AtomicBool, Ordering},
};
use std::sync::{Arc, Weak};

/// The ATCs of the devices that are bound to the process, under the lock of the IOTLB.
pub(super) type Devices = Vec<Weak<Atc>>;

/// The translations of one process.
pub(super) struct Domain {
    pub(super) mm: Weak<Mm>,
    pub(super) pasid: u32,
    pub(super) gate: TlbGate<Devices>,
    pub(super) config: SvaConfig,
    pub(super) meter: Arc<Meter>,
    quiet: AtomicBool,
}

impl Domain {
    pub(super) fn new(
        seat: TlbSeat,
        mm: Weak<Mm>,
        pasid: u32,
        (config, meter): (SvaConfig, Arc<Meter>),
    ) -> Arc<Self> {
        Arc::new(Self {
            mm,
            pasid,
            gate: TlbGate::new(seat, Devices::new()),
            config,
            meter,
            quiet: AtomicBool::new(false),
        })
    }
    /// Returns true if the process has ended: accesses are aborted.
    pub(super) fn is_quiet(&self) -> bool {
        self.quiet.load(Ordering::Acquire)
    }
    pub(super) fn made(&self, mistake: SvaMistake) -> bool {
        self.config.mistake == Some(mistake)
    }
    /// Returns the range of the commands for a flush of `range`: everything, if page by page would
    /// take too long.
    fn commanded(&self, range: VpnRange) -> Option<VpnRange> {
        if range.pages() > self.config.most_by_page {
            return (!self.made(SvaMistake::WholeMissed)).then_some(VpnRange::ALL);
        }
        if self.made(SvaMistake::ShortFlush) {
            return VpnRange::new(range.start(), Vpn(range.end().0 - 1));
        }
        Some(range)
    }
    /// Flushes the devices, and waits for them.
    fn flush_devices(&self, devices: &Devices, range: VpnRange) {
        let told = match self.config.mistake {
            Some(SvaMistake::NoAtcFlush) => 0,
            Some(SvaMistake::FirstDeviceOnly) => 1,
            _ => devices.len(),
        };
        for device in devices.iter().take(told).filter_map(Weak::upgrade) {
            match self.made(SvaMistake::NoWait) {
                true => device.post_flush(self.pasid, range),
                false => self.meter.dropped_all(device.flush(self.pasid, range)),
            }
            self.meter.acknowledged(1);
        }
    }
}

impl SecondaryTlb for Domain {
    fn flush(&self, mut cx: AtomicCallbackCx<'_>, range: VpnRange) {
        self.meter.begin(range);
        if let Some(commanded) = self.commanded(range) {
            if self.made(SvaMistake::AtcFirst) {
                let flush = |devices: &mut Devices| self.flush_devices(devices, commanded);
                self.gate.with_state(&mut cx, flush);
                self.gate.flush(cx, commanded, |_, _| ());
            } else {
                self.gate.flush(cx, commanded, |devices, commanded| {
                    self.flush_devices(devices, commanded);
                });
            }
        }
        self.meter.end(range);
    }
    fn release(&self, cx: AtomicCallbackCx<'_>) {
        let _unused = cx;
        self.quiet.store(true, Ordering::Release);
    }
    fn name(&self) -> &'static str {
        "SVA"
    }
    fn translations(&self, visit: &mut dyn FnMut(Translation)) -> bool {
        self.gate.audited(visit, |devices, visit| {
            let devices = devices.iter().filter_map(Weak::upgrade);
            devices.for_each(|device| device.show(self.pasid, visit));
        })
    }
}

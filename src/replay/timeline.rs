//! The events of a replayed program and of its devices, moment by moment.

use super::{
    devices::{Devices, Standing},
    mmu_kind::MmuKind,
    program::{Call, FaultKind, Watch, What, Who},
};
use crate::{addr::VpnRange, ctx::CallCx, mm::Mm};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// One call or fault, and its effect.
///
/// There are two clocks. The clock of the recording gives the time of the event in the program; the
/// clock of the replay, which starts with the replay, gives the time that the event and the devices
/// took here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The acting process and thread, with the time of the recording.
    pub who: Who,
    /// The event.
    pub what: Followed,
    /// The time at which it began, on the clock of the replay.
    pub begin: Duration,
    /// The time at which it ended, devices included, on the clock of the replay.
    pub end: Duration,
    /// Windows that ended in this moment, device by device.
    pub holds: Vec<Hold>,
    /// The state of the devices after this moment; empty without devices.
    pub standings: Vec<Standing>,
}

/// The kind of a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Followed {
    /// A system call, as recorded.
    Call(String),
    /// A page fault, with its kind and its address.
    Fault(FaultKind, u64),
    /// A thread's end.
    Ended,
}

/// The time between the two calls of one window to one device, on the clock of the replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    /// The kind of the device.
    pub kind: MmuKind,
    /// The pages.
    pub range: VpnRange,
    /// The time at which the device heard of the begin.
    pub begin: Duration,
    /// The time at which the device heard of the end.
    pub end: Duration,
}

/// Devices that follow a recorded program's first process, and the record of its events.
#[derive(Debug)]
pub struct Timeline {
    devices: Devices,
    began: Instant,
    now: Option<Moment>,
    moments: Vec<Moment>,
}

impl Timeline {
    /// Returns an empty timeline of these devices.
    pub fn new(devices: Devices) -> Self {
        Self {
            devices,
            began: Instant::now(),
            now: None,
            moments: Vec::new(),
        }
    }
    /// Returns the devices, and all moments in order.
    pub fn finish(self) -> (Devices, Vec<Moment>) {
        (self.devices, self.moments)
    }
    fn collect_spans(&mut self, cx: &mut CallCx<'_>) {
        let began = self.began;
        let since = |at: Instant| at.saturating_duration_since(began);
        let Some(now) = &mut self.now else { return };
        for (kind, spans) in self.devices.spans() {
            now.holds.extend(spans.into_iter().map(|span| Hold {
                kind,
                range: span.range,
                begin: since(span.begin),
                end: since(span.end),
            }));
        }
        let standings = self.devices.standing(cx);
        if !standings.is_empty() {
            now.standings = standings;
        }
    }
}

impl Watch for Timeline {
    fn begins(&mut self, who: Who, what: &What) {
        self.now = Some(Moment {
            who,
            what: match what {
                What::Call { text, .. } => Followed::Call(text.clone()),
                What::Fault(fault) => Followed::Fault(fault.kind, fault.addr),
                What::Ended => Followed::Ended,
            },
            begin: self.began.elapsed(),
            end: Duration::ZERO,
            holds: Vec::new(),
            standings: Vec::new(),
        });
    }
    fn over(&mut self, cx: &mut CallCx<'_>, _who: Who) {
        self.collect_spans(cx);
        if let Some(mut moment) = self.now.take() {
            moment.end = self.began.elapsed();
            self.moments.push(moment);
        }
    }
    fn started(&mut self, cx: &mut CallCx<'_>, mm: &Arc<Mm>) {
        self.devices.started(cx, mm);
        // From now on the devices keep each window.
        let _none_yet = self.devices.spans();
    }
    fn touched(
        &mut self,
        cx: &mut CallCx<'_>,
        mm: &Arc<Mm>,
        who: Who,
        addr: u64,
        access: FaultKind,
    ) {
        self.devices.touched(cx, mm, who, addr, access);
    }
    fn called(&mut self, cx: &mut CallCx<'_>, mm: &Arc<Mm>, who: Who, call: &Call) {
        self.devices.called(cx, mm, who, call);
    }
    fn ended(&mut self, cx: &mut CallCx<'_>, mm: &Arc<Mm>) {
        self.collect_spans(cx);
        self.devices.ended(cx, mm);
    }
}

//! What a replayed program and its devices did, moment by moment.

use super::{
    devices::{Devices, MmuKind, Standing},
    program::{Call, FaultKind, Watch, What, Who},
};
use crate::ctx::CallCx;

use crate::{addr::VpnRange, mm::Mm};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// One call or fault, and what it came to.
///
/// There are two clocks. The recording's says when the program did it; the replay's, from its
/// beginning on, how long it and the devices took here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Who did it, at which time of the recording.
    pub who: Who,
    /// What it was.
    pub what: Followed,
    /// When it began here.
    pub begin: Duration,
    /// When it, and the devices' part in it, was over here.
    pub end: Duration,
    /// Windows that ended in it, device by device.
    pub holds: Vec<Hold>,
    /// Where the devices stand after it; empty while there are none.
    pub standings: Vec<Standing>,
}

/// What a moment was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Followed {
    /// A system call, as recorded.
    Call(String),
    /// A page fault: of what kind, at which address.
    Fault(FaultKind, u64),
    /// A thread's end.
    Ended,
}

/// A window, as it held one device off; on the replay's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    /// The device.
    pub kind: MmuKind,
    /// The pages.
    pub range: VpnRange,
    /// When the device was told of its beginning.
    pub begin: Duration,
    /// When it was told of its end.
    pub end: Duration,
}

/// Devices that follow a recorded program's first process, and a record of it.
#[derive(Debug)]
pub struct Timeline {
    devices: Devices,
    began: Instant,
    now: Option<Moment>,
    moments: Vec<Moment>,
}

impl Timeline {
    /// Nothing yet.
    pub fn new(devices: Devices) -> Self {
        Self {
            devices,
            began: Instant::now(),
            now: None,
            moments: Vec::new(),
        }
    }
    /// The devices, and everything that happened, in its order.
    pub fn finish(self) -> (Devices, Vec<Moment>) {
        (self.devices, self.moments)
    }
    fn gather(&mut self, cx: &mut CallCx<'_>) {
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
        self.gather(cx);
        if let Some(mut moment) = self.now.take() {
            moment.end = self.began.elapsed();
            self.moments.push(moment);
        }
    }
    fn started(&mut self, cx: &mut CallCx<'_>, mm: &Arc<Mm>) {
        self.devices.started(cx, mm);
        // From now on each window is kept.
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
        self.gather(cx);
        self.devices.ended(cx, mm);
    }
}

//! External MMUs that access the memory of a recorded process along with it, and the cost of that.

use super::{
    followers::{self, Compared, Follower},
    mmu_kind::MmuKind,
    program::{FaultKind, Watch, Who},
};
use crate::{
    ctx::CallCx,
    extmmu::{Bill, Span},
    mm::Mm,
    notifier::Access,
    oracle::{Finding, Oracle},
};
use serde_json::{Value, json};
use std::{collections::BTreeSet, fmt, sync::Arc, time::Duration};

/// The costs of the devices of one replay, and the findings of the oracle.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Presented {
    /// For each device its bill.
    pub bills: Vec<(MmuKind, Bill)>,
    /// Incoherences that the oracle found.
    pub findings: Vec<Finding>,
}

impl Presented {
    /// Adds the costs and findings of another replay.
    pub fn add(&mut self, other: &Self) {
        for (kind, bill) in &other.bills {
            match self.bills.iter_mut().find(|(k, _)| k == kind) {
                Some((_, sum)) => *sum += *bill,
                None => self.bills.push((*kind, *bill)),
            }
        }
        self.findings.extend(other.findings.iter().cloned());
    }
    /// Returns costs and findings as JSON; times in seconds.
    pub fn to_json(&self) -> Value {
        let bill = |(kind, b): &(MmuKind, Bill)| {
            json!({
                "mmu": kind.to_string(),
                "windows": b.windows,
                "dropped": b.dropped,
                "faults": b.faults,
                "refaults": b.refaults,
                "retries": b.retries,
                "acknowledgements": b.acknowledgements,
                "waits": b.waits,
                "agings": b.agings,
                "pins": b.pins,
                "migrations": b.migrations,
                "requests": b.requests,
                "prefetched": b.prefetched,
                "in_windows": b.in_windows.as_secs_f64(),
                "longest": b.longest.as_secs_f64(),
            })
        };
        let bills: Vec<Value> = self.bills.iter().map(bill).collect();
        let findings: Vec<String> = self.findings.iter().map(ToString::to_string).collect();
        json!({ "bills": bills, "findings": findings })
    }
}

/// The table, one line a device, and the findings of the oracle.
impl fmt::Display for Presented {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "mmu       windows  dropped   faults refaults  retries     acks   agings     pins migrated requests  in windows     longest"
        )?;
        for (kind, b) in &self.bills {
            writeln!(
                f,
                "{kind:8} {:8} {:8} {:8} {:8} {:8} {:8} {:8} {:8} {:8} {:8} {:>11} {:>11}",
                b.windows,
                b.dropped,
                b.faults,
                b.refaults,
                b.retries,
                b.acknowledgements,
                b.agings,
                b.pins,
                b.migrations,
                b.requests,
                format!("{:.1?}", b.in_windows),
                format!("{:.1?}", b.longest),
            )?;
        }
        for finding in self.findings.iter().take(10) {
            writeln!(f, "incoherent: {finding}")?;
        }
        match self.findings.len() {
            0 => write!(f, "coherent: the oracle is silent"),
            n => write!(f, "incoherent: {n} findings"),
        }
    }
}

/// The state of one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The kind of the device.
    pub kind: MmuKind,
    /// The cost so far.
    pub bill: Bill,
    /// The number of its entries: of its page table, its TLB, its partition.
    pub held: usize,
}

/// The devices of one address space.
pub struct Devices {
    kinds: BTreeSet<MmuKind>,
    devices: Vec<(MmuKind, Box<dyn Follower>)>,
    oracle: Option<Arc<Oracle>>,
    presented: Presented,
}

impl Devices {
    /// Returns devices of these kinds, attached to nothing yet.
    pub fn new(kinds: impl IntoIterator<Item = MmuKind>) -> Self {
        Self {
            kinds: kinds.into_iter().collect(),
            devices: Vec::new(),
            oracle: None,
            presented: Presented::default(),
        }
    }
    /// Attaches the devices to an address space, under the watch of an oracle. They neither pin nor
    /// move pages, so that page tables can be compared with those of Linux.
    pub fn attach(&mut self, cx: &mut CallCx<'_>, mm: &Arc<Mm>) {
        self.attach_all(cx, mm, Compared::Pages);
    }
    fn attach_all(&mut self, cx: &mut CallCx<'_>, mm: &Arc<Mm>, compared: Compared) {
        if self.kinds.is_empty() {
            return;
        }
        let oracle = self.oracle.get_or_insert_with(|| {
            let oracle = Oracle::new(mm.machine());
            // How long a window takes is the machine's matter, and a replay says the same on every
            // one.
            oracle.set_deadline(Duration::MAX);
            oracle
        });
        for kind in &self.kinds {
            let device = followers::attach(cx, mm, *kind, compared);
            device.show_to(oracle, mm);
            self.devices.push((*kind, device));
        }
    }
    /// Accesses the page that the process accessed, with each device: it reads a byte, and writes
    /// the byte back if the process wrote it.
    pub fn touch(&self, cx: &mut CallCx<'_>, addr: u64, access: Access) {
        for (_, device) in &self.devices {
            let mut byte = [0];
            if device.read(cx, addr, &mut byte) && access == Access::Write {
                device.write(cx, addr, &byte);
            }
        }
    }
    /// Returns the cost of each device so far, earlier programs of the process included, and its
    /// number of entries now.
    pub fn standing(&self, cx: &mut CallCx<'_>) -> Vec<Standing> {
        let one = |(kind, device): &(MmuKind, Box<dyn Follower>)| {
            let before = self.presented.bills.iter().find(|(k, _)| k == kind);
            let mut bill = before.map_or_else(Bill::default, |(_, bill)| *bill);
            bill += device.meter().bill();
            Standing {
                kind: *kind,
                bill,
                held: device.held(cx),
            }
        };
        self.devices.iter().map(one).collect()
    }
    /// Returns the windows that have ended since the last call, device by device; the first call
    /// begins to keep them.
    pub fn spans(&self) -> Vec<(MmuKind, Vec<Span>)> {
        let devices = self.devices.iter();
        devices
            .map(|(kind, device)| (*kind, device.meter().take_spans()))
            .collect()
    }
    /// Compares all translations with the page table.
    pub fn audit(&self) {
        if let Some(oracle) = &self.oracle {
            oracle.audit();
        }
    }
    /// Checks that nothing is left of the address space, which has ended.
    pub fn detach(&mut self, mm: &Arc<Mm>) {
        if let Some(oracle) = &self.oracle {
            oracle.audit_end(mm);
        }
        self.take_bills();
    }
    fn take_bills(&mut self) {
        for (kind, device) in self.devices.drain(..) {
            let one = Presented {
                bills: vec![(kind, device.meter().bill())],
                findings: Vec::new(),
            };
            self.presented.add(&one);
        }
    }
    /// Returns the costs of all devices, and the findings.
    pub fn presented(mut self) -> Presented {
        if let Some(oracle) = &self.oracle {
            self.presented.findings.extend(oracle.take());
        }
        self.presented
    }
}

/// Devices that follow a recorded program's first process.
impl Watch for Devices {
    fn started(&mut self, cx: &mut CallCx<'_>, mm: &Arc<Mm>) {
        self.attach_all(cx, mm, Compared::Layout);
    }
    fn touched(
        &mut self,
        cx: &mut CallCx<'_>,
        _mm: &Arc<Mm>,
        who: Who,
        addr: u64,
        access: FaultKind,
    ) {
        if who.is_first {
            let access = match access {
                FaultKind::Write => Access::Write,
                FaultKind::Read | FaultKind::Exec => Access::Read,
            };
            self.touch(cx, addr, access);
        }
    }
    fn ended(&mut self, _cx: &mut CallCx<'_>, _mm: &Arc<Mm>) {
        self.audit();
        self.take_bills();
    }
}

impl fmt::Debug for Devices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Devices")
            .field("kinds", &self.kinds)
            .field("presented", &self.presented)
            .finish_non_exhaustive()
    }
}

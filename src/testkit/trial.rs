//! [`Trial`]: the world of one check, with a machine, a process with some memory, the device
//! between two neighbours, and an oracle.

use super::{
    device::{Attach, Device, Leave, Refused},
    log::Log,
    neighbour::Neighbour,
    place::{BASE, place},
    verdict::{Seen, Side},
};
use crate::{
    addr::PAGE_SIZE,
    ctx::CallCx,
    error::FaultError,
    frame::MemConfig,
    mm::{Advice, Machine, MachineConfig, Mm, MmapArgs},
    oracle::{Oracle, Watchee},
    sync::Mutex,
};
use std::{sync::Arc, time::Duration};

pub(super) use super::place::{PAGES, at, pages};

/// The end of a check that cannot go on: the log has the violation.
#[derive(Debug)]
pub(super) struct Abort;

/// The result of a check.
pub(super) type Run = Result<(), Abort>;

/// The world of one device on trial.
pub(super) struct Trial {
    pub(super) machine: Arc<Machine>,
    pub(super) mm: Arc<Mm>,
    pub(super) oracle: Arc<Oracle>,
    pub(super) device: Arc<dyn Device>,
    pub(super) mmu: Watchee,
    leave: Mutex<Option<Leave>>,
    pub(super) log: Arc<Log>,
    /// The neighbour that the chain calls before the device.
    pub(super) first: Arc<Neighbour>,
    /// The neighbour that the chain calls after the device.
    pub(super) last: Arc<Neighbour>,
    pub(super) deadline: Duration,
}

/// Returns the machine of trials, with swap and with address 0 mappable.
pub(super) fn machine() -> Arc<Machine> {
    Machine::new(config())
}
pub(super) fn config() -> MachineConfig {
    MachineConfig {
        memory: MemConfig {
            swap: 4096,
            ..MemConfig::default()
        },
        mmap_min_addr: 0,
        ..MachineConfig::default()
    }
}

/// Returns an oracle without a deadline: the kit itself judges the time.
pub(super) fn watching(machine: &Arc<Machine>) -> Arc<Oracle> {
    let oracle = Oracle::new(machine);
    oracle.set_deadline(Duration::MAX);
    oracle
}

impl Trial {
    pub(super) fn new(
        cx: &mut CallCx<'_>,
        machine: Arc<Machine>,
        attach: &Attach,
        log: &Arc<Log>,
        deadline: Duration,
    ) -> Arc<Self> {
        let mm = Mm::new(&machine);
        let oracle = watching(&machine);
        let args = MmapArgs::anonymous(PAGES * PAGE_SIZE).fixed(BASE);
        mm.mmap(cx, &args).expect("an empty address space has room");
        let (last, _stays) = mm.register(cx, Neighbour::new);
        let attached = attach(cx, &mm);
        let (first, _stays) = mm.register(cx, Neighbour::new);
        let (device, mmu) = (Arc::clone(attached.device()), attached.mmu());
        oracle.watch_either(&mm, mmu.clone());
        Arc::new(Self {
            machine,
            mm,
            oracle,
            device,
            mmu,
            leave: Mutex::new(Some(attached.into_leave())),
            log: Arc::clone(log),
            first,
            last,
            deadline,
        })
    }
    pub(super) fn process(&self, what: impl Into<String>) {
        self.log.step(Side::Process, what);
    }
    pub(super) fn see(&self, seen: Seen) {
        self.log.see(seen);
    }
    /// Takes the device off the chain, if it is on it.
    pub(super) fn unregister(&self, cx: &mut CallCx<'_>) {
        self.process("unregister");
        let leave = self.leave.lock().take();
        if let Some(leave) = leave {
            self.device.retire(cx);
            leave(cx);
        }
    }

    // Actions of the process.

    /// Performs an operation on the address space, and logs the findings of the oracle.
    pub(super) fn act<T>(
        &self,
        cx: &mut CallCx<'_>,
        what: impl Into<String>,
        f: impl FnOnce(&Arc<Mm>, &mut CallCx<'_>) -> T,
    ) -> T {
        self.process(what);
        let out = f(&self.mm, cx);
        self.listen();
        out
    }
    /// Moves the findings of the oracle to the log.
    pub(super) fn listen(&self) {
        let coherent = self.device.declares().coherent;
        for finding in self.oracle.take() {
            if coherent || finding.invariant() != crate::oracle::Invariant::Coherent {
                self.see(Seen::Oracle(finding));
            }
        }
    }
    pub(super) fn put(&self, cx: &mut CallCx<'_>, page: u64, byte: u8) {
        self.put_at(cx, at(page), byte);
    }
    pub(super) fn put_at(&self, cx: &mut CallCx<'_>, addr: u64, byte: u8) {
        let text = format!("store {byte} to {}", place(addr));
        self.act(cx, text, |mm, cx| {
            mm.store(cx, addr, byte).expect("mapped for writing");
        });
    }
    /// Stores byte `n + 1` to each page of `[from, to)`.
    pub(super) fn fill(&self, cx: &mut CallCx<'_>, from: u64, to: u64) {
        for page in from..to {
            let byte = u8::try_from(page % 250 + 1).expect("small");
            self.mm.store(cx, at(page), byte).expect("mapped");
        }
        self.process(format!("store n + 1 to pages {from}..{to}"));
    }
    pub(super) fn drop_pages(&self, cx: &mut CallCx<'_>, from: u64, to: u64) {
        self.advise(cx, from, to, Advice::DontNeed);
    }
    pub(super) fn advise(&self, cx: &mut CallCx<'_>, from: u64, to: u64, advice: Advice) {
        self.act(cx, format!("madvise {from}..{to} {advice:?}"), |mm, cx| {
            let len = (to - from) * PAGE_SIZE;
            mm.madvise(cx, at(from), len, advice).expect("mapped");
        });
    }
    pub(super) fn audit(&self) {
        self.oracle.audit();
        self.listen();
    }

    // Actions of the device.

    /// Reads a byte with the device; a panic is logged.
    pub(super) fn device_reads(&self, cx: &mut CallCx<'_>, addr: u64) -> Result<u8, Refused> {
        let _named = NamedAccess(self, "reads", addr);
        self.device.read(cx, &self.mm, addr)
    }
    /// Writes a byte with the device; a panic is logged.
    pub(super) fn device_writes(
        &self,
        cx: &mut CallCx<'_>,
        addr: u64,
        byte: u8,
    ) -> Result<(), Refused> {
        let _named = NamedAccess(self, "writes", addr);
        self.device.write(cx, &self.mm, addr, byte)
    }
    /// Reads a byte with the device and logs the result.
    pub(super) fn read(&self, cx: &mut CallCx<'_>, addr: u64) -> Result<u8, Refused> {
        let got = self.device_reads(cx, addr);
        self.note("reads", addr, got.as_ref().map(|b| b.to_string()));
        got
    }
    /// Writes a byte with the device and logs the result. Refuses it for a device that only reads.
    pub(super) fn write(&self, cx: &mut CallCx<'_>, addr: u64, byte: u8) -> Result<(), Refused> {
        if self.only_reads() {
            return Err(Refused::Other("it only reads".to_owned()));
        }
        let done = self.device_writes(cx, addr, byte);
        self.note("writes", addr, done.as_ref().map(|()| byte.to_string()));
        done
    }
    /// Makes access `nth` of many with the device: each odd one is a write, if the device writes.
    pub(super) fn use_at(&self, cx: &mut CallCx<'_>, addr: u64, nth: u64) -> Result<(), Refused> {
        match nth.is_multiple_of(2) || self.only_reads() {
            true => self.device_reads(cx, addr).map(|_| ()),
            false => self.device_writes(cx, addr, 1),
        }
    }
    /// Returns true if the device makes no writes.
    pub(super) fn only_reads(&self) -> bool {
        self.device.declares().reads_only
    }
    fn note(&self, verb: &str, addr: u64, came: Result<String, &Refused>) {
        let came = came.unwrap_or_else(ToString::to_string);
        let text = format!("{verb} {}: {came}", place(addr));
        self.log.step(Side::Device, text);
        self.listen();
    }
    /// Checks that the device reads the process's byte, or is refused as the process is.
    pub(super) fn agree(&self, cx: &mut CallCx<'_>, page: u64) {
        self.agree_at(cx, at(page));
    }
    pub(super) fn agree_at(&self, cx: &mut CallCx<'_>, addr: u64) {
        let got = self.read(cx, addr);
        self.compare(cx, addr, got);
    }
    /// Compares a result of the device with a load of the process.
    pub(super) fn compare(&self, cx: &mut CallCx<'_>, addr: u64, got: Result<u8, Refused>) {
        let truth = self.mm.load(cx, addr);
        match (got, truth) {
            (Ok(got), Ok(wanted)) if got != wanted && self.device.declares().coherent => {
                self.see(Seen::Stale { addr, got, wanted });
            }
            (Ok(_), Err(why)) if self.device.declares().coherent => {
                let what = format!("a read of {}: {why}", place(addr));
                self.see(Seen::Allowed(what));
            }
            // A device that always looks up for writing may not read this page.
            (Err(Refused::Fault(FaultError::Denied(_))), Ok(_)) if self.writes_to_read() => {}
            (Err(why), Ok(_)) => {
                let what = format!("a read of {}: {why}", place(addr));
                self.see(Seen::RefusedWrongly(what));
            }
            _ => {}
        }
    }
    fn writes_to_read(&self) -> bool {
        self.device.declares().always_writes
    }
    /// Writes with the device and checks that the process reads the byte. Where the device only
    /// reads, the process writes and the device reads.
    pub(super) fn deliver(&self, cx: &mut CallCx<'_>, page: u64, byte: u8) {
        self.deliver_at(cx, at(page), byte);
    }
    pub(super) fn deliver_at(&self, cx: &mut CallCx<'_>, addr: u64, byte: u8) {
        if self.only_reads() {
            self.put_at(cx, addr, byte);
            return self.agree_at(cx, addr);
        }
        match self.write(cx, addr, byte) {
            Ok(()) => self.find(cx, addr, byte),
            Err(why) => {
                let what = format!("a write to {}: {why}", place(addr));
                self.see(Seen::RefusedWrongly(what));
            }
        }
    }
    /// Checks that the process reads the byte that the device wrote.
    pub(super) fn find(&self, cx: &mut CallCx<'_>, addr: u64, wanted: u8) {
        let got = self.mm.load(cx, addr).unwrap_or_default();
        if got != wanted && self.device.declares().coherent {
            self.see(Seen::LostWrite { addr, got, wanted });
        }
    }
    /// Checks that the process still reads a byte that the device has not written.
    pub(super) fn undisturbed(&self, cx: &mut CallCx<'_>, addr: u64, wanted: u8) {
        let got = self.mm.load(cx, addr).unwrap_or_default();
        if got != wanted && self.device.declares().coherent {
            self.see(Seen::Overwritten { addr, got, wanted });
        }
    }
    /// Logs a violation if the device made this access.
    pub(super) fn refused<T>(&self, what: &str, came: Result<T, Refused>) {
        if came.is_ok() && self.device.declares().coherent {
            self.see(Seen::Allowed(what.to_owned()));
        }
    }
}

/// An access of the device. If it panics, its step is logged, and the findings of the oracle before
/// the panic.
struct NamedAccess<'t>(&'t Trial, &'static str, u64);

impl Drop for NamedAccess<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self(trial, verb, addr) = *self;
            let text = format!("{verb} {}, and panics", place(addr));
            trial.log.step(Side::Device, text);
            trial.listen();
        }
    }
}

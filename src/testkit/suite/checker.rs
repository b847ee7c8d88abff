//! [`Checker`]: follows a random script step by step and checks each one.
//!
//! Devices make every access of process 0, disturbances act next to it, and an oracle and a model
//! of pages judge the outcome.

use super::{
    beat::Beat,
    disturbances::{Disturbances, User, mark},
    pace::Pace,
    shortage::{is_over, is_shortage},
};
use crate::{
    addr::PMD_PAGES,
    ctx::CallCx,
    error::FaultError,
    extmmu::References,
    frame::HugeSize,
    mm::{Machine, Mm},
    notifier::{
        Access,
        test_hook::{self, Moment},
    },
    oracle::Oracle,
    replay::{Follow, Header, Op, Outcome, Processes, Step},
    sync::Mutex,
    testkit::{
        Checks, Fault, Kit, Reference,
        device::{Placed, Refused},
        neighbour::Neighbour,
        trial,
        verdict::Seen,
    },
};
use std::{
    sync::{Arc, mpsc::channel},
    time::Duration,
};

/// The state of a checked script; see the module.
pub(super) struct Checker<'k> {
    kits: &'k [Kit],
    pub(super) disturbances: Disturbances,
    oracle: Arc<Oracle>,
    first: Option<Arc<Mm>>,
    pub(super) attached: Vec<Placed>,
    /// A neighbour that the chain calls after the devices.
    last: Option<Arc<Neighbour>>,
    /// A neighbour that the chain calls before the devices.
    foremost: Option<Arc<Neighbour>>,
    /// The model of pages; `None` if allocations fail, as the model cannot predict those refusals.
    reference: Option<Reference>,
    checks: Checks,
    /// Checks the reverse maps after every step, not after one in four.
    every_rmap: bool,
    /// The source of all choices that the script does not contain.
    salt: u64,
    /// The [`mark`] of the current step.
    mark: u64,
    /// Tells the watching thread of each step.
    pub(super) beat: Arc<Beat>,
    /// Every process of the script, also those that have ended.
    processes: Processes,
    /// Outcomes of the accesses that devices made before the step.
    early: Vec<Option<Result<u8, Refused>>>,
    pub(super) seen: Vec<Seen>,
    pub(super) users: Vec<User>,
    pub(super) pace: Arc<Pace>,
    pub(super) panics: Arc<Mutex<Vec<String>>>,
}

impl<'k> Checker<'k> {
    pub(super) fn new(
        machine: &Arc<Machine>,
        kits: &'k [Kit],
        disturbances: Disturbances,
        (header, every_rmap): (&Header, bool),
        beat: &Arc<Beat>,
    ) -> Self {
        let memory = matches!(disturbances.fault, Some((Fault::Allocation, _)));
        Self {
            kits,
            disturbances,
            oracle: trial::watching(machine),
            first: None,
            attached: Vec::new(),
            last: None,
            foremost: None,
            reference: (!memory).then(|| Reference::new(header)),
            checks: Checks::all(),
            every_rmap,
            salt: header.seed.number(),
            mark: 0,
            beat: Arc::clone(beat),
            processes: Processes::new(),
            early: Vec::new(),
            seen: Vec::new(),
            users: Vec::new(),
            pace: Arc::new(Pace::new(disturbances.threads)),
            panics: Arc::default(),
        }
    }
    pub(super) fn mm(&self) -> Arc<Mm> {
        Arc::clone(self.first.as_ref().expect("it has begun"))
    }
    /// Returns true if an allocation of this script fails.
    fn failing(&self) -> bool {
        matches!(self.disturbances.fault, Some((Fault::Allocation, _)))
    }
    fn listen(&mut self) {
        self.seen
            .extend(self.oracle.take().into_iter().map(Seen::Oracle));
    }
    /// Makes the access of the step with every device: `None` for a store, and a device that only
    /// reads.
    ///
    /// A look-up for writing copies a private page, as a store of the process does. The model hears
    /// of every such look-up, whatever the access and the page.
    fn access(&mut self, cx: &mut CallCx<'_>, op: &Op) -> Vec<Option<Result<u8, Refused>>> {
        let (tell, told) = channel();
        let look_up = move |moment| {
            if let Moment::LookedUp(at, Access::Write) | Moment::RequestedForWriting(at) = moment {
                let _the_checker_listens = tell.send(at);
            }
        };
        let hooked = test_hook::hook(self.mm().hooked_space(), Arc::new(look_up));
        let came = self.accesses(cx, op);
        drop(hooked);
        if let Some(reference) = &mut self.reference {
            told.try_iter().for_each(|at| reference.copies(0, at));
        }
        came
    }
    fn accesses(&self, cx: &mut CallCx<'_>, op: &Op) -> Vec<Option<Result<u8, Refused>>> {
        let mm = self.mm();
        let devices = self.attached.iter().map(Placed::device);
        devices
            .map(|device| {
                self.beat.moves_on();
                match *op {
                    Op::Load { addr } => Some(device.read(cx, &mm, addr)),
                    Op::Store { .. } if device.declares().reads_only => None,
                    Op::Store { addr, byte } => {
                        Some(device.write(cx, &mm, addr, byte).map(|()| byte))
                    }
                    _ => unreachable!("only accesses come here"),
                }
            })
            .collect()
    }
    /// Compares the outcomes of the devices with the outcome of the process.
    fn judge(&mut self, cx: &mut CallCx<'_>, came: Vec<Option<Result<u8, Refused>>>, step: &Step) {
        let (addr, stored) = match step.op {
            Op::Load { addr } => (addr, None),
            Op::Store { addr, byte } => (addr, Some(byte)),
            _ => return,
        };
        let writes: Vec<bool> = self
            .attached
            .iter()
            .map(|a| a.device().declares().always_writes)
            .collect();
        let made = |(got, writes): (Option<_>, bool)| got.map(|got| (got, writes));
        for (got, writes) in came.into_iter().zip(writes).filter_map(made) {
            let seen = match (got, &step.outcome) {
                (Ok(got), Outcome::Ret(byte)) => {
                    let wanted = stored.unwrap_or_else(|| u8::try_from(*byte).unwrap_or_default());
                    (got != wanted).then_some(Seen::Stale { addr, got, wanted })
                }
                (Ok(_), _) if self.failing() && is_over(cx, &self.mm(), &step.op) => None,
                (Ok(_), _) => Some(Seen::Allowed(format!("an access to {addr:#x}"))),
                // The injected failure hits one side alone.
                (Err(Refused::Fault(why)), _) if self.failing() && is_shortage(&why) => None,
                // A device that always looks up for writing may not read this page.
                (Err(Refused::Fault(FaultError::Denied(_))), _) if writes && stored.is_none() => {
                    None
                }
                (Err(why), Outcome::Ret(_)) => Some(Seen::RefusedWrongly(format!(
                    "an access to {addr:#x}: {why}"
                ))),
                (Err(_), _) => None,
            };
            self.seen.extend(seen);
        }
    }
    /// Returns the number of operations of the failing kind so far.
    pub(super) fn asked(&self, machine: &Machine) -> u64 {
        match self.disturbances.fault {
            None => 0,
            Some((Fault::Allocation, _)) => machine.mem().inject().count(),
            Some((Fault::WouldBlock, _)) => self.last.as_ref().map_or(0, |n| n.tries()),
            Some((Fault::Acknowledgement(_), _)) => {
                self.foremost.as_ref().map_or(0, |n| n.windows())
            }
        }
    }
    /// Arms the fault of this script.
    fn arm(&mut self, cx: &mut CallCx<'_>) {
        let first = self.mm();
        match self.disturbances.fault {
            None => {}
            Some((Fault::Allocation, nth)) => first.machine().mem().inject().arm(nth),
            Some((Fault::WouldBlock, nth)) => {
                if let Some(last) = &self.last {
                    last.refuse_one(nth);
                }
            }
            Some((Fault::Acknowledgement(how), nth)) => {
                let (foremost, _stays) = first.register(cx, Neighbour::new);
                let devices: Vec<_> = self
                    .attached
                    .iter()
                    .map(|a| Arc::clone(a.device()))
                    .collect();
                foremost.at_start(nth, move |_| {
                    for device in &devices {
                        let _none_to_break = device.break_acknowledgement(how);
                    }
                });
                self.foremost = Some(foremost);
            }
        }
    }
    /// Compares a step, and the processes after it, with the model.
    fn refer(&mut self, cx: &mut CallCx<'_>, step: &Step, now: &Processes) {
        let Some(reference) = &mut self.reference else {
            return;
        };
        let access = match step.op {
            Op::Load { addr } => Some((addr, false)),
            Op::Store { addr, .. } => Some((addr, true)),
            _ => None,
        };
        let refusal = access.and_then(|(addr, w)| reference.refusal(step.actor, addr, w));
        let said = reference.step(step.actor, &step.op, &step.outcome);
        let said = said.and_then(|()| reference.scanned(&step.op, &step.more.results));
        self.seen.extend(said.err().map(Seen::Differs));
        // A signal has no reason: repeat the refused access to learn its error.
        if let (Some((addr, write)), Some(wanted), Some(mm)) =
            (access, refusal, now.get(&step.actor))
            && !reference.is_lost()
        {
            let got = match write {
                true => mm.store(cx, addr, 0).err(),
                false => mm.load(cx, addr).err(),
            };
            if got != Some(wanted) {
                let text = format!("refused as {got:?}, and the model of pages says: {wanted}");
                self.seen.push(Seen::Differs(text));
            }
        }
        let now_and_then = self.mark >> 48;
        if !matches!(step.op, Op::Load { .. }) || now_and_then.is_multiple_of(16) {
            let mut checks = self.checks;
            // This check takes longest.
            checks.set(
                Checks::RMAP,
                self.every_rmap || now_and_then.is_multiple_of(4),
            );
            self.check(cx, now, checks);
        }
    }
    fn check(&mut self, cx: &mut CallCx<'_>, now: &Processes, checks: Checks) {
        let machine = Arc::clone(self.mm().machine());
        if let Some(reference) = &self.reference
            && self.users.is_empty()
            && self.seen.is_empty()
        {
            let said = reference.check(cx, &machine, now, checks);
            self.seen.extend(said.err().map(Seen::Miscounted));
        }
    }
    /// Checks that nothing is left when all processes have ended. The devices still exist: an
    /// oracle cannot see one that is gone.
    pub(super) fn conclude(&mut self, cx: &mut CallCx<'_>, machine: &Machine) {
        if let Some(first) = self.first.take() {
            self.oracle.audit_end(&first);
        }
        // The pool keeps its pages, and none of them is in use.
        let pool = machine.mem().huge_pool(HugeSize::Mib2);
        let kept = u32::try_from(pool.total * PMD_PAGES).expect("frames");
        self.oracle.audit_empty(cx, kept);
        self.listen();
        let swap = machine.mem().swap();
        let tables: usize = self.processes.values().map(|mm| mm.tables()).sum();
        for (what, left) in [
            ("page tables", tables as i64),
            ("huge pages of the pool", (pool.total - pool.free) as i64),
            ("committed pages", machine.commit().pages()),
            ("slots of swap", swap.used() as i64),
            ("frames in the swap cache", swap.cached() as i64),
        ] {
            if left != 0 && self.seen.is_empty() {
                let text = format!("in the end, {left} {what} are left");
                self.seen.push(Seen::Miscounted(text));
            }
        }
    }
}

impl Follow for Checker<'_> {
    fn begin(&mut self, cx: &mut CallCx<'_>, first: &Arc<Mm>) {
        self.first = Some(Arc::clone(first));
        self.processes.insert(0, Arc::clone(first));
        let refused = matches!(self.disturbances.fault, Some((Fault::WouldBlock, _)));
        if self.disturbances.windows || refused {
            let (last, _stays) = first.register(cx, Neighbour::new);
            last.refuse(self.disturbances.windows && !refused);
            self.last = Some(last);
        }
        for kit in self.kits {
            let attached = kit.place(cx, first);
            self.oracle.watch_either(first, attached.mmu());
            self.attached.push(attached);
        }
        if !self.attached.is_empty() {
            // Devices fault pages in that the script does not name.
            self.checks.remove(Checks::ACCOUNTS);
        }
        let pinned = |a: &Placed| a.device().declares().references == References::Held;
        if self.attached.iter().any(pinned) {
            self.checks.remove(Checks::COUNTS);
        }
        self.arm(cx);
        let lanes = u64::from(self.disturbances.threads);
        if let (Some(reference), 1..) = (&mut self.reference, lanes) {
            reference.writers();
        }
        self.users = (0..lanes).map(|lane| self.user(lane)).collect();
    }
    fn disturb(&mut self, cx: &mut CallCx<'_>, actor: u32, op: &Op) {
        let is_first = self.beat.begins(actor, op);
        self.mark = mark(self.salt, actor, op);
        if is_first || (self.mark >> 52).is_multiple_of(8) {
            self.meet();
        }
        if self.disturbances.windows {
            self.make_noise(cx, self.mark);
            if let Some(reference) = &mut self.reference {
                reference.pressure();
            }
            if let Some(neighbour) = &self.last {
                let slow = u64::from((self.mark >> 24).is_multiple_of(5)) * 20;
                neighbour.delay(Duration::from_micros(slow));
            }
        }
    }
    fn before(&mut self, cx: &mut CallCx<'_>, actor: u32, op: &Op) {
        let access = matches!(op, Op::Load { .. } | Op::Store { .. });
        self.early.clear();
        let early = (self.mark >> 32).is_multiple_of(2);
        if access && actor == 0 && early && self.disturbances.threads == 0 {
            self.early = self.access(cx, op);
        }
    }
    fn after(&mut self, cx: &mut CallCx<'_>, step: &Step, now: &Processes) -> bool {
        let access = matches!(step.op, Op::Load { .. } | Op::Store { .. });
        if access && step.actor == 0 && self.disturbances.threads == 0 {
            let early = std::mem::take(&mut self.early);
            self.judge(cx, early, step);
            let late = self.access(cx, &step.op);
            self.judge(cx, late, step);
            if let (Op::Store { addr, byte }, Outcome::Ret(_)) = (&step.op, &step.outcome) {
                // A page that lies on a device comes home if there is memory, and else stays there.
                let load = |cx: &mut CallCx<'_>| self.mm().load(cx, *addr);
                let got = load(cx).or_else(|_| load(cx)).unwrap_or_default();
                let (addr, wanted) = (*addr, *byte);
                let lost = (got != wanted).then_some(Seen::LostWrite { addr, got, wanted });
                self.seen.extend(lost);
            }
        }
        if (self.mark >> 40).is_multiple_of(4) {
            self.oracle.audit();
        }
        self.listen();
        if let Op::Fork { child } = step.op
            && let Some(mm) = now.get(&child)
        {
            self.processes.insert(child, Arc::clone(mm));
        }
        self.refer(cx, step, now);
        self.seen.is_empty()
    }
    fn finish(&mut self, cx: &mut CallCx<'_>, now: &Processes) {
        if self.seen.is_empty() {
            self.meet();
        }
        self.dismiss();
        self.check(cx, now, self.checks);
        self.mm().machine().mem().inject().disarm();
        self.oracle.audit();
        self.listen();
        let counted = |a: &Placed| a.device().unsettled().map(Seen::Unsettled);
        self.seen.extend(self.attached.iter().filter_map(counted));
        self.beat.does("the processes exit");
    }
}

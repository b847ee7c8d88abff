//! Who follows a random script: devices that touch what process 0 touches, disturbances that must not matter, an oracle.

use super::draw::{BASE, PAGES};
use crate::{
    addr::{PAGE_SIZE, TASK_PAGES, Vpn, VpnRange},
    error::FaultError,
    mm::{Machine, Mm},
    notifier::Event,
    oracle::Oracle,
    replay::{Follow, Op, Outcome, Step},
    sync::{AtomicBool, Mutex, Ordering},
    testkit::{
        Kit,
        aside::message,
        device::{Attached, Idle, Refused},
        neighbour::Neighbour,
        verdict::Seen,
    },
};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

/// What happens beside the operations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disturbances {
    /// Windows that nobody needs: over nothing, over everything, repeated, refused; memory pressure; slow neighbours.
    pub windows: bool,
    /// Threads that use the devices all the time. What they read is not compared.
    pub threads: u32,
    /// The allocation of this number fails, counted from when the devices are there; 0: none.
    pub fail: u64,
}

pub(super) struct Jury<'k> {
    kits: &'k [Kit],
    disturbances: Disturbances,
    oracle: Arc<Oracle>,
    first: Option<Arc<Mm>>,
    attached: Vec<Attached>,
    neighbour: Option<Arc<Neighbour>>,
    /// What devices did before the step.
    early: Vec<Result<u8, Refused>>,
    pub(super) seen: Vec<Seen>,
    users: Vec<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    panics: Arc<Mutex<Vec<String>>>,
}

impl<'k> Jury<'k> {
    pub(super) fn new(machine: &Arc<Machine>, kits: &'k [Kit], disturbances: Disturbances) -> Self {
        Self {
            kits,
            disturbances,
            oracle: Oracle::new(machine),
            first: None,
            attached: Vec::new(),
            neighbour: None,
            early: Vec::new(),
            seen: Vec::new(),
            users: Vec::new(),
            stop: Arc::default(),
            panics: Arc::default(),
        }
    }
    fn mm(&self) -> Arc<Mm> {
        Arc::clone(self.first.as_ref().expect("it has begun"))
    }
    /// An allocation of this script is made to fail.
    fn failing(&self) -> bool {
        self.disturbances.fail > 0
    }
    fn listen(&mut self) {
        self.seen
            .extend(self.oracle.take().into_iter().map(Seen::Oracle));
    }
    /// Every device makes the access of the step.
    fn access(&self, cx: &mut Idle<'_>, op: &Op) -> Vec<Result<u8, Refused>> {
        let mm = self.mm();
        let devices = self.attached.iter().map(|a| &a.device);
        devices
            .map(|device| match *op {
                Op::Load { addr } => device.read(cx, &mm, addr),
                Op::Store { addr, byte } => device.write(cx, &mm, addr, byte).map(|()| byte),
                _ => unreachable!("only accesses come here"),
            })
            .collect()
    }
    /// Devices and process agree on an access.
    fn judge(&mut self, came: Vec<Result<u8, Refused>>, step: &Step) {
        let (addr, stored) = match step.op {
            Op::Load { addr } => (addr, None),
            Op::Store { addr, byte } => (addr, Some(byte)),
            _ => return,
        };
        for got in came {
            let seen = match (got, &step.outcome) {
                (Ok(got), Outcome::Ret(byte)) => {
                    let wanted = stored.unwrap_or_else(|| u8::try_from(*byte).unwrap_or_default());
                    (got != wanted).then_some(Seen::Stale { addr, got, wanted })
                }
                (Ok(_), Outcome::Err(why)) if self.failing() && why == "ENOMEM" => None,
                (Ok(_), _) => Some(Seen::Allowed(format!("an access to {addr:#x}"))),
                // Memory that was made to be wanting for one was there for the other.
                (Err(Refused::Fault(FaultError::NoMemory(_))), _) if self.failing() => None,
                (Err(why), Outcome::Ret(_)) => Some(Seen::RefusedWrongly(format!(
                    "an access to {addr:#x}: {why}"
                ))),
                (Err(_), _) => None,
            };
            self.seen.extend(seen);
        }
    }
    /// What must not matter.
    fn make_noise(&self, cx: &mut Idle<'_>, nth: usize) {
        let mm = self.mm();
        let page = Vpn::containing(BASE).plus((nth as u64 * 7) % PAGES);
        let range = match nth % 6 {
            0 => VpnRange::single(page),
            1 => VpnRange::new(page, page.plus(40)).expect("not empty"),
            2 => VpnRange::new(Vpn(0), Vpn(TASK_PAGES)).expect("not empty"),
            3 => VpnRange::single(Vpn(5)),
            4 => {
                mm.machine().reclaim(cx);
                return;
            }
            _ => {
                let mut g = mm.read(cx);
                let mut lease = g.lease();
                let _refused = lease.try_window(VpnRange::single(page), Event::Clear);
                return;
            }
        };
        let mut g = mm.read(cx);
        let mut lease = g.lease();
        lease.with_window(range, Event::ProtectionPage, |_| ());
        lease.with_window(range, Event::Unmap, |_| ());
    }
    /// A thread that uses the devices until the end.
    fn user(&self, lane: u64) -> JoinHandle<()> {
        let mm = self.mm();
        let devices: Vec<_> = self
            .attached
            .iter()
            .map(|a| Arc::clone(&a.device))
            .collect();
        let (stop, panics) = (Arc::clone(&self.stop), Arc::clone(&self.panics));
        std::thread::spawn(move || {
            let work = AssertUnwindSafe(|| {
                let mut thread = mm.machine().enter().expect("a thread of its own");
                let mut cx = thread.cx();
                for n in lane.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    for device in &devices {
                        let addr = BASE + (n * 13 % (2 * PAGES)) * PAGE_SIZE;
                        let _maybe = device.read(&mut cx, &mm, addr);
                        let _maybe = device.write(&mut cx, &mm, addr + 8 + lane, 1);
                    }
                    std::thread::yield_now();
                }
            });
            if let Err(payload) = catch_unwind(work) {
                panics.lock().push(message(&*payload));
            }
        })
    }
    /// What has to be true when all processes have ended.
    pub(super) fn conclude(&mut self, cx: &mut Idle<'_>) {
        if let Some(first) = self.first.take() {
            self.oracle.audit_end(&first);
        }
        self.oracle.audit_empty(cx, 0);
        self.listen();
    }
    /// Lets its threads go.
    pub(super) fn dismiss(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for user in self.users.drain(..) {
            let _caught_inside = user.join();
        }
        self.seen
            .extend(self.panics.lock().drain(..).map(Seen::Panicked));
    }
}

impl Follow for Jury<'_> {
    fn begin(&mut self, cx: &mut Idle<'_>, first: &Arc<Mm>) {
        self.first = Some(Arc::clone(first));
        if self.disturbances.windows {
            let (neighbour, _stays) = first.register(cx, Neighbour::new);
            neighbour.refuse(true);
            self.neighbour = Some(neighbour);
        }
        for kit in self.kits {
            let attached = kit.attach(cx, first);
            self.oracle.watch(first, Arc::clone(&attached.mmu));
            self.attached.push(attached);
        }
        first.machine().mem().inject().arm(self.disturbances.fail);
        let lanes = u64::from(self.disturbances.threads);
        self.users = (0..lanes).map(|lane| self.user(lane)).collect();
    }
    fn disturb(&mut self, cx: &mut Idle<'_>, nth: usize) {
        if self.disturbances.windows {
            self.make_noise(cx, nth);
            if let Some(neighbour) = &self.neighbour {
                let slow = u64::from(nth.is_multiple_of(5)) * 20;
                neighbour.delay(Duration::from_micros(slow));
            }
        }
    }
    fn before(&mut self, cx: &mut Idle<'_>, nth: usize, actor: u32, op: &Op) {
        let access = matches!(op, Op::Load { .. } | Op::Store { .. });
        self.early.clear();
        if access && actor == 0 && nth.is_multiple_of(2) && self.disturbances.threads == 0 {
            self.early = self.access(cx, op);
        }
    }
    fn after(&mut self, cx: &mut Idle<'_>, nth: usize, step: &Step) -> bool {
        let access = matches!(step.op, Op::Load { .. } | Op::Store { .. });
        if access && step.actor == 0 && self.disturbances.threads == 0 {
            let early = std::mem::take(&mut self.early);
            self.judge(early, step);
            let late = self.access(cx, &step.op);
            self.judge(late, step);
            if let (Op::Store { addr, byte }, Outcome::Ret(_)) = (&step.op, &step.outcome) {
                let got = self.mm().load(cx, *addr).unwrap_or_default();
                let (addr, wanted) = (*addr, *byte);
                let lost = (got != wanted).then_some(Seen::LostWrite { addr, got, wanted });
                self.seen.extend(lost);
            }
        }
        if nth.is_multiple_of(4) {
            self.oracle.audit();
        }
        self.listen();
        self.seen.is_empty()
    }
    fn finish(&mut self, _cx: &mut Idle<'_>) {
        self.dismiss();
        self.mm().machine().mem().inject().disarm();
        self.oracle.audit();
        self.listen();
        for attached in self.attached.drain(..) {
            let counted = attached.device.unsettled().map(Seen::Unsettled);
            self.seen.extend(counted);
        }
    }
}

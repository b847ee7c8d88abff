//! The cases of `tools/testing/selftests/kvm` about the memory of a guest, each with the kernel's
//! name and its outcome, on the model of KVM (docs/selftests.md). Where the kernel's program runs
//! for a time, these go round so many times. `kvm` has what these do not try, and the mistakes;
//! `guest_memfd` has the cases of guest files.

mod dirty_log;
mod memslots;
mod paging;

use crate::common::{PAGE, World, at, machine};
use emmu::{
    Machine, Mm,
    addr::Vpn,
    ctx::CallCx,
    extmmu::kvm::{Exit, Gfn, MemSlot, SlotFlags, Vcpu, Vm, VmConfig},
    notifier::{ExternalMmu, Registration},
    oracle::Oracle,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
        mpsc::{Receiver, Sender, channel},
    },
    thread::{Scope, ScopedJoinHandle},
    time::Duration,
};

/// Pages of a huge page.
const HUGE: u64 = 512;
const NONE: SlotFlags = SlotFlags::empty();
const LOG: SlotFlags = SlotFlags::LOG_DIRTY_PAGES;

/// A process, and a virtual machine in it without memory.
struct Guest {
    w: World,
    vm: Arc<Vm>,
    oracle: Arc<Oracle>,
    registration: Registration,
}

/// A slot whose guest frames begin at `gfn`, and its pages at page `page` of the process.
fn slot(id: u16, gfn: u64, pages: u64, page: u64, flags: SlotFlags) -> MemSlot {
    MemSlot {
        id,
        gfn: Gfn(gfn),
        pages,
        hva: Vpn::containing(at(page)),
        flags,
    }
}

impl Guest {
    fn new() -> Self {
        Self::with(VmConfig::default())
    }
    fn with(config: VmConfig) -> Self {
        let mut w = World::on(machine(8192));
        let (vm, registration) = Vm::create(&mut w.thread.cx(), &w.mm, config);
        let oracle = Oracle::new(&w.machine);
        // How long a window takes is the machine's matter.
        oracle.set_deadline(Duration::MAX);
        oracle.watch(&w.mm, Arc::clone(&vm) as Arc<dyn ExternalMmu>);
        Self {
            w,
            vm,
            oracle,
            registration,
        }
    }
    /// Adds a slot, moves it, or changes its flags.
    fn set(&mut self, slot: MemSlot) {
        self.vm.set_memory(&mut self.w.thread.cx(), slot).unwrap();
    }
    fn delete(&mut self, id: u16) {
        self.vm.delete_memory(&mut self.w.thread.cx(), id).unwrap();
    }
    fn entries(&mut self) -> u64 {
        self.vm.entries(&mut self.w.thread.cx()) as u64
    }
    /// What threads need.
    fn host(&self) -> Host {
        Host {
            machine: Arc::clone(&self.w.machine),
            mm: Arc::clone(&self.w.mm),
            vm: Arc::clone(&self.vm),
        }
    }
    /// Ends the process with the slots that there are, and checks that nothing is left.
    fn end(mut self) {
        self.oracle.audit();
        self.w.mm.exit(&mut self.w.thread.cx());
        self.oracle.audit_end(&self.w.mm);
        assert_eq!(self.entries(), 0);
        assert_eq!(self.vm.in_progress(), (0, 0));
        drop(self.registration);
        self.oracle.audit_empty(&mut self.w.thread.cx(), 0);
        self.oracle.assert_silent();
        self.w.end();
    }
}

/// The machine, the process and its guest.
#[derive(Clone)]
struct Host {
    machine: Arc<Machine>,
    mm: Arc<Mm>,
    vm: Arc<Vm>,
}

impl Host {
    /// Runs the code of a processor of the guest on a thread of its own.
    fn vcpu<'s, T: Send + 's>(
        &self,
        scope: &'s Scope<'s, '_>,
        code: impl FnOnce(&mut CallCx<'_>, &Vcpu) -> T + Send + 's,
    ) -> ScopedJoinHandle<'s, T> {
        let host = self.clone();
        scope.spawn(move || {
            let mut thread = host.machine.enter().unwrap();
            let mut cx = thread.cx();
            let vcpu = host.vm.vcpu(&mut cx);
            code(&mut cx, &vcpu)
        })
    }
}

/// Set when the host is done, also by a failure, so that guests end.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// The host's end of a rendezvous with a processor. A guest whose host is gone ends.
struct HostSync {
    asks: Sender<()>,
    answered: Receiver<()>,
}

/// The processor's end.
struct GuestSync {
    asked: Receiver<()>,
    answers: Sender<()>,
}

fn rendezvous() -> (HostSync, GuestSync) {
    let ((asks, asked), (answers, answered)) = (channel(), channel());
    (HostSync { asks, answered }, GuestSync { asked, answers })
}

impl HostSync {
    /// Waits until the guest comes to its next stage, and lets it go on.
    fn sync(&self) {
        self.asks.send(()).expect("the guest runs");
        self.answered.recv().expect("the guest runs");
    }
}

impl GuestSync {
    /// Waits for the host. Returns false if it is done.
    fn sync(&self) -> bool {
        self.asked.recv().is_ok() && self.answers.send(()).is_ok()
    }
}

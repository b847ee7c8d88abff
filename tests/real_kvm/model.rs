//! The engine on emmu: an address space, the KVM model on it, a recorder beside it.

use super::steps::{
    ARENA, Engine, FILE_PAGES, Fresh, GPA, OFFSET, PAGE, PAGES, Rights, Seen, Step, TIME, What,
};
use emmu::{
    Errno, Machine, MachineConfig, Mm,
    addr::Vpn,
    ctx::CallCx,
    extmmu::kvm::{Gfn, KvmMistake, MemSlot, PfnCache, SlotFlags, Vcpu, Vm, VmConfig},
    file::{File, FileMode, Shmem},
    mm::{Advice, MmapArgs, MremapArgs, MremapFlags, Prot},
    oracle::Oracle,
};
use std::sync::Arc;

const BASE: u64 = 1 << 40;

pub struct Model<'t> {
    cx: CallCx<'t>,
    mm: Arc<Mm>,
    vcpu: Vcpu,
    clock: PfnCache,
    file: Arc<File>,
    child: Option<Arc<Mm>>,
    oracle: Arc<Oracle>,
    /// The time of the last tick.
    time: u64,
}

fn at(page: u64) -> u64 {
    BASE + page * PAGE
}
fn prot(rights: Rights) -> Prot {
    match rights {
        Rights::None => Prot::empty(),
        Rights::Read => Prot::READ,
        Rights::Write => Prot::READ | Prot::WRITE,
    }
}

impl<'t> Model<'t> {
    pub fn machine() -> Arc<Machine> {
        Machine::new(MachineConfig::default())
    }
    pub fn new(machine: &Arc<Machine>, mut cx: CallCx<'t>, mistake: Option<KvmMistake>) -> Self {
        let mm = Mm::new(machine);
        let config = VmConfig {
            mistake,
            ..VmConfig::default()
        };
        let (vm, _registration) = Vm::create(&mut cx, &mm, config);
        let slot = MemSlot {
            id: 1,
            gfn: Gfn::containing(GPA),
            pages: PAGES,
            hva: Vpn::containing(BASE),
            flags: SlotFlags::empty(),
        };
        vm.set_memory(&mut cx, slot).expect("the first slot");
        let oracle = Oracle::new(machine);
        // How long a window takes is the machine's matter.
        oracle.set_deadline(std::time::Duration::MAX);
        oracle.watch(&mm, Arc::clone(&vm) as _);
        let memfd = Shmem::memfd(machine.host(), "f", FILE_PAGES * PAGE).expect("small");
        let mut model = Self {
            vcpu: vm.vcpu(&mut cx),
            clock: vm.pfn_cache(GPA),
            file: File::open(memfd, FileMode::ReadWrite),
            child: None,
            oracle,
            time: 0,
            cx,
            mm,
        };
        let all = MmapArgs::anonymous(PAGES * PAGE).fixed(at(0));
        model.mm.mmap(&mut model.cx, &all).expect("empty");
        model
    }
    /// Nothing was stale at any time, and nothing is left.
    pub fn end(mut self) {
        self.exit();
        self.oracle.audit_end(&self.mm);
        self.oracle.assert_silent();
    }
    fn exit(&mut self) {
        self.leave();
        self.mm.exit(&mut self.cx);
    }
    fn leave(&mut self) {
        if let Some(child) = self.child.take() {
            child.exit(&mut self.cx);
        }
    }
    fn map(&mut self, page: u64, n: u64, what: What, rights: Rights) -> Result<(), Errno> {
        let args = MmapArgs::anonymous(n * PAGE)
            .fixed(at(page))
            .prot(prot(rights));
        let args = match what {
            What::Anon => args,
            What::SharedAnon => args.shared(),
            What::Private(offset) => args.file(&self.file, offset * PAGE),
            What::Shared(offset) => args.shared().file(&self.file, offset * PAGE),
        };
        let mapped = self.mm.mmap(&mut self.cx, &args);
        mapped.map(drop).map_err(|e| e.errno())
    }
    fn act(&mut self, step: &Step) -> Result<(), Errno> {
        let (mm, cx) = (&self.mm, &mut self.cx);
        match *step {
            Step::Map {
                page,
                n,
                what,
                rights,
            } => self.map(page, n, what, rights),
            Step::Unmap { page, n } => mm.munmap(cx, at(page), n * PAGE).map_err(|e| e.errno()),
            Step::Move { from, n, to } => {
                let args = MremapArgs {
                    addr: at(from),
                    old_len: n * PAGE,
                    new_len: n * PAGE,
                    flags: MremapFlags::MAYMOVE | MremapFlags::FIXED,
                    new_addr: at(to),
                };
                mm.mremap(cx, args).map(drop).map_err(|e| e.errno())
            }
            Step::DontNeed { page, n } => {
                let dropped = mm.madvise(cx, at(page), n * PAGE, Advice::DontNeed);
                dropped.map_err(|e| e.errno())
            }
            Step::Protect { page, n, rights } => {
                let done = mm.mprotect(cx, at(page), n * PAGE, prot(rights));
                done.map_err(|e| e.errno())
            }
            Step::Store { page, byte } => {
                let done = mm.store(cx, at(page) + OFFSET, byte);
                done.map_err(|_| Errno::EFAULT)
            }
            Step::GuestStore { page, byte } => {
                let done = self.vcpu.store(cx, GPA + page * PAGE + OFFSET, byte);
                done.map_err(|_| Errno::EFAULT)
            }
            Step::Fork => self.fork(),
            Step::Leave => {
                self.leave();
                Ok(())
            }
            Step::Tick => {
                self.tick();
                Ok(())
            }
            ref other => self.act_on_file(other),
        }
    }
    fn fork(&mut self) -> Result<(), Errno> {
        self.leave();
        let child = self.mm.fork(&mut self.cx);
        self.child = Some(child.map_err(|e| e.errno())?);
        Ok(())
    }
    fn tick(&mut self) {
        self.time += 1;
        let time = self.time.to_ne_bytes();
        // Refused: the clock is not written, and nobody is told.
        let _refused = self.clock.write(&mut self.cx, TIME as usize, &time);
    }
    fn act_on_file(&mut self, step: &Step) -> Result<(), Errno> {
        let cx = &mut self.cx;
        match *step {
            Step::Punch { page, n } => {
                let done = self.file.punch_hole(cx.reborrow(), page * PAGE, n * PAGE);
                done.map_err(|e| e.errno())
            }
            Step::Truncate { pages } => {
                let done = self.file.truncate(cx.reborrow(), pages * PAGE);
                done.map_err(|e| e.errno())
            }
            Step::Pwrite { page, byte } => {
                let done = self
                    .file
                    .write_at(cx.reborrow(), page * PAGE + OFFSET, &[byte]);
                done.map(drop).map_err(|e| e.errno())
            }
            ref other => unreachable!("{other:?} is not about the file"),
        }
    }
    fn byte_of_file(&mut self, page: u64) -> Option<u8> {
        let mut byte = [0];
        let file = self
            .file
            .read_at(self.cx.reborrow(), page * PAGE + OFFSET, &mut byte);
        (file == Ok(1)).then_some(byte[0])
    }
    fn fresh(&mut self) -> Fresh {
        let (time, mut bytes) = (self.time, [0; 8]);
        let is_now = |ok: bool, bytes: &[u8; 8]| ok && u64::from_ne_bytes(*bytes) == time;
        let guest = self.vcpu.read(&mut self.cx, GPA + TIME, &mut bytes).is_ok();
        let guest = is_now(guest, &bytes);
        let child = self.child.clone().map(|child| {
            let read = child.read_bytes(&mut self.cx, at(0) + TIME, &mut bytes);
            is_now(read.is_ok(), &bytes)
        });
        let file = (0..FILE_PAGES).map(|page| {
            let read = self
                .file
                .read_at(self.cx.reborrow(), page * PAGE + TIME, &mut bytes);
            is_now(read == Ok(bytes.len()), &bytes)
        });
        Fresh {
            guest,
            file: file.collect(),
            child,
        }
    }
}

impl Drop for Model<'_> {
    /// Also where a comparison ended early.
    fn drop(&mut self) {
        self.exit();
    }
}

impl Engine for Model<'_> {
    fn step(&mut self, step: &Step) -> Seen {
        let outcome = self.act(step).map_err(Errno::raw);
        let fresh = (*step == Step::Tick).then(|| self.fresh());
        let (vcpu, cx) = (&self.vcpu, &mut self.cx);
        let guest = (0..PAGES).map(|page| vcpu.load(cx, GPA + page * PAGE + OFFSET).ok());
        let guest = guest.collect();
        let child = self.child.as_ref().map(|child| {
            let load = |page| child.load(&mut self.cx, at(page) + OFFSET).ok();
            (0..ARENA).map(load).collect()
        });
        Seen {
            outcome,
            guest,
            child,
            file: (0..FILE_PAGES)
                .map(|page| self.byte_of_file(page))
                .collect(),
            fresh,
        }
    }
}

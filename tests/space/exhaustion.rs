//! What asks for more memory than there is ends with an error, however much it asks for, and leaves
//! every count right.

use emmu::{
    Machine, MachineConfig, Mm, PAGE_SIZE,
    ctx::CallCx,
    error::Errno,
    frame::{Contents, MemConfig},
    mm::{Advice, ForkMode, MapFlags, MmapArgs, Prot},
};
use std::sync::Arc;

const TABLES: u64 = 64;
const HUGE: u64 = 64 << 40;

fn machine(fork: ForkMode) -> Arc<Machine> {
    Machine::new(MachineConfig {
        memory: MemConfig {
            frames: 4096,
            contents: Contents::None,
            swap: 0,
        },
        page_tables: Some(TABLES),
        fork,
        ..MachineConfig::default()
    })
}

/// 64 TiB of which nothing is promised.
fn huge(cx: &mut CallCx<'_>, mm: &Mm, flags: MapFlags) -> u64 {
    let args = MmapArgs {
        addr: 0,
        len: HUGE,
        prot: Prot::READ | Prot::WRITE,
        flags: MapFlags::PRIVATE | MapFlags::ANONYMOUS | MapFlags::NORESERVE | flags,
        file: None,
        offset: 0,
    };
    mm.mmap(cx, &args).expect("it promises nothing")
}

/// Something done to 64 TiB, which must fail with an errno.
#[track_caller]
fn ends(what: impl FnOnce(&mut CallCx<'_>, &Mm, u64) -> Option<Errno>, errno: Errno) {
    let machine = machine(ForkMode::Copy);
    let mut thread = machine.enter().expect("no machine is in use");
    let mut cx = thread.cx();
    let mm = Mm::new(&machine);
    let at = huge(&mut cx, &mm, MapFlags::empty());
    assert_eq!(what(&mut cx, &mm, at), Some(errno));
    let refused = machine.mem().refused();
    assert!(refused.frames + refused.tables > 0, "{refused:?}");
    assert!(machine.mem().tables_in_use() <= TABLES);
    assert_eq!(machine.mem().tables_in_use(), mm.tables() as u64);
    mm.munmap(&mut cx, at, HUGE).expect("it is mapped");
    mm.exit(&mut cx);
    let mem = machine.mem();
    assert_eq!((mem.in_use(), mem.tables_in_use()), (0, 0));
    assert_eq!(machine.commit().pages(), 0);
}

#[test]
fn tables_are_memory_that_can_be_used_up() {
    let advise = |advice| {
        move |cx: &mut CallCx<'_>, mm: &Mm, at| {
            let done = mm.madvise(cx, at, HUGE, advice);
            done.err().map(|e| e.errno())
        }
    };
    ends(advise(Advice::PopulateRead), Errno::ENOMEM);
    ends(advise(Advice::PopulateWrite), Errno::ENOMEM);
    ends(advise(Advice::GuardInstall), Errno::ENOMEM);
    ends(
        |cx, mm, at| mm.mlock(cx, at, HUGE).err().map(|e| e.errno()),
        Errno::EAGAIN,
    );
}

/// `mmap` and `mlockall` say nothing of what they could not bring in.
#[test]
fn populating_stops_where_memory_ends() {
    for flags in [MapFlags::POPULATE, MapFlags::LOCKED] {
        ends(
            |cx, mm, at| {
                mm.munmap(cx, at, HUGE).expect("it is mapped");
                let at = huge(cx, mm, flags);
                let last = at + HUGE - PAGE_SIZE;
                assert!(mm.load(cx, at).is_ok() && mm.store(cx, last, 1).is_err());
                mm.munmap(cx, at, HUGE).expect("it is mapped");
                Some(Errno::ENOMEM)
            },
            Errno::ENOMEM,
        );
    }
}

/// A child needs tables of its own, or places in its parent's.
#[test]
fn forks_end_where_tables_end() {
    for fork in [ForkMode::Copy, ForkMode::Share] {
        let machine = machine(fork);
        let mut thread = machine.enter().expect("no machine is in use");
        let mut cx = thread.cx();
        let mm = Mm::new(&machine);
        let at = huge(&mut cx, &mm, MapFlags::empty());
        for block in 0..9 {
            let byte = at + block * (2 << 20);
            mm.store(&mut cx, byte, 1).expect("there is room");
        }
        let one = machine.mem().tables_in_use();
        let mut children = Vec::new();
        let why = loop {
            match mm.fork(&mut cx) {
                Ok(child) => children.push(child),
                Err(why) => break why,
            }
        };
        assert_eq!(why.errno(), Errno::ENOMEM, "{fork:?}");
        assert_eq!(children.len() as u64, TABLES / one - 1, "{fork:?}");
        for child in children {
            assert_eq!(child.load(&mut cx, at).expect("it is there"), 0);
            child.exit(&mut cx);
        }
        assert_eq!(machine.mem().tables_in_use(), one);
        mm.exit(&mut cx);
        assert_eq!(machine.mem().tables_in_use(), 0);
    }
}

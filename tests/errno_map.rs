//! Every errno of mmap, munmap, mprotect, mremap, brk and fork, in Linux's order of checks.

mod common;

use common::{BASE, PAGE, RW, World, at, machine};
use emmu::{
    Errno, FaultError, MachineConfig, Overcommit, TASK_SIZE,
    mm::{Limits, MapFlags, MmapArgs, MremapArgs, MremapFlags, Prot},
};

const MOVE: MremapFlags = MremapFlags::MAYMOVE.union(MremapFlags::FIXED);

fn mmap(w: &mut World, args: MmapArgs) -> Result<u64, Errno> {
    w.mm.mmap(&mut w.thread.cx(), &args).map_err(|e| e.errno())
}
fn anon(addr: u64, len: u64) -> MmapArgs {
    MmapArgs::anonymous(len).fixed(addr)
}
fn munmap(w: &mut World, addr: u64, len: u64) -> Result<(), Errno> {
    w.mm.munmap(&mut w.thread.cx(), addr, len)
        .map_err(|e| e.errno())
}
fn mprotect(w: &mut World, addr: u64, len: u64, prot: Prot) -> Result<(), Errno> {
    w.mm.mprotect(&mut w.thread.cx(), addr, len, prot)
        .map_err(|e| e.errno())
}
fn mremap(
    w: &mut World,
    (addr, old_len, new_len): (u64, u64, u64),
    flags: MremapFlags,
    new_addr: u64,
) -> Result<u64, Errno> {
    let args = MremapArgs {
        addr,
        old_len,
        new_len,
        flags,
        new_addr,
    };
    w.mm.mremap(&mut w.thread.cx(), args).map_err(|e| e.errno())
}
fn limited(limits: Limits) -> World {
    let mut w = World::new();
    w.mm.set_limits(&mut w.thread.cx(), limits);
    w
}

#[test]
fn mmap_checks_its_arguments_in_order() {
    let mut w = World::new();
    let offset = |offset, len| MmapArgs {
        offset,
        ..anon(at(0), len)
    };
    // The offset before the length, the length before the place.
    assert_eq!(mmap(&mut w, offset(1, 0)), Err(Errno::EINVAL));
    assert_eq!(mmap(&mut w, anon(at(0) + 1, 0)), Err(Errno::EINVAL));
    assert_eq!(mmap(&mut w, anon(at(0), u64::MAX)), Err(Errno::ENOMEM));
    assert_eq!(
        mmap(&mut w, offset(!(PAGE - 1), (1 << 63) - PAGE)),
        Err(Errno::ENOMEM)
    );
    assert_eq!(mmap(&mut w, anon(at(0) + 1, PAGE)), Err(Errno::EINVAL));
    assert_eq!(mmap(&mut w, anon(TASK_SIZE, PAGE)), Err(Errno::ENOMEM));
    assert_eq!(mmap(&mut w, anon(0, TASK_SIZE + PAGE)), Err(Errno::ENOMEM));
    // Beyond the top counts before unaligned.
    assert_eq!(mmap(&mut w, anon(TASK_SIZE - 1, PAGE)), Err(Errno::ENOMEM));
    assert_eq!(w.spans(), []);
    w.end();
}

#[test]
fn mmap_refuses_types_that_do_not_exist_or_do_not_go_together() {
    let mut w = World::new();
    let with = |flags: MapFlags| MmapArgs {
        flags: flags | MapFlags::ANONYMOUS | MapFlags::FIXED,
        ..anon(at(0), PAGE)
    };
    for flags in [
        MapFlags::empty(),
        MapFlags::SHARED_VALIDATE,
        MapFlags::SHARED | MapFlags::GROWSDOWN,
        MapFlags::DROPPABLE | MapFlags::GROWSDOWN,
        MapFlags::DROPPABLE | MapFlags::LOCKED,
        MapFlags::from_bits_retain(5),
    ] {
        assert_eq!(mmap(&mut w, with(flags)), Err(Errno::EINVAL), "{flags:?}");
    }
    assert_eq!(mmap(&mut w, with(MapFlags::DROPPABLE)), Ok(at(0)));
    w.end();
}

#[test]
fn mmap_without_replacing_fails_over_a_mapping() {
    let mut w = World::new();
    w.map(2, 1, RW);
    let args = anon(at(0), 3 * PAGE).with(MapFlags::FIXED_NOREPLACE);
    assert_eq!(mmap(&mut w, args), Err(Errno::EEXIST));
    let args = anon(at(0), 2 * PAGE).with(MapFlags::FIXED_NOREPLACE);
    assert_eq!(mmap(&mut w, args), Ok(at(0)));
    w.end();
}

#[test]
fn mmap_obeys_the_lock_limit() {
    let locked = |n: u64| anon(at(0), n * PAGE).with(MapFlags::LOCKED);
    let limits = |memlock| Limits {
        memlock,
        ipc_lock: false,
        ..Limits::default()
    };
    let mut w = limited(limits(0));
    assert_eq!(mmap(&mut w, locked(1)), Err(Errno::EPERM));
    w.mm.set_limits(&mut w.thread.cx(), limits(2 * PAGE));
    assert_eq!(mmap(&mut w, locked(3)), Err(Errno::EAGAIN));
    assert_eq!(mmap(&mut w, locked(2)), Ok(at(0)));
    assert_eq!(w.mm.sizes(&mut w.thread.cx()), (2, 2));
    w.end();
}

#[test]
fn mmap_obeys_the_limits_of_space_and_data_net_of_what_it_replaces() {
    let mut w = limited(Limits {
        address_space: 4 * PAGE,
        data: 2 * PAGE,
        ..Limits::default()
    });
    assert_eq!(mmap(&mut w, anon(at(0), 3 * PAGE)), Err(Errno::ENOMEM));
    assert_eq!(mmap(&mut w, anon(at(0), 2 * PAGE)), Ok(at(0)));
    let readable = |from, n: u64| anon(at(from), n * PAGE).prot(Prot::READ);
    assert_eq!(mmap(&mut w, readable(2, 2)), Ok(at(2)));
    assert_eq!(mmap(&mut w, readable(4, 1)), Err(Errno::ENOMEM));
    assert_eq!(mmap(&mut w, readable(0, 4)), Ok(at(0)));
    w.end();
}

#[test]
fn memory_is_promised_by_the_mode() {
    let with = |overcommit| {
        World::with(MachineConfig {
            overcommit,
            ..MachineConfig::default()
        })
    };
    let huge = anon(at(0), 1 << 40);
    let mut w = with(Overcommit::Heuristic);
    assert_eq!(mmap(&mut w, huge.clone()), Err(Errno::ENOMEM));
    let free = huge.clone().with(MapFlags::NORESERVE);
    assert_eq!(mmap(&mut w, free.clone()), Ok(at(0)));
    w.end();
    let mut w = with(Overcommit::Always);
    assert_eq!(mmap(&mut w, huge), Ok(at(0)));
    w.end();
    let mut w = with(Overcommit::Never { limit: 10 });
    assert_eq!(mmap(&mut w, free), Err(Errno::ENOMEM));
    assert_eq!(mmap(&mut w, anon(at(0), 9 * PAGE)), Ok(at(0)));
    assert_eq!(mmap(&mut w, anon(at(20), 2 * PAGE)), Err(Errno::ENOMEM));
    // Readable memory is not promised until it becomes writable.
    let args = anon(at(20), 2 * PAGE).prot(Prot::READ);
    assert_eq!(mmap(&mut w, args), Ok(at(20)));
    assert_eq!(mprotect(&mut w, at(20), 2 * PAGE, RW), Err(Errno::ENOMEM));
    assert!(w.mm.fork(&mut w.thread.cx()).is_err());
    assert_eq!(w.machine.commit().pages(), 9);
    w.end();
}

#[test]
fn munmap_takes_ranges_of_pages_only() {
    let mut w = World::new();
    w.map(0, 4, RW);
    for (addr, len) in [
        (at(0) + 1, PAGE),
        (at(0), 0),
        (TASK_SIZE + PAGE, PAGE),
        (at(0), TASK_SIZE),
        (at(0), u64::MAX),
    ] {
        assert_eq!(
            munmap(&mut w, addr, len),
            Err(Errno::EINVAL),
            "{addr:#x}+{len:#x}"
        );
    }
    assert_eq!(munmap(&mut w, TASK_SIZE - PAGE, PAGE), Ok(()));
    assert_eq!(munmap(&mut w, at(1), 1), Ok(()));
    assert_eq!(w.spans(), [(0, 1), (2, 4)]);
    w.end();
}

#[test]
fn mprotect_checks_in_order_and_keeps_what_came_before() {
    let mut w = World::new();
    w.map(0, 4, RW);
    w.map(6, 2, RW);
    let both = Prot::GROWSDOWN | Prot::GROWSUP;
    let unknown = Prot::from_bits_retain(0x40);
    assert_eq!(mprotect(&mut w, at(0) + 1, 0, both), Err(Errno::EINVAL));
    assert_eq!(mprotect(&mut w, at(0) + 1, 0, RW), Err(Errno::EINVAL));
    assert_eq!(mprotect(&mut w, at(0), 0, unknown), Ok(()));
    assert_eq!(
        mprotect(&mut w, at(0), u64::MAX - PAGE, RW),
        Err(Errno::ENOMEM)
    );
    assert_eq!(mprotect(&mut w, at(0), PAGE, unknown), Err(Errno::EINVAL));
    assert_eq!(
        mprotect(&mut w, at(4), PAGE, Prot::READ),
        Err(Errno::ENOMEM)
    );
    assert_eq!(w.spans(), [(0, 4), (6, 8)]);
    assert_eq!(
        mprotect(&mut w, at(2), 6 * PAGE, Prot::READ),
        Err(Errno::ENOMEM)
    );
    let rows = w.vmas();
    assert_eq!(
        rows,
        [
            (0, 2, "rw-p".into()),
            (2, 4, "r--p".into()),
            (6, 8, "rw-p".into())
        ]
    );
    w.end();
}

#[test]
fn growing_protection_needs_a_stack() {
    let mut w = World::new();
    w.map(0, 4, RW);
    w.map_with(8, 4, RW, MapFlags::GROWSDOWN);
    let down = Prot::READ | Prot::GROWSDOWN;
    assert_eq!(mprotect(&mut w, at(1), PAGE, down), Err(Errno::EINVAL));
    assert_eq!(
        mprotect(&mut w, at(1), PAGE, Prot::READ | Prot::GROWSUP),
        Err(Errno::EINVAL)
    );
    assert_eq!(mprotect(&mut w, at(20), PAGE, down), Err(Errno::ENOMEM));
    assert_eq!(mprotect(&mut w, at(10), PAGE, down), Ok(()));
    assert_eq!(w.spans(), [(0, 4), (8, 11), (11, 12)]);
    w.end();
}

#[test]
fn mremap_checks_its_arguments_in_order() {
    let mut w = World::new();
    w.map(0, 8, RW);
    let one = (at(0), PAGE, PAGE);
    let cases = [
        (one, MremapFlags::from_bits_retain(8), 0),
        ((at(0) + 1, PAGE, PAGE), MremapFlags::empty(), 0),
        ((at(0), PAGE, 0), MremapFlags::empty(), 0),
        ((at(0), PAGE, TASK_SIZE + PAGE), MremapFlags::empty(), 0),
        (one, MOVE, TASK_SIZE),
        (one, MOVE, at(20) + 1),
        (one, MremapFlags::FIXED, at(20)),
        (
            (at(0), PAGE, 2 * PAGE),
            MOVE | MremapFlags::DONTUNMAP,
            at(20),
        ),
        ((at(0), 4 * PAGE, 4 * PAGE), MOVE, at(3)),
        ((at(0), 0, PAGE), MremapFlags::MAYMOVE, 0),
    ];
    for (lens, flags, to) in cases {
        assert_eq!(
            mremap(&mut w, lens, flags, to),
            Err(Errno::EINVAL),
            "{lens:x?} {flags:?}"
        );
    }
    assert_eq!(w.spans(), [(0, 8)]);
    w.end();
}

#[test]
fn mremap_needs_a_mapping_that_holds_the_range() {
    let mut w = World::new();
    w.map(0, 4, RW);
    w.map(4, 4, Prot::READ);
    let none = MremapFlags::empty();
    assert_eq!(
        mremap(&mut w, (at(20), PAGE, PAGE), none, 0),
        Err(Errno::EFAULT)
    );
    assert_eq!(
        mremap(&mut w, (at(0), 6 * PAGE, 9 * PAGE), none, 0),
        Err(Errno::EFAULT)
    );
    assert_eq!(
        mremap(&mut w, (at(0), 6 * PAGE, 9 * PAGE), MOVE, at(40)),
        Err(Errno::EFAULT)
    );
    // Only its start counts where nothing moves or grows.
    assert_eq!(
        mremap(&mut w, (at(0), 20 * PAGE, 20 * PAGE), none, 0),
        Ok(at(0))
    );
    assert_eq!(
        mremap(&mut w, (at(0), 4 * PAGE, 5 * PAGE), none, 0),
        Err(Errno::ENOMEM)
    );
    assert_eq!(
        mremap(&mut w, (at(0), 2 * PAGE, 3 * PAGE), none, 0),
        Err(Errno::ENOMEM)
    );
    w.end();
}

#[test]
fn mremap_obeys_the_limits() {
    let mut w = World::new();
    w.map_with(0, 2, RW, MapFlags::LOCKED);
    w.map(8, 2, RW);
    w.mm.set_limits(
        &mut w.thread.cx(),
        Limits {
            memlock: 2 * PAGE,
            ipc_lock: false,
            address_space: 5 * PAGE,
            ..Limits::default()
        },
    );
    let none = MremapFlags::empty();
    let grow = |from: u64, n: u64| (at(from), 2 * PAGE, n * PAGE);
    assert_eq!(mremap(&mut w, grow(0, 3), none, 0), Err(Errno::EAGAIN));
    assert_eq!(mremap(&mut w, grow(8, 4), none, 0), Err(Errno::ENOMEM));
    assert_eq!(mremap(&mut w, grow(8, 3), none, 0), Ok(at(8)));
    w.end();
}

#[test]
fn a_full_map_refuses_what_would_add_to_it() {
    let mut w = World::with(MachineConfig {
        max_map_count: 8,
        ..MachineConfig::default()
    });
    // One more than the limit is what mmap itself reaches.
    for n in 0..8 {
        w.map(n * 4, 3, RW);
    }
    w.map(8 * 4, 3, RW);
    assert_eq!(w.spans().len(), 9);
    assert_eq!(mmap(&mut w, anon(at(3), PAGE)), Err(Errno::ENOMEM));
    assert_eq!(mmap(&mut w, anon(at(0), PAGE)), Err(Errno::ENOMEM));
    assert_eq!(munmap(&mut w, at(1), PAGE), Err(Errno::ENOMEM));
    assert_eq!(
        mprotect(&mut w, at(1), PAGE, Prot::READ),
        Err(Errno::ENOMEM)
    );
    assert_eq!(
        mremap(&mut w, (at(0), PAGE, PAGE), MOVE, at(90)),
        Err(Errno::ENOMEM)
    );
    assert_eq!(mprotect(&mut w, at(0), 3 * PAGE, Prot::READ), Ok(()));
    assert_eq!(
        mremap(&mut w, (at(4), 3 * PAGE, 4 * PAGE), MremapFlags::empty(), 0),
        Ok(at(4))
    );
    assert_eq!(munmap(&mut w, at(12), PAGE), Ok(()));
    let child = w.mm.fork(&mut w.thread.cx()).expect("forks at any count");
    child.exit(&mut w.thread.cx());
    w.end();
}

#[test]
fn the_ends_of_the_space_can_be_mapped() {
    let mut w = World::with(MachineConfig {
        mmap_min_addr: 0,
        ..MachineConfig::default()
    });
    for addr in [0, TASK_SIZE - PAGE] {
        assert_eq!(mmap(&mut w, anon(addr, PAGE)), Ok(addr));
        let cx = &mut w.thread.cx();
        assert_eq!(w.mm.store(cx, addr, 5), Ok(()));
        assert_eq!(w.mm.load(cx, addr), Ok(5));
        w.mm.mprotect(cx, addr, PAGE, Prot::READ).unwrap();
        assert_eq!(w.mm.store(cx, addr, 5), Err(FaultError::Denied(addr)));
    }
    let cx = &mut w.thread.cx();
    assert_eq!(
        w.mm.load(cx, TASK_SIZE),
        Err(FaultError::NotMapped(TASK_SIZE))
    );
    assert_eq!(
        w.mm.load(cx, u64::MAX),
        Err(FaultError::NotMapped(u64::MAX))
    );
    let mut out = [0; 8];
    let end = TASK_SIZE - 4;
    assert_eq!(
        w.mm.read_bytes(cx, end, &mut out),
        Err(FaultError::NotMapped(TASK_SIZE))
    );
    w.mm.munmap(cx, 0, TASK_SIZE).unwrap();
    w.end();
}

#[test]
fn brk_says_where_the_break_is() {
    let mut w = World::on(machine(64));
    let cx = &mut w.thread.cx();
    w.mm.set_start_brk(cx, BASE);
    assert_eq!(w.mm.brk(cx, BASE - 1), BASE);
    assert_eq!(w.mm.brk(cx, BASE + 5 * PAGE + 1), BASE + 5 * PAGE + 1);
    assert_eq!(w.mm.store(cx, at(5), 1), Ok(()));
    assert_eq!(w.mm.brk(cx, BASE + 2 * PAGE), BASE + 2 * PAGE);
    assert_eq!(w.mm.store(cx, at(2), 1), Err(FaultError::NotMapped(at(2))));
    // One page must stay free below the next mapping.
    w.map(8, 1, RW);
    let cx = &mut w.thread.cx();
    assert_eq!(w.mm.brk(cx, at(8)), at(2));
    assert_eq!(w.mm.brk(cx, at(7)), at(7));
    assert_eq!(w.mm.brk(cx, 0), at(7));
    w.mm.set_limits(
        cx,
        Limits {
            data: 7 * PAGE,
            ..Limits::default()
        },
    );
    w.mm.munmap(cx, at(8), PAGE).unwrap();
    assert_eq!(w.mm.brk(cx, at(9)), at(7));
    w.end();
}

//! A call for which the tables of pages are used up half-way changes nothing and leaks nothing.

use emmu::{
    Machine, MachineConfig, Mm, Overcommit, PAGE_SIZE,
    ctx::CallCx,
    file::{File, FileMode, Shmem},
    frame::{Contents, MemConfig},
    mm::{Advice, ForkMode, MapFlags, MmapArgs, MremapArgs, MremapFlags, Prot, RemapMode},
};
use std::sync::Arc;

const GIB: u64 = 1 << 30;
const BLOCK: u64 = 2 << 20;

/// A machine of 40 tables.
fn machine(fork: ForkMode) -> Arc<Machine> {
    Machine::new(MachineConfig {
        memory: MemConfig {
            frames: 4096,
            contents: Contents::Real,
            swap: 0,
        },
        page_tables: Some(40),
        fork,
        overcommit: Overcommit::Always,
        ..MachineConfig::default()
    })
}

/// An address space that uses up the tables.
fn use_up_tables(cx: &mut CallCx<'_>, machine: &Arc<Machine>) -> Arc<Mm> {
    let filler = Mm::new(machine);
    let at = filler
        .mmap(cx, &MmapArgs::anonymous(64 * BLOCK))
        .expect("it promises nothing");
    let refused = (0..64).find(|n| filler.store(cx, at + n * BLOCK, 1).is_err());
    assert!(refused.is_some(), "the tables are used up");
    filler
}

fn map(cx: &mut CallCx<'_>, mm: &Mm, at: u64, len: u64) {
    mm.mmap(cx, &MmapArgs::anonymous(len).fixed(at))
        .expect("nothing is there");
}

fn move_to(cx: &mut CallCx<'_>, mm: &Mm, addr: u64, len: u64, new_addr: u64) -> bool {
    let moved = mm.mremap(
        cx,
        MremapArgs {
            addr,
            old_len: len,
            new_len: len,
            flags: MremapFlags::MAYMOVE | MremapFlags::FIXED,
            new_addr,
        },
    );
    moved.is_ok()
}

fn ends_empty(cx: &mut CallCx<'_>, machine: &Machine, mm: &Mm) {
    mm.exit(cx);
    let mem = machine.mem();
    assert_eq!((mem.in_use(), mem.tables_in_use()), (0, 0));
    assert_eq!(machine.commit().pages(), 0);
}

/// Moves `len` bytes from `source` to `target`, beside which a page has a table already, while no
/// other table is left; then looks at the bytes.
fn a_refused_move_keeps(fork: ForkMode, source: u64, len: u64, target: u64, bytes: &[u64]) {
    let machine = machine(fork);
    let mut thread = machine.enter().expect("no machine is in use");
    let cx = &mut thread.cx();
    let mm = Mm::new(&machine);
    map(cx, &mm, source, len);
    for (n, &at) in (1..).zip(bytes) {
        mm.store(cx, at, n).expect("there is room");
    }
    map(cx, &mm, target - 16 * PAGE_SIZE, PAGE_SIZE);
    mm.store(cx, target - 16 * PAGE_SIZE, 99)
        .expect("there is room");
    let child = (fork == ForkMode::Share).then(|| mm.fork(cx).expect("there is room"));
    let filler = use_up_tables(cx, &machine);
    let places = mm.maps(cx);
    assert!(
        !move_to(cx, &mm, source, len, target),
        "no table was left for {target:#x}"
    );
    assert_eq!(mm.maps(cx), places);
    filler.exit(cx);
    for (n, &at) in (1..).zip(bytes) {
        assert_eq!(mm.load(cx, at), Ok(n), "{at:#x}, {fork:?}");
    }
    assert_eq!(mm.load(cx, target - 16 * PAGE_SIZE), Ok(99));
    if let Some(child) = child {
        child.exit(cx);
    }
    ends_empty(cx, &machine, &mm);
}

/// The source lies around a boundary of 1 GiB below which it has no table: on the way back it needs
/// none there, though the target has one, its neighbour's.
#[test]
fn a_refused_move_loses_no_page_where_the_source_had_no_table() {
    let at = |block: u64, page: u64| 2 * GIB + block * BLOCK + page * PAGE_SIZE;
    for fork in [ForkMode::Copy, ForkMode::Share] {
        let bytes = [at(0, 0), at(0, 3), at(1, 0), at(1, 3)];
        let below = 4 * PAGE_SIZE;
        let target = 8 * GIB + 64 * PAGE_SIZE;
        a_refused_move_keeps(fork, 2 * GIB - below, below + 2 * BLOCK, target, &bytes);
        // Holes of whole blocks.
        for blocks in [&[0, 1, 2][..], &[1, 2], &[0, 2], &[0, 1, 2, 3, 4]] {
            let bytes: Vec<u64> = blocks.iter().map(|&block| at(block, 9)).collect();
            for shift in [64, 511, 1] {
                let target = 8 * GIB + shift * PAGE_SIZE;
                a_refused_move_keeps(fork, 2 * GIB, 5 * BLOCK, target, &bytes);
            }
        }
    }
}

/// The copy of a refused move joins both its neighbours, and is cut out of them again even if no
/// VMA can be had, so that they keep their pages.
#[test]
fn a_refused_move_needs_no_vma_to_remove_its_copy() {
    let (source, target, len) = (2 * GIB, 8 * GIB, 4 * PAGE_SIZE);
    for nth in 1..8 {
        let machine = machine(ForkMode::Copy);
        let mut thread = machine.enter().expect("no machine is in use");
        let cx = &mut thread.cx();
        let mm = Mm::new(&machine);
        // Not touched, so that the copy may take the offset of its place. Its tables are there.
        map(cx, &mm, source, len);
        map(cx, &mm, source + BLOCK - PAGE_SIZE, PAGE_SIZE);
        mm.store(cx, source + BLOCK - PAGE_SIZE, 7)
            .expect("there is room");
        for neighbour in [target - len, target + len] {
            map(cx, &mm, neighbour, len);
        }
        mm.store(cx, target - len, 1).expect("there is room");
        let filler = use_up_tables(cx, &machine);
        machine.mem().inject().arm(nth);
        let moved = move_to(cx, &mm, source, len, target);
        machine.mem().inject().disarm();
        assert!(!moved, "no table was left for the target");
        filler.exit(cx);
        assert_eq!(mm.load(cx, target - len), Ok(1), "{nth}");
        for at in [source, target + len] {
            assert_eq!(mm.load(cx, at), Ok(0), "{at:#x} is mapped, {nth}");
        }
        assert!(mm.load(cx, target).is_err(), "the copy is gone, {nth}");
        ends_empty(cx, &machine, &mm);
    }
}

/// A huge page whose leaf is refused gives its frames back.
#[test]
fn a_huge_page_without_a_leaf_leaks_no_frame() {
    let machine = machine(ForkMode::Copy);
    let mut thread = machine.enter().expect("no machine is in use");
    let cx = &mut thread.cx();
    let mm = Mm::new(&machine);
    let at = 4 * GIB;
    map(cx, &mm, at, 8 * BLOCK);
    // The tables above the leaf.
    mm.store(cx, at, 1).expect("there is room");
    mm.madvise(cx, at, 8 * BLOCK, Advice::HugePage)
        .expect("it is anonymous");
    let filler = use_up_tables(cx, &machine);
    let before = machine.mem().in_use();
    assert!(mm.store(cx, at + BLOCK, 1).is_err(), "no leaf was left");
    assert_eq!(machine.mem().in_use(), before);
    filler.exit(cx);
    ends_empty(cx, &machine, &mm);
}

/// A range of which one page has a table and the other has none.
#[test]
fn pages_are_remapped_all_or_none() {
    let machine = machine(ForkMode::Copy);
    let mut thread = machine.enter().expect("no machine is in use");
    let cx = &mut thread.cx();
    let mm = Mm::new(&machine);
    mm.set_remap_mode(cx, RemapMode::Nonlinear);
    let shmem = Shmem::memfd(machine.host(), "x", 2 * BLOCK).expect("there is room");
    let file = File::open(shmem, FileMode::ReadWrite);
    for (n, byte) in [(0, 1), (1, 2), (2, 3)] {
        file.write_at(cx.reborrow(), n * PAGE_SIZE, &[byte])
            .expect("there is room");
    }
    let (at, len) = (2 * GIB + BLOCK - PAGE_SIZE, 2 * PAGE_SIZE);
    let args = MmapArgs::anonymous(len).fixed(at).file(&file, 0).shared();
    mm.mmap(cx, &args).expect("nothing is there");
    assert_eq!(mm.load(cx, at), Ok(1));
    let filler = use_up_tables(cx, &machine);
    let remapped = mm.remap_file_pages(cx, at, len, Prot::empty(), 1, MapFlags::NONBLOCK);
    filler.exit(cx);
    assert!(remapped.is_err(), "no table was left");
    let bytes = [0, PAGE_SIZE].map(|page| mm.load(cx, at + page));
    assert_eq!(bytes, [Ok(1), Ok(2)]);
    mm.exit(cx);
}

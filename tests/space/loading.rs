//! What a program loader and a program's libraries rely on: segments as they are, places of large
//! mappings, names.

use crate::common::{PAGE, RW, World, at, calls::READ, machine};
use emmu::{
    Errno, Machine,
    file::{DiskFile, File, FileMode, MemStore},
    mm::{MapFlags, MmapArgs, MremapArgs, MremapFlags, Segment, VmFlags},
};
use std::sync::Arc;

const MIB: u64 = 1 << 20;

fn disk(w: &World) -> Arc<File> {
    let store = Box::<MemStore>::default();
    let object = DiskFile::new(w.machine.host(), "/f", 64 * MIB, store).expect("memory");
    File::open(object, FileMode::ReadWrite)
}
/// Where it went.
fn place(w: &mut World, args: &MmapArgs) -> u64 {
    let mut cx = w.thread.cx();
    let would = w.mm.would_map_at(&mut cx, args).expect("a place");
    assert_eq!(w.mm.mmap(&mut cx, args), Ok(would));
    would
}

#[test]
fn what_holds_whole_stretches_of_a_file_is_aligned_by_them() {
    let mut w = World::new();
    let file = disk(&w);
    let of = |len, offset| MmapArgs::anonymous(len).file(&file, offset);
    // Three megabytes from the second page on hold no whole stretch: right below, as small ones
    // are.
    let small = place(&mut w, &of(PAGE, 0));
    assert_eq!(place(&mut w, &of(3 * MIB, PAGE)) + 3 * MIB, small);
    assert_eq!(place(&mut w, &of(3 * MIB, 0)) % (2 * MIB), 0);
    assert_eq!(place(&mut w, &of(4 * MIB + PAGE, PAGE)) % (2 * MIB), PAGE);
    w.end();
}

#[test]
fn shared_memory_is_not_aligned_and_a_hint_with_room_is_kept() {
    let mut w = World::new();
    let file = disk(&w);
    let small = place(&mut w, &MmapArgs::anonymous(PAGE));
    let shared = place(&mut w, &MmapArgs::anonymous(4 * MIB).shared());
    assert_eq!(shared + 4 * MIB, small);
    let hinted = |addr| MmapArgs {
        addr,
        ..MmapArgs::anonymous(4 * MIB).file(&file, 0)
    };
    assert_eq!(place(&mut w, &hinted(at(1))), at(1));
    // It would fit below the first, but not with two megabytes to spare.
    let below = at(1) - 4 * MIB;
    assert_eq!(place(&mut w, &hinted(below)) % (2 * MIB), 0);
    w.end();
}

#[test]
fn a_moved_file_is_aligned_as_a_new_one() {
    let mut w = World::new();
    let file = disk(&w);
    place(&mut w, &MmapArgs::anonymous(PAGE));
    let from = place(&mut w, &MmapArgs::anonymous(PAGE).file(&file, PAGE));
    let args = MremapArgs {
        addr: from,
        old_len: PAGE,
        new_len: 8 * MIB,
        flags: MremapFlags::MAYMOVE,
        new_addr: 0,
    };
    let mut cx = w.thread.cx();
    let would = w.mm.would_remap_to(&mut cx, args);
    let to = w.mm.mremap(&mut cx, args).expect("room");
    assert_eq!((would.ok(), to % (2 * MIB)), (Some(to), PAGE));
    let shrunk = MremapArgs {
        addr: to,
        old_len: 8 * MIB,
        new_len: PAGE,
        ..args
    };
    assert_eq!(w.mm.would_remap_to(&mut cx, shrunk).ok(), Some(to));
    w.end();
}

#[test]
fn stacks_of_threads_have_no_huge_pages_and_merge_with_their_like_only() {
    let mut w = World::new();
    w.map_with(0, 2, RW, MapFlags::STACK);
    w.map_with(2, 2, RW, MapFlags::STACK);
    w.map(4, 2, RW);
    assert_eq!(w.spans(), [(0, 4), (4, 6)]);
    let maps = w.mm.maps(&mut w.thread.cx());
    assert!(maps[0].flags.contains(VmFlags::NOHUGEPAGE));
    assert!(!maps[1].flags.contains(VmFlags::NOHUGEPAGE));
    w.end();
}

#[test]
fn segments_are_installed_as_they_are() {
    let mut w = World::new();
    let flags = VmFlags::READ | VmFlags::WRITE | VmFlags::MAYREAD | VmFlags::MAYWRITE;
    let segment = |from, to| Segment {
        start: at(from),
        end: at(to),
        flags: flags | VmFlags::ACCOUNT,
        file: None,
        offset: 0,
    };
    let mut put = |s: &Segment| {
        let put = w.mm.install(&mut w.thread.cx(), s);
        put.map_err(|e| e.errno())
    };
    assert_eq!(put(&segment(0, 2)), Ok(()));
    assert_eq!(put(&segment(2, 4)), Ok(()));
    assert_eq!(put(&segment(3, 5)), Err(Errno::EEXIST));
    assert_eq!(put(&segment(5, 5)), Err(Errno::EINVAL));
    let odd = Segment {
        end: at(6) + 1,
        ..segment(5, 6)
    };
    assert_eq!(put(&odd), Err(Errno::EINVAL));
    assert_eq!((w.spans(), w.promised()), (vec![(0, 2), (2, 4)], 4));
    w.end();
}

const MAY: VmFlags = VmFlags::MAYREAD
    .union(VmFlags::MAYWRITE)
    .union(VmFlags::MAYEXEC);
const USUAL: VmFlags = VmFlags::READ.union(VmFlags::WRITE).union(MAY);
const SHARED: VmFlags = USUAL.union(VmFlags::SHARED).union(VmFlags::MAYSHARE);

fn opened(of: &Machine, mode: FileMode) -> Option<Arc<File>> {
    let store = Box::<MemStore>::default();
    let disk = DiskFile::new(of.host(), "/f", MIB, store).expect("memory");
    Some(File::open(disk, mode))
}

/// Installs four pages.
fn put(w: &mut World, flags: VmFlags, file: &Option<Arc<File>>, offset: u64) -> Result<(), Errno> {
    let segment = Segment {
        start: at(0),
        end: at(4),
        flags,
        file: file.clone(),
        offset,
    };
    let put = w.mm.install(&mut w.thread.cx(), &segment);
    put.map_err(|e| e.errno())
}

/// Flags that `mmap` refuses, or cannot give.
#[test]
fn flags_of_no_call_are_not_installed() {
    let mut w = World::new();
    let file = opened(&w.machine, FileMode::ReadWrite);
    for flags in [
        USUAL | VmFlags::LOCKED,
        USUAL | VmFlags::LOCKONFAULT,
        USUAL | VmFlags::MERGEABLE,
        USUAL | VmFlags::NONLINEAR,
        USUAL | VmFlags::DROPPABLE,
        USUAL | VmFlags::HUGEPAGE | VmFlags::NOHUGEPAGE,
        USUAL | VmFlags::ACCOUNT | VmFlags::NORESERVE,
        USUAL - VmFlags::MAYREAD,
        USUAL - VmFlags::WRITE - VmFlags::MAYWRITE,
        USUAL | VmFlags::from_bits_retain(1 << 60),
        USUAL | VmFlags::SHARED,
        USUAL | VmFlags::MAYSHARE,
        SHARED,
    ] {
        assert_eq!(
            put(&mut w, flags, &None, 0),
            Err(Errno::EINVAL),
            "{flags:?}"
        );
    }
    for flags in [
        USUAL | VmFlags::NONLINEAR,
        USUAL | VmFlags::GROWSDOWN,
        USUAL | VmFlags::SHARED,
        USUAL | VmFlags::MAYSHARE,
        SHARED | VmFlags::WIPEONFORK,
        SHARED | VmFlags::ACCOUNT,
    ] {
        assert_eq!(
            put(&mut w, flags, &file, 0),
            Err(Errno::EINVAL),
            "{flags:?}"
        );
    }
    w.end();
}

/// Files and offsets that `mmap` refuses.
#[test]
fn files_that_no_call_maps_are_not_installed() {
    let mut w = World::new();
    let other = machine(16);
    let file = opened(&w.machine, FileMode::ReadWrite);
    let read = opened(&w.machine, FileMode::ReadOnly);
    let write = opened(&w.machine, FileMode::WriteOnly);
    let foreign = opened(&other, FileMode::ReadWrite);
    assert_eq!(put(&mut w, SHARED, &foreign, 0), Err(Errno::ENODEV));
    assert_eq!(put(&mut w, SHARED, &read, 0), Err(Errno::EACCES));
    assert_eq!(put(&mut w, USUAL, &write, 0), Err(Errno::EACCES));
    for offset in [1 << 62, u64::MAX - PAGE + 1] {
        assert_eq!(put(&mut w, SHARED, &file, offset), Err(Errno::EOVERFLOW));
    }
    let of_read = VmFlags::READ | VmFlags::MAYREAD | VmFlags::MAYEXEC | VmFlags::MAYSHARE;
    assert_eq!(put(&mut w, of_read, &read, 0), Ok(()));
    w.end();
}

#[test]
fn names_split_and_merge_and_go_to_children() {
    let mut w = World::new();
    w.map(0, 6, READ);
    let mut name = |from, n, name| {
        let named =
            w.mm.name_memory(&mut w.thread.cx(), at(from), n * PAGE, name);
        named.map_err(|e| e.errno())
    };
    assert_eq!(name(2, 2, Some("a")), Ok(()));
    assert_eq!(name(1, 1, Some("a")), Ok(()));
    assert_eq!(name(4, 1, Some("a[")), Err(Errno::EINVAL));
    assert_eq!(name(5, 2, Some("b")), Err(Errno::ENOMEM));
    let mut cx = w.thread.cx();
    let child = w.mm.fork(&mut cx).expect("memory");
    let names = |lines: Vec<emmu::mm::MapsLine>| -> Vec<String> {
        lines.into_iter().map(|l| l.name).collect()
    };
    assert_eq!(names(child.maps(&mut cx)), ["", "[anon:a]", "", "[anon:b]"]);
    child.exit(&mut cx);
    w.mm.name_memory(&mut cx, at(0), 6 * PAGE, None)
        .expect("anonymous");
    assert_eq!(names(w.mm.maps(&mut cx)), [""]);
    let file = disk(&w);
    let mut cx = w.thread.cx();
    let mapped = MmapArgs::anonymous(PAGE).file(&file, 0).fixed(at(8));
    w.mm.mmap(&mut cx, &mapped).expect("room");
    let named = w.mm.name_memory(&mut cx, at(8), PAGE, Some("f"));
    assert_eq!(named.map_err(|e| e.errno()), Err(Errno::EBADF));
    w.end();
}

//! Two address spaces at once: copies, and locks that cannot wait for each other.

mod common;

use common::{PAGE, RW, World, at};
use emmu::{
    FaultError, Mm,
    error::{CopyError, Errno, SameMm},
    mm::{MapFlags, MmapArgs, Prot},
};
use std::sync::Arc;

const LEN: usize = PAGE as usize;

/// A world with memory on pages `[0, 4)`, and another address space on its machine with the same.
fn two() -> (World, Arc<Mm>) {
    let mut w = World::new();
    w.map(0, 4, RW);
    let other = Mm::new(&w.machine);
    let args = MmapArgs::anonymous(4 * PAGE).fixed(at(0));
    other.mmap(&mut w.thread.cx(), &args).unwrap();
    (w, other)
}

#[test]
fn bytes_go_over_page_borders_on_both_sides() {
    let (mut w, other) = two();
    let cx = &mut w.thread.cx();
    let bytes: Vec<u8> = (0..2 * LEN + 100).map(|n| (n % 251) as u8).collect();
    w.mm.write_bytes(cx, at(0) + 300, &bytes).unwrap();
    w.mm.copy_to(cx, at(0) + 300, (&other, at(0) + 4000), bytes.len())
        .unwrap();
    let mut copy = vec![0; bytes.len()];
    other.read_bytes(cx, at(0) + 4000, &mut copy).unwrap();
    assert_eq!(copy, bytes);
    other.exit(cx);
}

#[test]
fn a_copy_writes_to_its_own_side_alone() {
    let (mut w, other) = two();
    w.fill(0, 4);
    let cx = &mut w.thread.cx();
    w.mm.copy_to(cx, at(0), (&other, at(0)), 4 * LEN).unwrap();
    let child = other.fork(cx).unwrap();
    w.mm.store(cx, at(1), 9).unwrap();
    w.mm.copy_to(cx, at(1), (&other, at(1)), LEN).unwrap();
    assert_eq!(
        (other.load(cx, at(1)), child.load(cx, at(1))),
        (Ok(9), Ok(1))
    );
    child.exit(cx);
    other.exit(cx);
}

#[test]
fn the_error_says_which_side() {
    let (mut w, other) = two();
    w.map(8, 1, Prot::empty());
    let cx = &mut w.thread.cx();
    let e = w.mm.copy_to(cx, at(8), (&other, at(0)), 1).unwrap_err();
    assert_eq!(e, CopyError::From(FaultError::Denied(at(8))));
    let e =
        w.mm.copy_to(cx, at(0), (&other, at(3)), 2 * LEN)
            .unwrap_err();
    assert_eq!(
        (e, e.errno()),
        (CopyError::To(FaultError::NotMapped(at(4))), Errno::EFAULT)
    );
    other.exit(cx);
}

#[test]
fn one_address_space_twice_is_refused() {
    let (mut w, other) = two();
    let cx = &mut w.thread.cx();
    assert_eq!(w.mm.read_with(&w.mm, cx).err(), Some(SameMm));
    let e = w.mm.copy_to(cx, at(0), (&w.mm, at(1)), 1).unwrap_err();
    assert_eq!((e, e.errno()), (CopyError::SameMm(SameMm), Errno::EINVAL));
    other.exit(cx);
}

/// Both directions at once, with writers waiting for both locks: a reader between two of them would wait for ever if the
/// order were that of the arguments.
#[test]
fn opposite_copies_do_not_wait_for_each_other() {
    const ROUNDS: usize = 300;
    let (mut w, other) = two();
    std::thread::scope(|s| {
        let (machine, mm, other) = (&w.machine, &w.mm, &other);
        for (from, to) in [(mm, other), (other, mm)] {
            s.spawn(move || {
                let mut thread = machine.enter().unwrap();
                for _ in 0..ROUNDS {
                    let cx = &mut thread.cx();
                    from.copy_to(cx, at(0), (to, at(2)), LEN).unwrap();
                }
            });
            s.spawn(move || {
                let mut thread = machine.enter().unwrap();
                for _ in 0..ROUNDS {
                    let args = MmapArgs::anonymous(PAGE).fixed(at(3));
                    let args = args.with(MapFlags::NORESERVE);
                    from.mmap(&mut thread.cx(), &args).unwrap();
                }
            });
        }
    });
    other.exit(&mut w.thread.cx());
}

//! Leases of guest memory: their counts, their holders, and the ends that they can have.

use crate::{
    common::{PAGE, World, at, calls::ToErrno},
    iommu::{Host, IOVA, PAGES, host_of, iova, kept_slice, slice, with},
};
use emmu::{
    Mm,
    extmmu::iommu::{IommuConfig, OnWindow, ProcessIommu, SliceUse},
    mm::Advice,
    notifier::Event,
};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, mpsc::channel},
    thread::{self, yield_now},
};
use vm_memory::{
    Bytes, GuestAddress, GuestMemory, GuestMemoryBackend, Permissions, bitmap::Bitmap,
};

/// Drops page `n` on this thread.
fn drop_page(h: &mut Host, n: u64) {
    h.w.advise(n, 1, Advice::DontNeed).unwrap();
}

/// The same on a thread that has no token yet.
fn drop_elsewhere(mm: &Mm, n: u64) {
    let done = mm
        .machine()
        .with_current(|cx| mm.madvise(cx, at(n), PAGE, Advice::DontNeed).sys());
    done.unwrap().unwrap();
}

#[test]
fn more_pages_are_leased_than_devices_have_places_for() {
    const MANY: u64 = 3000;
    let config = IommuConfig {
        on_window: OnWindow::Revoke,
        mistake: None,
    };
    let mut h = host_of(config, MANY);
    let Host {
        w, memory, iommu, ..
    } = &mut h;
    for round in 1..=2 {
        let len = (MANY * PAGE) as usize;
        let all = w.thread.cx().lend(|| {
            let slices = memory.get_slices(iova(0), len, Permissions::Read);
            slices.unwrap().collect::<Result<Vec<_>, _>>().unwrap()
        });
        assert_eq!(iommu.leases(), MANY as usize, "each page once");
        // Those of pages that have no place of their own are shared as well.
        let again = w.thread.cx().lend(|| {
            let slices = memory.get_slices(iova(0), len, Permissions::Read);
            slices.unwrap().collect::<Result<Vec<_>, _>>().unwrap()
        });
        assert_eq!(iommu.leases(), 2 * MANY as usize);
        drop(all);
        assert_eq!(iommu.leases(), MANY as usize);
        if round == 2 {
            // A window over all of them, and slices that go after it.
            w.advise(0, MANY, Advice::DontNeed).unwrap();
            assert_eq!(iommu.leases(), MANY as usize);
        }
        drop(again);
        assert_eq!(iommu.leases(), 0);
    }
    h.end();
}

#[test]
fn one_page_has_thousands_of_leases_and_is_revoked_hundreds_of_times() {
    let mut h = with(OnWindow::Revoke);
    h.w.put(1, 5);
    let Host {
        w, memory, iommu, ..
    } = &mut h;
    let many = |w: &mut World, memory| {
        let one = |_| kept_slice(w, memory, iova(0), Permissions::Read);
        (0..5000).map(one).collect::<Vec<_>>()
    };
    let first = many(w, memory);
    assert_eq!(iommu.leases(), 5000);
    let mut revoked = vec![];
    for n in 0..300 {
        w.advise(0, 1, Advice::DontNeed).unwrap();
        revoked.push(kept_slice(w, memory, iova(0), Permissions::Read));
        assert_eq!(iommu.leases(), 5001 + n);
    }
    assert_eq!(iommu.stale_use(), None);
    // The last one is good.
    assert_eq!(revoked.pop().unwrap().read_obj::<u8>(0).unwrap(), 0);
    assert_eq!(iommu.stale_use(), None);
    assert_eq!(revoked[0].read_obj::<u8>(0).unwrap(), 0);
    assert!(iommu.stale_use().is_some());
    drop((first, revoked));
    h.end();
}

/// It would wait for itself.
#[test]
fn a_window_of_the_thread_that_has_the_slice_revokes_it() {
    for on_window in [OnWindow::Wait, OnWindow::Revoke] {
        let mut h = with(on_window);
        h.w.put(0, 5);
        let Host {
            w, memory, iommu, ..
        } = &mut h;
        let slice = kept_slice(w, memory, iova(0), Permissions::Write);
        let beside = kept_slice(w, memory, iova(1), Permissions::Write);
        w.munmap(0, 1).unwrap();
        assert_eq!(slice.read_obj::<u8>(1).unwrap(), 0);
        assert_eq!(
            iommu.stale_use().unwrap().used,
            SliceUse::Part { iova: IOVA + 1 }
        );
        drop(slice);
        // The one of another page is awaited as before.
        let mm = &w.mm;
        thread::scope(|s| {
            let window = s.spawn(|| drop_elsewhere(mm, 1));
            if on_window == OnWindow::Wait {
                while mm.windows_open() == 0 {
                    yield_now();
                }
                beside.write_obj(9_u8, 0).unwrap();
                assert_eq!(beside.read_obj::<u8>(0).unwrap(), 9);
                drop(beside);
            } else {
                window.join().unwrap();
            }
        });
        assert_eq!(h.w.get(1), Ok(0));
        h.end();
    }
}

/// The iterator is waited for, and the slice that is left of it is not.
#[test]
fn a_window_waits_for_iterators_and_revokes_the_slices_that_outlive_them() {
    let mut h = with(OnWindow::Revoke);
    h.w.put(0, 5);
    let Host {
        w, memory, iommu, ..
    } = &mut h;
    let mm = &w.mm;
    let mut slices = w
        .thread
        .cx()
        .lend(|| memory.get_slices(iova(0), 16, Permissions::Write))
        .unwrap();
    let slice = slices.next().unwrap().unwrap();
    thread::scope(|s| {
        let window = s.spawn(|| drop_elsewhere(mm, 0));
        while mm.windows_open() == 0 {
            yield_now();
        }
        slice.write_obj(9_u8, 0).unwrap();
        assert_eq!(iommu.stale_use(), None, "the window waits");
        drop(slices);
        window.join().unwrap();
    });
    assert_eq!(slice.read_obj::<u8>(0).unwrap(), 9);
    let window = iommu.stale_use().unwrap().window;
    assert_eq!(window, Some((World::pages(0, 1), Event::Clear)));
    drop(slice);
    assert_eq!(h.w.get(0), Ok(0));
    h.end();
}

#[test]
fn a_revoked_frame_is_kept_until_the_last_copy_of_its_slice_is_dropped() {
    let mut h = with(OnWindow::Revoke);
    h.w.put(0, 5);
    let Host {
        w, memory, iommu, ..
    } = &mut h;
    let slice = kept_slice(w, memory, iova(0), Permissions::Write);
    let (copy, half) = (slice.clone(), slice.subslice(8, 8).unwrap());
    assert_eq!(iommu.leases(), 1, "copies share their lease");
    w.munmap(0, 1).unwrap();
    for (n, last) in [slice, copy, half].into_iter().enumerate() {
        assert_eq!((w.machine.mem().in_use(), iommu.leases()), (1, 1), "{n}");
        assert_eq!(last.len(), [16, 16, 8][n]);
        drop(last);
    }
    assert_eq!(w.machine.mem().in_use(), 0);
    h.end();
}

#[test]
fn a_panic_ends_the_leases_of_its_slices() {
    for on_window in [OnWindow::Wait, OnWindow::Strict] {
        let mut h = with(on_window);
        h.w.put(0, 5);
        let panics = |h: &mut Host| {
            h.lend(|m| {
                let across = GuestAddress(iova(1).0 - 8);
                let mut slices = m.get_slices(across, 16, Permissions::Write).unwrap();
                let slice = slices.next().unwrap().unwrap();
                slice.write_obj(7_u8, 0).unwrap();
                assert_eq!(m.iommu().leases(), 2);
                panic!("in between");
            })
        };
        catch_unwind(AssertUnwindSafe(|| panics(&mut h))).unwrap_err();
        assert_eq!(h.iommu.leases(), 0);
        drop_page(&mut h, 0);
        h.end();
    }
}

/// One page of four is not there.
#[test]
fn a_request_that_fails_gives_all_its_leases_back() {
    let mut h = with(OnWindow::Wait);
    h.w.fill(0, PAGES);
    h.w.munmap(2, 1).unwrap();
    let Host {
        w, memory, iommu, ..
    } = &mut h;
    let kept = kept_slice(w, memory, iova(0), Permissions::Write);
    let asked = w.thread.cx().lend(|| {
        let slices = memory.get_slices(iova(0), 4 * PAGE as usize, Permissions::Read);
        slices.map(|_| ()).unwrap_err().to_string()
    });
    assert!(asked.contains("Cannot translate"), "{asked}");
    assert_eq!(iommu.leases(), 1);
    drop(kept);
    h.end();
}

/// Nothing can use them any more; the page is kept all the same.
#[test]
fn slices_that_a_thread_forgot_stay_leases() {
    let mut h = with(OnWindow::Revoke);
    h.w.put(0, 5);
    h.lend(|m| {
        thread::scope(|s| {
            s.spawn(|| std::mem::forget(slice(m, iova(0), Permissions::Write)));
        });
    });
    assert_eq!(h.iommu.leases(), 1);
    drop_page(&mut h, 0);
    assert_eq!(h.w.machine.mem().in_use(), 1, "the page of the slice");
    // The page that came after is another one.
    assert_eq!(h.lend(|m| m.read_obj::<u8>(iova(0)).unwrap()), 0);
    assert_eq!((h.iommu.leases(), h.iommu.stale_use()), (1, None));
}

/// The bitmap and the memory lead to leases of the thread that asks.
#[test]
fn other_threads_and_other_iommus_find_no_lease() {
    let mut h = with(OnWindow::Wait);
    h.w.put(0, 5);
    let mm = Arc::clone(&h.w.mm);
    let config = IommuConfig::default();
    let (other, _stays) = ProcessIommu::attach(&mut h.w.thread.cx(), &mm, &[], config);
    let elsewhere = other.memory().get_backend().clone();
    h.lend(|m| {
        let held = slice(m, iova(0), Permissions::Write);
        let (says, hears) = channel();
        let found = |hears: &std::sync::mpsc::Receiver<()>| {
            let beside = m.bitmap().slice_at(IOVA as usize);
            hears.recv().unwrap();
            drop(beside);
        };
        thread::scope(|s| {
            let beside = s.spawn(move || found(&hears));
            drop(held);
            assert_eq!(m.iommu().leases(), 0, "the other thread has none of it");
            says.send(()).unwrap();
            beside.join().unwrap();
        });
        let held = slice(m, iova(0), Permissions::Write);
        let own = m.bitmap().slice_at(IOVA as usize);
        drop(held);
        assert_eq!(m.iommu().leases(), 1, "this thread has");
        drop(own);
        let mixed = m.with_replaced_backend(elsewhere);
        assert!(mixed.read_obj::<u8>(iova(0)).is_err(), "of another IOMMU");
        assert!(m.get_backend().get_slice(GuestAddress(0), 1).is_err());
    });
    h.end();
}

//! Dirty bits of domains: the writes of devices, reported.

use super::*;

#[test]
fn dirty_bits_are_those_of_the_writes() {
    let (w, ioas, domain) = mapped(None);
    let all = (IOVA, 16 * PAGE);
    let read = |size, read| ioas.dirty_bitmap(&domain, all, size, read);
    let off = read(PAGE, DirtyRead::Keep).unwrap_err();
    assert_eq!((off, off.errno()), (IoasError::NotTracked, Errno::EINVAL));
    domain.write(IOVA, &[1]).unwrap();
    domain.track_dirty(true).unwrap();
    assert!(read(PAGE, DirtyRead::Clear).unwrap().is_clean());
    for round in 0..3 {
        domain.write(IOVA + 2 * PAGE - 1, &[1, 2]).unwrap();
        dma(&domain, 7).unwrap();
        domain.write(IOVA + (9 + round) * PAGE, &[1]).unwrap();
        let pages = [1, 2, 9 + round].map(|page| IOVA + page * PAGE);
        let kept = read(PAGE, DirtyRead::Keep).unwrap();
        assert_eq!(kept.iter().collect::<Vec<_>>(), pages);
        let of_four = read(4 * PAGE, DirtyRead::Keep).unwrap();
        assert_eq!(of_four.bits(), [true, false, true, false]);
        assert_eq!(read(PAGE, DirtyRead::Clear), Ok(kept));
        assert!(read(PAGE, DirtyRead::Clear).unwrap().is_clean());
    }
    for (range, size) in [
        ((IOVA, PAGE), 3 * PAGE),
        ((IOVA + 1, PAGE), PAGE),
        ((IOVA, PAGE), 512),
    ] {
        let bad = ioas.dirty_bitmap(&domain, range, size, DirtyRead::Keep);
        assert_eq!(bad.unwrap_err().errno(), Errno::EINVAL);
    }
    let hole = ioas.dirty_bitmap(&domain, (IOVA, 17 * PAGE), PAGE, DirtyRead::Keep);
    assert_eq!(hole.unwrap_err().errno(), Errno::EINVAL);
    end(w, &ioas);
}

/// One bit speaks for all of a leaf, also for the rest of one
/// that was read in part.
#[test]
fn a_huge_leaf_has_one_dirty_bit() {
    let mut w = World::new();
    w.map(0, 2 * HUGE, RW);
    w.advise(0, 2 * HUGE, Advice::HugePage).unwrap();
    w.fill(0, 1);
    w.fill(HUGE, 1);
    let (ioas, domain) = with_domain(&mut w, None);
    ioas.map(&mut w.thread.cx(), &w.mm, pages(0, 2 * HUGE, Access::Write))
        .unwrap();
    domain.track_dirty(true).unwrap();
    domain.write(IOVA + 3 * PAGE, &[1]).unwrap();
    let half = (IOVA, HUGE / 2 * PAGE);
    let read = |range, read| {
        let dirty = ioas.dirty_bitmap(&domain, range, PAGE, read).unwrap();
        dirty.iter().count() as u64
    };
    assert_eq!(read(half, DirtyRead::Clear), HUGE / 2);
    let all = (IOVA, 2 * HUGE * PAGE);
    assert_eq!(read(all, DirtyRead::Clear), HUGE);
    assert_eq!(read(all, DirtyRead::Clear), 0);
    end(w, &ioas);
}

/// What is mapped for no domain may be larger than any memory.
#[test]
fn a_report_is_of_a_domain_that_is_attached() {
    let (mut w, ioas, domain) = mapped(None);
    domain.track_dirty(true).unwrap();
    let other = Ioas::new(IoasConfig::default());
    let mut map = pages(0, 1 << 48, Access::Write);
    map.addr = 0;
    other.map(&mut w.thread.cx(), &w.mm, map).unwrap();
    let read = |ioas: &Ioas, len| ioas.dirty_bitmap(&domain, (IOVA, len), PAGE, DirtyRead::Keep);
    assert_eq!(read(&other, map.len), Err(IoasError::NotTracked));
    assert!(read(&ioas, PAGE).unwrap().is_clean());
    ioas.detach(&domain);
    assert_eq!(read(&ioas, PAGE), Err(IoasError::NotTracked));
    other.unmap_all().unwrap();
    end(w, &ioas);
}

/// The pages of the second report that a device wrote after the first.
fn reported_twice(mistake: Option<PinMistake>) -> bool {
    let (w, ioas, domain) = mapped(mistake);
    domain.track_dirty(true).unwrap();
    let all = (IOVA, 16 * PAGE);
    let mut dirty = false;
    for _ in 0..2 {
        domain.write(IOVA, &[1]).unwrap();
        let bits = ioas.dirty_bitmap(&domain, all, 4 * PAGE, DirtyRead::Clear);
        dirty = !bits.unwrap().is_clean();
    }
    end(w, &ioas);
    dirty
}

#[test]
fn each_write_after_a_report_is_in_the_next() {
    assert!(reported_twice(None));
    assert!(!reported_twice(Some(PinMistake::DirtyNotFlushed)));
    assert!(!reported_twice(Some(PinMistake::DirtyRoundsInward)));
}

//! The cases of the fixture `iommufd_dirty_tracking`.

use super::*;
use emmu::extmmu::pinned::DirtyRead;

#[test]
fn set_dirty_tracking() {
    let f = Fixture::new(1);
    for enable in [true, false, true, true, false] {
        assert_eq!(f.domains[0].track_dirty(enable), Ok(()));
    }
    f.end();
}

#[test]
fn device_dirty_capability() {
    for (dirty, outcome) in [(true, Ok(())), (false, Err(Errno::EOPNOTSUPP))] {
        let mut f = Fixture::new(NO_DOMAIN);
        let config = DomainConfig {
            dirty,
            ..DomainConfig::default()
        };
        let domain = f.ioas.attach(&mut f.w.thread.cx(), config).unwrap();
        let tracked = domain.track_dirty(true).map_err(|why| why.errno());
        assert_eq!(tracked, outcome);
        f.end();
    }
}

/// The device writes to every second leaf of some memory; the bitmap has these, and the next one
/// nothing, unless the first left the bits.
fn check_bitmap(pages: u64, leaf: u64, read: DirtyRead) {
    const FROM: u64 = HUGE;
    let mut f = Fixture::new(1);
    f.buffer(FROM, pages, leaf > 1);
    let len = pages * PAGE;
    assert_eq!(f.map(Some(START), at(FROM), len), Ok(START));
    let domain = Arc::clone(&f.domains[0]);
    domain.track_dirty(true).unwrap();
    for round in 0..2 {
        for first in (0..pages).step_by(2 * leaf as usize) {
            // Any byte of a leaf will do.
            let page = first + (leaf - 1) * round;
            domain.write(START + page * PAGE + 77, &[1]).unwrap();
        }
        let bits = |read| {
            let bitmap = f.ioas.dirty_bitmap(&domain, (START, len), PAGE, read);
            bitmap.unwrap().bits().to_vec()
        };
        let written: Vec<bool> = (0..pages).map(|n| n % (2 * leaf) < leaf).collect();
        assert_eq!(bits(read), written);
        let left = match read {
            DirtyRead::Clear => vec![false; pages as usize],
            DirtyRead::Keep => written,
        };
        assert_eq!(bits(read), left);
    }
    f.end();
}

/// The sizes of the variants `domain_dirty8k` to `domain_dirty640k`, one more, and those with huge
/// pages.
fn each_size(read: DirtyRead) {
    for kib in [8, 16, 64, 128, 256, 640, 2048] {
        check_bitmap(kib / 4, 1, read);
    }
    for huge in [1, 2, 3] {
        check_bitmap(huge * HUGE, HUGE, read);
    }
}

#[test]
fn get_dirty_bitmap() {
    each_size(DirtyRead::Clear);
}

#[test]
fn get_dirty_bitmap_no_clear() {
    each_size(DirtyRead::Keep);
}

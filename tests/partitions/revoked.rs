//! A segment ends with each of those that it was made of, however it was made.
#![cfg(target_os = "linux")]

use crate::exporter::{BASE, LONG, PAGE, PAGES, wait_until, with};
use emmu::{
    extmmu::xpmem::{Manners, Partition, PartitionId, XpmemError, remote::RemoteConfig},
    notifier::Access,
};
use std::{thread, time::Duration};

#[test]
fn a_segment_made_of_one_that_was_removed_gives_a_process_nothing() {
    with(LONG, |cx, w| {
        let (p, _served) = w.near(1, RemoteConfig::default());
        let whole = p.attach(w.segment, 0, PAGES).unwrap();
        let mine = whole.make(0, PAGES, Access::Write).unwrap();
        let again = p.attach(mine, 0, PAGES).unwrap();
        again.write(0, &[1]).unwrap();
        w.owner.remove(cx, w.segment).unwrap();
        assert_eq!((w.owner.exported(cx), w.owner.lent()), (0, 0));
        w.mm.store(cx, BASE, 77).unwrap();
        assert!(whole.read(0, &mut [0]).is_err());
        assert!(again.read(0, &mut [0]).is_err());
        assert!(again.write(PAGE, &[66]).is_err());
        assert_eq!(w.mm.load(cx, BASE + PAGE), Ok(0));
        let (q, _served) = w.near(2, RemoteConfig::default());
        assert!(q.attach(mine, 0, PAGES).is_err());
        assert!(whole.make(0, 1, Access::Read).is_err());
        assert!(again.make(0, 1, Access::Read).is_err());
    });
}

#[test]
fn a_segment_made_of_one_that_was_removed_gives_a_thread_nothing() {
    with(LONG, |cx, w| {
        let p = Partition::new(PartitionId(1));
        let a = w.owner.import(&p, w.segment, 0, PAGES).unwrap();
        let made = a.make(0, 4, Access::Write).unwrap();
        let b = w.owner.import(&p, made, 0, 4).unwrap();
        let last = b.make(0, 4, Access::Write).unwrap();
        let c = w.owner.import(&p, last, 0, 4).unwrap();
        w.owner.remove(cx, w.segment).unwrap();
        for (attached, gone) in [(a, w.segment), (b, made), (c, last)] {
            let no = Err(XpmemError::NoSegment(gone));
            assert_eq!(attached.write(cx, 0, &[5]), no);
            assert_eq!(attached.make(0, 1, Access::Read).map(drop), no);
        }
        assert_eq!(w.mm.load(cx, BASE), Ok(0));
    });
}

#[test]
fn what_is_made_of_what_ended_with_its_maker_ends_too() {
    with(LONG, |cx, w| {
        let (p, _served) = w.near(1, RemoteConfig::default());
        let (q, _served) = w.near(2, RemoteConfig::default());
        let a = p.attach(w.segment, 0, PAGES).unwrap();
        let b = a.make(0, 8, Access::Write).unwrap();
        let attached = q.attach(b, 0, 8).unwrap();
        let c = attached.make(0, 8, Access::Write).unwrap();
        let kept = q.attach(c, 0, 8).unwrap();
        kept.write(0, &[1]).unwrap();
        a.detach().unwrap();
        w.mm.store(cx, BASE, 55).unwrap();
        assert!(attached.read(0, &mut [0]).is_err());
        assert!(kept.read(0, &mut [0]).is_err());
        assert_eq!(w.owner.lent(), 0);
    });
}

#[test]
fn what_was_made_of_an_attachment_ends_when_it_is_dropped() {
    with(LONG, |cx, w| {
        let p = Partition::new(PartitionId(1));
        let a = w.owner.import(&p, w.segment, 0, PAGES).unwrap();
        let made = a.make(0, 4, Access::Write).unwrap();
        let b = w.owner.import(&p, made, 0, 4).unwrap();
        drop(a);
        assert_eq!(b.write(cx, 0, &[5]), Err(XpmemError::NoSegment(made)));
    });
}

/// The recall of the first page takes long; none of the others waits for that.
#[test]
fn all_that_was_made_of_an_attachment_ends_at_once_when_it_is_detached() {
    with(LONG, |cx, w| {
        let p = Partition::new(PartitionId(1));
        let a = w.owner.import(&p, w.segment, 0, PAGES).unwrap();
        let made: Vec<_> = (0..8)
            .map(|n| a.make(n, 1, Access::Read).unwrap())
            .collect();
        a.read(cx, 0, &mut [0]).unwrap();
        p.set_manners(Manners::Slow(Duration::from_millis(200)));
        let there = |n: usize| w.owner.import(&p, made[n], 0, 1).is_ok();
        thread::scope(|s| {
            let detaching = s.spawn(|| {
                let mut thread = w.machine.enter().unwrap();
                a.detach(&mut thread.cx());
            });
            wait_until(|| !there(0));
            // Somebody removes one of them meanwhile.
            let removed = w.owner.remove(cx, made[1]);
            detaching.join().unwrap();
            assert_eq!(removed, Err(XpmemError::NoSegment(made[1])));
        });
        assert!(!(0..8).any(there));
    });
}

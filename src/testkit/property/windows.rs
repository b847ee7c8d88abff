//! The effect of windows of every shape on translations.

use crate::{
    addr::{PAGE_SIZE, TASK_PAGES, Vpn, VpnRange},
    ctx::CallCx,
    mm::MmapArgs,
    notifier::Event,
    testkit::{
        Kit,
        device::Holds,
        patience,
        timed_thread::TimedThread,
        trial::{PAGES, Run, Trial, at, pages},
        verdict::Seen,
    },
};
use std::{
    sync::{
        Arc,
        mpsc::{Sender, channel},
    },
    time::Duration,
};

/// The time for an access that should be held off to prove otherwise, once it has begun: by the
/// clock, and as much work ([`patience`]).
const A_WHILE: Duration = Duration::from_millis(20);

pub(super) fn auditable(t: &Arc<Trial>, cx: &mut CallCx<'_>, _: &Kit) -> Run {
    t.fill(cx, 0, PAGES);
    for page in 0..PAGES {
        t.agree(cx, page);
        let wanted = match t.device.declares().holds {
            Holds::Table => 0..=page,
            _ => page..=page,
        };
        for page in wanted {
            let vpn = Vpn::containing(at(page));
            let mut shown = false;
            t.mmu
                .translations(&mut |tr| shown |= tr.range().contains(vpn));
            if !shown {
                t.see(Seen::Hidden(at(page)));
                return Ok(());
            }
        }
    }
    Ok(())
}

pub(super) fn pairing(t: &Arc<Trial>, cx: &mut CallCx<'_>, _: &Kit) -> Run {
    t.fill(cx, 0, PAGES);
    // Ranges with translations, without any, and with both.
    for (from, to) in [(0, 1), (8, 9), (0, 9), (3, 3 + 1)] {
        t.agree(cx, 0);
        t.drop_pages(cx, from, to);
        t.agree(cx, from);
    }
    // A later driver refuses the window after the device agreed: the device receives the end.
    t.last.refuse(true);
    for _ in 0..3 {
        t.agree(cx, 1);
        let refused = t.act(cx, "a window over pages 0..4, refused", |mm, cx| {
            let mut g = mm.lock_shared(cx);
            let mut lease = g.lease();
            lease.try_window(pages(0, 4), Event::Clear).is_err()
        });
        assert!(refused, "the neighbour refuses");
        t.agree(cx, 1);
        t.agree(cx, 3);
    }
    t.last.refuse(false);
    // Empty windows: twice, nested, and one for each event.
    for event in [
        Event::Unmap,
        Event::Clear,
        Event::ProtectionVma,
        Event::ProtectionPage,
        Event::SoftDirty,
        Event::Migrate,
        Event::Exclusive,
    ] {
        t.agree(cx, 2);
        t.act(
            cx,
            format!("an empty window over page 2 ({event:?})"),
            |mm, cx| {
                mm.lock_shared(cx)
                    .lease()
                    .with_window(pages(2, 3), event, |_| ());
            },
        );
        t.agree(cx, 2);
        t.deliver(cx, 2, 99);
    }
    Ok(())
}

pub(super) fn drops_range(t: &Arc<Trial>, cx: &mut CallCx<'_>, _: &Kit) -> Run {
    // Slow neighbours leave time to find a frame that is freed too early.
    t.first.delay(Duration::from_micros(50));
    t.last.delay(Duration::from_micros(50));
    for (from, to) in [
        (0, 1),
        (0, 4),
        (3, 9),
        (5, 6),
        (0, PAGES),
        (PAGES - 1, PAGES),
    ] {
        t.fill(cx, 0, PAGES);
        (0..PAGES).for_each(|page| t.agree(cx, page));
        t.deliver(cx, from, 77);
        t.drop_pages(cx, from, to);
        t.audit();
        (0..PAGES).for_each(|page| t.agree(cx, page));
    }
    // A page is used, dropped, and given to others at once.
    for byte in 1..8 {
        t.put(cx, 4, byte);
        t.agree(cx, 4);
        t.drop_pages(cx, 4, 5);
        t.put(cx, 4, byte + 100);
        t.agree(cx, 4);
    }
    // Many pages, in several tables.
    let far =
        VpnRange::new(Vpn::containing(at(500)), Vpn::containing(at(1100))).expect("not empty");
    t.act(cx, "mmap 500..1100", |mm, cx| {
        let args = MmapArgs::anonymous(far.pages() * PAGE_SIZE).fixed(far.start().addr());
        mm.mmap(cx, &args).expect("room");
    });
    t.fill(cx, 500, 1100);
    (500..1100).step_by(7).for_each(|page| t.agree(cx, page));
    t.drop_pages(cx, 512, 1024);
    (500..1100).step_by(7).for_each(|page| t.agree(cx, page));
    t.act(cx, "munmap 500..1100", |mm, cx| {
        mm.munmap(cx, at(500), far.pages() * PAGE_SIZE)
            .expect("mapped");
    });
    t.refused("a read of an unmapped page", t.read(cx, at(600)));
    Ok(())
}

/// A window that another thread holds open.
pub(super) struct Held {
    close: Sender<()>,
    thread: TimedThread<()>,
}

/// Opens a window over pages `[from, to)` on another thread, in which their entries are cleared
/// when `clear` says so.
pub(super) fn hold(
    t: &Arc<Trial>,
    from: u64,
    to: u64,
) -> Result<Held, crate::testkit::trial::Abort> {
    let (open, opened) = channel();
    let (close, closed) = channel();
    t.process(format!("a window over pages {from}..{to} opens"));
    let thread = t.timed_thread("a window over a few pages", move |t, cx| {
        let mut g = t.mm.lock_shared(cx);
        let mut lease = g.lease();
        let mut window = lease.window(pages(from, to), Event::Clear);
        let _told = open.send(());
        let _until = closed.recv();
        window.for_each_leaf(|txn| txn.for_each(|slot| drop(slot.clear())));
        window.close();
    });
    let deadline = t.deadline;
    if patience::receive(&opened, deadline).is_err() {
        thread.join()?;
        return Err(crate::testkit::trial::Abort);
    }
    Ok(Held { close, thread })
}

impl Held {
    pub(super) fn close(self, t: &Trial) -> Run {
        t.process("the window clears the entries and ends");
        let _told = self.close.send(());
        self.thread.join()?;
        t.listen();
        Ok(())
    }
}

/// A read of a page on another thread, which begins now.
fn reader(t: &Arc<Trial>, page: u64) -> TimedThread<Result<u8, crate::testkit::Refused>> {
    let (begin, begun) = channel();
    let read = t.timed_thread(format!("a read of page {page}"), move |t, cx| {
        let _told = begin.send(());
        t.device_reads(cx, at(page))
    });
    let _begun = begun.recv();
    read
}

/// The read is not done while the window is open.
fn waits(t: &Trial, reader: &TimedThread<Result<u8, crate::testkit::Refused>>, page: u64) -> Run {
    if let Some(came) = reader.within(A_WHILE)? {
        let came = came.map_or_else(|e| e.to_string(), |b| b.to_string());
        let what = format!("a read of page {page}: {came}");
        t.log.step(
            crate::testkit::Side::Device,
            format!("reads page {page}: {came}"),
        );
        t.see(Seen::NotHeldOff(what));
        return Err(crate::testkit::trial::Abort);
    }
    Ok(())
}

pub(super) fn holds_off(t: &Arc<Trial>, cx: &mut CallCx<'_>, _: &Kit) -> Run {
    t.fill(cx, 0, PAGES);
    // Of pages that were translated before, and of one that was not.
    (0..3).for_each(|page| t.agree(cx, page));
    for (from, to, page) in [(0, 4, 1), (0, 4, 3), (12, 14, 13)] {
        let window = hold(t, from, to)?;
        let reader = reader(t, page);
        let waited = waits(t, &reader, page);
        // Reads of other pages do not wait for this window; a device that holds off all accesses
        // during any window waits for its end.
        let other = t.timed_thread("a read of a page outside", move |t, cx| {
            t.device_reads(cx, at(9))
        });
        let came = other.within(A_WHILE);
        window.close(t)?;
        waited?;
        if let Ok(None) = came {
            other.join()?.ok();
        }
        let got = reader.join()?;
        t.compare(cx, at(page), got);
        t.audit();
        t.fill(cx, from, to);
        t.agree(cx, page);
    }
    // Between the device's answer and the change of the entries the old page can still be looked
    // up.
    for page in [0, 2] {
        t.fill(cx, 0, 4);
        t.agree(cx, page);
        let (told, done) = channel();
        let trial = Arc::clone(t);
        t.last.at_next_start(move |_| {
            let reader = reader(&trial, page);
            let waited = waits(&trial, &reader, page);
            let _told = told.send((waited, reader));
        });
        t.drop_pages(cx, 0, 4);
        let (waited, reader) = done.recv().expect("a window was opened");
        waited?;
        let got = reader.join()?;
        t.compare(cx, at(page), got);
        t.audit();
    }
    Ok(())
}

pub(super) fn overlap(t: &Arc<Trial>, cx: &mut CallCx<'_>, _: &Kit) -> Run {
    for (a, b, page) in [
        ((0, 8), (4, 12), 5),
        ((0, 12), (4, 8), 5),
        ((4, 8), (0, 12), 6),
        ((2, 6), (2, 6), 3),
    ] {
        t.fill(cx, 0, PAGES);
        (0..PAGES).for_each(|page| t.agree(cx, page));
        let outer = hold(t, a.0, a.1)?;
        let inner = hold(t, b.0, b.1)?;
        let reader = reader(t, page);
        let before = waits(t, &reader, page);
        outer.close(t)?;
        let between = before.and_then(|()| waits(t, &reader, page));
        inner.close(t)?;
        between?;
        let got = reader.join()?;
        t.compare(cx, at(page), got);
        (0..PAGES).for_each(|page| t.agree(cx, page));
        t.audit();
    }
    // A window inside of a window on one thread: a fault next to an open window.
    t.fill(cx, 0, PAGES);
    for _ in 0..4 {
        let windows: Vec<_> = [(0, 4), (1, 3), (2, 9)]
            .into_iter()
            .map(|(from, to)| hold(t, from, to))
            .collect::<Result<_, _>>()?;
        windows.into_iter().try_for_each(|w| w.close(t))?;
        (0..PAGES).for_each(|page| t.agree(cx, page));
    }
    Ok(())
}

pub(super) fn reach(t: &Arc<Trial>, cx: &mut CallCx<'_>, _: &Kit) -> Run {
    let all = |mm: &crate::mm::Mm, cx: &mut CallCx<'_>, range: VpnRange| {
        let mut g = mm.lock_shared(cx);
        let mut lease = g.lease();
        let mut window = lease.window(range, Event::Clear);
        window.for_each_leaf(|txn| txn.for_each(|slot| drop(slot.clear())));
        window.close();
    };
    let ranges = [
        pages(0, 1 << 18),
        pages(3, 4),
        VpnRange::new(Vpn(0), Vpn::containing(at(2))).expect("not empty"),
        VpnRange::new(Vpn::containing(at(2)), Vpn(TASK_PAGES)).expect("not empty"),
        VpnRange::TASK,
        pages(5000, 5001),
        VpnRange::new(Vpn(1 << 20), Vpn((1 << 20) + 1024)).expect("not empty"),
    ];
    for range in ranges {
        t.fill(cx, 0, PAGES);
        (0..PAGES).for_each(|page| t.agree(cx, page));
        t.act(
            cx,
            format!("a window over {range}, all entries cleared"),
            |mm, cx| {
                all(mm, cx, range);
            },
        );
        t.audit();
        (0..PAGES).for_each(|page| t.agree(cx, page));
    }
    // Byte ranges inside of pages become windows of whole pages.
    t.fill(cx, 0, PAGES);
    (0..PAGES).for_each(|page| t.agree(cx, page));
    t.act(cx, "munmap 100 bytes of page 7", |mm, cx| {
        mm.munmap(cx, at(7), 100).expect("mapped");
    });
    t.refused("a read of an unmapped page", t.read(cx, at(7)));
    (0..7).for_each(|page| t.agree(cx, page));
    Ok(())
}

pub(super) fn atomic_windows(t: &Arc<Trial>, cx: &mut CallCx<'_>, _: &Kit) -> Run {
    let sleeps = t.device.declares().sleeps;
    for round in 0..4 {
        t.fill(cx, 0, PAGES);
        (0..PAGES).for_each(|page| t.agree(cx, page));
        let opened = t.act(cx, "a window over 2..6 that must not block", |mm, cx| {
            let mut g = mm.lock_shared(cx);
            let mut lease = g.lease();
            let window = lease.try_window(pages(2, 6), Event::Clear);
            window.is_ok_and(|mut w| {
                w.for_each_leaf(|txn| txn.for_each(|slot| drop(slot.clear())));
                true
            })
        });
        if !opened && !sleeps {
            t.see(Seen::WouldBlock);
        }
        t.audit();
        (0..PAGES).for_each(|page| t.agree(cx, page));
        t.deliver(cx, 3, 40 + round);
    }
    // Memory pressure opens such windows, from within a walk that holds locks.
    t.fill(cx, 0, PAGES);
    (0..PAGES).for_each(|page| t.agree(cx, page));
    t.elsewhere("reclaim", |t, cx| {
        t.process("another thread reclaims all it can");
        t.machine.reclaim_all(cx);
    })?;
    (0..PAGES).for_each(|page| t.agree(cx, page));
    patience::until(t.deadline, || t.mm.windows_open() == 0);
    Ok(())
}

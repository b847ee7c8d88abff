//! Look-ups, and uses of their results, that windows overtake. The kit does not wait for such
//! races: it plays each of them on purpose, between a look-up of the device and the moment at which
//! the device gets its result, and between that and its use.

use crate::{
    addr::PAGE_SIZE,
    ctx::CallCx,
    mm::{Advice, MmapArgs, MremapArgs, MremapFlags, Prot},
    notifier::Access,
    sync::{AtomicU64, Ordering},
    testkit::{
        Kit,
        timed_thread::{after_look_ups, before_uses},
        trial::{PAGES, Run, Trial, at},
        verdict::{Seen, Side},
    },
};
use std::{
    sync::{Arc, mpsc::channel},
    time::Duration,
};

/// The page of the races.
const PAGE: u64 = 3;
/// The page that moves go to.
const AWAY: u64 = 200;
/// Windows between a look-up and its use, so that a sequence of eight bits comes around.
const MANY: u64 = 256;
/// Accesses in a storm of windows, and windows in it, at least, and accesses at most.
const ACCESSES: u64 = 200;
const WINDOWS: u64 = 200;
const MOST: u64 = 20_000;

type Meanwhile = fn(&Arc<Trial>, &mut CallCx<'_>);

/// The operations that change a page, and the state that each one leaves.
const OPERATIONS: &[(&str, Meanwhile)] = &[
    ("dropped and written anew", |t, cx| {
        t.drop_pages(cx, PAGE, PAGE + 1);
        t.put(cx, PAGE, 201);
    }),
    ("dropped", |t, cx| t.drop_pages(cx, 0, PAGES)),
    ("unmapped and mapped anew", |t, cx| {
        t.act(cx, "mmap 2..5 over the mapping there", |mm, cx| {
            let args = MmapArgs::anonymous(3 * PAGE_SIZE).fixed(at(2));
            mm.mmap(cx, &args).expect("room");
        });
        t.put(cx, PAGE, 202);
    }),
    ("forked and copied", |t, cx| {
        let child = t.act(cx, "fork", |mm, cx| mm.fork(cx).expect("memory"));
        t.put(cx, PAGE, 203);
        child.exit(cx);
    }),
    ("write-protected", |t, cx| {
        t.act(cx, "mprotect 0..8 read", |mm, cx| {
            mm.mprotect(cx, at(0), 8 * PAGE_SIZE, Prot::READ)
                .expect("mapped");
        });
    }),
    ("moved away", |t, cx| {
        t.act(cx, "mremap 3 -> 200", |mm, cx| {
            let args = MremapArgs {
                addr: at(PAGE),
                old_len: PAGE_SIZE,
                new_len: PAGE_SIZE,
                flags: MremapFlags::MAYMOVE | MremapFlags::FIXED,
                new_addr: at(AWAY),
            };
            mm.mremap(cx, args).expect("room");
        });
    }),
    ("migrated", |t, cx| {
        t.act(cx, "migrate page 3", |mm, cx| {
            let _held = mm.migrate(cx, at(PAGE)).expect("memory");
        });
    }),
    ("paged out", |t, cx| {
        t.advise(cx, PAGE, PAGE + 1, Advice::PageOut);
    }),
    (
        "dropped so often that a short sequence comes around",
        |t, cx| {
            t.process(format!("{MANY} times: madvise 3..4 DontNeed"));
            for _ in 0..MANY - 1 {
                let advice = Advice::DontNeed;
                t.mm.madvise(cx, at(PAGE), PAGE_SIZE, advice)
                    .expect("mapped");
            }
            t.put(cx, PAGE, 204);
            t.drop_pages(cx, PAGE, PAGE + 1);
            t.mm.store(cx, at(PAGE), 205).expect("mapped");
        },
    ),
];

/// Look-ups of one access that windows overtake in turn.
const LOOK_UPS: u32 = 4;

/// Moments of one access before which a page is taken away in turn.
const MOMENTS: u32 = 8;

pub(super) fn retry(t: &Arc<Trial>, cx: &mut CallCx<'_>, _: &Kit) -> Run {
    for &(name, meanwhile) in OPERATIONS {
        for nth in 1..=LOOK_UPS {
            let read = overtaken_read(t, cx, nth, name, meanwhile)?;
            let written = !t.only_reads() && overtaken_write(t, cx, nth, name, meanwhile)?;
            if !read && !written {
                break;
            }
        }
    }
    used_meanwhile(t, cx)
}

/// While a window or a flush is on its way, each time that it unlocks a gate, the device uses the
/// page once more, if it is not held off. The oracle judges.
fn used_meanwhile(t: &Arc<Trial>, cx: &mut CallCx<'_>) -> Run {
    let use_page: Meanwhile = |t, cx| drop(t.device_reads(cx, at(PAGE)));
    for nth in 1..=MOMENTS {
        prepare(t, cx);
        t.agree(cx, PAGE);
        let window = || t.drop_pages(cx, PAGE, PAGE + 1);
        let ((), there_was) = t.beside(after_look_ups, nth, use_page, window)?;
        t.audit();
        t.agree(cx, PAGE);
        if !there_was || t.log.has_seen() {
            break;
        }
    }
    Ok(())
}

/// Restores the pages.
fn prepare(t: &Arc<Trial>, cx: &mut CallCx<'_>) {
    let args = MmapArgs::anonymous(PAGES * PAGE_SIZE).fixed(at(0));
    t.act(cx, "mmap 0..16 anew", |mm, cx| {
        mm.mmap(cx, &args).expect("room");
    });
    t.fill(cx, 0, PAGES);
}

fn overtaken_read(
    t: &Arc<Trial>,
    cx: &mut CallCx<'_>,
    nth: u32,
    name: &str,
    meanwhile: Meanwhile,
) -> Result<bool, crate::testkit::trial::Abort> {
    prepare(t, cx);
    let (got, there_was) = t.between(nth..=nth, meanwhile, || t.read(cx, at(PAGE)))?;
    t.process(format!("(the page was {name})"));
    t.audit();
    t.compare(cx, at(PAGE), got);
    // A device may have looked up neighbours ahead.
    (0..8).for_each(|page| t.agree(cx, page));
    Ok(there_was)
}

fn overtaken_write(
    t: &Arc<Trial>,
    cx: &mut CallCx<'_>,
    nth: u32,
    name: &str,
    meanwhile: Meanwhile,
) -> Result<bool, crate::testkit::trial::Abort> {
    prepare(t, cx);
    let (done, there_was) = t.between(nth..=nth, meanwhile, || t.write(cx, at(PAGE), 111))?;
    t.process(format!("(the page was {name})"));
    t.audit();
    let writable = t.mm.store(cx, at(PAGE) + 1, 1).is_ok();
    match done {
        Ok(()) if writable => t.find(cx, at(PAGE), 111),
        Ok(()) if there_was => t.see(Seen::Allowed(format!("a write to a page that was {name}"))),
        Err(why) if writable => {
            t.see(Seen::RefusedWrongly(format!(
                "a write to page {PAGE}: {why}"
            )));
        }
        _ => {}
    }
    Ok(there_was)
}

/// The device finds a translation that it has kept, or gets a new one. Before it locks a gate or
/// follows the translation, or after it has got a new one and before it enters that in a TLB,
/// another thread changes the page, if the device does not hold it off. The oracle judges: the
/// access is made before the change or after, so its bytes tell nothing.
pub(super) fn reuse(t: &Arc<Trial>, cx: &mut CallCx<'_>, _: &Kit) -> Run {
    for &(name, meanwhile) in OPERATIONS {
        for access in [Access::Read, Access::Write] {
            for kept in [true, false] {
                for nth in 1..=MOMENTS {
                    if !overtaken_use(t, cx, (kept, access, nth), name, meanwhile)? {
                        break;
                    }
                    if t.log.has_seen() {
                        return Ok(());
                    }
                }
            }
        }
    }
    Ok(())
}

fn overtaken_use(
    t: &Arc<Trial>,
    cx: &mut CallCx<'_>,
    (kept, access, nth): (bool, Access, u32),
    name: &str,
    meanwhile: Meanwhile,
) -> Result<bool, crate::testkit::trial::Abort> {
    prepare(t, cx);
    let mut use_page = || match access {
        Access::Read => drop(t.read(cx, at(PAGE))),
        Access::Write => drop(t.write(cx, at(PAGE), 111)),
    };
    let moments = if kept {
        use_page();
        before_uses
    } else {
        after_look_ups
    };
    let ((), there_was) = t.beside(moments, nth, meanwhile, use_page)?;
    t.process(format!("(the page was {name})"));
    t.audit();
    (0..8).for_each(|page| t.agree(cx, page));
    Ok(there_was)
}

/// States of a page before an atomic operation.
const BEFORE: &[(&str, Meanwhile)] = &[
    ("dropped", |t, cx| t.drop_pages(cx, PAGE, PAGE + 1)),
    ("written", |t, cx| t.deliver(cx, PAGE, 5)),
    ("updated", |t, cx| {
        let _old = update(t, cx, &mut |_, _| ());
    }),
    ("updated and taken back", |t, cx| {
        let _old = update(t, cx, &mut |_, _| ());
        t.put(cx, PAGE, 6);
        t.deliver(cx, PAGE, 7);
    }),
];

/// Between the halves of an atomic operation the process begins a store to the page.
pub(super) fn atomics(t: &Arc<Trial>, cx: &mut CallCx<'_>, _: &Kit) -> Run {
    const STORED: u8 = 90;
    t.fill(cx, 0, PAGES);
    for &(name, before) in BEFORE {
        before(t, cx);
        let was = t.mm.load(cx, at(PAGE)).expect("mapped");
        let old = update(t, cx, &mut |_, _| ());
        if old.is_some_and(|old| old.to_le_bytes()[0] == was) {
            t.find(cx, at(PAGE), was.wrapping_add(1));
        } else if let Some(old) = old {
            let (addr, got) = (at(PAGE), old.to_le_bytes()[0]);
            t.see(Seen::Stale {
                addr,
                got,
                wanted: was,
            });
        }
        before(t, cx);
        t.process(format!("(page {PAGE} was {name})"));
        let mut store = None;
        let _old = update(t, cx, &mut |t, nth| {
            if nth == 0 {
                store = Some(t.let_pass(|t, cx| t.put(cx, PAGE, STORED)));
            }
        });
        store.map_or(Ok(()), |store| store.join())?;
        let got = t.mm.load(cx, at(PAGE)).expect("mapped");
        // The store comes before the operation, or after.
        if got != STORED && got != STORED + 1 {
            let (addr, wanted) = (at(PAGE), STORED);
            t.see(Seen::LostStore { addr, got, wanted });
        }
        t.audit();
    }
    Ok(())
}

/// Adds 1 to the first word of the page, and returns the old one. `between` runs between the
/// halves, with the number of times that it did before.
fn update(
    t: &Arc<Trial>,
    cx: &mut CallCx<'_>,
    between: &mut dyn FnMut(&Arc<Trial>, u32),
) -> Option<u64> {
    let mut times = 0;
    let came = t.device.fetch_update(cx, &t.mm, at(PAGE), &mut |old| {
        between(t, times);
        times += 1;
        old.wrapping_add(1)
    });
    let text = came
        .as_ref()
        .map_or_else(ToString::to_string, u64::to_string);
    t.log
        .step(Side::Device, format!("adds 1 to page {PAGE}: {text}"));
    match came {
        Ok(old) => Some(old),
        Err(why) => {
            let what = format!("an atomic operation on page {PAGE}: {why}");
            t.see(Seen::RefusedWrongly(what));
            None
        }
    }
}

pub(super) fn reentrant(t: &Arc<Trial>, cx: &mut CallCx<'_>, _: &Kit) -> Run {
    t.fill(cx, 0, PAGES);
    for round in 0..3 {
        (0..4).for_each(|page| t.agree(cx, page));
        // The device's own look-up copies the page: a window over it, from within its fault.
        let child = t.act(cx, "fork", |mm, cx| mm.fork(cx).expect("memory"));
        for page in 0..4 {
            let byte = 120 + round;
            t.deliver(cx, page, byte);
            let kept = child.load(cx, at(page)).expect("mapped");
            if kept == byte {
                let what = format!("a write to page {page} that a child shares");
                t.see(Seen::Allowed(what));
            }
        }
        child.exit(cx);
        t.process("the child exits");
        t.fill(cx, 0, PAGES);
    }
    // The zero page becomes a page of its own.
    t.drop_pages(cx, 0, 4);
    t.agree(cx, 1);
    t.deliver(cx, 1, 5);
    t.agree(cx, 1);
    Ok(())
}

pub(super) fn progress(t: &Arc<Trial>, cx: &mut CallCx<'_>, _: &Kit) -> Run {
    t.fill(cx, 0, PAGES);
    // So many windows that a short counter comes around, and has been negative on the way.
    for burst in [100, 60, 60, 100] {
        t.process(format!("{burst} windows over page 0"));
        for _ in 0..burst {
            let advice = Advice::DontNeed;
            t.mm.madvise(cx, at(0), PAGE_SIZE, advice).expect("mapped");
        }
        (0..4).for_each(|page| t.agree(cx, page));
    }
    // Windows overtake the access again and again: no number of retries would justify giving up.
    t.drop_pages(cx, 0, 4);
    let overtake: Meanwhile = |t, cx| t.drop_pages(cx, PAGE, PAGE + 1);
    let (got, _) = t.between(1..=20, overtake, || t.read(cx, at(PAGE)))?;
    t.compare(cx, at(PAGE), got);
    let windows: Arc<AtomicU64> = Arc::default();
    let passed = Arc::clone(&windows);
    let (stop, stopped) = channel::<()>();
    let storm = t.timed_thread("a storm of windows", move |t, cx| {
        while stopped.try_recv().is_err() {
            let nth = windows.fetch_add(1, Ordering::Relaxed);
            t.mm.madvise(cx, at(nth % 4), PAGE_SIZE, Advice::DontNeed)
                .expect("mapped");
            if nth % 8 == 7 {
                std::thread::sleep(Duration::from_micros(100));
            }
        }
        windows.load(Ordering::Relaxed)
    });
    let user = t.timed_calls("an access in a storm of windows", MOST, move |t, cx, n| {
        let came = t.use_at(cx, at(n % 8), n);
        if let Err(why) = &came {
            let what = format!("an access to page {} in a storm: {why}", n % 8);
            t.see(Seen::RefusedWrongly(what));
        }
        came.is_ok() && (n < ACCESSES || passed.load(Ordering::Relaxed) < WINDOWS)
    });
    let done = user.join();
    let _gone = stop.send(());
    let windows = storm.join();
    done?;
    t.process(format!("the accesses went through {} windows", windows?));
    t.audit();
    Ok(())
}

//! Other threads, failing allocations, the end of address spaces and of devices.

use crate::{
    addr::PAGE_SIZE,
    ctx::CallCx,
    error::FaultError,
    file::{File, FileMode, Shmem},
    mm::{Advice, MmapArgs},
    testkit::{
        Kit,
        device::Refused,
        patience,
        property::windows::hold,
        timed_thread::TimedThread,
        trial::{Abort, PAGES, Run, Trial, at},
        verdict::Seen,
    },
};
use std::{
    sync::{Arc, mpsc::channel},
    time::Duration,
};

pub(super) fn foreign_threads(t: &Arc<Trial>, cx: &mut CallCx<'_>, _: &Kit) -> Run {
    let object = Shmem::memfd(t.machine.host(), "m", 8 * PAGE_SIZE).expect("small");
    let file = File::open(object, FileMode::ReadWrite);
    t.act(cx, "mmap a file, shared, at 100..108", |mm, cx| {
        let args = MmapArgs::anonymous(8 * PAGE_SIZE).shared();
        mm.mmap(cx, &args.file(&file, 0).fixed(at(100)))
            .expect("room");
    });
    for round in 0..3_u8 {
        t.fill(cx, 0, PAGES);
        for page in (0..8).chain(100..108) {
            t.agree(cx, page);
            t.deliver(cx, page, 50 + round);
        }
        strangers(t, &file)?;
        for page in (0..8).chain(100..108) {
            t.agree(cx, page);
        }
        t.audit();
    }
    several_users(t, cx)?;
    t.act(cx, "munmap and cut the file", |mm, cx| {
        mm.munmap(cx, at(100), 8 * PAGE_SIZE).expect("mapped");
        file.truncate(cx.reborrow(), 0).expect("nobody maps it");
    });
    Ok(())
}

/// Windows from threads that have nothing to do with the device.
fn strangers(t: &Arc<Trial>, file: &Arc<File>) -> Run {
    // A call on another thread of the process.
    t.elsewhere("madvise on another thread", |t, cx| {
        t.process("another thread:");
        t.drop_pages(cx, 0, 2);
    })?;
    // A thread outside of the process cuts the file.
    let cut = Arc::clone(file);
    t.elsewhere("truncate by another process", move |t, cx| {
        t.act(cx, "another process cuts the file at page 2", |_, cx| {
            cut.truncate(cx.reborrow(), 2 * PAGE_SIZE).expect("shorter");
            cut.truncate(cx.reborrow(), 8 * PAGE_SIZE).expect("longer");
        });
    })?;
    // Reclaim runs on another thread.
    t.elsewhere("reclaim by another thread", |t, cx| {
        t.act(
            cx,
            "another thread pages out 4..8, migrates page 2",
            |mm, cx| {
                let _moved = mm.migrate(cx, at(2)).expect("memory");
                mm.madvise(cx, at(4), 4 * PAGE_SIZE, Advice::PageOut)
                    .expect("mapped");
            },
        );
    })?;
    Ok(())
}

/// The device's own threads, several at once.
fn several_users(t: &Arc<Trial>, cx: &mut CallCx<'_>) -> Run {
    let users: Vec<_> = (0..3_u64)
        .map(|lane| {
            t.timed_calls(
                "an access of one of several threads",
                50,
                move |t, cx, n| {
                    let _refused = t.use_at(cx, at(lane * 4 + n % 4), 1);
                    let _refused = t.use_at(cx, at(n % PAGES), 0);
                    true
                },
            )
        })
        .collect();
    for n in 0..30 {
        t.mm.madvise(cx, at(n % 8), 4 * PAGE_SIZE, Advice::DontNeed)
            .expect("mapped");
    }
    users.into_iter().try_for_each(TimedThread::join)
}

/// An access fails for want of memory and for no other reason.
fn no_memory(came: Result<(), Refused>) -> Result<bool, Refused> {
    match came {
        Ok(()) => Ok(true),
        Err(Refused::Fault(FaultError::NoMemory(_))) => Ok(false),
        Err(other) => Err(other),
    }
}

pub(super) fn alloc_failure(t: &Arc<Trial>, cx: &mut CallCx<'_>, _: &Kit) -> Run {
    let inject = |t: &Trial| t.machine.mem().inject().count();
    for nth in 1..64 {
        // New tables, new pages, pages to be copied, pages to be swapped in.
        let args = MmapArgs::anonymous(1024 * PAGE_SIZE).fixed(at(0));
        t.act(cx, "mmap 0..1024 anew", |mm, cx| {
            mm.mmap(cx, &args).expect("room");
        });
        t.fill(cx, 0, 4);
        let child = t.mm.fork(cx).expect("memory");
        t.process(format!("fork; allocation {nth} from here fails"));
        t.machine.mem().inject().arm(nth);
        let mut went_well = true;
        for page in [0, 1, 2, 3, 8, 600] {
            let came = match t.only_reads() {
                true => t.read(cx, at(page)).map(|_| ()),
                false => t.write(cx, at(page), 33),
            };
            match no_memory(came) {
                Ok(done) => went_well &= done,
                Err(other) => t.see(Seen::RefusedWrongly(format!(
                    "an access to page {page} without memory: {other}"
                ))),
            }
        }
        let asked = inject(t);
        t.machine.mem().inject().disarm();
        t.audit();
        for page in [0, 1, 2, 3, 8, 600] {
            t.deliver(cx, page, 34);
        }
        child.exit(cx);
        if asked < nth {
            if !went_well {
                t.see(Seen::RefusedWrongly(
                    "an access for which there is memory".into(),
                ));
            }
            return Ok(());
        }
    }
    Ok(())
}

pub(super) fn exits(t: &Arc<Trial>, cx: &mut CallCx<'_>, _: &Kit) -> Run {
    t.fill(cx, 0, PAGES);
    (0..8).for_each(|page| t.agree(cx, page));
    // Children that share everything come and go.
    for _ in 0..3 {
        let child = t.act(cx, "fork", |mm, cx| mm.fork(cx).expect("memory"));
        child.store(cx, at(1), 9).expect("mapped");
        child.exit(cx);
        t.process("the child writes page 1 and exits");
        t.agree(cx, 1);
        t.deliver(cx, 2, 8);
    }
    let (running, runs) = channel();
    let users: Vec<_> = (0..2_u64)
        .map(|lane| {
            let running = running.clone();
            t.timed_thread("accesses while the address space ends", move |t, cx| {
                for n in 0_u64.. {
                    let came = t.use_at(cx, at(n % 8), n + lane);
                    if n == 20 {
                        let _told = running.send(());
                    }
                    match came {
                        Ok(()) => {}
                        Err(Refused::Other(why)) => {
                            return t.see(Seen::RefusedWrongly(format!("an access: {why}")));
                        }
                        Err(_) => return,
                    }
                }
            })
        })
        .collect();
    for _ in 0..2 {
        let _began = patience::receive(&runs, t.deadline);
    }
    t.elsewhere("exit", |t, cx| {
        t.act(cx, "exit, while two threads read and write", |mm, cx| {
            mm.exit(cx)
        })
    })?;
    users.into_iter().try_for_each(TimedThread::join)?;
    Ok(())
}

pub(super) fn release(t: &Arc<Trial>, cx: &mut CallCx<'_>, _: &Kit) -> Run {
    t.last.delay(Duration::from_micros(50));
    t.fill(cx, 0, PAGES);
    for page in 0..PAGES {
        t.agree(cx, page);
        t.deliver(cx, page, 4);
    }
    t.act(cx, "exit", |mm, cx| mm.exit(cx));
    t.oracle.audit_end(&t.mm);
    t.listen();
    for page in 0..4 {
        t.refused("a read after the exit", t.read(cx, at(page)));
        t.refused("a write after the exit", t.write(cx, at(page), 1));
    }
    Ok(())
}

/// Takes the device off while accesses are in progress, on a thread that must survive a refusal.
fn taken_off_beside_accesses(t: &Arc<Trial>) -> Run {
    let (begin, begun) = channel();
    let user = t.timed_thread("accesses while the device is unregistered", move |t, cx| {
        for n in 0_u64.. {
            if n == 20 {
                let _told = begin.send(());
            }
            match t.device_reads(cx, at(n % 8)) {
                Ok(_) => {}
                Err(Refused::Other(why)) => {
                    return t.see(Seen::RefusedWrongly(format!("an access: {why}")));
                }
                Err(_) => return,
            }
        }
    });
    let _begun = patience::receive(&begun, t.deadline);
    t.elsewhere("unregister", |t, cx| t.unregister(cx))?;
    user.join()
}

pub(super) fn unregister(t: &Arc<Trial>, cx: &mut CallCx<'_>, kit: &Kit) -> Run {
    for page in 0..8 {
        t.put(cx, page, 100);
        t.agree(cx, page);
    }
    taken_off_beside_accesses(t)?;
    let subscriptions = t.mm.subscriptions();
    if subscriptions > 0 {
        let what = "of a device that is unregistered";
        t.see(Seen::Unsettled(format!(
            "{subscriptions} subscriptions are {what}"
        )));
    }
    for page in 0..8 {
        t.mmu.translations(&mut |tr| {
            t.see(Seen::Allowed(format!(
                "a translation of {} by a device that is unregistered",
                tr.range()
            )));
        });
        t.refused(
            "a read by a device that is unregistered",
            t.read(cx, at(page)),
        );
    }
    // No device hears of these changes; the next device of this kind begins with nothing.
    for page in 0..8 {
        t.drop_pages(cx, page, page + 1);
        t.put(cx, page, 150);
    }
    let next = kit.place(cx, &t.mm);
    t.oracle.watch_either(&t.mm, next.mmu());
    t.process("another device of the kind registers");
    for page in 0..8 {
        let got = next.device().read(cx, &t.mm, at(page));
        let text = got.as_ref().map_or_else(ToString::to_string, u8::to_string);
        t.log.step(
            crate::testkit::Side::Device,
            format!("the new device reads page {page}: {text}"),
        );
        t.compare(cx, at(page), got);
    }
    t.audit();
    next.device().retire(cx);
    next.into_leave()(cx);
    t.process("that one is unregistered too");
    registered_inside_of_a_window(t, cx, kit)
}

/// A device registers, and reads a page, while a window over the page is open. No window calls it
/// before one that begins later, so it must not get the page until the window has ended.
fn registered_inside_of_a_window(t: &Arc<Trial>, cx: &mut CallCx<'_>, kit: &Kit) -> Run {
    const PAGE: u64 = 1;
    t.fill(cx, 0, 4);
    let window = hold(t, 0, 4)?;
    t.process("a device of the kind registers, and reads page 1");
    let (tell, told) = channel();
    let kit = kit.clone();
    let user = t.let_pass(move |t, cx| {
        let late = kit.place(cx, &t.mm);
        t.oracle.watch_either(&t.mm, late.mmu());
        let _what_it_was_then = late.device().read(cx, &t.mm, at(PAGE));
        let _receiver_waits = tell.send(late);
    });
    window.close(t)?;
    user.join()?;
    let late = told.recv().map_err(|_| Abort)?;
    t.audit();
    t.put(cx, PAGE, 160);
    let got = late.device().read(cx, &t.mm, at(PAGE));
    t.compare(cx, at(PAGE), got);
    late.device().retire(cx);
    late.into_leave()(cx);
    Ok(())
}

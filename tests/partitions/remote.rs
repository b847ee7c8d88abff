//! XPmem partitions that are other processes: what they see, what they answer, and every way in
//! which they end.
#![cfg(target_os = "linux")]

use emmu::{
    Machine, MachineConfig, Mm,
    addr::{Vpn, VpnRange},
    extmmu::xpmem::{
        Breach, Owner, OwnerConfig, Partition, PartitionFailure, PartitionId, SegId,
        remote::{RemoteAttachment, RemoteConfig, RemoteError, RemotePartition, ServeError},
    },
    mm::{Advice, MmapArgs, MremapArgs, MremapFlags},
    notifier::Access,
};
use std::{
    io::Write,
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use crate::{
    exporter::{BASE, LONG, PAGE, PAGES, pages, wait_until, with},
    raw::ToOwner,
};

#[test]
fn a_process_sees_the_owners_memory_and_the_owner_its() {
    if crate::process::serve_parent() {
        return;
    }
    with(LONG, |cx, w| {
        let (mut p, remote) = w.process(1);
        w.mm.store(cx, BASE + 5, 7).unwrap();
        assert_eq!(p.call("read 0 5"), "7");
        assert_eq!(p.call("read 0 4096"), "0", "the zero page");
        assert_eq!(p.call("write 0 4097 9"), "ok");
        assert_eq!(w.mm.load(cx, BASE + 4097).unwrap(), 9);
        w.mm.store(cx, BASE + 4097, 10).unwrap();
        assert_eq!(p.call("read 0 4097"), "10");
        assert_eq!(remote.entries(), 2);
        let none = p.call(&format!("read 0 {}", PAGES * PAGE));
        assert!(none.contains("not in the segment"), "{none}");
        w.mm.mprotect(cx, BASE, PAGE, emmu::mm::Prot::READ).unwrap();
        let denied = p.call("write 0 0 1");
        assert!(denied.contains("denied"), "{denied}");
    });
}

#[test]
fn windows_recall_what_a_process_has() {
    with(LONG, |cx, w| {
        let (mut p, remote) = w.process(1);
        for n in 0..4 {
            assert_eq!(p.call(&format!("write 0 {} {}", n * PAGE, n + 1)), "ok");
        }
        // fork, and the copies after it
        let child = w.mm.fork(cx).unwrap();
        assert_eq!((p.call("entries").as_str(), remote.entries()), ("0", 0));
        assert_eq!(p.call("read 0 0"), "1");
        w.mm.store(cx, BASE, 50).unwrap();
        assert_eq!(p.call("read 0 0"), "50");
        assert_eq!(p.call("write 0 4096 60"), "ok");
        assert_eq!(child.load(cx, BASE).unwrap(), 1);
        assert_eq!(child.load(cx, BASE + PAGE).unwrap(), 2);
        assert_eq!(w.mm.load(cx, BASE + PAGE).unwrap(), 60);
        child.exit(cx);
        // mremap takes a page elsewhere, munmap and madvise take one away
        let to = BASE + 2 * PAGES * PAGE;
        let args = MremapArgs {
            addr: BASE + 2 * PAGE,
            old_len: PAGE,
            new_len: PAGE,
            flags: MremapFlags::MAYMOVE | MremapFlags::FIXED,
            new_addr: to,
        };
        w.mm.mremap(cx, args).unwrap();
        assert_eq!(w.mm.load(cx, to).unwrap(), 3);
        assert!(p.call("read 0 8192").contains("mapped"));
        w.mm.madvise(cx, BASE, PAGE, Advice::DontNeed).unwrap();
        assert_eq!(p.call("read 0 0"), "0");
        w.mm.munmap(cx, BASE, PAGE).unwrap();
        assert!(p.call("read 0 0").contains("mapped"));
        assert!(w.owner.failures().is_empty() && remote.answers() >= 4);
    });
}

#[test]
fn the_owner_exits_with_importers_live() {
    let mut kept = None;
    with(LONG, |_cx, w| {
        let (mut p, remote) = w.process(1);
        assert_eq!(p.call("write 0 0 1"), "ok");
        kept = Some((p, remote));
        w.kept.store(1, std::sync::atomic::Ordering::Relaxed);
    });
    let (mut p, remote) = kept.unwrap();
    assert_eq!((p.call("entries").as_str(), remote.entries()), ("0", 0));
    assert!(p.call("read 0 0").contains("gone"));
}

#[test]
fn attachments_of_attachments_through_a_process() {
    with(LONG, |cx, w| {
        let (mut p, _remote) = w.process(1);
        let (mut q, _remote) = w.process(2);
        let made = p.call("make 0 4 8");
        assert_eq!(q.call(&format!("attach {made} 1 7")), "ok");
        w.mm.store(cx, BASE + 5 * PAGE, 9).unwrap();
        assert_eq!(q.call("read 1 0"), "9");
        assert!(q.call("write 1 0 1").contains("may only be read"));
        // Its own attachment of the page may write: that does not rub off.
        assert_eq!(q.call(&format!("write 0 {} 3", 5 * PAGE)), "ok");
        assert!(q.call("write 1 0 1").contains("may only be read"));
        let near = Partition::new(PartitionId(3));
        let again = SegId::from_number(made.parse().unwrap());
        let here = w.owner.import(&near, again, 1, 1).unwrap();
        let mut byte = [0];
        here.read(cx, 0, &mut byte).unwrap();
        assert_eq!(byte, [3]);
        // With the process that made it, the segment ends.
        p.kill();
        wait_until(|| w.owner.import(&near, again, 0, 1).is_err());
        w.mm.munmap(cx, BASE + 5 * PAGE, PAGE).unwrap();
        assert!(q.call("read 1 0").contains("gone"));
    });
}

#[test]
fn a_process_that_only_reads_gets_a_descriptor_that_only_reads() {
    with(LONG, |cx, w| {
        let config = RemoteConfig {
            access: Access::Read,
            ..RemoteConfig::default()
        };
        let (partition, _served) = w.near(1, config);
        let attachment = partition.attach(w.segment, 0, PAGES).unwrap();
        w.mm.store(cx, BASE, 4).unwrap();
        let mut byte = [0];
        attachment.read(0, &mut byte).unwrap();
        assert_eq!(byte, [4]);
        let refused = attachment.write(0, &[1]).unwrap_err();
        assert!(refused.to_string().contains("may only be read"));
        let refused = attachment.make(0, 1, Access::Write).unwrap_err();
        assert!(refused.to_string().contains("may only be read"));
        attachment.detach().unwrap();
    });
}

/// The same page through segments of their own, for writing and for reading only, and by the owner
/// itself: all see the same bytes, wherever they lie.
#[test]
fn a_page_that_is_asked_for_elsewhere_comes_home_first() {
    with(LONG, |cx, w| {
        let other = w.owner.make(pages(0, 8), Access::Write);
        let looked_at = w.owner.make(pages(4, 8), Access::Read);
        let reads = RemoteConfig {
            access: Access::Read,
            ..RemoteConfig::default()
        };
        let (a, _served) = w.near(1, RemoteConfig::default());
        let (b, _served) = w.near(2, RemoteConfig::default());
        let (c, _served) = w.near(3, reads);
        let a = a.attach(w.segment, 0, PAGES).unwrap();
        let whole = b.attach(other, 0, 8).unwrap();
        let (part, all) = (c.attach(looked_at, 0, 4), c.attach(w.segment, 0, PAGES));
        let (part, all) = (part.unwrap(), all.unwrap());
        let at = 4 * PAGE;
        for round in 0..20 {
            a.write(at, &[round]).unwrap();
            let mut seen = [[0; 3]; 4];
            whole.write(at + 1, &[round + 1]).unwrap();
            w.mm.store(cx, BASE + at + 2, round + 2).unwrap();
            part.read(0, &mut seen[0]).unwrap();
            all.read(at, &mut seen[1]).unwrap();
            whole.read(at, &mut seen[2]).unwrap();
            a.read(at, &mut seen[3]).unwrap();
            assert_eq!(seen, [[round, round + 1, round + 2]; 4]);
            assert_eq!(w.owner.lent(), 1, "it is in one place");
            w.oracle.audit();
        }
        // Partitions of one segment meet in one place: nobody has to be recalled for another.
        let (d, served) = w.near(4, RemoteConfig::default());
        let d = d.attach(w.segment, 0, PAGES).unwrap();
        d.read(at, &mut [0]).unwrap();
        let before = served.answers();
        for round in 0..20 {
            d.write(at, &[round]).unwrap();
            let mut seen = [0];
            a.read(at, &mut seen).unwrap();
            assert_eq!(seen, [round]);
        }
        assert_eq!(served.answers(), before);
    });
}

/// Several that take a page from each other all the time all get on.
#[test]
fn who_asks_for_a_page_uses_it_before_it_goes() {
    with(LONG, |_cx, w| {
        let looked_at = w.owner.make(pages(0, 1), Access::Read);
        std::thread::scope(|s| {
            for id in 0..4 {
                let (near, _served) = w.near(id, RemoteConfig::default());
                let writes = id % 2 == 0;
                let segment = if writes { w.segment } else { looked_at };
                s.spawn(move || {
                    let page = near.attach(segment, 0, 1).unwrap();
                    for round in 0..200 {
                        if writes {
                            page.write(u64::from(id), &[round]).unwrap();
                        } else {
                            page.read(0, &mut [0]).unwrap();
                        }
                    }
                });
            }
        });
        assert!(w.owner.failures().is_empty());
    });
}

/// Two pieces have room for all pages, and are used again.
#[test]
fn memory_of_a_segment_comes_in_pieces_that_are_used_again() {
    with(LONG, |cx, w| {
        let mut config = RemoteConfig::default();
        config.limits.memories = 2;
        let (near, served) = w.near(1, config);
        let whole = near.attach(w.segment, 0, PAGES).unwrap();
        for round in 1..5 {
            for n in 0..PAGES {
                whole.write(n * PAGE, &[round]).unwrap();
            }
            assert_eq!((w.owner.lent(), served.entries()), (64, 64));
            for n in 0..PAGES {
                assert_eq!(w.mm.load(cx, BASE + n * PAGE).unwrap(), round);
            }
            w.mm.madvise(cx, BASE, PAGES * PAGE, Advice::DontNeed)
                .unwrap();
            assert_eq!((w.owner.lent(), served.entries()), (0, 0));
        }
    });
}

/// One frame at two pages, and of two processes, each of which exports it.
#[test]
fn a_frame_that_several_export_is_lent_by_one_at_a_time() {
    with(LONG, |cx, w| {
        let (first, second) = (BASE + 2 * PAGES * PAGE, BASE + 3 * PAGES * PAGE);
        let shared = MmapArgs::anonymous(PAGE).shared().fixed(first);
        w.mm.mmap(cx, &shared).unwrap();
        // Nothing of it moves: it is mapped once more.
        let again = MremapArgs {
            addr: first,
            old_len: 0,
            new_len: PAGE,
            flags: MremapFlags::MAYMOVE | MremapFlags::FIXED,
            new_addr: second,
        };
        w.mm.mremap(cx, again).unwrap();
        let child = w.mm.fork(cx).unwrap();
        let patient = OwnerConfig {
            deadline: LONG,
            ..OwnerConfig::default()
        };
        let (theirs, _stays) = Owner::attach(cx, &child, patient);
        let page = |at| VpnRange::single(Vpn::containing(at));
        let (near, _served) = w.near(1, RemoteConfig::default());
        let (mine, stream) = UnixStream::pair().unwrap();
        let _served = theirs.serve(mine, PartitionId(2), RemoteConfig::default());
        let childs = RemotePartition::new(stream).unwrap();
        let all: Vec<RemoteAttachment> = [
            (&near, &w.owner, first),
            (&near, &w.owner, second),
            (&childs, &theirs, first),
        ]
        .map(|(partition, owner, at)| {
            let segment = owner.make(page(at), Access::Write);
            partition.attach(segment, 0, 1).unwrap()
        })
        .into();
        for round in 0..10_u8 {
            for (n, writes) in (0..).zip(&all) {
                writes.write(u64::from(n), &[round + n]).unwrap();
            }
            for reads in &all {
                let mut seen = [0; 3];
                reads.read(0, &mut seen).unwrap();
                assert_eq!(seen, [round, round + 1, round + 2]);
            }
            assert_eq!(w.owner.lent() + theirs.lent(), 1);
            assert_eq!(child.load(cx, second + 2).unwrap(), round + 2);
        }
        child.exit(cx);
        w.mm.munmap(cx, first, PAGE).unwrap();
        w.mm.munmap(cx, second, PAGE).unwrap();
        assert_eq!((w.owner.lent(), theirs.lent()), (0, 0));
    });
}

#[test]
fn death_while_idle() {
    with(LONG, |cx, w| {
        let (mut p, remote) = w.process(1);
        assert_eq!(p.call("write 0 0 1"), "ok");
        p.kill();
        wait_until(|| remote.is_cut_off());
        assert_eq!(remote.entries(), 0);
        w.mm.munmap(cx, BASE, PAGE).unwrap();
        assert!(w.owner.failures().is_empty());
    });
}

#[test]
fn death_before_the_answer_is_one() {
    with(LONG, |cx, w| {
        let (mut p, remote) = w.process(1);
        assert_eq!(p.call("write 0 0 1"), "ok");
        p.stop();
        let since = Instant::now();
        std::thread::scope(|s| {
            s.spawn(|| {
                wait_until(|| w.owner.recalls() == 1);
                std::thread::sleep(Duration::from_millis(50));
                assert_eq!(
                    remote.entries(),
                    1,
                    "nothing is given back before the answer"
                );
                assert_eq!(w.machine.mem().in_use(), 1);
                p.kill();
            });
            w.mm.munmap(cx, BASE, PAGE).unwrap();
        });
        assert!(since.elapsed() >= Duration::from_millis(50));
        assert!(w.owner.failures().is_empty() && remote.is_cut_off());
    });
}

#[test]
fn death_of_the_question_and_during_a_fault() {
    with(LONG, |cx, w| {
        let (mut p, _remote) = w.process(1);
        assert_eq!(
            (p.call("write 0 0 1"), p.call("die")),
            ("ok".into(), "ok".into())
        );
        w.mm.munmap(cx, BASE, PAGE).unwrap();
        let closed = p.call("read 0 4096");
        assert!(closed.contains("fenced"), "{closed}");
        // Another is killed while it faults pages in as fast as it can.
        for id in 2..6 {
            let (mut q, remote) = w.process(id);
            q.order(&format!("churn {id}"));
            wait_until(|| remote.entries() > 3);
            w.mm.madvise(cx, BASE + PAGE, PAGE, Advice::DontNeed)
                .unwrap();
            q.kill();
            wait_until(|| remote.is_cut_off());
        }
        assert!(w.owner.failures().is_empty());
    });
}

#[test]
fn a_hang_ends_by_the_deadline() {
    let deadline = Duration::from_millis(200);
    with(deadline, |cx, w| {
        let (mut p, remote) = w.process(7);
        assert_eq!(
            (p.call("write 0 0 1"), p.call("hang")),
            ("ok".into(), "ok".into())
        );
        let since = Instant::now();
        w.mm.munmap(cx, BASE, PAGE).unwrap();
        assert!(since.elapsed() >= deadline);
        let hung = PartitionFailure::Hung {
            partition: PartitionId(7),
            range: pages(0, 1),
            after: deadline,
        };
        assert_eq!(w.owner.failures(), [hung]);
        assert!(remote.is_cut_off());
        wait_until(|| w.owner.lent() == 0);
        let closed = p.call("read 0 4096");
        assert!(closed.contains("fenced"), "it lives, and is told: {closed}");
    });
}

#[test]
fn an_answer_that_is_not_owed_and_bytes_that_are_no_message() {
    with(LONG, |cx, w| {
        let (mut p, remote) = w.process(1);
        assert_eq!(
            (p.call("write 0 0 1"), p.call("twice")),
            ("ok".into(), "ok".into())
        );
        w.mm.munmap(cx, BASE, PAGE).unwrap();
        let broke = |id, breach| PartitionFailure::Broke {
            partition: PartitionId(id),
            breach,
        };
        wait_until(|| remote.is_cut_off());
        assert_eq!(w.owner.failures(), [broke(1, Breach::NotOwed(0))]);

        let endless: &[u8] = &[1; 1 << 16];
        // A message, and more in its frame.
        let more = (ToOwner::Cleared { serial: 0 }, 7_u8);
        let more = postcard::to_stdvec_cobs(&more).unwrap();
        for (id, bytes) in [(2, &b"hello\0"[..]), (3, &[0]), (4, endless), (5, &*more)] {
            let (mine, mut theirs) = UnixStream::pair().unwrap();
            let served = w
                .owner
                .serve(mine, PartitionId(id), RemoteConfig::default());
            let _closed_meanwhile = theirs.write_all(bytes);
            wait_until(|| served.as_ref().unwrap().is_cut_off());
            wait_until(|| w.owner.failures() == [broke(id, Breach::Garbage)]);
        }
    });
}

#[test]
fn whoever_was_cut_off_comes_back_as_another_partition() {
    with(Duration::from_millis(100), |cx, w| {
        let config = RemoteConfig::default();
        let (partition, _served) = w.near(1, config);
        let attachment = partition.attach(w.segment, 0, PAGES).unwrap();
        attachment.write(0, &[1]).unwrap();
        partition.set_manners(emmu::extmmu::xpmem::Manners::Hangs);
        w.mm.madvise(cx, BASE, PAGE, Advice::DontNeed).unwrap();
        assert_eq!(w.owner.failures().len(), 1);
        wait_until(|| partition.is_closed() && partition.entries() == 0);
        let closed = attachment.read(0, &mut [0]);
        assert!(matches!(closed, Err(RemoteError::Closed)));
        drop(partition);
        let (partition, served) = w.near(2, config);
        assert_eq!(
            (partition.id(), served.id()),
            (PartitionId(2), PartitionId(2))
        );
        let attachment = partition.attach(w.segment, 0, PAGES).unwrap();
        attachment.write(0, &[2]).unwrap();
        assert_eq!(w.mm.load(cx, BASE).unwrap(), 2);
        drop(partition);
        wait_until(|| served.is_cut_off());
    });
}

#[test]
fn frames_that_nobody_else_can_map_are_not_served() {
    let machine = Machine::new(MachineConfig::default());
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let mm = Mm::new(&machine);
    let (owner, _stays) = Owner::attach(&mut cx, &mm, OwnerConfig::default());
    let (mine, theirs) = UnixStream::pair().unwrap();
    let refused = owner.serve(mine, PartitionId(1), RemoteConfig::default());
    assert!(matches!(refused, Err(ServeError::NotShared)));
    assert!(RemotePartition::new(theirs).is_err());
    mm.exit(&mut cx);
}

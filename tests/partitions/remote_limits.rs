//! Partitions in other processes that ask for more than there is, or for what makes no sense: they
//! are told so or cut off, and the owner goes on.
#![cfg(target_os = "linux")]

use emmu::{
    addr::Vpn,
    extmmu::xpmem::{
        Breach, Limited, Manners, Partition, PartitionFailure, PartitionId, XpmemError,
        remote::{PartitionLimits, RemoteConfig, RemoteError, ServeError},
    },
    mm::Advice,
    notifier::Access,
};
use memmap2::MmapMut;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::{
    os::unix::net::UnixStream,
    process::{Command, Stdio},
};

use crate::{
    exporter::{BASE, LONG, PAGE, PAGES, World, pages, wait_until, with},
    raw::{Raw, Request, ToOwner},
};

fn with_limits(limits: PartitionLimits) -> RemoteConfig {
    RemoteConfig {
        limits,
        ..RemoteConfig::default()
    }
}

/// In a process of its own, since it takes all of the address space.
#[test]
fn other_process_without_threads() {
    if std::env::var_os("EMMU_TEST_ALONE").is_none() {
        return;
    }
    with(LONG, |cx, w| {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        let used: u64 = statm.split(' ').next().unwrap().parse().unwrap();
        let was = getrlimit(Resource::As);
        let tight = Rlimit {
            current: Some(used * PAGE + (1 << 20)),
            ..was
        };
        let (mine, theirs) = UnixStream::pair().unwrap();
        setrlimit(Resource::As, tight).unwrap();
        // The twin: there is room for what is small, and none for a stack.
        let (small, stack) = (MmapMut::map_anon(1 << 16), MmapMut::map_anon(1 << 21));
        let served = w.owner.serve(mine, PartitionId(1), RemoteConfig::default());
        setrlimit(Resource::As, was).unwrap();
        assert!(small.is_ok() && stack.is_err());
        assert!(matches!(served, Err(ServeError::Host(_))), "{served:?}");
        let mut refused = Raw::new(theirs);
        assert!(refused.hear().is_none() && refused.fds.is_empty());
        // It goes on for those who come after.
        let (near, _served) = w.near(2, RemoteConfig::default());
        let whole = near.attach(w.segment, 0, PAGES).unwrap();
        whole.write(0, &[1]).unwrap();
        assert_eq!(w.mm.load(cx, BASE).unwrap(), 1);
        // No descriptor for a piece of memory is the partition's bad luck.
        let was = getrlimit(Resource::Nofile);
        let none = Rlimit {
            current: Some(0),
            ..was
        };
        let looked_at = w.owner.make(pages(1, 2), Access::Read);
        let few = near.attach(looked_at, 0, 1).unwrap();
        setrlimit(Resource::Nofile, none).unwrap();
        let refused = few.read(0, &mut [0]);
        setrlimit(Resource::Nofile, was).unwrap();
        let Err(RemoteError::Refused(XpmemError::Host(errno))) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!(errno, rustix::io::Errno::MFILE.raw_os_error());
        few.read(0, &mut [0]).unwrap();
    });
    println!("@ went on");
}

#[test]
fn an_owner_whose_host_has_no_threads_and_no_descriptors_goes_on() {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "remote_limits::other_process_without_threads"])
        .arg("--nocapture")
        .env("EMMU_TEST_ALONE", "")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let why = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("@ went on"), "{said}\n{why}");
}

#[test]
fn numbers_beyond_everything_are_errors() {
    with(LONG, |_cx, w| {
        let (mut raw, served) = w.raw(1, RemoteConfig::default());
        let handle = raw.attach(w.segment, PAGES).unwrap();
        let segment = w.segment;
        let far = [1 << 36, 1 << 51, 1 << 52, 1 << 63, u64::MAX];
        for first in far {
            for pages in [0, 1, PAGES, u64::MAX] {
                let attach = Request::Attach {
                    segment,
                    first,
                    pages,
                };
                let make = Request::Make {
                    handle,
                    first,
                    pages,
                    access: Access::Read,
                };
                for request in [attach, make] {
                    let refused = raw.ask(request);
                    let range = XpmemError::Range(Vpn(first).addr());
                    assert_eq!(refused.err(), Some(range), "{request:?}");
                }
            }
            let access = Access::Write;
            let page = Request::Page {
                handle,
                at: first,
                access,
            };
            assert_eq!(raw.ask(page).err(), Some(XpmemError::Range(first)));
            let gone = raw.ask(Request::Detach { handle: first });
            assert_eq!(gone.err(), Some(XpmemError::NoAttachment(first)));
        }
        assert!(raw.attach(w.segment, 1).is_ok() && !served.is_cut_off());
    });
}

#[test]
fn a_page_that_is_refused_for_want_of_memory_is_neither_exported_nor_lent() {
    with(LONG, |cx, w| {
        let limits = PartitionLimits {
            memories: 1,
            ..PartitionLimits::default()
        };
        let (near, _served) = w.near(1, with_limits(limits));
        let whole = near.attach(w.segment, 0, PAGES).unwrap();
        whole.write(0, &[1]).unwrap();
        let made = whole.make(0, 8, Access::Write).unwrap();
        let part = near.attach(made, 0, 8).unwrap();
        for n in 1..8 {
            assert!(part.write(n * PAGE, &[1]).is_err());
        }
        assert_eq!((w.owner.exported(cx), w.owner.lent()), (1, 1));
        // Nor is a page taken from those that have it.
        let (other, _served) = w.near(2, with_limits(limits));
        let theirs = other.attach(w.segment, 0, PAGES).unwrap();
        theirs.write(40 * PAGE, &[1]).unwrap();
        let part = other.attach(made, 0, 8).unwrap();
        assert!(part.write(0, &[1]).is_err());
        assert_eq!((near.entries(), w.owner.lent()), (1, 2));
    });
}

#[test]
fn a_partition_has_no_more_than_it_may_have() {
    with(LONG, |_cx, w| {
        let limits = PartitionLimits {
            connections: 2,
            attachments: 2,
            segments: 2,
            pages: 2,
            memories: 1,
            ..PartitionLimits::default()
        };
        let (near, _served) = w.near(1, with_limits(limits));
        let limited = |e: RemoteError, most, what| {
            let is = |e| matches!(e, XpmemError::Limit(n, w) if (n, w) == (most, what));
            assert!(matches!(e, RemoteError::Refused(e) if is(e)), "{what:?}");
        };
        let whole = near.attach(w.segment, 0, PAGES).unwrap();
        let made = whole.make(0, 1, Access::Read).unwrap();
        let _second = whole.make(0, 1, Access::Read).unwrap();
        let more = whole.make(0, 1, Access::Read).unwrap_err();
        limited(more, 2, Limited::Segments);
        let part = near.attach(made, 0, 1).unwrap();
        let more = near.attach(made, 0, 1).unwrap_err();
        limited(more, 2, Limited::Attachments);
        whole.write(PAGE, &[1]).unwrap();
        limited(part.read(0, &mut [0]).unwrap_err(), 1, Limited::Memories);
        whole.write(2 * PAGE, &[1]).unwrap();
        let more = whole.write(3 * PAGE, &[1]).unwrap_err();
        limited(more, 2, Limited::Pages);
        // What is given back counts no more.
        part.detach().unwrap();
        near.attach(made, 0, 1).unwrap().detach().unwrap();
        whole.detach().unwrap();
        let whole = near.attach(w.segment, 0, PAGES).unwrap();
        whole.make(0, 1, Access::Read).unwrap();

        let (second, _served) = w.near(2, with_limits(limits));
        let (mine, _theirs) = UnixStream::pair().unwrap();
        let third = w.owner.serve(mine, PartitionId(3), with_limits(limits));
        assert!(matches!(third, Err(ServeError::Limit(2))));
        drop(second);
        let serve = || {
            let (mine, _theirs) = UnixStream::pair().unwrap();
            w.owner.serve(mine, PartitionId(3), with_limits(limits))
        };
        wait_until(|| serve().is_ok());
    });
}

/// A window that waits for one partition holds the others' questions up.
fn held_up(w: &World, f: impl FnOnce()) {
    let hangs = Partition::new(PartitionId(99));
    std::thread::scope(|s| {
        let window = s.spawn(|| {
            let mut thread = w.machine.enter().unwrap();
            let mut cx = thread.cx();
            let whole = w.owner.import(&hangs, w.segment, 0, PAGES).unwrap();
            whole.write(&mut cx, 0, &[1]).unwrap();
            hangs.set_manners(Manners::Hangs);
            w.mm.madvise(&mut cx, BASE, PAGE, Advice::DontNeed).unwrap();
        });
        wait_until(|| w.owner.recalls() == 1);
        f();
        hangs.kill();
        window.join().unwrap();
    });
}

#[test]
fn who_asks_on_and_on_is_cut_off() {
    with(LONG, |_cx, w| {
        let limits = PartitionLimits {
            questions: 4,
            ..PartitionLimits::default()
        };
        let (mut raw, flood) = w.raw(1, with_limits(limits));
        let handle = raw.attach(w.segment, 1).unwrap();
        let (near, _served) = w.near(2, with_limits(limits));
        let whole = near.attach(w.segment, 0, PAGES).unwrap();
        let (at, access) = (0, Access::Read);
        let request = Request::Page { handle, at, access };
        std::thread::scope(|s| {
            held_up(w, || {
                // As many threads as you like may ask through the library.
                for n in 0..32 {
                    let whole = &whole;
                    s.spawn(move || whole.write(n * PAGE, &[1]).unwrap());
                }
                let mut asked = 0;
                while raw.say(&ToOwner::Ask { token: 1, request }) {
                    asked += 1;
                    assert!(asked < 1_000_000, "nobody says stop");
                }
                wait_until(|| flood.is_cut_off());
            });
        });
        let broke = PartitionFailure::Broke {
            partition: PartitionId(1),
            breach: Breach::TooMany(4),
        };
        assert_eq!(w.owner.failures(), [broke]);
    });
}

#[test]
fn nobody_waits_for_who_does_not_read() {
    with(LONG, |cx, w| {
        let all: Vec<_> = (0..3).map(|n| w.raw(n, RemoteConfig::default())).collect();
        for (raw, served) in &all {
            // One question at a time, and never an answer that is read.
            let request = Request::Detach { handle: u64::MAX };
            while !served.is_cut_off() {
                let before = raw.unread();
                let _cut_off_meanwhile = raw.say(&ToOwner::Ask { token: 1, request });
                wait_until(|| raw.unread() > before || served.is_cut_off());
            }
        }
        w.mm.store(cx, BASE, 1).unwrap();
        w.mm.madvise(cx, BASE, PAGE, Advice::DontNeed).unwrap();
        assert_eq!(w.owner.failures(), []);
    });
}

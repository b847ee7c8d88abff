//! Processes that keep to no protocol, each of which tries to get more than it was exported, to
//! keep it for longer, or to bring the owner's process down.
#![cfg(target_os = "linux")]

use emmu::{
    Mm,
    ctx::CallCx,
    extmmu::xpmem::{
        Manners, PartitionId, SegId, XpmemError,
        remote::{RemoteConfig, RemoteError, RemotePartition},
    },
    mm::{Advice, MmapArgs, Prot},
    notifier::Access,
};
use std::{
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    process::{Command, Stdio},
};

use crate::{
    exporter::{BASE, LONG, PAGE, PAGES, attach, pages, wait_until, with},
    raw::{Reply, Request},
    slow_page,
};

const SECRET: u64 = 0x5ec2_e75e_c2e7_5ec2;

fn keep_secret(mm: &Mm, cx: &mut CallCx<'_>, at: u64) {
    mm.write_bytes(cx, at, &SECRET.to_le_bytes()).unwrap();
}
fn assert_kept(mm: &Mm, cx: &mut CallCx<'_>, at: u64) {
    let mut seen = [0; 8];
    mm.read_bytes(cx, at, &mut seen).unwrap();
    assert_eq!(u64::from_le_bytes(seen), SECRET, "at {at:#x}");
}

fn only_reads() -> RemoteConfig {
    RemoteConfig {
        access: Access::Read,
        ..RemoteConfig::default()
    }
}
// What was exported, and no more.

#[test]
fn a_partition_finds_what_it_was_exported_and_nothing_else() {
    with(LONG, |cx, w| {
        // Secrets: of an address space that exports nothing, of pages of this one that are not
        // exported, of segments that others have.
        let other = Mm::new(&w.machine);
        let args = MmapArgs::anonymous(PAGE).fixed(BASE);
        other.mmap(cx, &args).unwrap();
        keep_secret(&other, cx, BASE);
        let hidden = BASE + 10 * PAGE;
        keep_secret(&w.mm, cx, hidden);
        let theirs = BASE + 20 * PAGE;
        keep_secret(&w.mm, cx, theirs);
        let few = w.owner.make(pages(0, 4), Access::Write);
        w.mm.write_bytes(cx, BASE, &(!SECRET).to_le_bytes())
            .unwrap();

        let (friend, _served) = w.near(1, RemoteConfig::default());
        let whole = friend.attach(w.segment, 0, PAGES).unwrap();
        whole.write(20 * PAGE + 8, &[1]).unwrap();

        let (mut thief, stream) = w.meeting.start("other_process");
        let config = RemoteConfig::default();
        let _served = w.owner.serve(stream, PartitionId(2), config).unwrap();
        let order = format!("attach {} 0 4", few.number());
        assert_eq!(thief.call(&order), "ok");
        assert_eq!(thief.call(&format!("read 0 {PAGE}")), "0", "a zero page");
        assert_eq!(thief.call("write 0 100 1"), "ok");
        // It looks, and would find.
        assert_eq!(thief.call(&format!("loot {}", !SECRET)), "1");
        assert_eq!(thief.call(&format!("loot {SECRET}")), "0");
        let smashed = thief.call("smash 170");
        assert_ne!(smashed, "0 0", "what it may write it can");
        assert_eq!(w.mm.load(cx, BASE).unwrap(), 170);
        assert_kept(&other, cx, BASE);
        assert_kept(&w.mm, cx, hidden);
        assert_kept(&w.mm, cx, theirs);
        let mut seen = [0];
        whole.read(20 * PAGE + 8, &mut seen).unwrap();
        assert_eq!(seen, [1]);
        assert_eq!(w.mm.load(cx, BASE + PAGE).unwrap(), 0, "the zero page");
        other.exit(cx);
    });
}

#[test]
fn who_comes_later_does_not_find_what_was_there_before() {
    with(LONG, |cx, w| {
        let (friend, _served) = w.near(1, RemoteConfig::default());
        let whole = friend.attach(w.segment, 0, PAGES).unwrap();
        for n in 0..4 {
            whole.write(n * PAGE, &SECRET.to_le_bytes()).unwrap();
        }
        w.mm.madvise(cx, BASE, 4 * PAGE, Advice::DontNeed).unwrap();
        let (mut thief, _served) = w.process(2);
        assert_eq!(thief.call("write 0 8 1"), "ok");
        assert_eq!(w.owner.lent(), 1);
        assert_eq!(thief.call(&format!("loot {SECRET}")), "0");
    });
}

#[test]
fn memory_that_may_only_be_read_is_written_by_no_descriptor() {
    with(LONG, |cx, w| {
        keep_secret(&w.mm, cx, BASE);
        let (mut thief, _served) = w.process_as(1, only_reads());
        assert_eq!(thief.call("read 0 0"), "194");
        assert_eq!(thief.call(&format!("loot {SECRET}")), "1", "it has it");
        assert_eq!(thief.call("smash 170"), "0 0");
        assert_kept(&w.mm, cx, BASE);
        // A segment that may only be read, to one who may write others.
        let looked_at = w.owner.make(pages(0, PAGES), Access::Read);
        let (mut thief, stream) = w.meeting.start("other_process");
        let config = RemoteConfig::default();
        let _served = w.owner.serve(stream, PartitionId(2), config).unwrap();
        assert_eq!(thief.call(&attach(looked_at)), "ok");
        assert_eq!(thief.call("read 0 0"), "194");
        assert_eq!(thief.call("smash 170"), "0 0");
        assert_kept(&w.mm, cx, BASE);
    });
}

/// A page that a process may only read because another has it as well: the one that it gets must
/// not be writable for it.
#[test]
fn a_page_that_is_copied_when_written_is_lent_for_reading() {
    with(LONG, |cx, w| {
        keep_secret(&w.mm, cx, BASE);
        keep_secret(&w.mm, cx, BASE + PAGE);
        let child = w.mm.fork(cx).unwrap();
        w.mm.mprotect(cx, BASE + PAGE, PAGE, Prot::READ).unwrap();
        let (mut thief, _served) = w.process(1);
        for n in 0..3 {
            let seen = thief.call(&format!("read 0 {}", n * PAGE));
            assert_eq!(seen, ["194", "194", "0"][n as usize]);
        }
        assert_eq!(thief.call("smash 170"), "0 0");
        for mm in [&w.mm, &child] {
            assert_kept(mm, cx, BASE);
            assert_kept(mm, cx, BASE + PAGE);
        }
        // Once it writes, it has a copy, and the child has not.
        assert_eq!(thief.call("write 0 8 1"), "ok");
        assert_ne!(thief.call("smash 170"), "0 0");
        assert_eq!(w.mm.load(cx, BASE).unwrap(), 170);
        assert_kept(&w.mm, cx, BASE + PAGE);
        assert_kept(&child, cx, BASE);
        // What it had is shared from here on, whatever it does to its memory.
        keep_secret(&w.mm, cx, BASE);
        let second = w.mm.fork(cx).unwrap();
        assert_ne!(thief.call("smash 171"), "0 0");
        assert_kept(&w.mm, cx, BASE);
        assert_kept(&second, cx, BASE);
        child.exit(cx);
        second.exit(cx);
    });
}

// No longer than it is lent.

#[test]
fn a_child_that_a_partition_left_behind_reaches_nothing() {
    with(std::time::Duration::from_millis(200), |cx, w| {
        let (mut p, remote) = w.process(1);
        assert_eq!(p.call("write 0 0 1"), "ok");
        assert_eq!(p.call(&format!("write 0 {PAGE} 1")), "ok");
        assert_eq!(p.call("hang"), "ok");
        assert_eq!(p.call("leave"), "left");
        assert_ne!(p.call("smash 9"), "0 0", "the child has the memory");
        assert_eq!(w.mm.load(cx, BASE).unwrap(), 9);
        // The partition does not answer, and is fenced off. The page is used again.
        w.mm.madvise(cx, BASE, PAGE, Advice::DontNeed).unwrap();
        assert_eq!(w.owner.failures().len(), 1);
        keep_secret(&w.mm, cx, BASE);
        assert_eq!(p.call(&format!("loot {SECRET}")), "0");
        assert_ne!(p.call("smash 10"), "0 0");
        assert_kept(&w.mm, cx, BASE);
        // Nor does it reach the other page, once the partition is seen to be gone; nor what others
        // get from then on.
        wait_until(|| remote.is_cut_off() && w.owner.lent() == 0);
        let (friend, _served) = w.near(2, RemoteConfig::default());
        let whole = friend.attach(w.segment, 0, PAGES).unwrap();
        for n in 0..2 {
            whole.write(n * PAGE, &SECRET.to_le_bytes()).unwrap();
        }
        assert_eq!(w.owner.lent(), 2);
        assert_eq!(p.call(&format!("loot {SECRET}")), "0");
        assert_ne!(p.call("smash 11"), "0 0");
        for n in 0..2 {
            assert_kept(&w.mm, cx, BASE + n * PAGE);
        }
    });
}

#[test]
fn who_answers_without_clearing_and_who_detaches_keep_nothing() {
    with(LONG, |cx, w| {
        let (liar, _served) = w.near(1, RemoteConfig::default());
        let whole = liar.attach(w.segment, 0, PAGES).unwrap();
        whole.write(0, &[1]).unwrap();
        liar.set_manners(Manners::Lies);
        w.mm.madvise(cx, BASE, PAGE, Advice::DontNeed).unwrap();
        keep_secret(&w.mm, cx, BASE);
        let mut seen = [1; 8];
        whole.read(0, &mut seen).unwrap();
        whole.write(0, &[66]).unwrap();
        assert_eq!((liar.entries(), seen), (1, [0; 8]), "it has its entry");
        assert_kept(&w.mm, cx, BASE);
        let (mut thief, _served) = w.process(2);
        assert_eq!(thief.call(&format!("write 0 {} 1", 2 * PAGE)), "ok");
        assert_eq!(thief.call("leave"), "left");
        assert_eq!(w.owner.lent(), 1);
        // It detaches by dying; its child has the memory.
        thief.kill();
        wait_until(|| w.owner.lent() == 0);
        let (friend, _served) = w.near(3, RemoteConfig::default());
        let again = friend.attach(w.segment, 0, PAGES).unwrap();
        let at = 2 * PAGE;
        again.write(at, &SECRET.to_le_bytes()).unwrap();
        assert_ne!(thief.call("smash 12"), "0 0");
        assert_kept(&w.mm, cx, BASE + at);
        again.detach().unwrap();
        assert_eq!(w.owner.lent(), 0);
    });
}

// Before anything was asked for by name.

#[test]
fn nothing_is_sent_before_a_page_is_asked_for() {
    with(LONG, |_cx, w| {
        let (mut raw, _served) = w.raw(1, RemoteConfig::default());
        let handle = raw.attach(w.segment, 1).unwrap();
        assert!(raw.fds.is_empty() && w.owner.lent() == 0);
        let (at, access) = (0, Access::Write);
        let page = Request::Page { handle, at, access };
        assert!(matches!(
            raw.ask(page),
            Ok(Reply::Page { writable: true, .. })
        ));
        assert_eq!((raw.fds.len(), w.owner.lent()), (1, 1));
        // A process that has gone before it is served, and whoever has the socket then.
        let (mut gone, stream) = w.meeting.start("other_process");
        let kept = stream.try_clone().unwrap();
        gone.kill();
        let served = w.owner.serve(stream, PartitionId(2), only_reads()).unwrap();
        wait_until(|| served.is_cut_off());
        drop(kept);
    });
}

#[test]
fn a_segment_is_attached_by_who_knows_its_name() {
    with(LONG, |_cx, w| {
        let (mut raw, served) = w.raw(1, RemoteConfig::default());
        let (name, next) = (w.segment.number(), 1 << 64);
        let other = w.owner.make(pages(0, 1), Access::Write);
        let serial = (name >> 64) << 64;
        let guesses = [0, 1, serial, name + next, name - 1, name + 1, u128::MAX];
        let others = (0..64).map(|n| (n * next) | (name & (next - 1)));
        for guess in guesses.into_iter().chain(others) {
            let guess = SegId::from_number(guess);
            if guess == w.segment {
                continue;
            }
            let refused = raw.attach(guess, 1);
            assert_eq!(refused, Err(XpmemError::NoSegment(guess)));
        }
        assert_ne!(other.number() as u64, name as u64, "each has its own");
        assert!(raw.attach(w.segment, 1).is_ok() && !served.is_cut_off());
        // A handle of another's is none.
        let (near, _served) = w.near(2, RemoteConfig::default());
        let _theirs = near.attach(other, 0, 1).unwrap();
        for handle in 0..4096 {
            let (at, access) = (0, Access::Read);
            let page = Request::Page { handle, at, access };
            if raw.ask(page).is_ok() {
                let Ok(Reply::Page { page, .. }) = raw.ask(page) else {
                    unreachable!("it was just there");
                };
                assert_eq!(page, BASE / PAGE, "its own");
            }
        }
    });
}

// No process is killed.

/// A process that connects, and leaves the socket to another: it is asked for its answer, and not
/// killed for it.
#[test]
fn other_process_for_another() {
    let Some(path) = std::env::var_os("EMMU_TEST_SOCKET") else {
        return;
    };
    let stream = UnixStream::connect(path).unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "remote_attacks::other_process_on_input",
            "--nocapture",
        ])
        .stdin(OwnedFd::from(stream))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    for line in std::io::stdin().lines() {
        println!("@ here for {}", line.unwrap());
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn other_process_on_input() {
    if std::env::var_os("EMMU_TEST_SOCKET").is_none() {
        return;
    }
    let input = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
    // Run by hand, it has no socket there.
    let Ok(partition) = RemotePartition::new(UnixStream::from(input)) else {
        return;
    };
    partition.set_manners(Manners::Hangs);
    let name = u128::from(partition.id().0) << 64;
    let refused = partition.attach(SegId::from_number(name), 0, 1);
    assert!(matches!(refused, Err(RemoteError::Refused(_))));
    println!("@ asked");
    // It ends with the socket.
    wait_until(|| partition.is_closed());
}

#[test]
fn nobody_is_killed_least_of_all_who_is_not_the_partition() {
    with(LONG, |_cx, w| {
        let (mut innocent, stream) = w.meeting.start("remote_attacks::other_process_for_another");
        let config = RemoteConfig::default();
        let remote = w.owner.serve(stream, PartitionId(1), config).unwrap();
        assert_eq!(innocent.answer(), "asked");
        remote.kill();
        assert!(remote.is_cut_off());
        assert_eq!(innocent.call("you"), "here for you");
        assert!(!innocent.is_over());
    });
}

/// An owner in a namespace of process numbers of its own, where the partition has none.
#[test]
fn other_process_that_exports() {
    let Some(path) = std::env::var_os("EMMU_TEST_SOCKET") else {
        return;
    };
    with(LONG, |_cx, w| {
        let stream = UnixStream::connect(path).unwrap();
        let config = RemoteConfig::default();
        let served = w.owner.serve(stream, PartitionId(1), config);
        println!("@ {} {}", std::process::id(), w.segment.number());
        wait_until(|| served.as_ref().unwrap().is_cut_off());
    });
    println!("@ it has gone");
}

#[test]
fn a_partition_without_a_process_number_is_served() {
    let unshare = || {
        let mut unshare = Command::new("unshare");
        unshare.args(["--pid", "--fork", "--kill-child"]);
        unshare
    };
    if !unshare().arg("true").status().is_ok_and(|s| s.success()) {
        return crate::exporter::skipped::skipped("a process elsewhere", "no namespace for it");
    }
    let meeting = crate::process::Meeting::new();
    let mut owner = unshare();
    owner.arg(std::env::current_exe().unwrap());
    let (mut owner, stream) = meeting.start_as(owner, "remote_attacks::other_process_that_exports");
    let near = RemotePartition::new(stream).unwrap();
    let said = owner.answer();
    let (id, segment) = said.split_once(' ').unwrap();
    assert_eq!(id, "1", "it is in a namespace of its own");
    let segment = SegId::from_number(segment.parse().unwrap());
    let whole = near.attach(segment, 0, PAGES).unwrap();
    whole.write(0, &[1]).unwrap();
    drop(near);
    assert_eq!(owner.answer(), "it has gone");
}

#[test]
fn a_segment_that_is_removed_during_a_look_up_is_not_lent() {
    with(LONG, |cx, w| {
        let (file, strings) = slow_page::map(cx, w);
        let (near, _served) = w.near(1, RemoteConfig::default());
        let gone = w.owner.make(pages(0, 1), Access::Write);
        let whole = near.attach(gone, 0, 1).unwrap();
        std::thread::scope(|s| {
            let asks = s.spawn(|| whole.write(0, &[1]));
            strings.door.wait();
            w.owner.remove(cx, gone).unwrap();
            strings.door.open();
            let why = asks.join().unwrap().unwrap_err();
            let is_gone =
                matches!(why, RemoteError::Refused(XpmemError::NoSegment(id)) if id == gone);
            assert!(is_gone, "{why}");
        });
        assert_eq!(w.owner.lent(), 0);
        w.mm.munmap(cx, BASE, PAGE).unwrap();
        drop(file);
    });
}

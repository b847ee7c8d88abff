//! Recordings of real programs come out as on Linux; what is no recording is an error that says
//! where.

#![cfg(feature = "replay")]

use emmu::{
    Mm,
    ctx::CallCx,
    replay::{
        Devices, MmuKind,
        program::{
            Call, FaultKind, LayoutVerdict, Process, Program, ProgramError, ProgramOutcome,
            RecordedFault, Row, Watch, Who, machine, parse_faults, parse_maps, parse_strace, run,
            run_on, shipped,
        },
    },
};
use proptest::prelude::*;
use std::{collections::BTreeMap, path::Path, sync::Arc};

/// A small recording: these calls, no faults, one process with a page of code, a stack and what it
/// ends with.
fn recording(calls: &str, last: &str) -> BTreeMap<String, Vec<u8>> {
    let initial = "\
400000-401000 r-xp 00000000 fe:00 1 /bin/it
7f0000000000-7f0000001000 r--p 00000000 fe:00 2 /lib/ld.so
7ff000000000-7ff000021000 rw-p 00000000 00:00 0 [stack]
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [vsyscall]
";
    let mut finals = initial.to_owned();
    finals.push_str(last);
    let mut rows: Vec<&str> = finals.lines().collect();
    rows.sort_by_key(|row| {
        let start = row.split_once('-').map_or("", |(start, _)| start);
        u64::from_str_radix(start, 16).unwrap_or_default()
    });
    let exec = "7 1.000000000 execve(\"/bin/it\", [\"it\"], 0x0 /* 1 var */) = 0\n";
    let files = [
        ("calls.strace", format!("{exec}{calls}")),
        ("faults.txt", String::new()),
        ("7.initial.maps", initial.to_owned()),
        ("7.final.maps", rows.join("\n")),
    ];
    let bytes = files.map(|(name, text)| (name.to_owned(), text.into_bytes()));
    bytes.into_iter().collect()
}

#[track_caller]
fn follow(calls: &str, last: &str) -> ProgramOutcome {
    let program = Program::from_files("it", recording(calls, last)).expect("a recording");
    run(&program).expect("no machine is in use")
}

#[track_caller]
fn as_linux(calls: &str, last: &str) {
    let outcome = follow(calls, last);
    assert!(outcome.is_whole(), "{outcome}");
    assert_eq!(
        outcome.processes[0].verdict,
        LayoutVerdict::Equal,
        "{outcome}"
    );
}

#[test]
fn the_shipped_server_ends_as_on_linux() {
    let outcome = run(&shipped().expect("whole files")).expect("no machine is in use");
    assert!(outcome.is_whole(), "{outcome}");
    assert_eq!((outcome.calls, outcome.faults), (709, 6016));
    assert_eq!((outcome.refused, outcome.unknown), (0, 0));
    let pids: Vec<u32> = outcome.processes.iter().map(|p| p.pid).collect();
    assert_eq!(pids, [9864, 9896]);
    assert!(outcome.processes.iter().all(|p| p.emmu.len() == 115));
}

/// Recordings of calls with arguments that are wrong in every way, of huge pages from a pool, of
/// System V segments, of a database, of a server.
#[test]
fn every_recorded_program_ends_as_on_linux_and_devices_follow() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/programs");
    for name in [
        "bad_arguments",
        "huge_pool",
        "postgres",
        "redis",
        "segments",
    ] {
        let program = Program::load(&folder.join(name)).expect(name);
        let (machine, mut devices) = (machine(), Devices::new(MmuKind::ALL));
        let outcome = run_on(&machine, &program, &mut devices).expect("no machine is in use");
        assert!(outcome.is_whole() && outcome.unknown == 0, "{outcome}");
        let equal = |p: &Process| p.verdict == LayoutVerdict::Equal;
        assert!(outcome.processes.iter().all(equal), "{outcome}");
        let presented = devices.presented();
        assert!(presented.findings.is_empty(), "{presented}");
        assert!(
            presented.bills.iter().all(|(_, bill)| bill.faults > 0),
            "{presented}"
        );
        let left = (machine.mem().in_use(), machine.commit().pages());
        assert_eq!(left, (0, 0), "{name}: frames, and promised pages, are left");
    }
}

#[test]
fn pointers_that_lead_nowhere_are_read_and_do_nothing() {
    as_linux(
        "\
7 1.000001000 mmap(NULL, 4096, PROT_READ, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0x7efffffff000
7 1.000002000 prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, 0x7efffffff000, 4096, 0x3) = -1 EFAULT (Bad address)
7 1.000003000 prctl(PR_SET_VMA, 0x1 /* PR_SET_VMA_??? */, 0x7efffffff000, 0x1000, 0x3) = -1 EINVAL (Invalid argument)
7 1.000004000 memfd_create(0x3, 0) = -1 EFAULT (Bad address)
7 1.000005000 clone3(0x3, 88) = -1 EFAULT (Bad address)
7 1.000006000 openat(AT_FDCWD</>, 0x3, O_RDONLY) = -1 EFAULT (Bad address)
7 1.000007000 execve(0x3, 0x3, NULL) = -1 EFAULT (Bad address)
7 1.000008000 exit_group(0) = ?
",
        "7efffffff000-7f0000000000 r--p 00000000 00:00 0",
    );
}

#[test]
fn a_descriptor_that_is_not_open_comes_before_all_but_the_offset() {
    as_linux(
        "\
7 1.000001000 mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, 9, 0) = -1 EBADF (Bad file descriptor)
7 1.000002000 mmap(NULL, 0, PROT_READ, MAP_FILE, 9, 0) = -1 EBADF (Bad file descriptor)
7 1.000003000 mmap(NULL, 4096, PROT_READ, MAP_PRIVATE|MAP_HUGETLB, -100, 0) = -1 EBADF (Bad file descriptor)
7 1.000004000 mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, 9, 0x7) = -1 EINVAL (Invalid argument)
7 1.000005000 openat(AT_FDCWD</>, \"f\", O_RDONLY|O_PATH) = 3</f>
7 1.000006000 mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, 3</f>, 0) = -1 EBADF (Bad file descriptor)
7 1.000007000 ftruncate(3</f>, 0) = -1 EBADF (Bad file descriptor)
7 1.000008000 ftruncate(9, -1) = -1 EINVAL (Invalid argument)
7 1.000009000 mmap(NULL, 4096, PROT_READ, MAP_PRIVATE|MAP_ANONYMOUS, 9, 0) = 0x7efffffff000
7 1.000010000 mmap(NULL, 4096, PROT_READ, MAP_SHARED, 5<pipe:[7]>, 0) = -1 ENODEV (No such device)
7 1.000011000 exit_group(0) = ?
",
        "7efffffff000-7f0000000000 r--p 00000000 00:00 0",
    );
}

#[test]
fn segments_are_attached_where_they_may_be() {
    as_linux(
        "\
7 1.000001000 shmget(IPC_PRIVATE, 8192, IPC_CREAT|0600) = 5
7 1.000002000 shmat(5, NULL, SHM_REMAP) = -1 EINVAL (Invalid argument)
7 1.000003000 shmat(5, 0x3, SHM_RND|SHM_REMAP) = -1 EINVAL (Invalid argument)
7 1.000004000 shmat(5, 0x7effffffe001, 0) = -1 EINVAL (Invalid argument)
7 1.000005000 shmat(5, 0xfffffffffffff000, 0) = -1 EINVAL (Invalid argument)
7 1.000006000 shmat(5, 0x7effffffe001, SHM_RND) = 0x7effffffe000
7 1.000007000 shmat(5, 0x7effffffe000, 0) = -1 EINVAL (Invalid argument)
7 1.000008000 shmat(5, 0x7effffffe000, SHM_RDONLY|SHM_REMAP) = 0x7effffffe000
7 1.000009000 exit_group(0) = ?
",
        "7effffffe000-7f0000000000 r--s 00000000 00:01 5 /SYSV00000000 (deleted)",
    );
}

/// The recording says whether there was a pool.
#[test]
fn huge_pages_come_about_as_they_did() {
    as_linux(
        "\
7 1.000001000 mmap(NULL, 8388608, PROT_READ, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0x7effff800000
7 1.000002000 mmap(0x7effff800000, 4096, PROT_READ, MAP_PRIVATE|MAP_FIXED|MAP_ANONYMOUS|MAP_HUGETLB, -1, 0) = -1 ENOMEM (x)
7 1.000003000 mmap(0x7effffa01000, 4096, PROT_READ, MAP_PRIVATE|MAP_FIXED|MAP_ANONYMOUS|MAP_HUGETLB, -1, 0) = -1 EINVAL (x)
7 1.000004000 mmap(NULL, 4096, PROT_READ, MAP_PRIVATE|MAP_ANONYMOUS|MAP_HUGETLB|30<<MAP_HUGE_SHIFT, -1, 0) = -1 ENOMEM (x)
7 1.000005000 mmap(NULL, 4096, PROT_READ, MAP_PRIVATE|MAP_ANONYMOUS|MAP_HUGETLB, -1, 0) = 0x7effff600000
7 1.000006000 munmap(0x7effff600000, 4096) = -1 EINVAL (Invalid argument)
7 1.000007000 mmap(0x7effffe00000, 1, PROT_READ, MAP_SHARED|MAP_FIXED|MAP_ANONYMOUS|MAP_HUGETLB, -1, 0) = 0x7effffe00000
7 1.000008000 exit_group(0) = ?
",
        "\
7effff600000-7effff800000 r--p 00000000 00:11 1 /anon_hugepage (deleted)
7effffa00000-7effffe00000 r--p 00000000 00:00 0
7effffe00000-7f0000000000 r--s 00000000 00:11 2 /anon_hugepage (deleted)
",
    );
}

#[test]
fn flags_are_as_wide_as_the_kernels() {
    as_linux(
        "\
7 1.000001000 mmap(NULL, 8192, PROT_READ|0x10000000000, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0x7effffffe000
7 1.000002000 mprotect(0x7effffffe000, 4096, PROT_NONE|0x10000000000) = -1 EINVAL (Invalid argument)
7 1.000003000 pkey_mprotect(0x7effffffe000, 4096, PROT_NONE, 15) = -1 EINVAL (Invalid argument)
7 1.000004000 pkey_mprotect(0x7effffffe000, 4096, PROT_NONE, -1) = 0
7 1.000005000 madvise(0x7effffffe000, 4096, 0xffffffff /* MADV_??? */) = -1 EINVAL (Invalid argument)
7 1.000006000 exit_group(0) = ?
",
        "\
7effffffe000-7efffffff000 ---p 00000000 00:00 0
7efffffff000-7f0000000000 r--p 00000000 00:00 0
",
    );
}

#[test]
fn threads_share_and_children_copy() {
    as_linux(
        "\
7 1.000001000 mmap(NULL, 8192, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0x7effffffe000
7 1.000002000 clone3({flags=CLONE_VM|CLONE_THREAD, stack=0x1} => {parent_tid=[8]}, 88) = 8
8 1.000003000 munmap(0x7effffffe000, 4096) = 0
7 1.000004000 clone(child_stack=NULL, flags=SIGCHLD <unfinished ...>
9 1.000005000 munmap(0x7efffffff000, 4096) = 0
7 1.000006000 <... clone resumed>) = 9
9 1.000007000 exit_group(0) = ?
9 1.000008000 +++ exited with 0 +++
7 1.000009000 exit_group(0 <unfinished ...>
8 1.000010000 +++ exited with 0 +++
7 1.000011000 +++ exited with 0 +++
",
        "7efffffff000-7f0000000000 rw-p 00000000 00:00 0 ",
    );
}

#[test]
fn overlapping_calls_are_ordered_by_their_places() {
    // The call that was seen to end last was first: it has the higher place.
    as_linux(
        "\
7 1.000001000 clone3({flags=CLONE_VM|CLONE_THREAD, stack=0x1} => {parent_tid=[8]}, 88) = 8
7 1.000002000 mmap(NULL, 4096, PROT_READ, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0 <unfinished ...>
8 1.000003000 mmap(NULL, 8192, PROT_NONE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0x7effffffd000
7 1.000004000 <... mmap resumed>) = 0x7efffffff000
7 1.000005000 exit_group(0) = ?
",
        "\
7effffffd000-7efffffff000 ---p 00000000 00:00 0
7efffffff000-7f0000000000 r--p 00000000 00:00 0
",
    );
}

#[test]
fn files_segments_and_shared_memory_have_the_kernels_names() {
    as_linux(
        "\
7 1.000001000 mmap(NULL, 4096, PROT_READ|PROT_WRITE, MAP_SHARED|MAP_ANONYMOUS, -1, 0) = 0x7efffffff000
7 1.000002000 memfd_create(\"a b\", 0) = 3</memfd:a b>(deleted)
7 1.000003000 ftruncate(3</memfd:a b>(deleted), 4096) = 0
7 1.000004000 dup2(3</memfd:a b>(deleted), 9) = 9</memfd:a b>(deleted)
7 1.000005000 mmap(NULL, 4096, PROT_READ, MAP_SHARED, 9</memfd:a b>(deleted), 0) = 0x7effffffe000
7 1.000006000 shmget(IPC_PRIVATE, 4096, IPC_CREAT|0600) = 5
7 1.000007000 shmat(5, NULL, SHM_RDONLY) = 0x7effffffd000
7 1.000008000 openat(AT_FDCWD</x>, \"f\", O_RDWR|O_CLOEXEC) = 4</x/f>
7 1.000009000 mmap(NULL, 3145728, PROT_READ|PROT_WRITE, MAP_PRIVATE, 4</x/f>, 0) = 0x7effffc00000
7 1.000010000 brk(NULL) = 0x10000000
7 1.000011000 brk(0x10001000) = 0x10001000
7 1.000012000 shmdt(0x7effffffd000) = 0
7 1.000013000 exit_group(0) = ?
",
        "\
10000000-10001000 rw-p 00000000 00:00 0 [heap]
7effffc00000-7efffff00000 rw-p 00000000 fe:00 3 /x/f
7effffffe000-7efffffff000 r--s 00000000 00:01 4 /memfd:a b (deleted)
7efffffff000-7f0000000000 rw-s 00000000 00:01 5 /dev/zero (deleted)
",
    );
}

#[test]
fn named_memory_does_not_merge() {
    as_linux(
        "\
7 1.000001000 mmap(NULL, 12288, PROT_READ, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0x7effffffd000
7 1.000002000 prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, 0x7effffffe000, 4096, \"a b\") = 0
7 1.000003000 prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, 0x7effffffd000, 4096, \"a b\") = 0
7 1.000004000 prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, 0x7efffffff000, 4096, \"c\") = -1 EINVAL (Invalid argument)
7 1.000005000 mmap(NULL, 4096, PROT_READ|PROT_WRITE, MAP_SHARED|MAP_ANONYMOUS, -1, 0) = 0x7effffffc000
7 1.000006000 prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, 0x7effffffc000, 4096, \"d\") = 0
7 1.000007000 exit_group(0) = ?
",
        "\
7effffffc000-7effffffd000 rw-s 00000000 00:01 5 [anon_shmem:d]
7effffffd000-7efffffff000 r--p 00000000 00:00 0 [anon:a b]
7efffffff000-7f0000000000 r--p 00000000 00:00 0
",
    );
}

/// A child in whose name another layout than that of its program was recorded, or one of the first
/// of two programs.
const CHILD: &str = "\
400000-401000 r-xp 00000000 fe:00 1 /bin/child
7ff000000000-7ff000021000 rw-p 00000000 00:00 0 [stack]
";

#[track_caller]
fn follow_child(child: &str, last: &str) -> ProgramOutcome {
    let calls = format!(
        "\
7 1.000001000 clone(child_stack=NULL, flags=SIGCHLD) = 8
{child}8 1.000008000 exit_group(0) = ?
7 1.000009000 exit_group(0) = ?
"
    );
    let mut files = recording(&calls, "");
    files.insert("8.initial.maps".into(), CHILD.into());
    files.insert("8.final.maps".into(), format!("{CHILD}{last}").into_bytes());
    let program = Program::from_files("it", files).expect("a recording");
    run(&program).expect("no machine is in use")
}

const EXECVE: &str = "execve(\"/bin/child\", [\"child\"], 0x0 /* 1 var */)";

#[test]
fn a_layout_is_of_the_program_that_made_the_first_brk() {
    let begins = |calls: &str| -> (Vec<LayoutVerdict>, usize) {
        let outcome = follow_child(&calls.replace("EXECVE", EXECVE), "");
        assert!(outcome.differing.is_empty(), "{outcome}");
        let verdicts = outcome.processes.iter().map(|p| p.verdict.clone());
        (verdicts.collect(), outcome.unknown)
    };
    let followed = |verdict: LayoutVerdict| vec![LayoutVerdict::Equal, verdict];
    // As a rule.
    let calls = "\
8 1.000002000 EXECVE = 0
8 1.000003000 brk(NULL) = 0x10000000
";
    assert_eq!(begins(calls), (followed(LayoutVerdict::Equal), 0));
    // Not the first that was tried, nor the first that ran.
    let calls = "\
8 1.000002000 EXECVE = -1 ENOENT (No such file or directory)
8 1.000003000 EXECVE = 0
8 1.000004000 EXECVE = 0
8 1.000005000 brk(NULL) = 0x10000000
";
    assert_eq!(begins(calls), (followed(LayoutVerdict::Equal), 1));
    // The layout of the parent's copy.
    let calls = "\
8 1.000002000 brk(NULL) = 0x10000000
8 1.000003000 EXECVE = 0
8 1.000004000 brk(NULL) = 0x10000000
";
    let outcome = follow_child(&calls.replace("EXECVE", EXECVE), "");
    assert!(
        outcome.to_string().contains("3 events of programs"),
        "{outcome}"
    );
    assert_eq!(begins(calls), (followed(LayoutVerdict::NoBeginning), 3));
    // Of the first of two programs.
    let calls = "\
8 1.000002000 EXECVE = 0
8 1.000003000 brk(NULL) = 0x10000000
8 1.000004000 EXECVE = 0
";
    assert_eq!(begins(calls), (followed(LayoutVerdict::NoBeginning), 2));
}

#[test]
fn what_differs_is_told() {
    let outcome = follow(
        "\
7 1.000001000 mmap(NULL, 4096, PROT_READ, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0x7ef000000000
7 1.000002000 munmap(0x1, 4096) = 0
7 1.000003000 exit_group(0) = ?
",
        "",
    );
    assert!(!outcome.is_whole());
    let here: Vec<&str> = outcome.differing.iter().map(|d| &*d.emmu).collect();
    assert_eq!(here, ["0x7efffffff000", "EINVAL"]);
    let process = &outcome.processes[0];
    assert_eq!(process.verdict, LayoutVerdict::Differs);
    let (linux, emmu) = process.first_differing(1);
    assert_eq!(
        (linux[0].start, emmu[0].start),
        (0x7f00_0000_0000, 0x7ef0_0000_0000)
    );
    let json = outcome.to_json();
    assert_eq!(json["processes"][0]["equal"], false);
    assert!(outcome.to_string().contains("here EINVAL"), "{outcome}");
}

/// A file of a recording, what stands in it, how the error begins.
const BROKEN: &[(&str, &str, &str)] = &[
    (
        "calls.strace",
        "7 1.000000000 brk(NULL) = 0\nx",
        "it/calls.strace:2: \"x\" is not the number",
    ),
    (
        "calls.strace",
        "7 1.0 brk(NULL) = 0",
        "it/calls.strace:1: \"1.0\" is not a time",
    ),
    (
        "calls.strace",
        "7 1.000000000 brk(NULL",
        "it/calls.strace:1: ",
    ),
    (
        "calls.strace",
        "7 1.000000000 <... brk resumed>) = 0",
        "it/calls.strace:1: brk is resumed",
    ),
    (
        "calls.strace",
        "7 1.000000000 munmap(0x1000) = 0",
        "it/calls.strace:1: munmap: argument 2",
    ),
    (
        "calls.strace",
        "7 1.000000000 mprotect(0x1000, 1, PROT_X) = 0",
        "it/calls.strace:1: mprotect: \"PROT_X\"",
    ),
    ("calls.strace", "", "it/calls.strace:1: no call"),
    (
        "faults.txt",
        "7 7 1.000000000 read 0x1\n7 7 1.000000000 look 0x1",
        "it/faults.txt:2: ",
    ),
    (
        "7.final.maps",
        "2000-1000 r--p 00000000 00:00 0",
        "it/7.final.maps:1: not a line",
    ),
    (
        "7.initial.maps",
        "1000-3000 r--p 00000000 00:00 0\n2000-4000 r--p 00000000 00:00 0",
        "it/7.initial.maps:2: overlaps",
    ),
];

#[test]
fn errors_name_file_and_line() {
    let broken = |file: &str, text: &str| -> ProgramError {
        let mut files = recording("", "");
        files.insert(file.into(), text.as_bytes().to_vec());
        Program::from_files("it", files).expect_err("broken")
    };
    for (file, text, says) in BROKEN {
        let error = broken(file, text).to_string();
        assert!(error.starts_with(says), "{error} is not {says}");
    }
    let missing = |file: &str| {
        let mut files = recording("", "");
        files.remove(file);
        Program::from_files("it", files)
            .expect_err("missing")
            .to_string()
    };
    for file in ["calls.strace", "faults.txt", "7.initial.maps"] {
        assert_eq!(missing(file), format!("it/{file}:1: is missing"));
    }
}

/// Counts what it is told.
#[derive(Default)]
struct Counter {
    started: usize,
    touched: usize,
    first: usize,
    called: usize,
    ended: usize,
    last: u64,
}

impl Watch for Counter {
    fn started(&mut self, cx: &mut CallCx<'_>, mm: &Arc<Mm>) {
        assert_eq!((self.started, self.touched), (0, 0));
        assert!(mm.map_count(cx) > 9);
        self.started += 1;
    }
    fn touched(&mut self, _: &mut CallCx<'_>, _: &Arc<Mm>, who: Who, _: u64, _: FaultKind) {
        assert!(who.at >= self.last);
        self.last = who.at;
        self.touched += 1;
        self.first += usize::from(who.is_first);
    }
    fn called(&mut self, _: &mut CallCx<'_>, _: &Arc<Mm>, _: Who, _: &Call) {
        self.called += 1;
    }
    fn ended(&mut self, cx: &mut CallCx<'_>, mm: &Arc<Mm>) {
        assert!(mm.map_count(cx) > 100, "it is told before");
        self.ended += 1;
    }
}

#[test]
fn who_watches_is_told_of_everything() {
    let mut counter = Counter::default();
    let machine = machine();
    let program = shipped().expect("whole files");
    let outcome = run_on(&machine, &program, &mut counter).expect("no machine is in use");
    assert_eq!((counter.started, counter.ended), (1, 1));
    assert_eq!(
        (counter.touched, counter.called),
        (outcome.faults, outcome.calls)
    );
    assert!(0 < counter.first && counter.first < counter.touched);
    drop(program);
    assert_eq!(machine.commit().pages(), 0, "everyone exited");
}

fn fault() -> impl Strategy<Value = RecordedFault> {
    let kind = prop_oneof![
        Just(FaultKind::Read),
        Just(FaultKind::Write),
        Just(FaultKind::Exec)
    ];
    let numbers = (any::<u32>(), any::<u32>(), any::<u64>(), any::<u64>());
    (numbers, kind).prop_map(|((pid, tid, at, addr), kind)| RecordedFault {
        pid,
        tid,
        at,
        kind,
        addr,
    })
}

fn row() -> impl Strategy<Value = Row> {
    let range = (0..(1_u64 << 35) - (1 << 16), 1..1_u64 << 16, 0..1_u64 << 40);
    let texts = (
        "[r-][w-][x-][ps]",
        "|/[a-z]{1,9}( \\(deleted\\))?|\\[stack\\]",
    );
    (range, texts, 0..256_u64).prop_map(|((start, pages, offset), (perms, path), device)| Row {
        start: start << 12,
        end: (start + pages) << 12,
        perms,
        offset: offset << 12,
        device,
        path,
    })
}

/// Something that looks like a line of strace.
fn almost_a_call() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        Just("NULL".to_owned()),
        Just("PROT_READ|PROT_WRITE".to_owned()),
        Just("-1".to_owned()),
        Just("3</a>".to_owned()),
        Just("\"a\\\"".to_owned()),
        any::<u64>().prop_map(|n| format!("{n:#x}")),
        "[ -~]{0,6}",
    ];
    let name = prop_oneof![
        Just("mmap"),
        Just("mremap"),
        Just("mprotect"),
        Just("madvise"),
        Just("brk"),
        Just("clone"),
        Just("execve"),
        Just("shmat"),
        Just("exit_group"),
        Just("ftruncate"),
    ];
    let end = prop_oneof![
        Just(") = 0"),
        Just(") = -1 EINVAL (x)"),
        Just(") = 0x5000"),
        Just(") = 8"),
        Just(" <unfinished ...>"),
        Just(") = ?"),
    ];
    (
        0..9_u32,
        0..99_u32,
        name,
        prop::collection::vec(word, 0..7),
        end,
    )
        .prop_map(|(tid, at, name, words, end)| {
            format!("{tid} 2.0000000{at:02} {name}({}{end}\n", words.join(", "))
        })
}

proptest! {
    #![proptest_config(crate::drawn::config(256))]
    #[test]
    fn parsers_take_any_text(text in "[ -~\\n]{0,200}", bytes in prop::collection::vec(any::<u8>(), 0..99)) {
        let _checked = (parse_strace(&text), parse_faults(&text), parse_maps(&text));
        let mut files = recording(&text, "");
        files.insert("faults.txt.gz".into(), bytes);
        let _read = Program::from_files("it", files);
    }

    #[test]
    fn any_calls_can_be_followed(lines in prop::collection::vec(almost_a_call(), 0..12)) {
        for line in &lines {
            let _checked = parse_strace(line);
        }
        if let Ok(program) = Program::from_files("it", recording(&lines.concat(), "")) {
            let _outcome = run(&program).expect("no machine is in use");
        }
    }

    #[test]
    fn faults_and_maps_come_back_as_written(fault in fault(), row in row()) {
        prop_assert_eq!(parse_faults(&fault.to_string()), Ok(vec![fault]));
        prop_assert_eq!(parse_maps(&row.to_string()), Ok(vec![row]));
    }
}

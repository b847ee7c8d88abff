//! Input that is wrong, hostile or huge ends in an error that says where it stands: never in a
//! panic, never nowhere.

use emmu::{
    Mm,
    ctx::CallCx,
    replay::{
        Devices, Inputs, MmuKind, ReplayError, ReplayLimits, load,
        program::{
            Call, Program, ProgramOutcome, Watch, Who, machine, machine_within, parse_maps, run,
            run_on, run_within,
        },
        read, replay, replay_within,
    },
    testkit::{Seen, Suite},
};
use flate2::{Compression, write::GzEncoder};
use std::{collections::BTreeMap, fs, io::Write, path::PathBuf, sync::Arc};

/// A folder of its own, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("emmu-bad-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a temporary folder");
        Self(path)
    }
    fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, bytes).expect("a temporary file");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

const OURS: &str = r#"{"profile":"testkit","seed":0,"kernel":"emmu","page":4096,"arena":["0x10000000000","0x10000080000"],"files":{}}"#;

#[test]
fn a_kept_script_that_shrinks_is_run_again() {
    let folder = Folder::new("shrink");
    let shrink = r#"{"as":0,"op":"shrink","frames":3,"ret":0}"#;
    folder.file("emmu-1.jsonl", format!("{OURS}\n{shrink}\n"));
    let ran = Suite::new([]).cases(0).regressions(&folder.0).run();
    assert_eq!(ran.expect("a script that can be read"), 1);
}

#[test]
fn a_kept_script_that_cannot_be_read_is_a_failure_that_names_it() {
    let folder = Folder::new("kept");
    let path = folder.file("emmu-1.jsonl", format!("{OURS}\nnothing\n"));
    let why = load(&path).expect_err("no script").to_string();
    let suite = Suite::new([]).cases(0).regressions(&folder.0);
    let failure = suite.run().expect_err("it cannot be read");
    assert_eq!(failure.seen.len(), 1, "{failure}");
    assert!(matches!(&failure.seen[0], Seen::Unreadable(w) if *w == why));
    assert_eq!(failure.saved.as_deref(), Some(&*path));
}

fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(bytes).expect("a Vec takes everything");
    packed.finish().expect("a Vec takes everything")
}

/// The header of scripts with 90 TiB to use.
const WIDE: &str = r#"{"profile":"t","seed":1,"kernel":"6","arena":["0x10000000000","0x600000000000"],"page":4096,"files":{}}"#;
/// 64 TiB of which nothing is promised.
const MAP: &str = r#"{"as":0,"op":"mmap","addr":"0x10000000000","len":70368744177664,"prot":"rw-","flags":["private","fixed","noreserve"],"file":null,"off":0,"ret":"0x10000000000","maps":{"0":[["0x10000000000","0x410000000000","rw-p","0x0","anon"]]}}"#;

#[test]
fn what_stands_twice_or_behind_the_end_is_no_script() {
    let munmap = r#"{"as":0,"op":"munmap","addr":"0x10000000000","len":4096,"ret":0"#;
    let fine = format!("{WIDE}\n{munmap}}}\n");
    assert!(read("s", fine.as_bytes()).is_ok());
    // Members of one archive follow each other, as gzip has it.
    let (head, tail) = fine.split_at(20);
    let both = [packed(head.as_bytes()), packed(tail.as_bytes())].concat();
    assert!(read("s", &both).is_ok());
    let trailing = [packed(fine.as_bytes()), b"more".to_vec()].concat();
    let line = |more: &str| format!("{WIDE}\n{munmap}{more}}}\n").into_bytes();
    let header = |old: &str, new: &str| fine.replacen(old, new, 1).into_bytes();
    let file = r#"{"NAME":{"size":1,"kind":"memfd"}}"#;
    for (bytes, says) in [
        (trailing, "s:1: cannot be decompressed"),
        (line(r#","len":4096"#), "s:2: the key \"len\" stands twice"),
        (
            line(r#","pages":{"0":[],"0":[]}"#),
            "s:2: the key \"0\" stands twice",
        ),
        (
            line(r#","pages":{"00":[]}"#),
            "s:2: pages: \"00\" is not how",
        ),
        (line(r#","maps":{"+0":[]}"#), "s:2: maps: \"+0\" is not how"),
        (line(" } x"), "s:2: trailing characters"),
        (
            header("\"seed\":1", "\"seed\":1,\"seed\":1"),
            "s:1: header: the key",
        ),
        (
            header("{}", &file.replace("NAME", "anon")),
            "s:1: header: file \"anon\"",
        ),
        (
            header("{}", &file.replace("NAME", "zero")),
            "s:1: header: file \"zero\"",
        ),
    ] {
        let why = read("s", &bytes).expect_err(says).to_string();
        assert!(why.starts_with(says), "{why} is not {says}");
    }
}

#[test]
fn all_inputs_together_have_a_limit() {
    let folder = Folder::new("bytes");
    let script = format!("{WIDE}\n{{\"as\":0,\"op\":\"exit\",\"ret\":0}}\n");
    let plain = folder.file("a.jsonl", &script);
    let small = folder.file("b.jsonl.gz", packed(script.as_bytes()));
    let limit = |input: usize| ReplayLimits {
        input: input as u64,
        ..ReplayLimits::default()
    };
    let mut inputs = Inputs::new(limit(2 * script.len()));
    assert!(inputs.scripts(&plain).is_ok() && inputs.scripts(&small).is_ok());
    let mut inputs = Inputs::new(limit(2 * script.len() - 1));
    assert!(inputs.scripts(&plain).is_ok());
    let why = inputs
        .scripts(&small)
        .expect_err("a byte too many")
        .to_string();
    let says = format!(
        "{}:1: more than {} bytes of input",
        small.display(),
        2 * script.len() - 1
    );
    assert!(why.starts_with(&says), "{why}");
    // What has no end is not read to it.
    let endless = Inputs::new(limit(1 << 16)).scripts("/dev/zero".as_ref());
    let why = endless.expect_err("it has no end").to_string();
    assert!(
        why.starts_with("/dev/zero:1: more than 65536 bytes"),
        "{why}"
    );
}

#[test]
fn a_file_that_cannot_be_read_is_named_not_its_folder() {
    let folder = Folder::new("dangling");
    let path = folder.0.join("gone.jsonl");
    std::os::unix::fs::symlink("nowhere", &path).expect("a link");
    let why = load(&folder.0).expect_err("nothing is there").to_string();
    let says = format!("{}:1: cannot be read", path.display());
    assert!(why.starts_with(&says), "{why}");
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, ReplayError>, says: &str) {
    match result {
        Err(ReplayError::Input(why)) => assert!(why.to_string().starts_with(says), "{why}"),
        other => panic!("{other:?} is not {says}"),
    }
}

#[test]
fn one_step_of_a_script_does_not_exhaust_the_host() {
    let steps = [
        r#"{"as":0,"op":"madvise","addr":"0x10000000000","len":70368744177664,"advice":"populate_read","ret":0}"#,
        r#"{"as":0,"op":"madvise","addr":"0x10000000000","len":70368744177664,"advice":"populate_write","ret":0}"#,
        r#"{"as":0,"op":"madvise","addr":"0x10000000000","len":70368744177664,"advice":"guard_install","ret":0}"#,
        r#"{"as":0,"op":"mlock","addr":"0x10000000000","len":70368744177664,"ret":0}"#,
    ];
    for step in steps {
        let script = read("s", format!("{WIDE}\n{MAP}\n{step}\n").as_bytes()).expect(step);
        refused(replay(&script), "s:3: more than 1048576 pages in one step");
        // Where that is allowed, memory is what ends it.
        let limits = ReplayLimits {
            step: u64::MAX,
            pages: 64,
            tables: 64,
            ..ReplayLimits::default()
        };
        let ended = replay_within(&script, &[], &limits);
        let says = [
            "s:3: more than 64 pages of memory",
            "s:3: more than 64 page tables",
        ];
        let tables = step.contains("read") || step.contains("guard");
        refused(ended, says[usize::from(tables)]);
    }
    // The answers of a userfaultfd, called for and given to a fault.
    for answer in [
        r#""uffd_zeropage","addr":"0x10000000000""#,
        r#""uffd_poison","addr":"0x10000000000""#,
        r#""uffd_continue","addr":"0x10000000000""#,
        r#""uffd_move","addr":"0x10000000000","src":"0x10000000000","mode":2"#,
    ] {
        let called = format!(r#"{{"as":0,"op":{answer},"len":70368744177664,"ret":0}}"#);
        let (name, arguments) = answer.split_once(',').expect("it has arguments");
        let given = format!(
            r#"{{"as":0,"op":"fault_load","addr":"0x10000000000","resolve":[[{name},{{{arguments},"len":70368744177664}}]],"ret":0}}"#
        );
        for step in [called, given] {
            let script = read("s", format!("{WIDE}\n{MAP}\n{step}\n").as_bytes()).expect(&step);
            refused(replay(&script), "s:3: more than 1048576 pages in one step");
        }
    }
    let populate = MAP.replace("\"noreserve\"", "\"noreserve\",\"populate\"");
    let script = read("s", format!("{WIDE}\n{populate}\n").as_bytes()).expect("a script");
    refused(replay(&script), "s:2: more than 1048576 pages in one step");
}

#[test]
fn processes_and_files_of_a_script_have_limits() {
    let fork = |n: u32| format!("{{\"as\":0,\"op\":\"fork\",\"child\":{n},\"ret\":{n}}}");
    let forks: Vec<String> = (1..9).map(fork).collect();
    let script = read("s", format!("{WIDE}\n{}\n", forks.join("\n")).as_bytes());
    let script = script.expect("a script");
    let limits = |processes| ReplayLimits {
        processes,
        ..ReplayLimits::default()
    };
    let whole = replay_within(&script, &[], &limits(9)).expect("nine are enough");
    assert!(whole.is_whole());
    let eight = replay_within(&script, &[], &limits(8));
    refused(eight, "s:9: more than 8 processes, which is the limit");
    // A recorded process has pages beside its script.
    let reclaim = r#"{"as":0,"op":"reclaim","ret":0}"#;
    let script = read("s", format!("{WIDE}\n{reclaim}\n").as_bytes()).expect("a script");
    let one = ReplayLimits {
        pages: 1,
        ..ReplayLimits::default()
    };
    refused(
        replay_within(&script, &[], &one),
        "s:1: more than 1 pages of memory",
    );
    // Each is small enough.
    let file = |n: u32| format!("\"f{n}\":{{\"size\":8388608,\"kind\":\"memfd\"}}");
    let files: Vec<String> = (0..33).map(file).collect();
    let header = WIDE.replacen("{}", &format!("{{{}}}", files.join(",")), 1);
    let why = read("s", format!("{header}\n{}\n", fork(1)).as_bytes()).expect_err("264 MiB");
    let says = "s:1: header: the files have 276824064 bytes, more than 268435456 bytes of files";
    assert!(why.to_string().starts_with(says), "{why}");
}

#[test]
fn a_thread_ends_with_its_process_and_a_child_is_new() {
    let thread = r#"{"as":1,"op":"thread","thread":5,"ret":0}"#;
    let exit = r#"{"as":1,"op":"exit","ret":0}"#;
    let fork = |child: u32, came: &str| format!(r#"{{"as":0,"op":"fork","child":{child},{came}}}"#);
    let born = fork(1, r#""ret":1"#);
    let load = r#"{"as":5,"op":"load","addr":"0x10000000000","signal":"SIGSEGV"}"#;
    let says = |lines: &[&str], says: &str| {
        let script = read("s", format!("{WIDE}\n{}\n", lines.join("\n")).as_bytes());
        let why = script.expect_err(says).to_string();
        assert_eq!(why, says);
    };
    says(
        &[&born, thread, exit, load],
        "s:5: process 5 does not exist",
    );
    // Its number is free again.
    let again = [&*born, thread, exit, &fork(5, r#""ret":5"#)].join("\n");
    let script = read("s", format!("{WIDE}\n{again}\n").as_bytes()).expect("a script");
    assert!(replay(&script).expect("no limit is met").is_whole());
    for child in [0, 1] {
        let failed = fork(child, r#""err":"ENOMEM""#);
        says(
            &[&born, &failed],
            &format!("s:3: process {child} exists already"),
        );
    }
}

#[test]
fn what_a_script_begins_with_has_limits() {
    let begins = |extra: &str| {
        let header = WIDE.replacen("\"files\"", &format!("\"extra\":{extra},\"files\""), 1);
        let exit = r#"{"as":0,"op":"exit","ret":0}"#;
        read("s", format!("{header}\n{exit}\n").as_bytes()).expect("a script")
    };
    let heap = begins(r#"{"heap":[4294967296,4295000064,4294967296,4294971392,4294975488]}"#);
    let mappings = begins(r#"{"initial":[[4294967296,4294971392],[8589934592,8589938688]]}"#);
    let few = ReplayLimits {
        pages: 2,
        tables: 4,
        ..ReplayLimits::default()
    };
    for (script, says) in [
        (&heap, "s:1: more than 2 pages of memory"),
        (&mappings, "s:1: more than 4 page tables"),
    ] {
        assert!(replay(script).expect("there is room").is_whole());
        refused(replay_within(script, &[], &few), says);
    }
}

#[test]
fn the_ranges_of_one_call_are_few_and_their_bytes_are_cut_off() {
    const AT: &str = "0x10000000000";
    let cold = |ranges: &[(&str, u64)], came: &str| {
        let range = |(at, len): &(&str, u64)| format!("[\"{at}\",{len}]");
        let ranges = ranges.iter().map(range).collect::<Vec<_>>().join(",");
        let step = format!(
            r#"{{"as":0,"op":"self_process_madvise","iov":[{ranges}],"advice":"cold",{came}}}"#
        );
        let script = read("s", format!("{WIDE}\n{MAP}\n{step}\n").as_bytes()).expect("a script");
        let replayed = replay(&script).expect("no limit is met");
        assert!(replayed.is_whole(), "{:?}", replayed.first);
    };
    cold(&vec![(AT, 1 << 46); 262_145], r#""err":"EINVAL""#);
    cold(&[(AT, 1 << 63), (AT, 4096)], r#""err":"EINVAL""#);
    cold(&[(AT, 1 << 46), (AT, 4096)], r#""ret":2147479552"#);
    cold(&[(AT, 1 << 46)], r#""ret":2147479552"#);
    cold(&[(AT, 4096), ("0x7fffffffe000", 8192)], r#""err":"EFAULT""#);
    // A thread does no more work in one step than its process, nor does a call of many ranges.
    let populate = r#""advice":"populate_read""#;
    let thread = r#"{"as":0,"op":"thread","thread":5,"ret":0}"#;
    let by_thread = format!(
        r#"{{"as":5,"op":"madvise","addr":"{AT}","len":70368744177664,{populate},"ret":0}}"#
    );
    let by_ranges = format!(
        r#"{{"as":0,"op":"self_process_madvise","iov":[["{AT}",1073741824]],{populate},"ret":1073741824}}"#
    );
    for (limit, step) in [(1 << 20, by_thread), (1 << 10, by_ranges)] {
        let lines = format!("{WIDE}\n{MAP}\n{thread}\n{step}\n");
        let script = read("s", lines.as_bytes()).expect("a script");
        let limits = ReplayLimits {
            step: limit,
            ..ReplayLimits::default()
        };
        let says = format!("s:4: more than {limit} pages in one step");
        refused(replay_within(&script, &[], &limits), &says);
    }
}

#[test]
fn forks_multiply_mappings_only_up_to_a_limit() {
    let limits = ReplayLimits {
        mappings: 8,
        ..ReplayLimits::default()
    };
    // The first child counts twice, its child three times.
    let row = r#"["0x10000000000","0x410000000000","rw-p","0x0","anon"]"#;
    let fork = |n: u32| {
        let parent = n - 1;
        format!(r#"{{"as":{parent},"op":"fork","child":{n},"ret":{n},"maps":{{"{n}":[{row}]}}}}"#)
    };
    let lines = [MAP.to_owned(), fork(1), fork(2), fork(3)].join("\n");
    let script = read("s", format!("{WIDE}\n{lines}\n").as_bytes()).expect("a script");
    assert!(replay(&script).expect("no limit is met").is_whole());
    refused(
        replay_within(&script, &[], &limits),
        "s:5: more than 8 mappings, which is the limit",
    );
}

/// A small recording: these calls behind its `execve`, and other files.
fn recording(calls: &str, more: &[(&str, &str)]) -> BTreeMap<String, Vec<u8>> {
    let layout = "\
400000-401000 r-xp 00000000 fe:00 1 /bin/it
7f0000000000-7f0000001000 r--p 00000000 00:00 0
7ff000000000-7ff000021000 rw-p 00000000 00:00 0 [stack]
";
    let exec = "7 1.000000000 execve(\"/bin/it\", [\"it\"], 0x0 /* 1 var */) = 0\n";
    let mut files = BTreeMap::from([
        ("calls.strace".to_owned(), format!("{exec}{calls}")),
        ("faults.txt".to_owned(), String::new()),
        ("7.initial.maps".to_owned(), layout.to_owned()),
    ]);
    files.extend(
        more.iter()
            .map(|(name, text)| ((*name).to_owned(), (*text).to_owned())),
    );
    let bytes = files
        .into_iter()
        .map(|(name, text)| (name, text.into_bytes()));
    bytes.collect()
}

fn program(calls: &str) -> Program {
    Program::from_files("it", recording(calls, &[])).expect("a recording")
}

#[track_caller]
fn fine(calls: &str) -> ProgramOutcome {
    let outcome = run(&program(calls)).expect("no machine is in use");
    assert!(outcome.differing.is_empty(), "{outcome}");
    outcome
}

#[test]
fn parts_of_a_recording_are_there_once_and_under_their_names() {
    for (file, text, says) in [
        (
            "calls.strace.gz",
            "x",
            "it/calls.strace.gz:1: is there twice: calls.strace and calls.strace.gz",
        ),
        (
            "+1.initial.maps",
            "",
            "it/+1.initial.maps:1: \"+1.initial.maps\" does not begin",
        ),
        (
            "007.final.maps.gz",
            "",
            "it/007.final.maps.gz:1: \"007.final.maps\" does not begin",
        ),
        (
            "8.final.maps",
            "7ffffffff000-800000001000 rw-p 00000000 00:00 0",
            "it/8.final.maps:1: ends above",
        ),
        (
            "8.final.maps",
            "\n1000-2000 rw-p 8000000000000000 00:00 0",
            "it/8.final.maps:2: offset 0x8000000000000000",
        ),
    ] {
        let read = Program::from_files("it", recording("", &[(file, text)]));
        let why = read.expect_err(says).to_string();
        assert!(why.starts_with(says), "{why} is not {says}");
    }
    assert!(
        parse_maps("ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [vsyscall]").is_ok()
    );
    let folder = Folder::new("parts");
    for (name, bytes) in recording("", &[("meta.json", "{"), ("x.maps", "{")]) {
        folder.file(&name, bytes);
    }
    assert!(
        Program::load(&folder.0).is_ok(),
        "other files are passed over"
    );
}

#[test]
fn what_no_kernel_can_have_done_is_an_error_with_its_line() {
    let says = |calls: &str, says: &str| refused(run(&program(calls)), says);
    says(
        "7 1.000001000 brk(NULL) = 0xffffffffffffffff\n7 1.000002000 brk(0xffffffffffffffff) = 0xffffffffffffffff\n",
        "it/calls.strace:2: brk: a heap cannot begin at 0xffffffffffffffff",
    );
    for flags in ["SIGCHLD", "CLONE_VM", "CLONE_VM|CLONE_THREAD"] {
        let calls = format!("7 1.000001000 clone(child_stack=NULL, flags={flags}) = 7\n");
        says(&calls, "it/calls.strace:2: thread 7 is its own child");
    }
    // One whose end went unseen makes room for the next of its number.
    fine(
        "7 1.000001000 clone(child_stack=NULL, flags=SIGCHLD) = 8\n7 1.000002000 clone(child_stack=NULL, flags=SIGCHLD) = 8\n8 1.000003000 clone(child_stack=NULL, flags=SIGCHLD) = 7\n",
    );
    // A layout that cannot be: nothing is left of what was built of it.
    let stack = "7ff000000000-7ff000021000 r--p 00000000 00:00 0 [stack]";
    let program = Program::from_files("it", recording("", &[("7.initial.maps", stack)]));
    let outcome = run(&program.expect("a recording")).expect("no machine is in use");
    assert!(
        outcome.to_string().contains("[stack]: access to"),
        "{outcome}"
    );
}

/// Panics when it is told of a call.
struct Panics(Devices);

impl Watch for Panics {
    fn started(&mut self, cx: &mut CallCx<'_>, mm: &Arc<Mm>) {
        self.0.started(cx, mm);
    }
    fn called(&mut self, _: &mut CallCx<'_>, _: &Arc<Mm>, _: Who, call: &Call) {
        assert!(!matches!(call, Call::Munmap { .. }), "on purpose");
    }
}

#[test]
fn a_panic_is_an_error_with_file_and_line() {
    let program =
        program("7 1.000001000 brk(NULL) = 0x10000000\n7 1.000002000 munmap(0x1000, 4096) = 0\n");
    let mut watch = Panics(Devices::new(MmuKind::ALL));
    let ended = run_on(&machine(), &program, &mut watch);
    refused(ended, "it/calls.strace:3: panic: on purpose");
}

#[test]
fn one_line_of_a_program_does_not_exhaust_the_host() {
    let map = "7 1.000001000 mmap(NULL, 70368744177664, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS|MAP_NORESERVE, -1, 0) = 0x3f0000000000\n";
    for call in [
        "mlock(0x3f0000000000, 70368744177664)",
        "madvise(0x3f0000000000, 70368744177664, MADV_POPULATE_READ)",
        "mlockall(MCL_CURRENT)",
    ] {
        let program = program(&format!("{map}7 1.000002000 {call} = 0\n"));
        refused(
            run(&program),
            "it/calls.strace:3: more than 1048576 pages in one step",
        );
    }
    let limits = ReplayLimits {
        tables: 64,
        processes: 3,
        ..ReplayLimits::default()
    };
    let within = |calls: &str| {
        run_within(
            &machine_within(&limits),
            &program(calls),
            &mut Nothing,
            &limits,
        )
    };
    let future = format!(
        "7 1.000000500 mlockall(MCL_FUTURE) = 0\n{}",
        map.replace("PROT_READ|PROT_WRITE", "PROT_READ")
    );
    refused(
        within(&future),
        "it/calls.strace:3: more than 64 page tables",
    );
    let fork = |n: u32| format!("7 1.00000{n}000 clone(child_stack=NULL, flags=SIGCHLD) = 1{n}\n");
    let forks: String = (1..4).map(fork).collect();
    refused(
        within(&forks),
        "it/calls.strace:4: more than 3 processes, which is the limit",
    );
}

#[test]
fn clones_of_a_program_multiply_mappings_and_descriptors_only_up_to_a_limit() {
    let ends = |calls: &str, limits: &ReplayLimits, says: &str| {
        let machine = machine_within(limits);
        let ended = run_within(&machine, &program(calls), &mut Nothing, limits);
        match says {
            "" => drop(ended.expect("no limit is met")),
            _ => refused(ended, says),
        }
    };
    let open: String = (1..5)
        .map(|n| format!("7 1.00000{n}000 open(\"/f{n}\", O_RDWR) = {n}</f{n}>\n"))
        .collect();
    let clone =
        |parent: u32, how: &str, child: u32| format!("{parent} 1.0000{child}000 {how} = {child}\n");
    let vfork = |child| clone(7, "vfork()", child);
    let few = ReplayLimits {
        descriptors: 12,
        ..ReplayLimits::default()
    };
    let says = "it/calls.strace:8: more than 12 descriptors, which is the limit";
    ends(
        &format!("{open}{}{}{}", vfork(10), vfork(11), vfork(12)),
        &few,
        says,
    );
    // The table of a process that has ended is gone.
    let exit = |tid: u32| format!("{tid} 1.0000{tid}500 +++ exited with 0 +++\n");
    let one_by_one = (10..20).map(|n| vfork(n) + &exit(n)).collect::<String>();
    ends(&format!("{open}{one_by_one}"), &few, "");
    let most = ReplayLimits {
        processes: 3,
        ..ReplayLimits::default()
    };
    let says = "it/calls.strace:4: more than 3 processes, which is the limit";
    ends(
        &format!("{}{}{}", vfork(10), vfork(11), vfork(12)),
        &most,
        says,
    );
    // Three mappings; the child counts twice, its child three times.
    let most = ReplayLimits {
        mappings: 17,
        ..ReplayLimits::default()
    };
    let fork = |parent, child| clone(parent, "clone(child_stack=NULL, flags=SIGCHLD)", child);
    let says = "it/calls.strace:3: more than 17 mappings, which is the limit";
    ends(&format!("{}{}", fork(7, 10), fork(10, 11)), &most, says);
    ends(&fork(7, 10), &most, "");
}

/// Looks away.
struct Nothing;

impl Watch for Nothing {}

//! Parsing refuses wrong lines and names them; comparing finds exactly the first difference.

use super::{
    Difference, Expected, Kind, MapsRow, Numbering, Observed, Outcome, Script, Sides,
    differing_pages, read, shipped,
};
use crate::addr::Pfn;
use std::collections::BTreeMap;

const HEADER: &str = r#"{"profile":"t","seed":1,"kernel":"6","arena":["0x100000","0x200000"],"page":4096,"files":{"f0":{"size":77,"kind":"memfd"}}}"#;

fn parse(lines: &[&str]) -> Result<Script, String> {
    let text = [&[HEADER], lines].concat().join("\n");
    read("t.jsonl", text.as_bytes()).map_err(|e| e.to_string())
}

/// A step that is right but for `old`, which becomes `new`.
fn spoiled(old: &str, new: &str) -> String {
    let step = r#"{"as":0,"op":"mmap","addr":"0x100000","len":8192,"prot":"rw-","flags":["private","fixed"],"file":null,"off":0,"ret":"0x100000","notify":[["unmap","0x100000","0x102000"]],"maps":{"0":[["0x100000","0x102000","rw-p","0x0","anon"]]},"pages":{"0":[["0x100000","a0..1"]]}}"#;
    assert!(step.contains(old), "{old}");
    match parse(&[&step.replacen(old, new, 1)]) {
        Ok(_) => String::new(),
        Err(e) => e,
    }
}

/// Damage to a step, and the words of its error.
const DAMAGES: &[(&str, &str, &str)] = &[
    (r#""as":0,"#, "", "missing \"as\""),
    (r#""as":0"#, r#""as":-1"#, "\"as\": invalid value"),
    (r#""as":0"#, r#""as":7"#, "process 7 does not exist"),
    (r#""op":"mmap","#, "", "missing \"op\""),
    (
        r#""op":"mmap""#,
        r#""op":"mmop""#,
        "mmop: unknown variant `mmop`",
    ),
    (r#""len":8192,"#, "", "mmap: missing field `len`"),
    (
        r#""len":8192"#,
        r#""len":-8192"#,
        "mmap: invalid value: integer `-8192`",
    ),
    (
        r#""len":8192"#,
        r#""len":1e99"#,
        "mmap: invalid type: floating point",
    ),
    (
        r#""len":8192"#,
        r#""len":1e9999"#,
        "number out of range at column",
    ),
    (
        r#""len":8192"#,
        r#""len":18446744073709551616"#,
        "mmap: invalid type: floating point",
    ),
    (
        r#""addr":"0x100000""#,
        r#""addr":"100000""#,
        "not a hexadecimal number",
    ),
    (
        r#""addr":"0x100000""#,
        r#""addr":"0x1ffffffffffffffff""#,
        "does not fit in 64 bits",
    ),
    ("rw-", "rwz", "not a protection"),
    ("fixed", "fixxed", "unknown flag \"fixxed\""),
    (r#""file":null,"#, "", "mmap: missing field `file`"),
    (
        r#""file":null"#,
        r#""file":"f9""#,
        "file \"f9\" is not in the header",
    ),
    (
        r#""off":0"#,
        r#""off":0,"offf":0"#,
        "mmap: unknown field `offf`",
    ),
    (r#""ret":"0x100000","#, "", "needs exactly one of"),
    (
        r#""ret":"0x100000""#,
        r#""ret":0"#,
        "\"ret\": 0 is not an address",
    ),
    (
        r#""ret":"0x100000""#,
        r#""err":"oops""#,
        "is not the name of an errno",
    ),
    (
        r#""ret":"0x100000""#,
        r#""signal":"SIGHUP""#,
        "neither SIGSEGV nor SIGBUS",
    ),
    ("unmap", "map", "notify: unknown variant `map`"),
    ("rw-p", "rwxq", "maps: \"rwxq\" are not permissions"),
    (
        "0x102000\",\"rw",
        "0x100000\",\"rw",
        "maps: 0x100000 to 0x100000",
    ),
    (
        r#""0x0","anon""#,
        r#""0x0","f7""#,
        "maps: file \"f7\" is not in the header",
    ),
    (
        r#""maps":{"0""#,
        r#""maps":{"1""#,
        "maps: process 1 does not exist",
    ),
    (
        r#""pages":{"0""#,
        r#""pages":{"x""#,
        "pages: \"x\" is not a process",
    ),
    (
        r#"[["0x100000","a0"#,
        r#"[["0x100001","a0"#,
        "0x100001 is not page aligned",
    ),
    (
        r#"[["0x100000","a0"#,
        r#"[["0xff000","a0"#,
        "has a page outside the arena",
    ),
    (
        r#"[["0x100000","a0"#,
        r#"[["0x1ff000","a0"#,
        "has a page outside the arena",
    ),
    ("a0..1", "a0..1 q", "\"q\" is not a page token"),
    ("}}", "}} x", "trailing characters at column"),
    ("{\"as\"", "", "at column"),
];

#[test]
fn every_damage_is_named_with_its_line() {
    assert_eq!(spoiled("rw-", "rw-"), "");
    for &(old, new, why) in DAMAGES {
        let e = spoiled(old, new);
        assert!(
            e.starts_with("t.jsonl:2: ") && e.contains(why),
            "{new}: {e}"
        );
    }
}

#[test]
fn damaged_files_are_errors_never_panics() {
    let e = |bytes: &[u8]| read("t", bytes).map_or_else(|e| e.to_string(), |_| String::new());
    assert!(e(b"").starts_with("t:1: empty"));
    assert!(e(b"\n").starts_with("t:1: header: EOF"));
    assert!(e(br#"["t",1,"6",["0x100000","0x200000"],4096,{}]"#).starts_with("t:1: header: "));
    assert!(e(b"[]").starts_with("t:1: header: "));
    assert!(e(HEADER.as_bytes()).starts_with("t:2: no step"));
    assert!(e(format!("{HEADER}\n\n").as_bytes()).starts_with("t:2: EOF"));
    assert!(e(format!("{HEADER}\n{HEADER}\n").as_bytes()).starts_with("t:2: missing \"as\""));
    assert!(e(&[HEADER.as_bytes(), b"\n\n\xff\n"].concat()).starts_with("t:3: not UTF-8"));
    let deep = format!("{HEADER}\n{{\"as\":{}", "[".repeat(100_000));
    assert!(e(deep.as_bytes()).starts_with("t:2: recursion limit"));
    for (old, new) in [
        ("4096", "8192"),
        ("0x200000", "0x100000"),
        ("0x200000", "0x200001"),
        ("memfd", "tape"),
        ("\"seed\":1", "\"seed\":-1"),
        ("f0", "sysv"),
        ("f0", "anon:x"),
        ("f0", "shm:"),
        ("f0", "x:y"),
        ("f0", "x/y"),
        ("f0", ""),
    ] {
        assert!(
            e(HEADER.replace(old, new).as_bytes()).starts_with("t:1: header: "),
            "{new}"
        );
    }
    // Any prefix and any flipped byte of a real script: an error or a script.
    let good = format!(
        "{HEADER}\n{}\n",
        r#"{"as":0,"op":"store","addr":"0x100000","byte":1,"ret":0,"pages":{"0":[["0x100000","a0 z*2"]]}}"#
    );
    assert_eq!(e(good.as_bytes()), "");
    for at in 0..good.len() {
        drop(read("t", &good.as_bytes()[..at]));
        for flip in [0x01, 0x10, 0x80] {
            let mut bytes = good.clone().into_bytes();
            bytes[at] ^= flip;
            drop(read("t", &bytes));
        }
    }
}

/// A path that a layout shows in another way could be taken for the name of another file.
#[test]
fn files_are_opened_by_whole_paths() {
    let open = r#"{"as":0,"op":"open","path":"/etc/hostname","mode":0,"name":"h","ret":0}"#;
    assert!(parse(&[open]).is_ok());
    for path in ["f0", "anon", "anon:x", ""] {
        let e = parse(&[&open.replace("/etc/hostname", path)]).expect_err(path);
        assert!(e.starts_with("t.jsonl:2: ") && e.contains("no path"), "{e}");
    }
    let refused = open.replace("\"ret\":0", "\"err\":\"ENOENT\"");
    assert!(parse(&[&refused.replace("/etc/hostname", "f0")]).is_ok());
}

#[test]
fn processes_live_from_fork_to_exit() {
    let fork = r#"{"as":0,"op":"fork","child":1,"ret":1,"pages":{"0":[],"1":[]}}"#;
    let exit = r#"{"as":1,"op":"exit","ret":0,"pages":{"0":[]}}"#;
    assert!(parse(&[fork, exit]).is_ok());
    for (lines, why) in [
        (
            [fork, fork].as_slice(),
            "t.jsonl:3: process 1 exists already",
        ),
        (&[fork, exit, exit], "t.jsonl:4: process 1 does not exist"),
        (&[exit], "t.jsonl:2: process 1 does not exist"),
        (
            &[&fork.replace(r#","1":[]"#, "")],
            "t.jsonl:2: pages: not of every process",
        ),
        (
            &[
                fork,
                &exit.replace(r#""op":"exit""#, r#""op":"exit","x":1"#),
            ],
            "t.jsonl:3: exit: unknown field",
        ),
    ] {
        let e = parse(lines).expect_err(why);
        assert!(e.starts_with(why), "{e}");
    }
}

#[test]
fn steps_read_and_written_are_the_same() {
    let mut seen = 0;
    for script in shipped().expect("the archive is whole") {
        for step in &script.steps {
            let outcome = match (&step.outcome, step.op.returns_address()) {
                (Outcome::Ret(at), true) => format!("\"ret\":\"{at:#x}\""),
                (Outcome::Ret(value), false) => format!("\"ret\":{value}"),
                (Outcome::Err(name), _) => format!("\"err\":\"{name}\""),
                (Outcome::Signal(signal), _) => format!("\"signal\":\"{signal}\""),
            };
            let text = step.to_json().replacen('{', &format!("{{{outcome},"), 1);
            let value: serde_json::Value = serde_json::from_str(&text).expect("we wrote JSON");
            assert_eq!(value["as"], step.actor);
            let again = serde_json::from_str::<super::Op>(&step.to_json().replacen(
                &format!("\"as\":{},", step.actor),
                "",
                1,
            ));
            assert_eq!(again.expect("we wrote an operation"), step.op);
            seen += 1;
        }
    }
    assert!(seen > 10_000, "{seen}");
}

/// The state after the last step of a script, as if this library had done the same as Linux.
fn perfect(script: &Script) -> (Expected<'_>, Observed) {
    let mut expected = Expected::default();
    let mut layouts: BTreeMap<u32, Vec<MapsRow>> = BTreeMap::new();
    let mut seen = None;
    for step in &script.steps {
        expected.advance(step);
        layouts.extend(step.layouts.clone());
        let pages = step.pages.clone().unwrap_or_default();
        seen = Some(Observed {
            outcome: step.outcome.clone(),
            notified: step.notified.clone(),
            layouts: layouts.clone(),
            pages,
            vm_flags: BTreeMap::new(),
            more: Box::default(),
        });
    }
    (expected, seen.expect("a script has steps"))
}

#[test]
fn the_first_difference_is_found() {
    let script = parse(&[
        r#"{"as":0,"op":"fork","child":1,"ret":1,"notify":[["unmap","0x100000","0x102000"]],"maps":{"0":[["0x100000","0x102000","rw-p","0x0","anon"]],"1":[["0x100000","0x102000","rw-p","0x0","anon"]]},"pages":{"0":[["0x100000","a0..1"]],"1":[["0x100000","a0..1"]]}}"#,
    ]);
    let script = script.expect("a script");
    let step = &script.steps[0];
    let (expected, seen) = perfect(&script);
    assert_eq!(expected.difference(step, &seen), None);
    let with = |change: &dyn Fn(&mut Observed)| {
        let mut other = seen.clone();
        change(&mut other);
        expected.difference(step, &other).expect("it differs")
    };
    let outcome = with(&|o| o.outcome = Outcome::Err("ENOMEM".into()));
    assert!(matches!(outcome, Difference::Outcome(_)));
    let windows = with(&|o| o.notified.clear());
    assert!(matches!(windows, Difference::Windows(_)));
    let layout = with(&|o| o.layouts.get_mut(&1).expect("it exists")[0].perms = "r--p".into());
    assert!(matches!(layout, Difference::Layout { process: 1, .. }));
    let pages =
        with(&|o| o.pages = numbered(&[(0, &[256, 257], &[5, 6]), (1, &[256, 257], &[5, 7])]));
    let Difference::Pages(sides) = pages else {
        panic!("{pages:?}")
    };
    let stretches = differing_pages(&sides, 9);
    assert_eq!(stretches.len(), 1);
    assert_eq!(
        (
            stretches[0].process,
            stretches[0].page,
            stretches[0].sides.len()
        ),
        (1, 257, 1)
    );
}

fn numbered(tables: &[(u32, &[u64], &[u32])]) -> super::PageTables {
    let mut numbering = Numbering::default();
    for &(process, pages, frames) in tables {
        let entries = pages.iter().zip(frames);
        numbering.process(
            process,
            entries.map(|(&page, &f)| (page, Kind::Anon, Some(Pfn(f)))),
        );
    }
    numbering.finish()
}

#[test]
fn frames_are_compared_up_to_their_names() {
    let a = numbered(&[(0, &[1, 2, 9], &[5, 6, 5]), (1, &[3], &[6])]);
    assert_eq!(
        a,
        numbered(&[(0, &[1, 2, 9], &[70, 3, 70]), (1, &[3], &[3])])
    );
    assert_ne!(a, numbered(&[(0, &[1, 2, 9], &[5, 6, 7]), (1, &[3], &[6])]));
    assert_ne!(a, numbered(&[(0, &[1, 2, 9], &[5, 6, 5]), (1, &[3], &[5])]));
    // One page less must not make every later number differ.
    let less = numbered(&[(0, &[2, 9], &[6, 5]), (1, &[3], &[6])]);
    let stretches = differing_pages(
        &Sides {
            linux: a,
            emmu: less,
        },
        9,
    );
    assert_eq!(stretches.len(), 1, "{stretches:?}");
    assert_eq!(stretches[0].page, 1);
}

//! Scripts by hand of what random ones do not do: accesses that wait for a handler.

use super::{difference, recorded, replayed, tell_missing, unsteady};
use emmu::{
    host::Plan,
    replay::{Op, Report},
};

fn op(json: &str) -> Op {
    serde_json::from_str(json).unwrap_or_else(|why| panic!("{why}: {json}"))
}

/// Compares a script with the running kernel; what the kernel can do must be the same.
#[track_caller]
fn compare(name: &str, steps: &[(u32, &str)]) {
    let plan = Plan {
        name: name.into(),
        steps: steps.iter().map(|&(who, json)| (who, op(json))).collect(),
        ..Plan::default()
    };
    let Some(recording) = recorded(&plan) else {
        return;
    };
    tell_missing(name, recording.parts);
    if replayed(&recording).is_whole() {
        return;
    }
    match difference(&plan) {
        Some((_, done)) => panic!("{}", Report::of(&done).expect("differs")),
        None => unsteady(name),
    }
}

const MAP: &str = r#"{"op":"mmap","addr":"0x10000000000","len":65536,"prot":"rw-","flags":["private","fixed"],"file":null,"off":0}"#;

#[test]
fn accesses_wait_until_their_handler_answers() {
    compare(
        "answered",
        &[
            (0, MAP),
            (0, r#"{"op":"uffd","features":0}"#),
            (
                0,
                r#"{"op":"uffd_register","addr":"0x10000000000","len":65536,"mode":3}"#,
            ),
            (
                0,
                r#"{"op":"fault_load","addr":"0x10000000000","resolve":[["uffd_copy",{"addr":"0x10000000000","len":8192,"byte":7,"mode":0}]]}"#,
            ),
            (0, r#"{"op":"load","addr":"0x10000001000"}"#),
            (
                0,
                r#"{"op":"fault_store","addr":"0x10000004000","byte":9,"resolve":[["uffd_zeropage",{"addr":"0x10000004000","len":4096}]]}"#,
            ),
            (
                0,
                r#"{"op":"uffd_writeprotect","addr":"0x10000000000","len":8192,"mode":1}"#,
            ),
            (
                0,
                r#"{"op":"fault_store","addr":"0x10000000000","byte":1,"resolve":[["uffd_writeprotect",{"addr":"0x10000000000","len":4096,"mode":0}]]}"#,
            ),
            (
                0,
                r#"{"op":"uffd_move","addr":"0x10000008000","src":"0x10000004000","len":4096}"#,
            ),
            (
                0,
                r#"{"op":"fault_load","addr":"0x10000004000","resolve":[["uffd_wake",{"addr":"0x10000004000","len":4096}],["uffd_poison",{"addr":"0x10000004000","len":4096}]]}"#,
            ),
            (
                0,
                r#"{"op":"pagemap_scan","target":0,"flags":0,"start":"0x10000000000","end":"0x10000010000","mask":2}"#,
            ),
            (
                0,
                r#"{"op":"uffd_unregister","addr":"0x10000000000","len":65536}"#,
            ),
            (0, r#"{"op":"clear_refs","target":0,"value":4}"#),
            (0, r#"{"op":"uffd_close"}"#),
            (0, r#"{"op":"load","addr":"0x10000002000"}"#),
        ],
    );
}

#[test]
fn threads_share_what_their_process_has() {
    compare(
        "threaded",
        &[
            (0, MAP),
            (0, r#"{"op":"fork","child":1}"#),
            (1, r#"{"op":"thread","thread":2}"#),
            (2, r#"{"op":"store","addr":"0x10000000000","byte":7}"#),
            (1, r#"{"op":"load","addr":"0x10000000000"}"#),
            (2, r#"{"op":"fork","child":3}"#),
            (3, r#"{"op":"load","addr":"0x10000000000"}"#),
            (
                0,
                r#"{"op":"pvm_read","addr":"0x10000002000","len":4096,"target":3,"remote":"0x10000000000"}"#,
            ),
            (0, r#"{"op":"load","addr":"0x10000002000"}"#),
            (0, r#"{"op":"mincore","addr":"0x10000000000","len":65536}"#),
            (
                0,
                r#"{"op":"process_madvise","target":1,"iov":[["0x10000000000",4096],["0x10000004000",8192]],"advice":"cold","flags":0}"#,
            ),
            (0, r#"{"op":"exit_and_reap","target":1}"#),
            (0, r#"{"op":"munmap","addr":"0x10000000000","len":65536}"#),
        ],
    );
}

#[test]
fn files_by_path_are_those_of_this_machine() {
    compare(
        "by-path",
        &[
            (
                0,
                r#"{"op":"open","path":"/nowhere/at/all","mode":0,"name":"n"}"#,
            ),
            (0, r#"{"op":"open","path":"/dev/zero","mode":2,"name":"z"}"#),
            (0, r#"{"op":"bad_fd","name":"b","fd":999}"#),
            (
                0,
                r#"{"op":"mmap","addr":"0x10000000000","len":8192,"prot":"rw-","flags":["private","fixed"],"file":"z","off":0}"#,
            ),
            (0, r#"{"op":"store","addr":"0x10000000000","byte":7}"#),
            (
                0,
                r#"{"op":"mmap","addr":"0x10000000000","len":8192,"prot":"rw-","flags":["private","fixed"],"file":"b","off":0}"#,
            ),
            (0, r#"{"op":"load","addr":"0x10000000000"}"#),
        ],
    );
}

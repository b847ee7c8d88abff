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

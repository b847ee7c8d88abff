//! Where files end and have holes: which bytes are there, which are zeroed by what and when, which
//! pages are in memory, up to date, dirty. Each script of `data/ends` was recorded on Linux 6.18,
//! on ext4 with 4-KiB blocks or on a memfd.

use emmu::{
    replay::{Report, Script, Summary, load, replay},
    testkit::Reference,
};
use std::path::Path;

fn scripts(name: &str) -> Vec<Script> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/ends");
    load(&folder.join(name)).unwrap_or_else(|why| panic!("{why}"))
}

/// On this library as on Linux, and as the model of pages says.
#[track_caller]
fn as_recorded(name: &str) {
    for script in scripts(name) {
        let done = replay(&script).expect("no machine is in use");
        if let Some(report) = Report::of(&done) {
            panic!("\n{report}");
        }
        let mut reference = Reference::new(&script.header);
        for step in &script.steps {
            let said = reference.step(step.actor, &step.op, &step.outcome);
            assert_eq!(said, Ok(()), "{}:{}", script.name, step.line);
        }
    }
}

#[test]
fn writeback_zeroes_the_page_beyond_the_end_of_a_disk_file() {
    as_recorded("disk-fsync-zeroes-tail.jsonl");
}

#[test]
fn private_mappings_that_have_no_copy_see_what_writeback_zeroed() {
    as_recorded("disk-fsync-tail-seen-by-private.jsonl");
}

#[test]
fn a_disk_file_that_grows_zeroes_the_rest_of_its_last_block() {
    as_recorded("disk-ftruncate-grow-zeroes-old-tail.jsonl");
}

#[test]
fn a_write_beyond_the_end_zeroes_the_rest_of_the_last_block() {
    as_recorded("disk-pwrite-past-eof-zeroes-tail.jsonl");
}

#[test]
fn a_write_beyond_the_end_in_the_last_block_zeroes_up_to_where_it_begins() {
    as_recorded("disk-pwrite-past-eof-same-page.jsonl");
}

#[test]
fn a_memfd_cut_to_the_size_that_it_has_zeroes_the_rest_of_its_last_page() {
    as_recorded("memfd-ftruncate-same-size.jsonl");
}

#[test]
fn growing_to_a_part_of_a_page_brings_no_page_in() {
    as_recorded("disk-grow-to-partial-reads-no-page.jsonl");
}

#[test]
fn the_edges_of_a_hole_come_in_without_being_up_to_date() {
    as_recorded("disk-punch-partial-edges-cold.jsonl");
}

#[test]
fn a_hole_that_ends_in_page_0_unmaps_all_behind_it() {
    as_recorded("memfd-small-hole-in-page-0.jsonl");
}

#[test]
fn zeroing_a_part_of_a_hole_makes_nothing_dirty() {
    as_recorded("disk-zeroing-a-hole-dirties-nothing.jsonl");
}

#[test]
fn a_forked_mapping_stands_behind_its_parents_in_the_reverse_map() {
    as_recorded("memfd-rmap-order-after-fork.jsonl");
}

#[test]
fn reclaim_writes_dirty_pages_of_files_back() {
    as_recorded("disk-reclaim-writes-dirty-pages.jsonl");
}

#[test]
fn a_hole_beyond_the_end_of_a_disk_file_does_nothing() {
    as_recorded("disk-punch-beyond-eof.jsonl");
}

#[test]
fn what_writeback_zeroed_is_gone_for_the_model_too() {
    as_recorded("model-drops-tail.jsonl");
}

/// One file by four open ones: a write through one is seen through all, what a file was not opened
/// for is refused, and mappings of different ones do not merge.
#[test]
fn a_file_may_be_opened_several_times() {
    let text = r#"{"profile":"ends","seed":0,"kernel":"6.18.44","page":4096,"arena":["0x10000000000","0x11000000000"],"files":{"f0":{"size":8192,"kind":"disk"}},"opens":{"g0":["f0","rw"],"g1":["f0","ro"],"g2":["f0","wo"]}}
{"as":0,"op":"mmap","addr":"0x10000000000","len":4096,"prot":"rw-","flags":["shared","fixed"],"file":"f0","off":0,"ret":"0x10000000000","maps":{"0":[["0x10000000000","0x10000001000","rw-s","0x0","f0"]]},"pages":{"0":[]}}
{"as":0,"op":"mmap","addr":"0x10000001000","len":4096,"prot":"rw-","flags":["shared","fixed"],"file":"g0","off":4096,"ret":"0x10000001000","maps":{"0":[["0x10000000000","0x10000001000","rw-s","0x0","f0"],["0x10000001000","0x10000002000","rw-s","0x1000","f0"]]}}
{"as":0,"op":"pwrite","file":"g2","off":4097,"byte":5,"ret":1}
{"as":0,"op":"load","addr":"0x10000001001","ret":5,"pages":{"0":[["0x10000001000","s0"]]}}
{"as":0,"op":"mmap","addr":"0x10000003000","len":4096,"prot":"rw-","flags":["shared","fixed"],"file":"g1","off":0,"err":"EACCES"}
{"as":0,"op":"mmap","addr":"0x10000003000","len":4096,"prot":"r--","flags":["private","fixed"],"file":"g2","off":0,"err":"EACCES"}
{"as":0,"op":"pwrite","file":"g1","off":4097,"byte":5,"err":"EBADF"}
"#;
    let script = Script::parse("opens", text.as_bytes()).unwrap();
    let done = replay(&script).expect("no machine is in use");
    if let Some(report) = Report::of(&done) {
        panic!("\n{report}");
    }
    let twice = text.replace(r#""g0":["f0""#, r#""f0":["f0""#);
    let unknown = text.replace(r#""g0":["f0""#, r#""g0":["f7""#);
    for wrong in [twice, unknown] {
        let why = Script::parse("opens", wrong.as_bytes()).unwrap_err();
        assert_eq!(why.line, 1, "{why}");
    }
}

/// Random scripts with odd sizes, offsets and lengths; recorded twice each, and cut where the two
/// differed.
#[test]
fn random_scripts_with_odd_ends_go_as_on_linux() {
    let all = scripts("random");
    assert!(all.len() >= 30, "{}", all.len());
    let done: Vec<_> = all
        .iter()
        .map(|s| replay(s).expect("no machine is in use"))
        .collect();
    let first = done.iter().find_map(Report::of);
    let text = first.map(|r| r.to_string()).unwrap_or_default();
    let summary = Summary::of(&done);
    assert!(done.iter().all(|d| d.is_whole()), "{summary}\n{text}");
}

/// The same scripts: what the model of pages says of them.
#[test]
fn the_model_of_pages_agrees_with_linux_about_odd_ends() {
    for script in scripts("random") {
        let mut reference = Reference::new(&script.header);
        for step in &script.steps {
            let said = reference.step(step.actor, &step.op, &step.outcome);
            assert_eq!(said, Ok(()), "{}:{}", script.name, step.line);
        }
    }
}

/// Reads, writes from memory that is not there, `MADV_WILLNEED`, and what `mincore` says after
/// each; some of a kernel without swap.
#[test]
fn files_are_read_and_written_as_on_linux() {
    let all = scripts("reads");
    assert!(all.len() >= 15, "{}", all.len());
    for script in &all {
        let done = replay(script).expect("no machine is in use");
        if let Some(report) = Report::of(&done) {
            panic!("\n{report}");
        }
        let mut reference = Reference::new(&script.header);
        for step in &script.steps {
            let said = reference.step(step.actor, &step.op, &step.outcome);
            assert_eq!(said, Ok(()), "{}:{}", script.name, step.line);
        }
    }
}

/// What a kernel without swap did is not what one with swap does: the header counts.
#[test]
fn a_kernel_without_swap_keeps_private_pages() {
    let all = scripts("reads/tails-220.jsonl.gz");
    let mut script = all.into_iter().next().expect("one");
    let whole = |script: &Script| replay(script).expect("no machine is in use").is_whole();
    assert!(whole(&script));
    assert_eq!(script.header.swap.take(), Some(0));
    assert!(!whole(&script));
}

//! Where files end and have holes: which bytes are there, which are zeroed by what and when, which pages are in memory, up
//! to date, dirty. Each script of `data/ends` was recorded on Linux 6.18, on ext4 with 4-KiB blocks or on a memfd.

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

/// Random scripts with odd sizes, offsets and lengths; recorded twice each, and cut where the two differed.
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

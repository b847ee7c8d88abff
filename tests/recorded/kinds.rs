//! Recordings of kinds of memory that the archive's profiles do not have: `data/kinds`, one script
//! a file.
#![cfg(feature = "replay")]

use emmu::{
    mm::ForkMode,
    replay::{
        MmuKind, Outcome, Parts, Report, Script, load, replay, replay_forking, replay_parts,
        replay_with,
    },
};
use std::{collections::BTreeSet, path::Path};

/// What the folder is there for.
const KINDS: &[&str] = &[
    "advise",
    "bad_files",
    "clear_refs",
    "collapse_and_cut",
    "collapse_locked",
    "collapse_of_holes",
    "copies",
    "deferred_split",
    "dev_zero",
    "dev_zero_more",
    "direct_edges",
    "direct_io",
    "direct_more",
    "disk",
    "droppable",
    "droppable_twice",
    "exec_more",
    "exec_rights",
    "falloc",
    "fallocate_modes",
    "fallocate_more",
    "fallocate_shmem",
    "fallocate_shmem_more",
    "file_collapse",
    "folios",
    "folios_pins",
    "force",
    "force_huge",
    "free_collected",
    "grows",
    "grows_across",
    "guards_shared",
    "heap",
    "huge",
    "hugetlb_args",
    "hugetlb_calls",
    "hugetlb_fallocate",
    "hugetlb_files",
    "hugetlb_gib",
    "hugetlb_mlock",
    "hugetlb_over",
    "hugetlb_pmd",
    "hugetlb_pmd_fork",
    "hugetlb_pmd_nameless",
    "hugetlb_private",
    "hugetlb_reserve",
    "hugetlb_shared",
    "hugetlb_steal",
    "hugetlb_steal_more",
    "hugetlb_tables",
    "khugepaged",
    "khugepaged_limits",
    "khugepaged_shared",
    "khugepaged_swap",
    "khugepaged_tmpfs",
    "ksm",
    "ksm_all",
    "ksm_run2",
    "limits",
    "locked_and_kept",
    "map_sync",
    "mbinds",
    "mbinds_more",
    "memfd_future_write",
    "memfd_seals",
    "memory_limit",
    "merge_all",
    "merges",
    "moved_huge",
    "moved_ksm",
    "moved_pages",
    "moved_shmem_thp",
    "moved_thp",
    "moves",
    "mrelease_more",
    "mthp",
    "mthp_collapse",
    "mthp_edges",
    "mthp_fork",
    "mthp_ksm",
    "mthp_lock",
    "mthp_migrate",
    "mthp_more",
    "mthp_moves",
    "mthp_pageout",
    "mthp_parts",
    "mthp_pins",
    "mthp_reclaim",
    "mthp_reclaim_full",
    "mthp_remote",
    "mthp_split",
    "mthp_uffd",
    "multi",
    "no_huge_pool",
    "opens",
    "pagemap_scan",
    "pageout_kinds",
    "pageout_no_swap",
    "pinned_files",
    "pinned_fork",
    "pinned_huge",
    "pinned_huge_advice",
    "pinned_moves",
    "pinned_other",
    "pins",
    "pkeys",
    "place",
    "place64",
    "pool_moves",
    "pool_moves_fork",
    "pool_moves_protected",
    "pool_moves_shared",
    "pool_moves_tables",
    "process_madvise",
    "process_mrelease",
    "ptrace_force",
    "ptrace_force_files",
    "remote",
    "scan_absent",
    "sealed_discards",
    "seals_more",
    "secret_more",
    "secretmem",
    "shm_third",
    "shmem_collapse",
    "shmem_thp",
    "shmthp",
    "spliced_huge",
    "swapoff",
    "swapoff_kinds",
    "sync_ranges",
    "sysv",
    "sysv_huge",
    "sysv_huge_more",
    "sysv_lock",
    "sysv_lock_limits",
    "sysv_lock_reclaim",
    "sysv_more",
    "thp",
    "thp_disable",
    "thp_more",
    "thp_third",
    "thp_third_parts",
    "threads",
    "tmpfs_advise",
    "tmpfs_within",
    "uffd_huge_async",
    "uffd_huge_both",
    "uffd_huge_exhausted",
    "uffd_huge_file",
    "uffd_huge_missing",
    "uffd_huge_wp",
    "uffd_minor",
    "uffd_missing",
    "uffd_move",
    "uffd_wp",
    "uffd_wp_async",
    "uffdsig",
    "unwritten_collapse",
    "vmspliced",
    "wpasync",
];

fn scripts() -> Vec<Script> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/kinds");
    load(&folder).expect("all can be read")
}

#[test]
fn recorded_kinds_go_as_on_linux() {
    for script in scripts() {
        let done = replay(&script).expect("this thread works on nothing else");
        let report = Report::of(&done).map(|report| report.to_string());
        assert_eq!(report, None, "{}", done.name);
    }
}

/// So they do where forks share tables; counts of frames decide about copies and merges.
#[test]
fn recorded_kinds_go_as_on_linux_where_forks_share_tables() {
    for script in scripts() {
        let done = replay_forking(&script, ForkMode::Share).expect("as above");
        let report = Report::of(&done).map(|report| report.to_string());
        assert_eq!(report, None, "{}", done.name);
    }
}

/// So they do with devices of every kind, none of which translates what it must not.
#[test]
fn recorded_kinds_go_as_on_linux_with_devices() {
    // A reaper gives up where a driver may sleep, and the recorded process had none.
    let reaped = ["mrelease_more", "process_mrelease"];
    let spin = |kind: &MmuKind| *kind != MmuKind::Xpmem;
    let spinning: Vec<_> = MmuKind::ALL.into_iter().filter(spin).collect();
    // What a device has written is dirty, and MADV_FREE passes dirty pages by that others have.
    let freed = "free_collected";
    let mut differing = Vec::new();
    for script in scripts() {
        if script.header.name() == freed {
            continue;
        }
        let devices = match reaped.contains(&&*script.header.name()) {
            true => &*spinning,
            false => &MmuKind::ALL,
        };
        let done = replay_with(&script, devices).expect("as above");
        differing.extend(Report::of(&done).map(|report| report.to_string()));
        let findings = done.presented.findings.iter();
        differing.extend(findings.map(|finding| format!("{}: {finding}", done.name)));
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

/// Every kind that the folder is there for is in it, and none is empty.
#[test]
fn every_kind_is_there() {
    let names: BTreeSet<String> = scripts()
        .iter()
        .map(|script| {
            assert!(script.steps.len() > 2, "{}", script.name);
            match script.header.profile.as_str() {
                "kind" => script.header.name(),
                profile => profile.to_owned(),
            }
        })
        .collect();
    let expected: BTreeSet<String> = KINDS.iter().map(|kind| (*kind).to_owned()).collect();
    assert_eq!(names, expected);
}

/// What the other tests would not notice: a flag of a VMA, an errno of a new call.
#[test]
fn a_changed_recording_is_noticed() {
    let all = scripts();
    let find = |name: &str| {
        let found = all.iter().find(|s| s.header.name() == name);
        found.expect("it is there").clone()
    };
    let mut flags = find("locked_and_kept");
    let step = flags.steps.iter_mut().find(|s| !s.vm_flags.is_empty());
    let step = step.expect("flags were recorded");
    step.vm_flags.insert(0, vec!["rd".into()]);
    assert!(!replay(&flags).expect("as above").is_whole());
    let without = replay_parts(&flags, Parts::all() - Parts::FLAGS);
    assert!(without.expect("as above").is_whole());
    let mut copied = find("copies");
    let ops = copied.steps.iter_mut();
    let last = ops.last().expect("it has steps");
    last.outcome = Outcome::Ret(1);
    let done = replay(&copied).expect("as above");
    assert_eq!(done.agreed + 1, done.steps);
}

/// Reading and writing one gives the same again.
#[test]
fn recorded_kinds_are_written_as_they_were_read() {
    for script in scripts() {
        let again = Script::parse(&script.name, script.to_jsonl().as_bytes()).expect("ours");
        assert_eq!(again.header, script.header);
        assert_eq!(format!("{:?}", again.steps), format!("{:?}", script.steps));
    }
}

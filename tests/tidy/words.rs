//! What programs can do to an address space can be said in a script, so it is compared with Linux.

use super::source::files;
use std::collections::BTreeSet;

/// Operations and the words that say them.
const SAID: &[(&str, &[&str])] = &[
    ("Mm::brk", &["brk"]),
    ("Mm::clear_refs", &["clear_refs"]),
    ("Mm::copy_from", &["pvm_read"]),
    ("Mm::copy_to", &["pvm_write"]),
    ("Mm::exit", &["exit"]),
    ("Mm::get_pages", &["vmsplice"]),
    ("Mm::pagemap_scan", &["pagemap_scan"]),
    ("Mm::pin", &["pin"]),
    ("Mm::process_madvise", &["process_madvise"]),
    ("Mm::process_mrelease", &["exit_and_reap"]),
    ("Mm::read_remote", &["mem_read"]),
    ("Mm::write_remote", &["mem_write"]),
    ("Mm::fetch", &["exec"]),
    ("Mm::fork", &["fork"]),
    ("Mm::load", &["load"]),
    ("Mm::madvise", &["madvise", "self_process_madvise"]),
    ("Mm::mbind", &["mbind"]),
    ("Mm::migrate", &["migrate", "migrate_many"]),
    ("Mm::make_device_exclusive", &["exclusive"]),
    ("Mm::migrate_vma", &["to_device", "from_device"]),
    ("Mm::mincore", &["mincore"]),
    ("Mm::mlock", &["mlock"]),
    ("Mm::mlock2", &["mlock2"]),
    ("Mm::mlockall", &["mlockall"]),
    ("Mm::mmap", &["mmap"]),
    ("Mm::mprotect", &["mprotect"]),
    ("Mm::mremap", &["mremap"]),
    ("Mm::mseal", &["mseal"]),
    ("Mm::msync", &["msync"]),
    ("Mm::munlock", &["munlock"]),
    ("Mm::munlockall", &["munlockall"]),
    ("Mm::munmap", &["munmap"]),
    ("Mm::name_memory", &["anon_name"]),
    ("Mm::pkey_alloc", &["pkey_alloc"]),
    ("Mm::pkey_mprotect", &["pkey_mprotect"]),
    ("Mm::read_file", &["read_into", "direct_read"]),
    ("Mm::remap_file_pages", &["remap_file_pages"]),
    ("Mm::set_limits", &["rlimit", "drop_ipc_lock"]),
    ("Mm::set_merge_all", &["prctl"]),
    ("Mm::set_thp_disable", &["prctl"]),
    ("Mm::shm_lock", &["shmlock"]),
    ("Mm::shmat", &["shmat"]),
    ("Mm::shmdt", &["shmdt"]),
    ("Mm::store", &["store"]),
    ("Mm::userfaultfd", &["uffd"]),
    ("Mm::wait_for_answer", &["fault_load", "fault_store"]),
    ("Mm::write_file", &["write_from", "direct_write_from"]),
    ("File::add_seals", &["seal"]),
    ("File::advise", &["fadvise_dontneed"]),
    ("File::fallocate", &["fallocate"]),
    ("File::punch_hole", &["punch_hole"]),
    ("File::read_at", &["pread"]),
    ("File::sync", &["fsync"]),
    ("File::sync_range", &["sync_file_range"]),
    ("File::truncate", &["ftruncate"]),
    ("File::write_at", &["pwrite", "direct_write"]),
    ("Machine::add_device", &["device"]),
    ("Machine::evict_device", &["evict_device"]),
    ("Machine::khugepaged", &["khugepaged"]),
    ("Machine::merge_same_pages", &["merge", "ksm"]),
    ("Machine::reclaim", &["shrink"]),
    ("Machine::reclaim_all", &["reclaim"]),
    ("Machine::remove_device", &["remove_device"]),
    ("Machine::shm_remove", &["shmrm"]),
    ("Machine::shm_unlock", &["shmunlock"]),
    ("Machine::shmget", &["shmget"]),
    ("Machine::set_memory_limit", &["limit"]),
    ("Machine::split_deferred", &["drop_caches"]),
    ("Machine::swapoff", &["swapoff"]),
    ("Machine::swapon", &["swapon"]),
];

/// Everything else, by the reason that it is no word.
const NOT_SAID: &[(&str, &[&str])] = &[
    (
        "a question: a script compares its answer after each step, or a program asks it",
        &[
            "Mm::maps",
            "Mm::pagemap",
            "Mm::protected_pages",
            "Mm::map_count",
            "Mm::sizes",
            "Mm::tables",
            "Mm::limits",
            "Mm::machine",
            "Mm::merges_all",
            "Mm::thp_disable",
            "Mm::merge_barriers",
            "Mm::vma_cost",
            "Mm::mmap_cost",
            "Mm::would_map_at",
            "Mm::would_remap_to",
            "Mm::unreachable_pages",
            "Mm::windows_open",
            "Mm::open_windows",
            "Mm::subscriptions",
            "Mm::walker",
            "File::object",
            "File::is_readable",
            "File::is_writable",
            "File::seals",
            "Machine::config",
            "Machine::shm_stat",
            "Machine::mem",
            "Machine::host",
            "Machine::commit",
        ],
    ),
    (
        "the header of a script says it, or the initial layout of a program",
        &[
            "Mm::new",
            "Mm::set_start_brk",
            "Mm::set_start_stack",
            "Mm::set_mmap_base",
            "Mm::install",
            "File::open",
            "File::open_direct",
            "Machine::new",
            "Machine::try_new",
            "Machine::enter",
            "Machine::with_current",
        ],
    ),
    (
        "no call of Linux: a way of emmu's own, which must come out as the one that is a word",
        &[
            "Mm::fork_with",
            "Mm::set_remap_mode",
            "Mm::atomic",
            "Mm::read_bytes",
            "Mm::write_bytes",
            "Mm::lock_shared",
            "Mm::lock_exclusive",
            "Machine::settle_counts",
        ],
    ),
    (
        "for external MMUs: `replay --mmu` does it at every step",
        &[
            "Mm::register",
            "Mm::try_register",
            "Mm::subscribe",
            "Mm::try_subscribe",
            "Mm::unregister",
            "Mm::resolve",
            "Mm::try_resolve",
            "Mm::age",
            "Mm::with_locked_frame",
            "Mm::resolve_range",
            "Mm::register_tlb",
            "Mm::walk",
            "Mm::serve_page_request",
            "Machine::register_exports",
            "Machine::unregister_exports",
        ],
    ),
];

/// The public functions of the three types, as `Type::name`.
fn operations() -> BTreeSet<String> {
    let mut out = BTreeSet::new();
    for (_, text) in files("src") {
        let mut of = None;
        for line in text.lines() {
            if line.starts_with("impl") || line.starts_with('}') {
                let types = ["Mm", "File", "Machine"];
                of = types.into_iter().find(|t| line == format!("impl {t} {{"));
            }
            let function = line
                .strip_prefix("    pub ")
                .and_then(|rest| rest.trim_start_matches("const ").strip_prefix("fn "));
            if let (Some(of), Some(function)) = (of, function) {
                let end = function.find(['(', '<']).expect("a list of arguments");
                out.insert(format!("{of}::{}", &function[..end]));
            }
        }
    }
    out
}

/// The words of operations, from the names of the variants of `Op`.
fn words() -> BTreeSet<String> {
    let texts = files("src/replay");
    let of_ops = texts.iter().find(|(path, _)| path.ends_with("op.rs"));
    let text = &of_ops.expect("it has the operations").1;
    let start = text.find("pub enum Op {").expect("the operations");
    let all = &text[start..start + text[start..].find("\n}").expect("its end")];
    let variants = all.lines().filter_map(|line| {
        let name = line.strip_prefix("    ")?;
        let end = name.find([' ', ',', '('])?;
        name.starts_with(|c: char| c.is_ascii_uppercase())
            .then(|| snake(&name[..end]))
    });
    variants.collect()
}

fn snake(name: &str) -> String {
    let mut out = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

#[test]
fn every_operation_is_a_word_of_scripts_or_has_a_reason_not_to_be() {
    let said = SAID.iter().map(|s| s.0);
    let not_said = NOT_SAID.iter().flat_map(|n| n.1).copied();
    let listed: Vec<&str> = said.chain(not_said).collect();
    let once: BTreeSet<String> = listed.iter().map(ToString::to_string).collect();
    assert_eq!(once.len(), listed.len(), "one operation has one entry");
    let found = operations();
    let missing: Vec<_> = found.difference(&once).collect();
    assert!(missing.is_empty(), "no script can say {missing:?}");
    let gone: Vec<_> = once.difference(&found).collect();
    assert!(gone.is_empty(), "there is no {gone:?}");
}

#[test]
fn every_word_is_of_an_operation() {
    let words = words();
    assert!(words.len() > 40, "{words:?}");
    for (operation, by) in SAID {
        for word in *by {
            assert!(words.contains(*word), "{operation}: {word} is no word");
        }
    }
}

#[test]
fn every_flag_of_mmap_and_mremap_is_a_word() {
    let read = |path: &str| {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        std::fs::read_to_string(path).expect("it is there")
    };
    let (flags, words) = (
        read("src/mm/entry/flags.rs"),
        read("src/replay/wire_words.rs"),
    );
    for of in ["MapFlags", "MremapFlags"] {
        let start = flags.find(&format!("pub struct {of}: u32 {{"));
        let rest = &flags[start.expect("its flags")..];
        let all = &rest[..rest.find("\n    }").expect("its end")];
        let names = all
            .lines()
            .filter_map(|line| line.trim().strip_prefix("const "))
            .map(|line| line.split(' ').next().expect("a name"));
        let mut n = 0;
        for name in names {
            let said = [",", " "].map(|end| words.contains(&format!("= {name}{end}")));
            assert!(said.contains(&true), "{of}::{name} is no word");
            n += 1;
        }
        assert!(n >= 3, "{of}");
    }
}

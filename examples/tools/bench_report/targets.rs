//! What is to be reached.

/// A row of the table.
pub(crate) struct Target {
    /// The group of the benchmark.
    pub(crate) work: &'static str,
    /// Whose measurements count; the best of them decides.
    pub(crate) against: &'static [&'static str],
    /// The largest ratio that is good enough.
    pub(crate) reach: f64,
}

const fn row(work: &'static str, against: &'static [&'static str], reach: f64) -> Target {
    Target {
        work,
        against,
        reach,
    }
}

const PEERS: &[&str] = &["page_table_multiarch", "x86_64 MappedPageTable"];
const RAW_MAP: &[&str] = &["page_table_multiarch raw map", "x86_64 raw map"];
const RAW_UNMAP: &[&str] = &["page_table_multiarch raw unmap", "x86_64 raw unmap"];
const LINUX: &[&str] = &["Linux"];
const RANGEMAP: &[&str] = &["rangemap remove+insert"];
const WALK: &[&str] = &["epoch list walk, twice"];

const FLOOR: &[&str] = &["floor"];
const HAND: &[&str] = &["hand-written floor"];

/// Every row.
pub(crate) const TARGETS: &[Target] = &[
    row("translate, dense", PEERS, 1.0),
    row("translate, dense", FLOOR, 1.3),
    row("translate, one page per 2 MiB", PEERS, 1.0),
    row("translate, one page per 2 MiB", FLOOR, 1.3),
    row("raw map, 64 Ki pages in a range", PEERS, 1.0),
    row("raw unmap, 64 Ki pages in a range", PEERS, 1.0),
    row("populate, 64 Ki pages", RAW_MAP, 3.0),
    row("munmap, 64 Ki pages, nobody registered", RAW_UNMAP, 1.5),
    row("munmap, 64 Ki pages, in KVM's tables", RAW_UNMAP, 4.0),
    row("fork of 64 Ki anonymous pages", LINUX, 0.15),
    row(
        "fork of 64 Ki anonymous pages",
        &["entries and counts"],
        3.0,
    ),
    row("fork of 1 GiB, tables shared", &["fork that copies"], 0.01),
    row("mremap of 1 GiB, aligned", LINUX, 0.1),
    row("fault, zero page", LINUX, 0.1),
    row("fault, anonymous", LINUX, 0.1),
    row("fault, copy on write", LINUX, 0.1),
    row("munmap+mmap pair among 1 VMAs", LINUX, 0.08),
    row("munmap+mmap pair among 10000 VMAs", LINUX, 0.12),
    row("munmap+mmap pair among 60000 VMAs", LINUX, 0.15),
    row("munmap+mmap pair, 1 VMAs", RANGEMAP, 1.0),
    row("munmap+mmap pair, 10000 VMAs", RANGEMAP, 1.0),
    row("munmap+mmap pair, 100000 VMAs", RANGEMAP, 1.0),
    row("VMA lookup among 100,000", &["rangemap get"], 0.4),
    row("window, 0 registered", &["relaxed load and branch"], 2.0),
    row("window, 1 registered", WALK, 1.5),
    row("window, 4 registered", WALK, 1.5),
    row("window, 16 registered", WALK, 1.5),
    row(
        "register+unregister, 16 present",
        &["ArcSwap copy on write"],
        0.5,
    ),
    row("interval query among 100,000", &["iset"], 0.3),
    row("interval query among 100,000", &["rust-lapper"], 0.8),
    row("interval remove+insert among 100,000", &["iset"], 1.0),
    row("KVM: vCPU hit", HAND, 1.3),
    row("KVM: vCPU miss", HAND, 1.5),
    row("GRU: hit", HAND, 1.3),
    row("GRU: drop-in", HAND, 1.5),
    row("XPmem: hit", HAND, 1.3),
    row("guest memory: load that hits", &["plain mmap memory"], 1.5),
    row(
        "guest memory: load that hits",
        &["vm-memory's IommuMemory"],
        1.0,
    ),
    row("a step of a script with three MMUs", &["5 µs"], 1.0),
];

//! Instructions that the hottest paths take, counted by callgrind: the same on every run, where
//! times are not.
//!
//! `cargo bench --bench instructions` runs itself under valgrind once for each path, prints the
//! counts, and fails where a path takes more than `instructions.txt` says and a twentieth of it.
//! Where a path has become longer for a reason, or shorter, `.ci/run baseline` writes the file
//! anew. What callgrind wrote is left in `target/instructions/PATH/`.

mod chain;
mod device;
mod device_paths;
mod floor;
mod tlb;
mod world;

use chain::{Driver, List};
#[cfg(feature = "vm-memory")]
use emmu::{
    Machine, MachineConfig, Mm,
    ctx::CallCx,
    extmmu::{
        iommu::{LeasedMemory, ProcessIommu},
        vm_memory::GuestRegion,
    },
};
use emmu::{
    PAGE_SIZE,
    addr::{Vpn, VpnRange},
    mm::{MapFlags, MmapArgs, MremapArgs, MremapFlags, Prot},
    notifier::Event,
};
use std::{
    env, fs,
    hint::black_box,
    path::Path,
    process::{Command, ExitCode},
};
#[cfg(feature = "vm-memory")]
use vm_memory::{GuestAddress, GuestMemory, IommuMemory, Permissions};
use world::{World, addr, number, with_world};

/// Pages of those paths that take a range: one leaf table.
const PAGES: u64 = 512;
/// Turns of those paths that are short, after one that is not counted.
const TURNS: u64 = 16;

/// What is counted: all that happens in here.
#[inline(never)]
fn counted(w: &mut World<'_>, work: impl FnOnce(&mut World<'_>)) {
    work(black_box(w));
}

/// Prepares a world, then counts `work` in it.
fn count(prepare: impl FnOnce(&mut World<'_>), work: impl FnOnce(&mut World<'_>)) {
    with_world(|w| {
        prepare(w);
        counted(w, work);
    });
}

/// `turn` so many times, after once that is not counted.
fn turns(prepare: impl FnOnce(&mut World<'_>), turn: impl Fn(&mut World<'_>, u64)) {
    count(
        |w| {
            prepare(w);
            turn(w, 0);
        },
        |w| (1..=TURNS).for_each(|n| turn(w, n)),
    );
}

fn touched(w: &mut World<'_>) {
    w.map(0..PAGES, |a| a);
    w.store(0..PAGES);
}

fn load_hit() {
    turns(touched, |w, n| w.load(n..n + 1));
}
fn fault_zero_page() {
    turns(|w| w.map(0..PAGES, |a| a), |w, n| w.load(n..n + 1));
}
fn fault_anonymous() {
    turns(|w| w.map(0..PAGES, |a| a), |w, n| w.store(n..n + 1));
}
fn fault_copy_on_write() {
    let forked = |w: &mut World<'_>| {
        touched(w);
        w.fork();
    };
    turns(forked, |w, n| w.store(n..n + 1));
}
fn populate_512() {
    let args = |a: MmapArgs| a.flags(MapFlags::POPULATE);
    // The first frame of many has their metadata made.
    let mapped = |w: &mut World<'_>| {
        w.map(0..PAGES + 1, |a| a);
        w.store(PAGES..PAGES + 1);
    };
    count(mapped, |w| w.map(0..PAGES, args));
}
fn munmap_512() {
    count(touched, |w| w.unmap(0..PAGES));
}
fn pair_among_1000() {
    let striped = |w: &mut World<'_>| {
        for n in 0..1000 {
            w.map(2 * n..2 * n + 1, |a| a);
        }
    };
    turns(striped, |w, n| {
        w.unmap(2 * n..2 * n + 1);
        w.map(2 * n..2 * n + 1, |a| a);
    });
}
fn fork_512() {
    count(touched, |w| w.fork());
}
fn mprotect_512() {
    count(touched, |w| {
        w.mm.mprotect(&mut w.cx, addr(0), PAGES * PAGE_SIZE, Prot::READ)
            .expect("mapped");
    });
}
fn mremap_1_gib() {
    const PAGES: u64 = 1 << 18;
    let remap = |w: &mut World<'_>, from, to| {
        let len = PAGES * PAGE_SIZE;
        let args = MremapArgs {
            addr: addr(from),
            old_len: len,
            new_len: len,
            flags: MremapFlags::MAYMOVE | MremapFlags::FIXED,
            new_addr: addr(to),
        };
        w.mm.mremap(&mut w.cx, args).expect("there is room");
    };
    // The first move also has the dynamic linker look functions up.
    let sparse = |w: &mut World<'_>| {
        w.map(0..PAGES, |a| a);
        (0..PAGES).step_by(512).for_each(|n| w.store(n..n + 1));
        remap(w, 0, 8 * PAGES);
    };
    count(sparse, |w| remap(w, 8 * PAGES, 4 * PAGES));
}

fn windows(drivers: usize) {
    with_world(|w| {
        w.map(0..8, |a| a);
        let kept: Vec<_> = (0..drivers)
            .map(|_| w.mm.register(&mut w.cx, Driver::new))
            .collect();
        let range = VpnRange::new(Vpn(number(0)), Vpn(number(8))).expect("not empty");
        counted(w, |w| {
            let mut guard = w.mm.lock_shared(&mut w.cx);
            let mut lease = guard.lease();
            (0..TURNS).for_each(|_| lease.window(range, Event::Clear).close());
        });
        for (_, registration) in kept {
            w.mm.unregister(&mut w.cx, registration);
        }
    });
}
fn window_nobody() {
    windows(0);
}
fn window_1_driver() {
    windows(1);
}
fn window_4_drivers() {
    windows(4);
}
fn register_pair() {
    turns(
        |w| {
            for _ in 0..TURNS {
                let (_driver, _stays) = w.mm.register(&mut w.cx, Driver::new);
            }
        },
        |w, _| {
            let (_driver, registration) = w.mm.register(&mut w.cx, Driver::new);
            w.mm.unregister(&mut w.cx, registration);
        },
    );
}

fn floor_windows(drivers: usize) {
    let list = List::new(drivers);
    let local = list.register();
    let range = VpnRange::new(Vpn(number(0)), Vpn(number(8))).expect("not empty");
    with_world(|w| {
        counted(w, |_| {
            for _ in 0..TURNS {
                list.walk(&local, range);
                list.walk(&local, range);
            }
        });
    });
}
fn floor_window_4_drivers() {
    floor_windows(4);
}

/// A world whose frames have contents, with one page that a driver has for writing.
#[cfg(feature = "vm-memory")]
fn leased(turn: impl Fn(&mut CallCx<'_>, &IommuMemory<LeasedMemory, ProcessIommu>)) {
    let machine = Machine::new(MachineConfig::default());
    let mut thread = machine.enter().expect("no other thread of this process");
    let mut cx = thread.cx();
    let mm = Mm::new(&machine);
    let args = MmapArgs::anonymous(PAGE_SIZE).fixed(addr(0));
    mm.mmap(&mut cx, &args).expect("there is room");
    let region = GuestRegion {
        guest: GuestAddress(0),
        len: PAGE_SIZE,
        process: addr(0),
    };
    let (iommu, registration) = ProcessIommu::attach(&mut cx, &mm, &[region], Default::default());
    let memory = iommu.memory();
    turn(&mut cx, &memory);
    counted_lease(&mut cx, &memory, turn);
    mm.unregister(&mut cx, registration);
    mm.exit(&mut cx);
}
#[cfg(feature = "vm-memory")]
#[inline(never)]
fn counted_lease(
    cx: &mut CallCx<'_>,
    memory: &IommuMemory<LeasedMemory, ProcessIommu>,
    turn: impl Fn(&mut CallCx<'_>, &IommuMemory<LeasedMemory, ProcessIommu>),
) {
    for _ in 0..TURNS {
        turn(black_box(cx), memory);
    }
}
#[cfg(feature = "vm-memory")]
fn iommu_lease() {
    leased(|cx, memory| {
        let slice = cx.lend(|| {
            let slices = memory.get_slices(GuestAddress(0), 8, Permissions::Write);
            slices
                .expect("mapped")
                .next()
                .expect("one")
                .expect("mapped")
        });
        drop(black_box(slice));
    });
}

/// The paths, by name.
const PATHS: &[(&str, fn())] = &[
    ("load_hit", load_hit),
    ("fault_zero_page", fault_zero_page),
    ("fault_anonymous", fault_anonymous),
    ("fault_copy_on_write", fault_copy_on_write),
    ("populate_512", populate_512),
    ("munmap_512", munmap_512),
    ("pair_among_1000", pair_among_1000),
    ("fork_512", fork_512),
    ("mprotect_512", mprotect_512),
    ("mremap_1_gib", mremap_1_gib),
    ("window_nobody", window_nobody),
    ("window_1_driver", window_1_driver),
    ("window_4_drivers", window_4_drivers),
    ("floor_window_4_drivers", floor_window_4_drivers),
    ("register_pair", register_pair),
    ("kvm_miss", device_paths::kvm_miss),
    ("kvm_miss_again", device_paths::kvm_miss_again),
    ("floor_miss", device_paths::floor_miss),
    ("kvm_zap_512", device_paths::kvm_zap_512),
    ("kvm_hit", device_paths::kvm_hit),
    ("gru_hit", device_paths::gru_hit),
    ("floor_hit", device_paths::floor_hit),
    ("gru_drop_in", device_paths::gru_drop_in),
    ("floor_drop_in", device_paths::floor_drop_in),
    ("xpmem_hit", device_paths::xpmem_hit),
    ("floor_xpmem_hit", device_paths::floor_xpmem_hit),
    #[cfg(feature = "vm-memory")]
    ("iommu_lease", iommu_lease),
];

/// Runs this program under callgrind, which counts in [`counted`] alone, and returns the number of
/// instructions. Addresses and environment are the same each time, as far as a count can depend on
/// them.
fn instructions(path: &str) -> u64 {
    let out = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/instructions");
    let out = out.join(path);
    fs::create_dir_all(&out).expect("a folder below target");
    let file = out.join("callgrind.out");
    let run = Command::new("valgrind")
        .args(["--tool=callgrind", "--cache-sim=no", "--dump-instr=yes"])
        .args(["--toggle-collect=*counted*", "--error-exitcode=1"])
        // As .ci/locked reads it: whole addresses and names on each line.
        .args(["--compress-pos=no", "--compress-strings=no"])
        .arg(format!("--callgrind-out-file={}", file.display()))
        .arg(env::current_exe().expect("this program has a path"))
        .args(["--path", path])
        .env_clear()
        .env("PATH", env::var_os("PATH").unwrap_or_default())
        .output()
        .expect("valgrind is installed");
    let said = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{path}: {said}");
    let counts = fs::read_to_string(&file).expect("callgrind has written it");
    let total = counts
        .lines()
        .find_map(|line| line.strip_prefix("totals: "));
    let total = total.and_then(|total| total.trim().parse().ok());
    total.expect("callgrind's file has a total")
}

/// The number on record for a path.
fn on_record(path: &str) -> Option<u64> {
    let mut lines = include_str!("instructions.txt").lines();
    lines.find_map(|line| line.strip_prefix(path)?.strip_prefix(' ')?.parse().ok())
}

fn main() -> ExitCode {
    let mut args = env::args().skip(1).skip_while(|arg| arg != "--path");
    if let Some(name) = args.nth(1) {
        let (_, path) = PATHS
            .iter()
            .find(|(path, _)| *path == name)
            .expect("a path");
        path();
        return ExitCode::SUCCESS;
    }
    let mut longer = false;
    for (path, _) in PATHS {
        let count = instructions(path);
        println!("{path} {count}");
        if let Some(record) = on_record(path).filter(|record| count > record + record / 20) {
            eprintln!("{path}: {count} instructions, {record} are on record");
            longer = true;
        }
    }
    if longer {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

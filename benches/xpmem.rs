//! What XPmem costs: an access that hits, and a window by the number of partitions that have to
//! answer, as threads and, with the `remote` feature, as processes. The page is faulted in again
//! outside of the measured time.

use criterion::{BenchmarkGroup, BenchmarkId, Criterion, criterion_group, measurement::WallTime};
use emmu::{
    Machine, MachineConfig, Mm, PAGE_SIZE,
    addr::{Vpn, VpnRange},
    ctx::CallCx,
    extmmu::xpmem::{Attachment, Owner, OwnerConfig, Partition, PartitionId, SegId},
    mm::{Advice, MmapArgs},
    notifier::Access,
};
use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

const BASE: u64 = 1 << 40;
const REMOTES: [u32; 4] = [1, 2, 4, 8];

/// An owner of one page, and whatever `f` measures about it.
fn with(config: MachineConfig, f: impl FnOnce(&mut CallCx<'_>, &Mm, &Arc<Owner>, SegId)) {
    let machine = Machine::new(config);
    let mut thread = machine.enter().expect("no other thread of this process");
    let mut cx = thread.cx();
    let mm = Mm::new(&machine);
    let args = MmapArgs::anonymous(PAGE_SIZE).fixed(BASE);
    mm.mmap(&mut cx, &args).expect("the space is empty");
    let (owner, registration) = Owner::attach(&mut cx, &mm, OwnerConfig::default());
    let page = VpnRange::single(Vpn::containing(BASE));
    let segment = owner.make(page, Access::Write);
    f(&mut cx, &mm, &owner, segment);
    drop(registration); // It stays until the space ends.
    mm.exit(&mut cx);
}

/// Times the window over a page that `touch` gives to all remotes.
fn recall(
    g: &mut BenchmarkGroup<'_, WallTime>,
    id: BenchmarkId,
    cx: &mut CallCx<'_>,
    mm: &Mm,
    mut touch: impl FnMut(&mut CallCx<'_>),
) {
    g.bench_function(id, |b| {
        b.iter_custom(|times| {
            let mut spent = Duration::ZERO;
            for _ in 0..times {
                touch(cx);
                let since = Instant::now();
                mm.madvise(cx, BASE, PAGE_SIZE, Advice::DontNeed)
                    .expect("mapped");
                spent += since.elapsed();
            }
            spent
        });
    });
}

fn group<'c>(c: &'c mut Criterion, name: &str) -> BenchmarkGroup<'c, WallTime> {
    let mut g = c.benchmark_group(name);
    g.warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(600))
        .sample_size(20);
    g
}

fn threads(c: &mut Criterion) {
    with(MachineConfig::default(), |cx, _mm, owner, segment| {
        let importer = owner.import(&Partition::new(PartitionId(0)), segment, 0, 1);
        let importer = importer.expect("the segment is there");
        importer.write(cx, 0, &[1]).expect("mapped");
        let mut bytes = [0; 8];
        group(c, "xpmem hit").bench_function("8 bytes", |b| {
            b.iter(|| importer.read(cx, black_box(64), &mut bytes));
        });
    });
    let mut g = group(c, "xpmem recall");
    for n in REMOTES {
        with(MachineConfig::default(), |cx, mm, owner, segment| {
            let import = |id| owner.import(&Partition::new(PartitionId(id)), segment, 0, 1);
            let all: Result<Vec<Attachment>, _> = (0..n).map(import).collect();
            let all = all.expect("the segment is there");
            recall(&mut g, BenchmarkId::new("threads", n), cx, mm, |cx| {
                for importer in &all {
                    importer.write(cx, 0, &[1]).expect("mapped");
                }
            });
        });
    }
}

#[cfg(all(feature = "remote", target_os = "linux"))]
mod processes {
    use super::{REMOTES, group, recall, with};
    use criterion::{BenchmarkId, Criterion};
    use emmu::{
        Contents, MachineConfig,
        extmmu::xpmem::{
            PartitionId, SegId,
            remote::{RemoteConfig, RemotePartition},
        },
    };
    use std::{
        io::{Read, Write},
        os::unix::net::UnixListener,
        process::{Child, Command, Stdio},
    };

    const ROLE: &str = "EMMU_BENCH_REMOTE";

    /// The other process, if this is one: touches the page for each byte of input, and says so.
    pub(super) fn is_remote() -> bool {
        let Ok(role) = std::env::var(ROLE) else {
            return false;
        };
        let (path, segment) = role.split_once('|').expect("a path and a segment");
        let partition = RemotePartition::connect(path).expect("the owner listens");
        let segment = SegId::from_number(segment.parse().expect("a number"));
        let page = partition.attach(segment, 0, 1).expect("it is there");
        for _order in std::io::stdin().lock().bytes() {
            page.write(0, &[1]).expect("mapped");
            let told = std::io::stdout()
                .write_all(b".")
                .and_then(|()| std::io::stdout().flush());
            told.expect("the parent lives");
        }
        true
    }

    fn touch(child: &mut Child) {
        let (Some(orders), Some(answers)) = (&mut child.stdin, &mut child.stdout) else {
            unreachable!("both are piped");
        };
        orders.write_all(b".").expect("the child lives");
        answers.read_exact(&mut [0]).expect("the child answers");
    }

    pub(super) fn processes(c: &mut Criterion) {
        let mut g = group(c, "xpmem recall");
        for n in REMOTES {
            let mut config = MachineConfig::default();
            config.memory.contents = Contents::Shared;
            with(config, |cx, mm, owner, segment| {
                let path = std::env::temp_dir().join(format!("emmu-bench-{}", std::process::id()));
                let listener = UnixListener::bind(&path).expect("the path is free");
                let start = |id| {
                    let role = format!("{}|{}", path.display(), segment.number());
                    let child = Command::new(std::env::current_exe().expect("known"))
                        .env(ROLE, role)
                        .stdin(Stdio::piped())
                        .stdout(Stdio::piped())
                        .spawn();
                    let stream = listener.accept().expect("it connects").0;
                    let config = RemoteConfig::default();
                    let served = owner.serve(stream, PartitionId(id), config);
                    served.expect("the memory is shared");
                    child.expect("this program runs")
                };
                let mut all: Vec<Child> = (0..n).map(start).collect();
                recall(&mut g, BenchmarkId::new("processes", n), cx, mm, |_cx| {
                    all.iter_mut().for_each(touch);
                });
                for mut child in all {
                    drop(child.stdin.take());
                    child.wait().expect("it ends with its input");
                }
                std::fs::remove_file(&path).expect("it was made here");
            });
        }
    }
}

#[cfg(not(all(feature = "remote", target_os = "linux")))]
mod processes {
    pub(super) fn is_remote() -> bool {
        false
    }
    pub(super) fn processes(_c: &mut criterion::Criterion) {}
}

use processes::processes;
criterion_group!(benches, threads, processes);

fn main() {
    if processes::is_remote() {
        return;
    }
    benches();
    Criterion::default().configure_from_args().final_summary();
}

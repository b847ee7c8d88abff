//! Two threads against one, in one run: a stop watch for scaling.
//!
//! Every round measures thread 0 alone, both threads at once, and thread 1 alone, so that whatever
//! the machine does meanwhile it does to all of them. Twice the time of one thread for its share,
//! over the time of two threads for both shares, is the ratio: 2 is perfect. The second ratio is
//! that of processor time, which other programs disturb less; it knows of lines that two processors
//! pull at, not of a thread that waits.
//!
//! The third one is that of processor time for work that shares nothing, done in the same rounds: a
//! virtual machine does not know if its two processors are one with two sets of registers at the
//! moment, and then nothing gets to 2.

use emmu::{Machine, ctx::CallCx};
use rustix::time::{ClockId, clock_gettime};
use std::{
    hint::{black_box, spin_loop},
    sync::{
        Arc, Barrier,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

/// What is raced: two threads, each with a share of its own.
pub(crate) trait Race: Sync {
    /// Makes the shares of both threads ready; not measured.
    fn prepare(&self, cx: &mut CallCx<'_>);
    /// Thread `who` does its share.
    fn work(&self, cx: &mut CallCx<'_>, who: usize);
}

#[derive(Clone, Copy)]
struct Lap {
    start: Instant,
    end: Instant,
    cpu: Duration,
}

/// Ratios of all rounds.
#[derive(Default)]
struct Ratios {
    wall: Vec<f64>,
    cpu: Vec<f64>,
    control: Vec<f64>,
}

/// Arithmetic of eight chains, which keeps a processor busy alone.
struct Control;

impl Race for Control {
    fn prepare(&self, _: &mut CallCx<'_>) {}
    fn work(&self, _: &mut CallCx<'_>, who: usize) {
        let mut chains = [who as u64; 8];
        for n in 0..100_000 {
            for chain in &mut chains {
                *chain = black_box(*chain ^ n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            }
        }
        black_box(chains);
    }
}

fn cpu_time() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    let secs = u64::try_from(now.tv_sec).expect("not negative");
    let nanos = u32::try_from(now.tv_nsec).expect("below a second");
    Duration::new(secs, nanos)
}

fn lap(race: &dyn Race, cx: &mut CallCx<'_>, who: usize) -> Lap {
    let (start, cpu) = (Instant::now(), cpu_time());
    race.work(cx, who);
    Lap {
        start,
        end: Instant::now(),
        cpu: cpu_time() - cpu,
    }
}

/// Lets everybody who takes part go at once: sleeping threads would not wake up together.
struct Gun {
    ready: AtomicUsize,
}

impl Gun {
    fn fire_at(&self, runners: usize) {
        self.ready.fetch_add(1, Ordering::AcqRel);
        while self.ready.load(Ordering::Acquire) < runners {
            spin_loop();
        }
    }
}

/// Runs `rounds` rounds and prints a line.
pub(crate) fn run(machine: &Arc<Machine>, name: &str, rounds: usize, race: &dyn Race) {
    let mut ratios = measure(machine, rounds, race);
    let wall = spread(&mut ratios.wall);
    let cpu = spread(&mut ratios.cpu);
    let control = spread(&mut ratios.control);
    println!("{name:<44} {wall}   {cpu}   {control}");
}

fn measure(machine: &Arc<Machine>, rounds: usize, race: &dyn Race) -> Ratios {
    // Who runs in the laps of a round, those of the race and then those of the control.
    const LAPS: [&[usize]; 6] = [&[0], &[0, 1], &[1], &[0], &[0, 1], &[1]];
    let of = |n: usize| -> &dyn Race {
        match n % LAPS.len() < LAPS.len() / 2 {
            true => race,
            false => &Control,
        }
    };
    let barrier = Barrier::new(3);
    let guns: Vec<Gun> = (0..rounds * LAPS.len())
        .map(|_| Gun {
            ready: AtomicUsize::new(0),
        })
        .collect();
    let thread = |who: usize| {
        let mut thread = machine.enter().expect("a new thread");
        let mut laps = Vec::new();
        for n in 0..rounds * LAPS.len() {
            let runners = LAPS[n % LAPS.len()];
            barrier.wait();
            if runners.contains(&who) {
                guns[n].fire_at(runners.len());
                laps.push(lap(of(n), &mut thread.cx(), who));
            }
            barrier.wait();
        }
        laps
    };
    std::thread::scope(|scope| {
        let runners = [0, 1].map(|who| scope.spawn(move || thread(who)));
        let mut main = machine.enter().expect("the first of this thread");
        for n in 0..rounds * LAPS.len() {
            of(n).prepare(&mut main.cx());
            barrier.wait();
            barrier.wait();
        }
        let [zero, one] = runners.map(|r| r.join().expect("no lap panics"));
        Ratios::of(&zero, &one)
    })
}

impl Ratios {
    fn of(zero: &[Lap], one: &[Lap]) -> Self {
        let mut all = Self::default();
        // Thread 0 runs in the first and second lap of three, thread 1 in the second and third. The
        // first round warms up.
        for (zero, one) in zero.chunks(4).zip(one.chunks(4)).skip(1) {
            let alone = (zero[0].end - zero[0].start) + (one[1].end - one[1].start);
            let both = zero[1].end.max(one[0].end) - zero[1].start.min(one[0].start);
            all.wall.push(alone.as_secs_f64() / both.as_secs_f64());
            all.cpu.push(by_processor(&zero[..2], &one[..2]));
            all.control.push(by_processor(&zero[2..], &one[2..]));
        }
        all
    }
}

/// The ratio of processor time, of the laps of both threads.
fn by_processor(zero: &[Lap], one: &[Lap]) -> f64 {
    let alone = zero[0].cpu + one[1].cpu;
    let both = zero[1].cpu + one[0].cpu;
    2.0 * alone.as_secs_f64() / both.as_secs_f64()
}

/// Median, and between which values eight rounds in ten lie.
fn spread(values: &mut [f64]) -> String {
    values.sort_by(f64::total_cmp);
    let at = |share: usize| values[(values.len() - 1) * share / 10];
    format!("{:5.2} [{:4.2}..{:4.2}]", at(5), at(1), at(9))
}

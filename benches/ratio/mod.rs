//! Two contenders at the same work, turn by turn, and the quotient of their times: what a benchmark
//! on a machine that others use can say.
//!
//! A criterion measurement of its own: each sample is the time of as many of our turns as criterion
//! wants iterations by that of as many of theirs, turn about, a millisecond or so apart.
//! Criterion's statistics then are those of the ratio. `estimates.json` has them, and the name says
//! against whom.
//!
//! Time is processor time of the thread: that of other programs, which come in between now and
//! then, is nobody's.
#![allow(dead_code)] // Each benchmark uses a part of it.

use criterion::{
    Criterion, Throughput,
    measurement::{Measurement, ValueFormatter},
};
use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// Times as large: ours by theirs.
pub(crate) struct Ratio;

impl Measurement for Ratio {
    type Intermediate = ();
    type Value = f64;
    fn start(&self) -> Self::Intermediate {}
    fn end(&self, (): Self::Intermediate) -> f64 {
        unreachable!("a ratio has no beginning and no end: duels use iter_custom")
    }
    fn add(&self, a: &f64, b: &f64) -> f64 {
        a + b
    }
    fn zero(&self) -> f64 {
        0.0
    }
    fn to_f64(&self, value: &f64) -> f64 {
        *value
    }
    fn formatter(&self) -> &dyn ValueFormatter {
        &Times
    }
}

struct Times;

impl ValueFormatter for Times {
    fn scale_values(&self, _typical: f64, _values: &mut [f64]) -> &'static str {
        "×"
    }
    fn scale_throughputs(
        &self,
        _typical: f64,
        _per: &Throughput,
        _values: &mut [f64],
    ) -> &'static str {
        "×"
    }
    fn scale_for_machines(&self, _values: &mut [f64]) -> &'static str {
        "×"
    }
}

/// A criterion that measures ratios.
pub(crate) fn criterion() -> Criterion<Ratio> {
    Criterion::default()
        .with_measurement(Ratio)
        .warm_up_time(Duration::from_millis(400))
        .measurement_time(Duration::from_secs(2))
        .sample_size(20)
        .configure_from_args()
}

/// One contender: a turn of its work, and how long the part of it that counts took.
pub(crate) type Turn<'a> = &'a mut dyn FnMut() -> Duration;

/// Measures how many times as long `ours` takes as `theirs`; a turn of both is the same work.
/// `work` names the row, `against` the other side.
pub(crate) fn duel(
    c: &mut Criterion<Ratio>,
    work: &str,
    against: &str,
    ours: Turn<'_>,
    theirs: Turn<'_>,
) {
    let mut group = c.benchmark_group(work);
    group.bench_function(against, |b| {
        b.iter_custom(|turns| {
            let (mut mine, mut other) = (Duration::ZERO, Duration::ZERO);
            for _ in 0..turns {
                mine += ours();
                other += theirs();
            }
            turns as f64 * mine.as_secs_f64() / other.as_secs_f64()
        });
    });
    group.finish();
}

/// How long this thread has run.
pub(crate) fn cpu_time() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    let secs = u64::try_from(now.tv_sec).expect("not negative");
    let nanos = u32::try_from(now.tv_nsec).expect("below a second");
    Duration::new(secs, nanos)
}

/// How long `f` takes.
pub(crate) fn timed<T>(f: impl FnOnce() -> T) -> Duration {
    let start = cpu_time();
    std::hint::black_box(f());
    cpu_time() - start
}

/// Numbers below `count` that jump about and do not soon come again: Knuth's generator, the upper
/// half of it.
pub(crate) fn scattered(count: u64) -> impl Iterator<Item = u64> {
    let mut state = 1_u64;
    std::iter::repeat_with(move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) % count
    })
}

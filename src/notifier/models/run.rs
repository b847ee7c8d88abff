//! How a model is run, counted, and expected to fail.
use std::{
    panic,
    process::{Command, exit},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

/// Set in the process that looks for a mistake.
const TWIN: &str = "EMMU_TWIN";
/// How that process ends when it has found it.
const FOUND: i32 = 77;

fn explore(name: &str, f: impl Fn() + Send + Sync + 'static, count: &Arc<AtomicUsize>) {
    let counted = Arc::clone(count);
    let begun = Instant::now();
    let mut builder = loom::model::Builder::new();
    builder.max_branches = 20_000;
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        f();
    });
    let count = count.load(Ordering::Relaxed);
    let time = begun.elapsed();
    println!("model {name}: holds, {count} executions in {time:.1?}");
}
/// Panics if an interleaving does.
pub(crate) fn holds(name: &str, f: impl Fn() + Send + Sync + 'static) {
    explore(name, f, &Arc::default());
}
/// Panics if none does, or for another reason than `why`. It is tried in a process of its own, which ends at the first
/// panic: unwinding through the locks of a model would be another one.
pub(crate) fn fails(name: &'static str, why: &str, f: impl Fn() + Send + Sync + 'static) {
    if std::env::var_os(TWIN).is_some() {
        let (count, begun) = (Arc::<AtomicUsize>::default(), Instant::now());
        let counted = Arc::clone(&count);
        panic::set_hook(Box::new(move |said| {
            let (n, time) = (counted.load(Ordering::Relaxed), begun.elapsed());
            println!("model {name}: fails, {n} executions in {time:.1?}: {said}");
            exit(FOUND);
        }));
        return explore(name, f, &count);
    }
    let this = std::env::current_exe().expect("a test");
    let thread = std::thread::current();
    let test = thread.name().expect("named after the test");
    let twin = Command::new(this)
        .args(["--exact", test, "--nocapture"])
        .env(TWIN, "1")
        .output()
        .expect("the same program runs");
    let said = String::from_utf8_lossy(&twin.stdout);
    print!("{said}");
    assert_eq!(twin.status.code(), Some(FOUND), "{name}: not found: {said}");
    assert!(
        said.contains(why),
        "{name}: found something else than {why:?}"
    );
}

//! Runs a model, counts its executions, and expects its twin to fail.
use std::{
    panic,
    process::{Command, exit},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

/// Set in the environment of the process that looks for a mistake.
const TWIN: &str = "EMMU_TWIN";
/// The exit status of that process when it has found the mistake.
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
/// Runs a model; panics if an interleaving does.
pub(crate) fn holds(name: &str, f: impl Fn() + Send + Sync + 'static) {
    explore(name, f, &Arc::default());
}
/// Runs a twin; panics if no interleaving does, or one does for another reason than `why`.
///
/// The twin runs in a process of its own, which ends at the first panic: unwinding through the
/// locks of a model would panic again.
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

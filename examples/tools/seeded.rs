//! Puts each model with each of its seeded mistakes on trial, with the kit's default settings and
//! ten seeds, and prints how often the kit finds it, and by which property.
//!
//! `cargo run --all-features --example seeded` runs all, `-- odp sva` the models that it names,
//! `-- odp::NoZap` a mistake. A mistake that fewer than nine of ten trials find fails the run.
//!
//! A trial runs the properties in their order up to the first that fails, in a process of its own:
//! a device that hangs stays in its threads.

use emmu::testkit::{Property, Seeded, Verdict, seeded};
use std::{
    collections::BTreeMap,
    env,
    process::{Command, ExitCode, Stdio},
    time::Instant,
};

/// The seeds of a mistake's trials, and the fewest trials that must find it.
const SEEDS: u64 = 10;
const FEWEST: usize = 9;
/// The word before the mistake and the seed of one trial.
const TRIAL: &str = "--trial";

fn name_of(seeded: &Seeded) -> String {
    format!("{}::{}", seeded.model, seeded.mistake)
}

/// Runs one trial, and prints the property that finds the mistake.
fn one_trial(name: &str, seed: u64) {
    std::panic::set_hook(Box::new(|_| ()));
    let all = seeded();
    let seeded = all.iter().find(|seeded| name_of(seeded) == name);
    let kit = seeded.expect("a mistake").kit.clone().seed(seed);
    let mut all = Property::ALL.iter().map(|property| kit.check(*property));
    if let Some(found) = all.find(Verdict::is_failed) {
        println!("{}", found.property);
    }
    // Threads that hang must not keep the process.
    std::process::exit(0);
}

/// Returns the property that finds the mistake in a trial.
fn trial(name: &str, seed: u64) -> Option<Property> {
    let mut command = Command::new(env::current_exe().expect("this program has a path"));
    command.args([TRIAL, name, &seed.to_string()]);
    let out = command.stderr(Stdio::null()).output().expect("it starts");
    Property::named(String::from_utf8_lossy(&out.stdout).trim())
}

/// Runs all trials of a mistake, prints its row, and returns true if enough found it.
fn row(name: &str) -> bool {
    let began = Instant::now();
    let mut by: BTreeMap<Property, usize> = BTreeMap::new();
    for seed in 0..SEEDS {
        if let Some(property) = trial(name, seed) {
            *by.entry(property).or_default() += 1;
        }
    }
    let found: usize = by.values().sum();
    let by: Vec<String> = by.keys().map(|property| format!("`{property}`")).collect();
    let each = began.elapsed() / u32::try_from(SEEDS).expect("ten");
    println!("| `{name}` | {found} | {} | {each:.1?} |", by.join(", "));
    found >= FEWEST
}

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    if let [first, name, seed] = &args[..]
        && first == TRIAL
    {
        one_trial(name, seed.parse().expect("a number"));
    }
    let asked = |seeded: &Seeded| {
        let names = [seeded.model.to_owned(), name_of(seeded)];
        args.is_empty() || args.iter().any(|arg| names.contains(arg))
    };
    println!("| mistake | found of {SEEDS} | by | a trial takes |\n| --- | --- | --- | --- |");
    let all = seeded();
    let missed = all.iter().filter(|seeded| asked(seeded));
    let missed = missed.filter(|seeded| !row(&name_of(seeded))).count();
    if missed > 0 {
        println!("\nfewer than {FEWEST} trials find {missed} of them");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

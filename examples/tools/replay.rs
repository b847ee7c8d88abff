//! Replays recorded memory operations and says where this library did something else than Linux.
//!
//! ```text
//! cargo run --release --features replay --example replay            # the scripts that come with the library
//! cargo run --release --features replay --example replay -- --profile fork --reports 20 FOLDER
//! cargo run --release --features replay --example replay -- --mmu kvm,gru,xpmem data/programs/redis   # a program
//! cargo run --release --features replay --example replay -- --mmu kvm,gru,xpmem data/programs/redis \
//!     --svg bill.svg --trace timeline.json
//! ```
//!
//! Exit status: 0, all went as on Linux; 1, a script did not; 2, input that cannot be read, or asks
//! for more than the limits.

use clap::Parser;
use emmu::replay::{
    Devices, Inputs, MmuKind, Moment, Presented, ReplayError, ReplayLimits, Replayed, Report,
    Script, Summary, Timeline,
    program::{self, Program, ProgramOutcome},
    replay_within, shipped, trace,
};
use indicatif::{ProgressBar, ProgressStyle};
use std::{
    error::Error,
    fs,
    io::{self, IsTerminal, Write},
    num::NonZero,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

/// Replays recorded memory operations and compares every step with what Linux did.
#[derive(Parser)]
struct Args {
    /// Only scripts of this family; may be given several times.
    #[arg(long = "profile", value_name = "NAME")]
    profiles: Vec<String>,
    /// Differences in scripts of this family are shown but do not count for the exit status.
    #[arg(long = "allow", value_name = "NAME")]
    allowed: Vec<String>,
    /// Print one JSON object instead of tables and reports.
    #[arg(long)]
    json: bool,
    /// Print at most this many reports.
    #[arg(long, value_name = "N", default_value_t = 5)]
    reports: usize,
    /// External MMUs to attach to the first process, which touch what it touches: kvm, gru, xpmem,
    /// gpu, regcache, odp, sva.
    /// For each is printed: windows, pages dropped for them, faults, refaults of pages dropped
    /// before, retries because of windows, acknowledgements by processors, GRUs and partitions,
    /// agings, time in windows, the longest hold-off.
    #[arg(long = "mmu", value_name = "NAME", value_delimiter = ',')]
    mmus: Vec<MmuKind>,
    /// Draw the bill of each device over the time of a recorded program: windows, pages dropped,
    /// refaults, retries, time in windows. Of several recordings each gets a figure of its own, its
    /// name before the ending.
    #[arg(long, value_name = "FILE", requires = "mmus")]
    svg: Option<PathBuf>,
    /// Write a timeline of a recorded program (Chrome trace events), to be opened at
    /// ui.perfetto.dev: calls, faults, windows by device, entries held. Of several recordings each
    /// gets a file of its own.
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Bytes of all inputs together, decompressed.
    #[arg(long, value_name = "N", default_value_t = ReplayLimits::default().input)]
    max_input: u64,
    /// Bytes of the files of a script together.
    #[arg(long, value_name = "N", default_value_t = ReplayLimits::default().files)]
    max_files: u64,
    /// Pages of memory that a script or program may have at a time.
    #[arg(long, value_name = "N", default_value_t = ReplayLimits::default().pages)]
    max_pages: u32,
    /// Page-table pages that it may have at a time: 512 addresses each, mapped or guarded.
    #[arg(long, value_name = "N", default_value_t = ReplayLimits::default().tables)]
    max_tables: u64,
    /// Pages that one step may bring in, guard or lock.
    #[arg(long, value_name = "N", default_value_t = ReplayLimits::default().step)]
    max_step: u64,
    /// Processes that it may have at a time.
    #[arg(long, value_name = "N", default_value_t = ReplayLimits::default().processes)]
    max_processes: usize,
    /// Mappings of all processes at a time, when one of them forks.
    #[arg(long, value_name = "N", default_value_t = ReplayLimits::default().mappings)]
    max_mappings: usize,
    /// Open descriptors of all processes at a time, when one of them forks.
    #[arg(long, value_name = "N", default_value_t = ReplayLimits::default().descriptors)]
    max_descriptors: usize,
    /// Scripts (.jsonl, .jsonl.gz), folders of them, or recordings of programs (folders with
    /// calls.strace); without any, the scripts that come with the library.
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
}

impl Args {
    fn limits(&self) -> ReplayLimits {
        ReplayLimits {
            input: self.max_input,
            files: self.max_files,
            pages: self.max_pages,
            tables: self.max_tables,
            step: self.max_step,
            processes: self.max_processes,
            mappings: self.max_mappings,
            descriptors: self.max_descriptors,
        }
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        // The reader of our output has seen enough.
        Err(e) if e.downcast_ref().is_some_and(is_broken_pipe) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{e}");
            ExitCode::from(2)
        }
    }
}

fn is_broken_pipe(e: &io::Error) -> bool {
    e.kind() == io::ErrorKind::BrokenPipe
}

/// Whether everything went as on Linux.
fn run(args: &Args) -> Result<bool, Box<dyn Error>> {
    let (recorded, paths): (Vec<_>, Vec<_>) =
        args.paths.iter().partition(|p| program::is_program(p));
    let mut inputs = Inputs::new(args.limits());
    let followed = programs(&recorded, args, &mut inputs)?;
    let mut out = io::stdout().lock();
    let whole = followed.iter().all(Followed::is_fine);
    if paths.is_empty() && !recorded.is_empty() {
        print_programs(&mut out, args, &followed)?;
        return Ok(whole);
    }
    let scripts = scripts(args, &paths, &mut inputs)?;
    let done = replay_all(&scripts, args)?;
    let summary = Summary::of(&done);
    if args.json {
        let mut json = summary.to_json(&done);
        if !followed.is_empty() {
            json["programs"] = programs_json(&followed);
        }
        serde_json::to_writer(&mut out, &json).map_err(io::Error::from)?;
        writeln!(out)?;
    } else {
        print_programs(&mut out, args, &followed)?;
        print(&mut out, args, &summary, &done)?;
    }
    let fine = |r: &Replayed| r.is_whole() || args.allowed.contains(&r.profile);
    let coherent = done.iter().all(|r| r.presented.findings.is_empty());
    Ok(whole && coherent && done.iter().all(fine))
}

/// A recorded program that was followed to its end.
struct Followed {
    outcome: ProgramOutcome,
    took: Duration,
    presented: Presented,
}

impl Followed {
    fn is_fine(&self) -> bool {
        self.outcome.is_whole() && self.presented.findings.is_empty()
    }
}

/// Reads all recordings, then follows one after the other.
fn programs(
    paths: &[&PathBuf],
    args: &Args,
    inputs: &mut Inputs,
) -> Result<Vec<Followed>, Box<dyn Error>> {
    let wants_timeline = args.svg.is_some() || args.trace.is_some();
    if wants_timeline && paths.is_empty() {
        return Err("--svg and --trace want recordings of programs".into());
    }
    let limits = args.limits();
    let loaded = paths.iter().map(|path| inputs.program(path));
    let loaded = loaded.collect::<Result<Vec<_>, _>>()?;
    let mut followed = Vec::new();
    for recording in &loaded {
        let began = Instant::now();
        let mut devices = Devices::new(args.mmus.iter().copied());
        let machine = program::machine_within(&limits);
        let (outcome, took) = if wants_timeline {
            let mut timeline = Timeline::new(devices);
            let outcome = program::run_within(&machine, recording, &mut timeline, &limits)?;
            let took = began.elapsed();
            let (watched, moments) = timeline.finish();
            devices = watched;
            write_timeline(args, recording, loaded.len() > 1, &moments)?;
            (outcome, took)
        } else {
            let outcome = program::run_within(&machine, recording, &mut devices, &limits)?;
            (outcome, began.elapsed())
        };
        followed.push(Followed {
            outcome,
            took,
            presented: devices.presented(),
        });
    }
    Ok(followed)
}

fn write_timeline(
    args: &Args,
    recording: &Program,
    is_one_of_many: bool,
    moments: &[Moment],
) -> Result<(), Box<dyn Error>> {
    let name = Path::new(&recording.name)
        .file_name()
        .unwrap_or_default()
        .to_string_lossy();
    let place = |file: &PathBuf| {
        if !is_one_of_many {
            return file.clone();
        }
        let stem = file.file_stem().unwrap_or_default().to_string_lossy();
        let ending = file.extension().unwrap_or_default().to_string_lossy();
        file.with_file_name(format!("{stem}-{name}.{ending}"))
    };
    let cannot = |file: &Path, e: io::Error| format!("{}: {e}", file.display());
    if let Some(file) = args.svg.as_ref().map(place) {
        draw(&file, &name, moments)?;
    }
    if let Some(file) = args.trace.as_ref().map(place) {
        let out = fs::File::create(&file).map_err(|e| cannot(&file, e))?;
        let mut out = io::BufWriter::new(out);
        let written = serde_json::to_writer(&mut out, &trace(&name, moments));
        let written = written.map_err(io::Error::from).and_then(|()| out.flush());
        written.map_err(|e| cannot(&file, e))?;
    }
    Ok(())
}

#[cfg(feature = "svg")]
fn draw(file: &Path, name: &str, moments: &[Moment]) -> Result<(), Box<dyn Error>> {
    let picture = emmu::replay::svg(name, moments)?;
    fs::write(file, picture).map_err(|e| format!("{}: {e}", file.display()))?;
    Ok(())
}
#[cfg(not(feature = "svg"))]
fn draw(_: &Path, _: &str, _: &[Moment]) -> Result<(), Box<dyn Error>> {
    Err("--svg needs a build with the feature `svg`".into())
}

fn print_programs(out: &mut impl Write, args: &Args, followed: &[Followed]) -> io::Result<()> {
    if args.json {
        let json = serde_json::json!({"programs": programs_json(followed)});
        serde_json::to_writer(&mut *out, &json)?;
        return writeln!(out);
    }
    for one in followed {
        writeln!(out, "{}  {} ms", one.outcome, one.took.as_millis())?;
        if !args.mmus.is_empty() {
            writeln!(out, "\n{}\n", one.presented)?;
        }
    }
    Ok(())
}

fn programs_json(followed: &[Followed]) -> serde_json::Value {
    let one = |one: &Followed| {
        let mut json = one.outcome.to_json();
        json["seconds"] = one.took.as_secs_f64().into();
        json["mmus"] = one.presented.to_json();
        json
    };
    followed.iter().map(one).collect()
}

fn scripts(
    args: &Args,
    paths: &[&PathBuf],
    inputs: &mut Inputs,
) -> Result<Vec<Script>, Box<dyn Error>> {
    let mut scripts = Vec::new();
    for path in paths {
        scripts.extend(inputs.scripts(path)?);
    }
    if paths.is_empty() {
        scripts = shipped()?;
    }
    for wanted in &args.profiles {
        if !scripts.iter().any(|s| s.header.profile == *wanted) {
            return Err(format!("no script of profile {wanted:?}").into());
        }
    }
    scripts.retain(|s| args.profiles.is_empty() || args.profiles.contains(&s.header.profile));
    Ok(scripts)
}

/// Runs all scripts on as many threads as there are processors; results come in the order of the
/// scripts, and so does the first that cannot be run.
fn replay_all(scripts: &[Script], args: &Args) -> Result<Vec<Replayed>, ReplayError> {
    let limits = args.limits();
    let bar = progress(scripts.len());
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(scripts.len()));
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    thread::scope(|scope| {
        for _ in 0..threads.min(scripts.len()) {
            scope.spawn(|| {
                while let Some((nth, script)) = pick(scripts, &next) {
                    let result = replay_within(script, &args.mmus, &limits);
                    done.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push((nth, result));
                    bar.inc(1);
                }
            });
        }
    });
    bar.finish_and_clear();
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(nth, _)| *nth);
    done.into_iter().map(|(_, result)| result).collect()
}

fn pick<'s>(scripts: &'s [Script], next: &AtomicUsize) -> Option<(usize, &'s Script)> {
    let nth = next.fetch_add(1, Relaxed);
    Some((nth, scripts.get(nth)?))
}

fn progress(scripts: usize) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {pos} of {len} scripts");
    let bar = ProgressBar::new(scripts as u64);
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn print(
    out: &mut impl Write,
    args: &Args,
    summary: &Summary,
    done: &[Replayed],
) -> io::Result<()> {
    writeln!(out, "{summary}")?;
    if !args.mmus.is_empty() {
        let mut sum = Presented::default();
        done.iter().for_each(|r| sum.add(&r.presented));
        writeln!(out, "{sum}\n")?;
    }
    let reports: Vec<Report<'_>> = done.iter().filter_map(Report::of).collect();
    for report in reports.iter().take(args.reports) {
        writeln!(out, "{report}")?;
    }
    if reports.len() > args.reports {
        let more = reports.len() - args.reports;
        writeln!(out, "{more} more scripts differ (--reports N shows more)\n")?;
    }
    writeln!(out, "{}", summary.line())
}

//! Operations that commute, and the memory in which they meet all the same
//! (`docs/benchmarks/conflicts.md`).
//!
//! ```text
//! cargo bench --bench conflicts
//! cargo bench --bench conflicts -- --explain PhysMem.free
//! ```
//!
//! Needs valgrind, and takes half a minute. The program starts itself under valgrind, once for each
//! world, and reads the traces.
//!
//! | file | holds |
//! | --- | --- |
//! | this one | the command line, and how a trace is taken |
//! | `world` | the worlds that are traced, and their two threads |
//! | `operations` | the operations |
//! | `arena` | the allocator of a traced program, and the marks it leaves in the trace |
//! | `host` | calls of the host |
//! | `trace` | the reader of a trace: lines by operation, blocks of memory |
//! | `meetings` | lines of two operations, compared |
//! | `names` | names of memory |
//! | `types` | types by debug information |
//! | `elf` | sections and symbols of the program |
//! | `report` | the list and the tables |
#![allow(unsafe_code)]

mod arena;
mod elf;
mod host;
mod meetings;
mod names;
mod operations;
mod report;
mod trace;
mod types;
mod world;

use arena::{Arenas, MARKS};
use elf::Elf;
use meetings::Meetings;
use names::Names;
use operations::{CONTROL, CONTROLS, In, OPERATIONS, Operation};
use report::Reasons;
use std::{
    env,
    error::Error,
    fs,
    io::{self, BufRead, BufReader, Write},
    path::Path,
    process::{Command, ExitCode, Stdio},
    sync::{Arc, OnceLock},
    thread,
};
use trace::{MarkAddresses, Reader, Trace};
use world::{KINDS, Kind};

type Failure = Box<dyn Error + Send + Sync>;

#[global_allocator]
static ARENAS: Arenas = Arenas;

fn operations(kind: Kind) -> Vec<&'static Operation> {
    let there = |o: &&Operation| match o.worlds {
        In::All => true,
        In::Bare => !kind.devices,
        In::Devices => kind.devices,
    };
    OPERATIONS.iter().chain([&CONTROL]).filter(there).collect()
}

/// What the command line wants.
#[derive(clap::Parser)]
struct Args {
    /// Writes the list and the tables anew, instead of comparing with them.
    #[arg(long)]
    write: bool,
    /// Shows the calls that lead to the places whose name begins so.
    #[arg(long)]
    explain: Option<String>,
    /// Only the worlds of that name.
    #[arg(long)]
    only: Option<String>,
    /// The program to be traced.
    #[arg(long, hide = true)]
    world: Option<String>,
    /// Given by Cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let args = <Args as clap::Parser>::parse();
    if let Some(name) = &args.world {
        let kind = KINDS.iter().find(|k| k.name == name).expect("a world");
        traced(*kind);
    }
    if !cfg!(target_os = "linux") {
        println!("skipped: traces are read on Linux alone");
        return ExitCode::SUCCESS;
    }
    match compare(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{e}");
            ExitCode::FAILURE
        }
    }
}

/// The traced program: tells where its marks and its code are, and when the reader knows, runs.
fn traced(kind: Kind) -> ! {
    host::take_one_processor();
    let addresses = [
        MARKS.begin.as_ptr().addr(),
        MARKS.end.as_ptr().addr(),
        MARKS.block.as_ptr().addr(),
        (&raw const MARKS).addr(),
    ];
    println!("{addresses:?}");
    io::stdin()
        .read_line(&mut String::new())
        .expect("the reader's answer");
    arena::switch_on();
    world::run(kind, &operations(kind));
    host::end()
}

/// Traces a world. Returns the trace, and where the marks were.
fn trace(kind: Kind) -> Result<(Trace, u64), Failure> {
    let mut child = Command::new("valgrind")
        .args([
            "--tool=lackey",
            "--trace-mem=yes",
            "--basic-counts=no",
            "--quiet",
        ])
        .arg(env::current_exe()?)
        .args(["--world", kind.name])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let (mut go, told) = (child.stdin.take().expect("a pipe"), child.stdout.take());
    let traced = child.stderr.take().expect("a pipe");
    let known = Arc::new(OnceLock::new());
    let tell = Arc::clone(&known);
    let listener = thread::spawn(move || {
        let mut line = String::new();
        BufReader::new(told.expect("a pipe")).read_line(&mut line)?;
        let numbers = line.trim_matches(['[', ']', '\n']).split(", ");
        let numbers: Vec<u64> = numbers.filter_map(|n| n.parse().ok()).collect();
        if let [begin, end, block, marks] = numbers[..] {
            let _first = tell.set((MarkAddresses { begin, end, block }, marks));
        }
        go.write_all(b"go\n")
    });
    let marks = || known.get().map(|(marks, _)| *marks);
    let trace = Reader::new().read(BufReader::with_capacity(1 << 16, traced), marks)?;
    let listened = listener.join();
    listened.expect("it does not panic")?;
    let status = child.wait()?;
    let runs = 2 * operations(kind).len();
    if !status.success() || trace.runs.len() != runs {
        let found = trace.runs.len();
        return Err(format!("{}: {status}, {found} of {runs} runs", kind.name).into());
    }
    Ok((trace, known.get().ok_or("no marks")?.1))
}

fn compare(args: &Args) -> Result<(), Failure> {
    let elf = Elf::parse(fs::read(env::current_exe()?)?).ok_or("no ELF")?;
    let dwarf = names::dwarf(&elf)?;
    let marks = elf
        .variables()
        .into_iter()
        .find(|(.., name)| name.contains("5MARKS"));
    let marks = marks.ok_or("no symbols")?.0;
    let wanted = |kind: &Kind| args.only.as_ref().is_none_or(|only| *only == kind.name);
    let kinds: Vec<Kind> = KINDS.into_iter().filter(wanted).collect();
    // Two at a time: each is a program that runs, and a reader of its trace.
    let mut traces = Vec::new();
    for kinds in kinds.chunks(2) {
        traces.extend(thread::scope(|scope| {
            let both: Vec<_> = kinds
                .iter()
                .map(|kind| scope.spawn(|| trace(*kind)))
                .collect();
            both.into_iter()
                .map(|t| t.join().expect("no panic"))
                .collect::<Vec<_>>()
        }));
    }
    let traces: Vec<_> = traces.into_iter().collect::<Result<_, _>>()?;
    let mut worlds = Vec::new();
    for (kind, (trace, at)) in kinds.iter().zip(&traces) {
        let names = Names::new(&elf, &dwarf, at - marks)?;
        let mut found = meetings::find(trace, &names);
        if let Some(explain) = &args.explain {
            show(*kind, &found, &names, explain);
        }
        check_control(&mut found, operations(*kind).len() - 1)?;
        worlds.push(found);
    }
    match args.explain.is_some() {
        true => Ok(()),
        false => report(&kinds, &worlds, args),
    }
}

/// Shows how the operations come to the places whose names begin so.
fn show(kind: Kind, found: &Meetings<'_>, names: &Names<'_>, start: &str) {
    let operation = |n: usize| operations(kind)[n].name;
    for (place, met) in found.iter().filter(|(p, _)| p.name.starts_with(start)) {
        for ((a, b), (stores, uses)) in &met.pairs {
            println!(
                "{}: {}: {} > {}",
                kind.name,
                place.name,
                operation(*a),
                operation(*b)
            );
            println!("  stores: {:#?}", names.path(stores));
            println!("  uses: {:#?}", names.path(uses));
        }
    }
}

/// Takes out what the operation meets that is there to be found.
fn check_control(found: &mut Meetings<'_>, control: usize) -> Result<(), String> {
    let mut seen = Vec::new();
    let mut others = Vec::new();
    found.retain(|place, met| {
        let mut pairs = met.pairs.keys();
        let other = pairs.find(|(a, b)| (*a == control) != (*b == control));
        others.extend(other.map(|pair| (*pair, place.name.clone())));
        if met.pairs.remove(&(control, control)).is_some() {
            seen.push((place.name.clone(), place.beside));
        }
        !met.pairs.is_empty()
    });
    if !others.is_empty() {
        return Err(format!(
            "what is there to be found meets others as well: {others:?}"
        ));
    }
    let names = seen.iter().map(|(name, beside)| (&**name, *beside));
    match names.eq(CONTROLS) {
        true => Ok(()),
        false => Err(format!("what is there to be found is found as {seen:?}")),
    }
}

/// A line that names the compiler: another one may choose other places for fields.
fn compiler() -> Result<String, Failure> {
    let said = Command::new("rustc").arg("--version").output()?;
    Ok(format!("# {}", String::from_utf8_lossy(&said.stdout)))
}

fn report(kinds: &[Kind], worlds: &[Meetings<'_>], args: &Args) -> Result<(), Failure> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let paths = [
        root.join("benches/conflicts.txt"),
        root.join("docs/benchmarks/conflicts.md"),
    ];
    let document = fs::read_to_string(&paths[1])?;
    let reasons = Reasons::of(&document);
    let mut list = compiler()?;
    let mut tables = Vec::new();
    for (kind, found) in kinds.iter().zip(worlds) {
        let mut names: Vec<&str> = operations(*kind).iter().map(|o| o.name).collect();
        names.pop();
        list += &report::list(kind.name, found, &names);
        tables.push((kind.name, reasons.table(found, &names)));
    }
    let new = [list, report::with_tables(&document, &tables)];
    if args.write {
        for (path, text) in paths.iter().zip(&new) {
            fs::write(path, text)?;
        }
    }
    let (missing, unused) = (reasons.missing(worlds), reasons.unused(worlds));
    if !missing.is_empty() || !unused.is_empty() {
        return Err(
            format!("without a reason: {missing:#?}\nreasons for nothing: {unused:#?}").into(),
        );
    }
    for (path, text) in paths.iter().zip(&new) {
        let old = fs::read_to_string(path)?;
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        let (old, new) = (lines(&old), lines(text));
        for line in old.iter().filter(|line| !new.contains(line)) {
            println!("-{line}");
        }
        for line in new.iter().filter(|line| !old.contains(line)) {
            println!("+{line}");
        }
        if old != new {
            return Err(format!("{} says otherwise", path.display()).into());
        }
    }
    Ok(())
}

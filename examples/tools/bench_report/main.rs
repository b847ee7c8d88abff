//! Turns what criterion left in `target/criterion` into a Markdown table of ratios with what is to
//! be reached, and into plots.
//!
//! ```text
//! cargo bench --features internals,replay,host-mapping,vm-memory --bench peers --bench floors --bench linux \
//!     --bench growth --bench interval --bench devices --bench scripts --bench guest_memory
//! cargo run --features replay --example bench_report -- docs/benchmarks
//! ```
//!
//! Writes `ratios.md`, `ratios.svg` and `growth.svg` into the folder, and adds the run to
//! `runs.tsv` there, which has one run of each day.

mod measured;
mod plot;
mod runs;
mod targets;

use measured::{Measured, Origin};
use runs::{Figure, Runs};
use std::{error::Error, fmt::Write as _, fs, path::PathBuf};
use targets::{TARGETS, Target};

/// What a target came to: the worst of the contenders that count for it.
struct Outcome<'a> {
    target: &'static Target,
    /// Every contender, the one that counts first.
    against: Vec<&'a Measured>,
}

impl Outcome<'_> {
    /// The ratio to the best of the other side.
    fn ratio(&self) -> Option<&Measured> {
        self.against.first().copied()
    }
    fn is_reached(&self) -> Option<bool> {
        self.ratio().map(|m| m.median <= self.target.reach)
    }
}

fn outcomes(all: &[Measured]) -> Vec<Outcome<'_>> {
    TARGETS
        .iter()
        .map(|target| {
            let counts = |m: &&Measured| {
                m.group == target.work && target.against.contains(&m.against.as_str())
            };
            let mut against: Vec<_> = all.iter().filter(counts).collect();
            // Ours by the best of them is the largest quotient.
            against.sort_by(|a, b| b.median.total_cmp(&a.median));
            Outcome { target, against }
        })
        .collect()
}

/// The medians of a row in runs of other days than the latest, each with its day.
fn earlier(figures: &[&Figure]) -> String {
    let days = figures.iter().skip(1);
    let days: Vec<_> = days
        .map(|f| format!("{:.3} ({})", f.median, f.day))
        .collect();
    days.join(", ")
}

fn table(
    outcomes: &[Outcome<'_>],
    runs: &Runs,
    origin: &Origin,
) -> Result<String, std::fmt::Error> {
    let mut out = String::new();
    writeln!(out, "# Ratios\n")?;
    writeln!(
        out,
        "Made by `cargo run --features replay --example bench_report`; do not edit. {origin}\n"
    )?;
    writeln!(
        out,
        "Each figure is the median of the quotients of two contenders that took turns in one run, ours by theirs, with the\n\
         10th and the 90th percentile; of runs on other days, the median. Where several peers do the work, the best of them\n\
         counts.\n"
    )?;
    writeln!(
        out,
        "| work | against | ratio | 10 % … 90 % | other days | to reach | |\n\
         | --- | --- | --- | --- | --- | --- | --- |"
    )?;
    for outcome in outcomes {
        let target = outcome.target;
        let Some(m) = outcome.ratio() else {
            writeln!(
                out,
                "| {} | {} | not measured | | | {} | |",
                target.work,
                target.against.join(", "),
                target.reach
            )?;
            continue;
        };
        let verdict = if outcome.is_reached() == Some(true) {
            "reached"
        } else {
            "missed"
        };
        let others = earlier(&runs.of(target.work, target.against));
        writeln!(
            out,
            "| {} | {} | {:.3} | {:.3} … {:.3} | {others} | ≤ {} | {verdict} |",
            target.work, m.against, m.median, m.low, m.high, target.reach
        )?;
    }
    Ok(out)
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = PathBuf::from(
        std::env::args()
            .nth(1)
            .unwrap_or_else(|| "docs/benchmarks".to_owned()),
    );
    let all = measured::read("target/criterion")?;
    if all.is_empty() {
        return Err("target/criterion has no benchmark: run cargo bench first".into());
    }
    fs::create_dir_all(&folder)?;
    let outcomes = outcomes(&all);
    let origin = Origin::here();
    let mut runs = Runs::read(&folder.join("runs.tsv"))?;
    let best = outcomes.iter().filter_map(Outcome::ratio);
    runs.put(origin.day(), best.map(|m| Figure::new(origin.day(), m)));
    runs.write(&folder.join("runs.tsv"))?;
    let table = table(&outcomes, &runs, &origin)?;
    print!("{table}");
    fs::write(folder.join("ratios.md"), table)?;
    plot::ratios(&folder.join("ratios.svg"), &outcomes)?;
    plot::growth(&folder.join("growth.svg"), &all)?;
    Ok(())
}

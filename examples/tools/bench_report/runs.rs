//! The runs on record: one of each day, so that a figure can be told from one day's luck.

use crate::measured::Measured;
use std::{fmt::Write as _, fs, io, path::Path};

const HEADER: &str = "day\twork\tagainst\tmedian\tlow\thigh\n";

/// One figure of a run.
#[derive(Clone)]
pub(crate) struct Figure {
    pub(crate) day: String,
    work: String,
    against: String,
    pub(crate) median: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

/// The figures of all runs, the oldest first.
pub(crate) struct Runs(Vec<Figure>);

impl Figure {
    pub(crate) fn new(day: &str, m: &Measured) -> Self {
        Self {
            day: day.to_owned(),
            work: m.group.clone(),
            against: m.against.clone(),
            median: m.median,
            low: m.low,
            high: m.high,
        }
    }
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split('\t');
        let mut text = || words.next().map(str::to_owned);
        let (day, work, against) = (text()?, text()?, text()?);
        let mut number = || text()?.parse().ok();
        Some(Self {
            day,
            work,
            against,
            median: number()?,
            low: number()?,
            high: number()?,
        })
    }
}

impl Runs {
    /// Reads a file that [`write`](Self::write) has written; of one that is not there, nothing.
    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        let text = match fs::read_to_string(path) {
            Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(Self(Vec::new())),
            other => other?,
        };
        let wrong = |line| io::Error::other(format!("{}: {line:?}", path.display()));
        let figures = text.lines().skip(1);
        let figures = figures.map(|line| Figure::parse(line).ok_or_else(|| wrong(line)));
        Ok(Self(figures.collect::<io::Result<_>>()?))
    }
    /// Puts the figures of a day in the place of what was there of that day.
    pub(crate) fn put(&mut self, day: &str, figures: impl IntoIterator<Item = Figure>) {
        self.0.retain(|old| old.day != day);
        self.0.extend(figures);
        self.0.sort_by(|a, b| a.day.cmp(&b.day));
    }
    pub(crate) fn write(&self, path: &Path) -> io::Result<()> {
        let mut out = HEADER.to_owned();
        for f in &self.0 {
            let numbers = format!("{:.3}\t{:.3}\t{:.3}", f.median, f.low, f.high);
            writeln!(out, "{}\t{}\t{}\t{numbers}", f.day, f.work, f.against).expect("a string");
        }
        fs::write(path, out)
    }
    /// Returns the figures of a row, one a day, the latest first.
    pub(crate) fn of(&self, work: &str, against: &[&str]) -> Vec<&Figure> {
        let counts = |f: &&Figure| f.work == work && against.contains(&f.against.as_str());
        self.0.iter().rev().filter(counts).collect()
    }
}

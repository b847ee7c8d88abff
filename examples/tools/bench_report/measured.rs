//! What criterion measured.

use serde::Deserialize;
use std::{error::Error, fmt, fs, path::Path, process::Command};

/// One benchmark. Of a ratio the figures are quotients, of anything else nanoseconds.
pub(crate) struct Measured {
    pub(crate) group: String,
    /// The rest of the name: against whom, or at which size.
    pub(crate) against: String,
    pub(crate) median: f64,
    /// 10th percentile of the samples.
    pub(crate) low: f64,
    /// 90th percentile.
    pub(crate) high: f64,
}

#[derive(Deserialize)]
struct Names {
    group_id: String,
    function_id: Option<String>,
    value_str: Option<String>,
}

#[derive(Deserialize)]
struct Samples {
    iters: Vec<f64>,
    times: Vec<f64>,
}

/// Everything below `folder`, in order of its names.
pub(crate) fn read(folder: impl AsRef<Path>) -> Result<Vec<Measured>, Box<dyn Error>> {
    let mut out = Vec::new();
    let mut folders = vec![folder.as_ref().to_owned()];
    while let Some(folder) = folders.pop() {
        if folder.join("benchmark.json").is_file() && folder.ends_with("new") {
            out.push(one(&folder)?);
        }
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            }
        }
    }
    out.sort_by(|a, b| (&a.group, &a.against).cmp(&(&b.group, &b.against)));
    Ok(out)
}

fn one(folder: &Path) -> Result<Measured, Box<dyn Error>> {
    let names: Names = serde_json::from_str(&fs::read_to_string(folder.join("benchmark.json"))?)?;
    let samples: Samples = serde_json::from_str(&fs::read_to_string(folder.join("sample.json"))?)?;
    let mut each: Vec<f64> = samples
        .times
        .iter()
        .zip(&samples.iters)
        .map(|(t, n)| t / n)
        .collect();
    each.sort_by(f64::total_cmp);
    let quantile = |q: f64| each[((each.len() - 1) as f64 * q).round() as usize];
    let parts = [names.function_id, names.value_str];
    Ok(Measured {
        group: names.group_id,
        against: parts.into_iter().flatten().collect::<Vec<_>>().join("/"),
        median: quantile(0.5),
        low: quantile(0.1),
        high: quantile(0.9),
    })
}

/// When and where the report was made.
pub(crate) struct Origin {
    when: String,
    rust: String,
    processor: String,
    processors: usize,
}

impl Origin {
    pub(crate) fn here() -> Self {
        let run = |program: &str, arg: &str| {
            let out = Command::new(program).arg(arg).output().ok()?;
            Some(String::from_utf8_lossy(&out.stdout).trim().to_owned())
        };
        let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = info
            .lines()
            .find_map(|l| l.strip_prefix("model name")?.split(": ").nth(1));
        Self {
            when: run("date", "+%Y-%m-%d").unwrap_or_else(|| "an unknown day".to_owned()),
            rust: run("rustc", "--version").unwrap_or_else(|| "an unknown compiler".to_owned()),
            processor: model.unwrap_or("an unknown processor").to_owned(),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

impl Origin {
    pub(crate) fn day(&self) -> &str {
        &self.when
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            when,
            rust,
            processor,
            processors,
        } = self;
        write!(f, "{when}, {rust}, {processors} × {processor}.")
    }
}

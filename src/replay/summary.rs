//! [`Summary`]: the numbers of steps and scripts that went as on Linux, family by family.

use super::{
    compare::Difference,
    report::Report,
    run::{First, Replayed},
};
use serde_json::{Value, json};
use std::{collections::BTreeMap, fmt};

/// The counts over a set of scripts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Number of scripts.
    pub scripts: usize,
    /// Number of their steps.
    pub steps: usize,
    /// Number of steps as on Linux, up to each script's first difference.
    pub agreed: usize,
    /// Number of scripts that went as on Linux to their end.
    pub whole: usize,
    /// Number of scripts by cause of the first difference, in the order of [`Difference::CAUSES`].
    pub causes: [usize; Difference::CAUSES.len()],
}

impl Tally {
    fn count(&mut self, script: &Replayed) {
        self.scripts += 1;
        self.steps += script.steps;
        self.agreed += script.agreed;
        let Some(First { difference, .. }) = &script.first else {
            self.whole += 1;
            return;
        };
        if let Some(count) = self.causes.get_mut(difference.cause()) {
            *count += 1;
        }
    }
    /// Returns the share of steps as on Linux in hundredths of a percent, rounded; 100 % only if
    /// all are.
    fn hundredths(&self) -> usize {
        let rounded = (self.agreed * 20_000 + self.steps) / (2 * self.steps).max(1);
        if self.agreed == self.steps {
            10_000
        } else {
            rounded.min(9_999)
        }
    }
    fn percent(&self) -> String {
        let h = self.hundredths();
        format!("{}.{:02}", h / 100, h % 100)
    }
    fn to_json(&self) -> Value {
        let causes: BTreeMap<_, _> = Difference::CAUSES.into_iter().zip(self.causes).collect();
        json!({
            "scripts": self.scripts,
            "steps": self.steps,
            "as_linux": self.agreed,
            "whole": self.whole,
            "causes": causes,
        })
    }
}

/// The counts of every family and of all scripts.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    profiles: BTreeMap<String, Tally>,
    total: Tally,
}

impl Summary {
    /// Counts the results of these scripts.
    pub fn of(scripts: &[Replayed]) -> Self {
        let mut summary = Self::default();
        for script in scripts {
            summary
                .profiles
                .entry(script.profile.clone())
                .or_default()
                .count(script);
            summary.total.count(script);
        }
        summary
    }
    /// Returns the counts of a family.
    pub fn profile(&self, name: &str) -> Option<&Tally> {
        self.profiles.get(name)
    }
    /// Returns the counts of all scripts.
    pub fn total(&self) -> &Tally {
        &self.total
    }
    /// Returns `replayed 40 scripts, 2573 steps: 2573 as Linux (100.00 %)`.
    pub fn line(&self) -> String {
        let Tally {
            scripts,
            steps,
            agreed,
            ..
        } = self.total;
        format!(
            "replayed {scripts} scripts, {steps} steps: {agreed} as Linux ({} %)",
            self.total.percent()
        )
    }
    /// Returns all counts, and for each script its progress and the reason of its end.
    pub fn to_json(&self, scripts: &[Replayed]) -> Value {
        let profiles: BTreeMap<_, _> = self
            .profiles
            .iter()
            .map(|(p, t)| (p, t.to_json()))
            .collect();
        let script = |s: &Replayed| {
            json!({
                "name": s.name,
                "profile": s.profile,
                "steps": s.steps,
                "as_linux": s.agreed,
                "first_difference": Report::of(s).map(|r| r.to_json()),
            })
        };
        let scripts: Vec<Value> = scripts.iter().map(script).collect();
        json!({ "total": self.total.to_json(), "profiles": profiles, "scripts": scripts })
    }
}

/// The table, one line a family, and below it the list of missing features.
impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self
            .profiles
            .keys()
            .map(String::len)
            .max()
            .unwrap_or(0)
            .max(9);
        let panics = self.total.causes.last().is_some_and(|&n| n > 0);
        let shown = Difference::CAUSES.len() - usize::from(!panics);
        write!(
            f,
            "{:width$} scripts  steps  as Linux       %  whole",
            "profile"
        )?;
        for cause in Difference::CAUSES.iter().take(shown) {
            write!(f, "  {cause:>7}")?;
        }
        writeln!(f)?;
        let all = ("all".to_owned(), self.total.clone());
        let rows = self
            .profiles
            .iter()
            .chain((self.profiles.len() > 1).then_some((&all.0, &all.1)));
        for (name, t) in rows {
            let percent = t.percent();
            write!(
                f,
                "{name:width$} {:7}  {:5}  {:8}  {percent:>6}  {:5}",
                t.scripts, t.steps, t.agreed, t.whole
            )?;
            for count in t.causes.iter().take(shown) {
                write!(f, "  {count:7}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Tally;

    #[test]
    fn only_all_of_it_is_a_hundred_percent() {
        let percent = |agreed, steps| {
            Tally {
                agreed,
                steps,
                ..Tally::default()
            }
            .percent()
        };
        assert_eq!(percent(18_800, 19_629), "95.78");
        assert_eq!(percent(99_999, 100_000), "99.99");
        assert_eq!(percent(7, 7), "100.00");
        assert_eq!(percent(0, 7), "0.00");
        assert_eq!(percent(0, 0), "100.00");
    }
}

//! The writer of scripts: a written script reads back as equal.

use super::{
    pages::{PageTables, Run},
    script::{MapsRow, Notified, Outcome, Script, Step},
};
use crate::addr::PAGE_SIZE;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

impl Script {
    /// Returns the script in the format of [`parse`](Script::parse): its header, then a step a
    /// line.
    pub fn to_jsonl(&self) -> String {
        let header = json!(self.header).to_string();
        let mut lines = vec![header];
        lines.extend(self.steps.iter().map(|step| line(step).to_string()));
        lines.push(String::new());
        lines.join("\n")
    }
}

fn line(step: &Step) -> Value {
    let mut line: Map<String, Value> = serde_json::from_str(&step.to_json()).unwrap_or_default();
    let (key, value) = match &step.outcome {
        Outcome::Ret(at) if step.op.returns_address() => ("ret", hex(*at)),
        Outcome::Ret(value) => ("ret", json!(value)),
        Outcome::Err(errno) => ("err", json!(errno)),
        Outcome::Signal(signal) => ("signal", json!(signal.to_string())),
    };
    line.insert(key.into(), value);
    if !step.notified.is_empty() {
        let notified = step.notified.iter().map(notified).collect();
        line.insert("notify".into(), Value::Array(notified));
    }
    if !step.layouts.is_empty() {
        let rows = |rows: &Vec<MapsRow>| rows.iter().map(row).collect::<Vec<_>>();
        let maps: BTreeMap<_, _> = step.layouts.iter().map(|(p, r)| (p, rows(r))).collect();
        line.insert("maps".into(), json!(maps));
    }
    if let Some(tables) = &step.pages {
        line.insert("pages".into(), pages(tables));
    }
    if !step.vm_flags.is_empty() {
        line.insert("vmflags".into(), json!(step.vm_flags));
    }
    if let Ok(Value::Object(results)) = serde_json::to_value(&step.more.results) {
        line.extend(results);
    }
    if !step.more.protected.is_empty() {
        let words = |pages: &Vec<u64>| pages.iter().map(|&page| hex(page)).collect::<Vec<_>>();
        let all = step.more.protected.iter();
        let all: BTreeMap<_, _> = all.map(|(p, pages)| (p, words(pages))).collect();
        line.insert("uffd_wp".into(), json!(all));
    }
    Value::Object(line)
}

fn hex(number: u64) -> Value {
    Value::String(format!("{number:#x}"))
}

fn notified(one: &Notified) -> Value {
    json!([one.notice, hex(one.start), hex(one.end)])
}

fn row(row: &MapsRow) -> Value {
    json!([
        hex(row.start),
        hex(row.end),
        row.perms,
        hex(row.offset),
        row.what
    ])
}

/// Adjacent runs form a list; a gap begins another one.
fn pages(tables: &PageTables) -> Value {
    let lists = |runs: &[Run]| {
        let neighbours = runs.chunk_by(|a, b| a.end() == b.page);
        let list = |runs: &[Run]| {
            let tokens: Vec<String> = runs.iter().map(ToString::to_string).collect();
            let first = runs.first().map_or(0, |run| run.page);
            json!([hex(first * PAGE_SIZE), tokens.join(" ")])
        };
        neighbours.map(list).collect::<Vec<_>>()
    };
    let all: BTreeMap<u32, _> = tables
        .processes()
        .map(|p| (p, lists(tables.runs(p))))
        .collect();
    json!(all)
}

#[cfg(test)]
mod tests {
    use crate::replay::{Script, shipped};

    #[test]
    fn what_is_written_is_read_back() {
        for script in shipped().unwrap().iter().step_by(9) {
            let text = script.to_jsonl();
            let again = Script::parse(&script.name, text.as_bytes()).unwrap();
            assert_eq!(again.header, script.header);
            assert_eq!(format!("{:?}", again.steps), format!("{:?}", script.steps));
        }
    }
}

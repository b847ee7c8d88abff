//! A timeline in the trace event format that Perfetto and `chrome://tracing` open.
//!
//! Each recorded process is a process with its threads as tracks; calls and faults are slices. Each
//! device is a process with a track of the windows that held it off, nested as the windows nest,
//! and with counters: its entries, and its dropped pages and refaults so far. Times are the
//! replay's, in µs. Each slice of the program has its recorded time, in ns, among its arguments, as
//! text, since JSON's numbers have no room for it.

use super::{
    devices::Standing,
    timeline::{Followed, Hold, Moment},
};
use crate::replay::program::FaultKind;
use serde::{Serialize, Serializer};
use serde_json::{Value, json};
use std::{collections::BTreeSet, time::Duration};

/// Process numbers of devices, above all numbers of Linux.
const FIRST_DEVICE: u32 = 1 << 22;

/// Returns the trace of one recording, shown as `name`: one JSON object, serialised event by event,
/// as there may be millions.
pub fn trace<'m>(name: &'m str, moments: &'m [Moment]) -> impl Serialize + 'm {
    Trace {
        unit: "ns",
        events: Events { name, moments },
    }
}

#[derive(Serialize)]
struct Trace<'m> {
    #[serde(rename = "displayTimeUnit")]
    unit: &'static str,
    #[serde(rename = "traceEvents")]
    events: Events<'m>,
}

struct Events<'m> {
    name: &'m str,
    moments: &'m [Moment],
}

impl Serialize for Events<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut last: &[Standing] = &[];
        let moments = self.moments.iter().flat_map(|moment| {
            let mut events = vec![slice(moment)];
            events.extend(moment.holds.iter().map(window));
            events.extend(counters(moment, last));
            if !moment.standings.is_empty() {
                last = &moment.standings;
            }
            events
        });
        to.collect_seq(tracks(self.name, self.moments).into_iter().chain(moments))
    }
}

fn micros(at: Duration) -> f64 {
    at.as_secs_f64() * 1e6
}

/// Returns the names of processes and threads.
fn tracks(name: &str, moments: &[Moment]) -> Vec<Value> {
    let label = |what: &str, pid: u32, tid: u32, name: String| json!({"ph": "M", "name": what, "pid": pid, "tid": tid, "args": {"name": name}});
    let threads: BTreeSet<_> = moments.iter().map(|m| (m.who.pid, m.who.tid)).collect();
    let processes: BTreeSet<u32> = threads.iter().map(|(pid, _)| *pid).collect();
    let kinds = moments.iter().flat_map(|m| &m.standings).map(|s| s.kind);
    let kinds: BTreeSet<_> = kinds.collect();
    let mut events = Vec::new();
    for pid in processes {
        events.push(label("process_name", pid, pid, format!("{name} {pid}")));
    }
    for (pid, tid) in threads {
        events.push(label("thread_name", pid, tid, format!("thread {tid}")));
    }
    for kind in kinds {
        let pid = FIRST_DEVICE + kind as u32;
        events.push(label("process_name", pid, pid, kind.to_string()));
        events.push(label("thread_name", pid, pid, "windows".to_owned()));
    }
    events
}

fn slice(moment: &Moment) -> Value {
    let (category, name, mut args) = match &moment.what {
        Followed::Call(text) => {
            let name = text.split('(').next().unwrap_or_default();
            ("call", name.to_owned(), json!({"call": text}))
        }
        Followed::Fault(kind, addr) => {
            let kind = match kind {
                FaultKind::Read => "read fault",
                FaultKind::Write => "write fault",
                FaultKind::Exec => "exec fault",
            };
            let args = json!({"address": format!("{addr:#x}")});
            ("fault", kind.to_owned(), args)
        }
        Followed::Ended => ("call", "ends".to_owned(), json!({})),
    };
    args["recorded"] = moment.who.at.to_string().into();
    json!({
        "ph": "X", "cat": category, "name": name, "pid": moment.who.pid, "tid": moment.who.tid,
        "ts": micros(moment.begin), "dur": micros(moment.end.saturating_sub(moment.begin)), "args": args,
    })
}

fn window(hold: &Hold) -> Value {
    let pid = FIRST_DEVICE + hold.kind as u32;
    let args = json!({"pages": hold.range.pages(), "range": hold.range.to_string()});
    json!({
        "ph": "X", "cat": "window", "name": "window", "pid": pid, "tid": pid,
        "ts": micros(hold.begin), "dur": micros(hold.end.saturating_sub(hold.begin)), "args": args,
    })
}

/// Returns the counters that have changed.
fn counters(moment: &Moment, before: &[Standing]) -> Vec<Value> {
    let counts = |s: &Standing| {
        [
            ("entries held", s.held as u64),
            ("pages dropped", s.bill.dropped),
            ("refaults", s.bill.refaults),
        ]
    };
    let ts = micros(moment.end);
    let mut events = Vec::new();
    for now in &moment.standings {
        let pid = FIRST_DEVICE + now.kind as u32;
        let old = before.iter().find(|s| s.kind == now.kind).map(counts);
        for (nth, (name, value)) in counts(now).into_iter().enumerate() {
            if old.is_none_or(|old| old[nth].1 != value) {
                events.push(
                    json!({"ph": "C", "name": name, "pid": pid, "ts": ts, "args": {name: value}}),
                );
            }
        }
    }
    events
}

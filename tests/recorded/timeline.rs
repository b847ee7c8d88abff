//! What `replay --svg` and `--trace` write: one picture, one timeline, both of what happened.

#![cfg(feature = "replay")]

use emmu::replay::{
    Devices, MmuKind, Moment, Presented, Timeline,
    program::{machine, run_on, shipped},
    trace,
};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

const ALL: &[MmuKind] = &MmuKind::ALL;

fn follow(kinds: &[MmuKind]) -> (Presented, Vec<Moment>) {
    let program = shipped().unwrap();
    let mut timeline = Timeline::new(Devices::new(kinds.iter().copied()));
    let outcome = run_on(&machine(), &program, &mut timeline).unwrap();
    assert!(outcome.is_whole(), "{outcome}");
    let (devices, moments) = timeline.finish();
    assert!(moments.len() >= outcome.calls + outcome.faults);
    (devices.presented(), moments)
}

fn number(event: &Value, key: &str) -> f64 {
    event[key]
        .as_f64()
        .unwrap_or_else(|| panic!("{key}: {event}"))
}

#[test]
fn a_trace_has_a_slice_for_each_call_fault_and_window() {
    let (presented, moments) = follow(ALL);
    let json = serde_json::to_string(&trace("redis", &moments)).unwrap();
    let json: Value = serde_json::from_str(&json).unwrap();
    let events = json["traceEvents"].as_array().unwrap();
    let of = |category: &str| events.iter().filter(|e| e["cat"] == category).count();
    assert_eq!(of("fault"), 6016);
    assert!(of("call") >= 709);

    // Every track has a name, and its slices nest.
    let named = events
        .iter()
        .filter(|e| e["ph"] == "M" && e["name"] == "thread_name");
    let named: BTreeSet<_> = named
        .map(|e| (e["pid"].as_u64(), e["tid"].as_u64()))
        .collect();
    let mut tracks: BTreeMap<_, Vec<(f64, f64)>> = BTreeMap::new();
    for slice in events.iter().filter(|e| e["ph"] == "X") {
        let track = (slice["pid"].as_u64(), slice["tid"].as_u64());
        assert!(named.contains(&track), "{slice}");
        let (start, length) = (number(slice, "ts"), number(slice, "dur"));
        assert!(length >= 0.0);
        tracks
            .entry(track)
            .or_default()
            .push((start, start + length));
    }
    for slices in tracks.values_mut() {
        slices.sort_by(|a, b| a.0.total_cmp(&b.0).then(b.1.total_cmp(&a.1)));
        let mut open: Vec<f64> = Vec::new();
        for &(start, end) in slices.iter() {
            // Microseconds as floating point: to the nanosecond.
            open.retain(|top| *top > start + 1e-3);
            assert!(open.iter().all(|top| *top >= end - 1e-3), "{start} {end}");
            open.push(end);
        }
    }

    // A device's windows and counters are what its bill says.
    for (kind, bill) in &presented.bills {
        let process = events
            .iter()
            .find(|e| e["name"] == "process_name" && e["args"]["name"] == kind.to_string());
        let pid = &process.unwrap()["pid"];
        let mine = || events.iter().filter(|e| e["pid"] == *pid);
        let windows = mine().filter(|e| e["cat"] == "window").count();
        assert_eq!(windows as u64, bill.windows, "{kind}");
        let last = |name: &str| {
            let mut counter = mine().filter(|e| e["ph"] == "C" && e["name"] == name);
            counter.next_back().unwrap()["args"][name].as_u64().unwrap()
        };
        assert_eq!(last("refaults"), bill.refaults);
        assert_eq!(last("pages dropped"), bill.dropped);
        assert!(last("entries held") > 0);
    }
}

#[cfg(feature = "svg")]
#[test]
fn a_figure_has_a_panel_for_each_part_of_the_bill() {
    let (_, moments) = follow(ALL);
    let picture = emmu::replay::svg("redis", &moments).unwrap();
    assert!(picture.starts_with("<svg") && picture.trim_end().ends_with("</svg>"));
    for text in [
        "windows",
        "pages dropped",
        "refaults",
        "retries",
        "in windows, ms",
        "time of the recording, s",
        "KVM",
        "GRU",
        "XPmem",
        "fork",
    ] {
        assert!(picture.contains(text), "{text}");
    }
    assert!(picture.matches("#0072B2").count() >= 6, "a line a panel");
    assert!(picture.len() < 40_000 * ALL.len(), "{}", picture.len());
}

#[test]
fn without_devices_there_is_a_trace_but_no_figure() {
    let (_, moments) = follow(&[]);
    #[cfg(feature = "svg")]
    assert_eq!(
        emmu::replay::svg("redis", &moments),
        Err(emmu::replay::FigureError::Nothing)
    );
    let json = serde_json::to_value(trace("redis", &moments)).unwrap();
    assert!(json["traceEvents"].as_array().unwrap().len() > 6000);
}

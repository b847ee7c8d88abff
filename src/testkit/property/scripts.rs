//! Whole scripts: random ones, and a busy one in which everything fails once.

use crate::{
    ctx::CallCx,
    replay::Script,
    testkit::{
        Broken, Disturbances, Failure, Fault, Kit, Suite,
        trial::{Run, Trial},
    },
};
use std::sync::Arc;

/// A family, files, moves, page-out, in a few lines.
const BUSY: &str = include_str!("busy.jsonl");

pub(super) fn scripts(t: &Arc<Trial>, _: &mut CallCx<'_>, kit: &Kit) -> Run {
    let suite = kit.suite().disturbed(Disturbances {
        windows: true,
        ..Disturbances::default()
    });
    apart(t, move |t| {
        let came = suite.watched(&mut |nth| t.process(format!("script {nth}")));
        came.map(|_| ())
    });
    Ok(())
}

pub(super) fn failures(t: &Arc<Trial>, _: &mut CallCx<'_>, kit: &Kit) -> Run {
    let remote = t.device.break_acknowledgement(Broken::Dies);
    let suite = Suite::new([kit.clone()]);
    apart(t, move |t| {
        let script = Script::parse("busy", BUSY.as_bytes()).expect("it is part of the kit");
        let faults = Fault::ALL.iter().filter(|fault| match fault {
            // A device may wait long for this one; tests of such devices call `Suite::fail_each`.
            Fault::Acknowledgement(Broken::Hangs) => false,
            Fault::Acknowledgement(_) => remote,
            _ => true,
        });
        for fault in faults {
            t.process(format!(
                "a busy script, many times; in each run {fault} fails"
            ));
            suite.fail_each(&script, *fault)?;
        }
        Ok(())
    });
    Ok(())
}

/// Runs `work` on a thread that is on no machine; the thread that watches the log sees its
/// progress.
fn apart(t: &Arc<Trial>, work: impl FnOnce(&Trial) -> Result<(), Box<Failure>> + Send + 'static) {
    let trial = Arc::clone(t);
    let done = std::thread::spawn(move || work(&trial)).join();
    let Ok(Err(failure)) = done else {
        done.map(|_| ())
            .expect("panics are caught where they happen");
        return;
    };
    t.process("a script of its own, on another machine:");
    for step in &failure.script.steps {
        t.process(format!("{}  {}", step.to_json(), step.outcome));
    }
    if let Some((fault, nth)) = failure.fault {
        t.process(format!("the kit lets {fault} fail, number {nth}"));
    }
    if failure.fault.is_none() {
        t.process(format!("drawn from EMMU_TESTKIT_SEED={}", failure.seed));
    }
    if let Some(path) = &failure.saved {
        t.process(format!("saved as {}", path.display()));
    }
    for seen in failure.seen {
        t.see(seen);
    }
}

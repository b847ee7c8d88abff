//! Shortening of a case that fails.

use super::{
    case::{Case, Ran, Source},
    config::Suite,
};
use crate::replay::Script;

impl Suite {
    /// Removes every step that the failure does not need: the longest runs first, single steps
    /// last.
    pub(super) fn shorten(&self, mut case: Case, run: &dyn Fn(&Self, &Case, bool) -> Ran) -> Case {
        let whole = Case {
            fault: None,
            ..case.clone()
        };
        if case.fault.is_some() && !run(self, &whole, false).seen.is_empty() {
            case = whole;
        }
        let fails = |script: Script| {
            let source = Source::Script(Box::new(script));
            let fault = case.fault;
            let ran = run(self, &Case { source, fault }, false);
            (!ran.seen.is_empty()).then_some(ran.script)
        };
        // The recorded script ends at the failure.
        let Some(mut script) = fails(run(self, &case, false).script) else {
            return case;
        };
        let mut size = script.steps.len() / 2;
        while size > 0 {
            let mut at = 0;
            let mut gone = false;
            while at < script.steps.len() {
                let mut fewer = script.clone();
                let end = (at + size).min(fewer.steps.len());
                fewer.steps.drain(at..end);
                match fails(fewer) {
                    Some(shorter) => (script, gone) = (shorter, true),
                    None => at += size,
                }
            }
            // A removed step may have needed others, which may go now.
            if !gone || size > 1 {
                size /= 2;
            }
        }
        Case {
            source: Source::Script(Box::new(script)),
            fault: case.fault,
        }
    }
}

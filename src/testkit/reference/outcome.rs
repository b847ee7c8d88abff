//! Expected and recorded outcomes of steps.

use crate::{mm::Prot, replay::Outcome};

/// The recorded outcome of a step.
pub(super) type Came<'o> = &'o Outcome;
/// The verdict on a step: an error names the difference from the model.
pub(super) type Step = Result<(), String>;

/// The outcome of a call that returns 0.
pub(super) const DONE: Outcome = Outcome::Ret(0);

/// Returns the outcome of a call that fails with this errno.
pub(super) fn errno(name: &str) -> Outcome {
    Outcome::Err(name.to_owned())
}

/// Returns `ENOMEM` if the range has a hole, as most calls on ranges do, or success.
pub(super) fn whole(hole: bool) -> Outcome {
    if hole { errno("ENOMEM") } else { DONE }
}

/// Requires that the call was refused, with any errno.
pub(super) fn refusing(came: Came<'_>) -> Step {
    match came {
        Outcome::Ret(_) => Err(format!("it {came}, and the model of pages refuses")),
        _ => Ok(()),
    }
}

/// Every access right.
pub(super) const RWX: Prot = Prot::READ.union(Prot::WRITE).union(Prot::EXEC);

/// Requires that the recorded outcome is the expected one.
pub(super) fn must(wanted: &Outcome, came: &Outcome) -> Result<(), String> {
    if came == wanted {
        Ok(())
    } else {
        Err(format!("it {came}, and the model of pages {wanted}"))
    }
}

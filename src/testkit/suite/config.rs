//! [`Suite`]: its devices, and the settings of its scripts.

use super::{disturbances::Disturbances, profile::Profile};
use crate::testkit::{
    Kit,
    settings::{LONGEST, at_least, depth, seed},
};
use std::{path::PathBuf, time::Duration};

/// A suite of random scripts for a set of devices.
#[derive(Clone, Debug)]
pub struct Suite {
    pub(super) kits: Vec<Kit>,
    pub(super) profile: Profile,
    pub(super) cases: u32,
    pub(super) steps: usize,
    pub(super) seed: u64,
    pub(in crate::testkit) disturbances: Disturbances,
    pub(super) deadline: Duration,
    pub(super) regressions: Option<PathBuf>,
}

impl Suite {
    /// Returns a suite with all of these devices on one process, or with none.
    ///
    /// The suite runs `EMMU_TESTKIT_CASES` scripts, or 256.
    pub fn new(kits: impl IntoIterator<Item = Kit>) -> Self {
        let kits: Vec<Kit> = kits.into_iter().collect();
        let patience = kits.iter().map(Kit::patience).max();
        Self {
            deadline: patience.unwrap_or(Duration::from_secs(5)),
            kits,
            profile: Profile::default(),
            cases: depth(256),
            steps: 40,
            seed: seed(),
            disturbances: Disturbances::default(),
            regressions: None,
        }
    }
    /// Sets the set of operations. Default: [`Profile::Mixed`].
    #[must_use]
    pub fn profile(self, profile: Profile) -> Self {
        Self { profile, ..self }
    }
    /// Sets the number of scripts. `EMMU_TESTKIT_CASES` raises the number, unless it is 0.
    #[must_use]
    pub fn cases(self, cases: u32) -> Self {
        let cases = at_least(cases);
        Self { cases, ..self }
    }
    /// Sets the upper limit of draws in a script, at least 2. Default: 40.
    #[must_use]
    pub fn steps(self, steps: usize) -> Self {
        let steps = steps.max(2);
        Self { steps, ..self }
    }
    /// Sets the seed, which alone determines the scripts.
    ///
    /// Default: `EMMU_TESTKIT_SEED`, or a fixed number, so that a test repeats its verdict. With
    /// `EMMU_EXPLORE=1` each run has a random one.
    #[must_use]
    pub fn seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }
    /// Sets the time after which a step, with the accesses of the devices next to it, counts as a
    /// hang.
    ///
    /// Default: the longest [`Kit::deadline`] of the devices, or 5 seconds without devices. A busy
    /// machine does not cause a hang, as that method explains.
    #[must_use]
    pub fn deadline(self, deadline: Duration) -> Self {
        let deadline = deadline.min(LONGEST);
        Self { deadline, ..self }
    }
    /// Sets the activity next to the operations. Default: none.
    #[must_use]
    pub fn disturbed(self, disturbances: Disturbances) -> Self {
        Self {
            disturbances,
            ..self
        }
    }
    /// Sets the folder of scripts that run first, and that receives each script that fails.
    ///
    /// Without one, failing scripts go to the folder for temporary files.
    #[must_use]
    pub fn regressions(self, folder: impl Into<PathBuf>) -> Self {
        Self {
            regressions: Some(folder.into()),
            ..self
        }
    }
}

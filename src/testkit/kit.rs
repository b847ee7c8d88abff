//! [`Kit`]: the way to build a device for its trial, and the limits of the trial.

use super::{
    device::{Attach, Attached, AttachedTlb, Device, Placed},
    settings,
};
use crate::{
    ctx::CallCx,
    mm::Mm,
    notifier::{ExternalMmu, Seat},
};
use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

/// A way to build a device, and the time and the number of scripts for its trial.
#[derive(Clone)]
pub struct Kit {
    pub(super) attach: Arc<Attach>,
    pub(super) deadline: Duration,
    pub(super) cases: u32,
    pub(super) seed: Option<u64>,
    pub(super) regressions: Option<PathBuf>,
}

impl Kit {
    /// Returns a kit for a device that needs nothing but its seat.
    pub fn new<D: Device + ExternalMmu + 'static>(
        build: impl Fn(Seat) -> Arc<D> + Send + Sync + 'static,
    ) -> Self {
        Self::attaching(move |cx, mm| {
            let (device, registration) = mm.register(cx, &build);
            Attached {
                mmu: Arc::clone(&device) as Arc<dyn ExternalMmu>,
                device,
                registration,
            }
        })
    }
    /// Returns a kit for a device that registers itself, or that a second object uses.
    ///
    /// The kit calls `attach` once for each property, with an address space that permits every
    /// operation.
    ///
    /// # Examples
    ///
    /// ```
    /// use emmu::{Mm, ctx::CallCx, extmmu::Recorder, testkit::*};
    /// use std::sync::Arc;
    ///
    /// /// A device without translations: each access goes through the page table.
    /// struct Loads;
    /// impl Device for Loads {
    ///     fn read(&self, cx: &mut CallCx<'_>, mm: &Mm, addr: u64) -> Result<u8, Refused> {
    ///         Ok(mm.load(cx, addr)?)
    ///     }
    ///     fn write(
    ///         &self,
    ///         cx: &mut CallCx<'_>,
    ///         mm: &Mm,
    ///         addr: u64,
    ///         byte: u8,
    ///     ) -> Result<(), Refused> {
    ///         Ok(mm.store(cx, addr, byte)?)
    ///     }
    ///     fn declares(&self) -> Declared {
    ///         Declared { holds: Holds::Nothing, ..Declared::default() }
    ///     }
    /// }
    ///
    /// let kit = Kit::attaching(|cx, mm| {
    ///     let (mmu, registration) = mm.register(cx, Recorder::new);
    ///     Attached { device: Arc::new(Loads), mmu, registration }
    /// });
    /// kit.assert(Property::Rights);
    /// ```
    pub fn attaching(
        attach: impl Fn(&mut CallCx<'_>, &Arc<Mm>) -> Attached + Send + Sync + 'static,
    ) -> Self {
        Self::placing(move |cx, mm| Placed::Driver(attach(cx, mm)))
    }
    /// Returns a kit for a device that walks the page table itself
    /// ([`Declared::walks`](super::Declared)).
    ///
    /// The kit calls `attach` as [`attaching`](Self::attaching) says.
    pub fn walking(
        attach: impl Fn(&mut CallCx<'_>, &Arc<Mm>) -> AttachedTlb + Send + Sync + 'static,
    ) -> Self {
        Self::placing(move |cx, mm| Placed::Walker(attach(cx, mm)))
    }
    fn placing(
        attach: impl Fn(&mut CallCx<'_>, &Arc<Mm>) -> Placed + Send + Sync + 'static,
    ) -> Self {
        Self {
            attach: Arc::new(attach),
            deadline: Duration::from_secs(5),
            cases: settings::depth(64),
            seed: None,
            regressions: None,
        }
    }
    /// Sets the time after which an access or an operation counts as stuck. Default: 5 seconds.
    ///
    /// On a busy machine the clock runs while the device does not. At the deadline the kit
    /// therefore works for about as long itself and looks again: a thread that could run has had as
    /// much of a processor by then.
    #[must_use]
    pub fn deadline(self, deadline: Duration) -> Self {
        let deadline = deadline.min(settings::LONGEST);
        Self { deadline, ..self }
    }
    /// Sets the number of random scripts of [`Property::Scripts`](super::Property::Scripts).
    /// Default: 64.
    ///
    /// `EMMU_TESTKIT_CASES` raises the number, unless it is 0.
    #[must_use]
    pub fn cases(self, cases: u32) -> Self {
        let cases = settings::at_least(cases);
        Self { cases, ..self }
    }
    /// Sets the seed of the random scripts, as [`Suite::seed`](super::Suite::seed) does.
    #[must_use]
    pub fn seed(self, seed: u64) -> Self {
        let seed = Some(seed);
        Self { seed, ..self }
    }
    /// Sets the folder of scripts that run before the random ones of
    /// [`Property::Scripts`](super::Property::Scripts), and that receives each script that fails
    /// ([`Suite::regressions`](super::Suite::regressions)).
    #[must_use]
    pub fn regressions(self, folder: impl Into<PathBuf>) -> Self {
        let regressions = Some(folder.into());
        Self {
            regressions,
            ..self
        }
    }
    /// Returns the time limit of an access or an operation.
    pub(super) fn patience(&self) -> Duration {
        self.deadline
    }
    /// Returns the number of random scripts of
    /// [`Property::Scripts`](super::Property::Scripts).
    pub fn random_cases(&self) -> u32 {
        self.cases
    }
    /// Builds the device and registers it on a process.
    ///
    /// # Panics
    ///
    /// If the device [walks](Self::walking) the page table.
    pub fn attach(&self, cx: &mut CallCx<'_>, mm: &Arc<Mm>) -> Attached {
        match self.place(cx, mm) {
            Placed::Driver(attached) => attached,
            Placed::Walker(_) => panic!("a kit of a device that walks the page table"),
        }
    }
    /// Builds the device, of either kind, and registers it on a process.
    pub(super) fn place(&self, cx: &mut CallCx<'_>, mm: &Arc<Mm>) -> Placed {
        (self.attach)(cx, mm)
    }
}

impl fmt::Debug for Kit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kit")
            .field("deadline", &self.deadline)
            .field("cases", &self.cases)
            .finish_non_exhaustive()
    }
}

//! An oracle that sees both sides: every page table of a machine, and every translation of its
//! external MMUs.
//!
//! Guarantee: an [`Oracle`] looks at each of these events when it happens, on the thread that
//! causes it: a frame is given back; a window has been acknowledged, or is about to end; a
//! translation enters a driver's store; a copy of one is followed; a reference is given up; all
//! drivers are released at the end of an address space. [`Oracle::audit`] compares everything at
//! once. A [`Finding`] names the MMU, the pages and the frame.
//!
//! These invariants hold, and are checked at run time except where a type or a test is named:
//!
//! * **O0**: the oracle could look everywhere: `translations` answers, and in time.
//! * **O1**: no translation leads to a frame that was given back. Checked when a frame is given
//!   back.
//! * **O2**: an entry loses something only in a window over it. Type: `InvalidationWindow`
//!   (`tests/ui/i*`).
//! * **O3**: each driver gets one beginning and one end of each window, of one range. Type: a
//!   window is a value, and its `Drop` ends it for the drivers that agreed. A driver's own count
//!   ([`ExternalMmu::windows`](crate::notifier::ExternalMmu::windows)) is checked in audits.
//! * **O4**: inside a window no MMU has a translation of its range; outside, none says more than
//!   the page table; and no copy of a translation is used once a window over its page has opened.
//!   Checked when windows open and end, when entries are made, when a
//!   [`Cached`](crate::notifier::Cached) translation is followed, and in turn.
//! * **O5**: every reference has an owner, and is given up after its last use. Checked when a
//!   driver gives references up, and at [`audit_empty`](Oracle::audit_empty).
//! * **O6**: a write through an MMU is known before the page is taken for clean. Checked when a
//!   frame is given back or cleaned.
//! * **O7**: no code sleeps where it must not. Type: `Cx` (`tests/ui/iii*`).
//! * **O8**: locks have one order. Type: the ranks of `Cx`. A gate that the oracle cannot lock for
//!   ten seconds is reported (O0).
//! * **O9**: windows end, and faults get their pages. Checked when a window ends, while a driver
//!   tries again, and by [`audit_liveness`](Oracle::audit_liveness).
//! * **O10**: a page that was used since its accessed state was cleared is reported as young. Test:
//!   `tests/external/kvm.rs`, and for any driver the test kit's.
//! * **O11**: no translation is left when the pages of an address space are given back. Checked
//!   when all drivers have been released.
//! * **O12**: no window is open at that moment, and no driver counts one. Checked then.
//!
//! A device that walks the page table ([`SecondaryTlb`](crate::notifier::SecondaryTlb)) is watched
//! as well, with its TLB and those behind it: O1, O11, and O4 outside of windows. Inside of a
//! window it may have what the page table says at that moment.
//!
//! The cost follows the changes: for a frame, a look at the pages that led to it (`index`); for a
//! window, a look at its pages in each MMU. All translations are compared each time that as much
//! has happened as there are translations, so that an entry which came too late into a TLB is found
//! even where no window looks. A machine without an oracle pays one load.
//!
//! | file | holds |
//! | --- | --- |
//! | `finding` | [`Invariant`] and [`Finding`] |
//! | `names` | names in findings that are read from elsewhere (feature `serde`) |
//! | `index` | which pages may be translated to a frame |
//! | `opened` | the last window over each page |
//! | `liveness` | windows and look-ups that last too long |
//! | `watchee` | drivers of windows, and devices that walk the page table |
//! | `state` | [`Oracle`]: its state, and its questions to drivers |
//! | `audit` | comparing everything, and the end of an address space |
//! | `watchers` | the events at which the oracle looks |
//! | `attach` | putting an oracle on a machine and its MMUs |

mod attach;
mod audit;
mod finding;
mod index;
mod liveness;
#[cfg(feature = "serde")]
mod names;
mod opened;
mod state;
mod watchee;
mod watchers;

pub use finding::{Finding, Invariant};
pub use state::Oracle;
#[cfg(feature = "replay")]
pub(crate) use state::message;
#[cfg(feature = "testkit")]
pub(crate) use watchee::Watchee;

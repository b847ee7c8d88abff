//! External MMUs put on trial.
//!
//! You have written an [`ExternalMmu`](crate::notifier::ExternalMmu). Say how memory is used through it, and the kit tells
//! you whether it is coherent:
//!
//! ```
//! use emmu::{
//!     Mm,
//!     addr::Vpn,
//!     ctx::{Atomic, Cx, Sleepable, rank},
//!     notifier::{Access, Ack, ExternalMmu, Gate, Invalidation, OrderedStore, Retry, Seat, Translation, WouldBlock},
//!     testkit::{Device, Idle, Refused, conformance},
//! };
//! use std::sync::Arc;
//!
//! /// A device with a table of translations.
//! struct Table(Gate<OrderedStore<Vpn>, (), Atomic>);
//!
//! impl Table {
//!     fn new(seat: Seat) -> Arc<Self> {
//!         Arc::new(Self(Gate::new(seat, OrderedStore::default(), ())))
//!     }
//!     /// Makes a translation: ticket, look-up, permit; again as long as windows are in the way.
//!     fn miss(&self, cx: &mut Idle<'_>, mm: &Mm, at: Vpn, access: Access) -> Result<(), Refused> {
//!         loop {
//!             let pending = mm.resolve(cx, self.0.ticket(at, access))?;
//!             match pending.admit(cx) {
//!                 Ok(permit) => break drop(permit.establish(at)),
//!                 Err(Retry::Detached) => return Err(Refused::Gone),
//!                 Err(Retry::Busy | Retry::Stale) => std::thread::yield_now(),
//!             }
//!         }
//!         Ok(())
//!     }
//! }
//!
//! impl ExternalMmu for Table {
//!     fn invalidate_start<'i>(&self, cx: Cx<'_, rank::Callback, Sleepable>, inv: Invalidation<'i>) -> Ack<'i> {
//!         self.0.exclude(cx, inv, |(), _, _| ())
//!     }
//!     fn try_invalidate_start<'i>(
//!         &self,
//!         cx: Cx<'_, rank::Callback, Atomic>,
//!         inv: Invalidation<'i>,
//!     ) -> Result<Ack<'i>, WouldBlock> {
//!         Ok(self.0.exclude(cx, inv, |(), _, _| ()))
//!     }
//!     fn translations(&self, visit: &mut dyn FnMut(Translation)) -> bool {
//!         self.0.audit(visit)
//!     }
//! }
//!
//! impl Device for Table {
//!     fn read(&self, cx: &mut Idle<'_>, mm: &Mm, addr: u64) -> Result<u8, Refused> {
//!         let at = Vpn::containing(addr);
//!         loop {
//!             if let Some(view) = self.0.lock(cx).lookup(&at) {
//!                 return Ok(view.read_u8((addr - at.addr()) as usize));
//!             }
//!             self.miss(cx, mm, at, Access::Read)?;
//!         }
//!     }
//!     fn write(&self, cx: &mut Idle<'_>, mm: &Mm, addr: u64, byte: u8) -> Result<(), Refused> {
//!         let at = Vpn::containing(addr);
//!         loop {
//!             if let Some(mut view) = self.0.lock(cx).lookup_mut(&at) {
//!                 view.write((addr - at.addr()) as usize, &[byte]);
//!                 return Ok(());
//!             }
//!             self.miss(cx, mm, at, Access::Write)?;
//!         }
//!     }
//! }
//!
//! conformance(Table::new).assert();
//! ```
//!
//! In a test it is one line, which makes a `#[test]` of each [`Property`]:
//!
//! ```ignore
//! emmu::conformance_tests!(Table::new);
//! ```
//!
//! # How it finds what it finds
//!
//! Each property runs on a machine of its own, where your device is registered between two neighbours of the kit's, and
//! watched by an [oracle](crate::oracle). Nothing is left to luck:
//!
//! * **Look-ups are overtaken on purpose.** When your device has looked up a page, and before it learns what was found,
//!   another thread drops, moves, protects, copies or migrates that page: each operation at each look-up in turn. Whoever
//!   would use what was found is found out in the first run ([`Property::Retry`]).
//! * **Windows are stopped in the middle.** The neighbour that is asked after your device acts while the window is open and
//!   the page table still has the old entry ([`Property::HoldsOff`]), or refuses, so that you are told the end of a window
//!   that never was ([`Property::Pairing`]).
//! * **Both sides are read.** What the device reads is compared with what the process reads, byte by byte.
//! * **Time is watched.** What hangs is reported with the steps that led there; nothing waits for ever.
//!
//! A [`Verdict`] says what was done, in two columns, what was seen, and who saw it ([`Seen::oracle`]).
//!
//! # What it asks for
//!
//! What you [declare](Declared), no more: references or none, sleeping or not, aging told or not, refusals remembered or
//! not, coherent or not. What is legal is never blamed: windows that are larger than needed, repeated or empty, accesses
//! held off by windows elsewhere, entries that are dropped for no reason, retries for no reason, pages said to be young
//! that are not.
//!
//! # How long it takes
//!
//! A verdict of all properties takes less than a second in a debug build, unless the device hangs: then each property that
//! shows it takes twice the [deadline](Kit::deadline). The environment variable `EMMU_TESTKIT_CASES` is the number of
//! scripts of a [`Suite`]; 10000 make a night's run of a few minutes.
//!
//! # More of it
//!
//! | | |
//! | --- | --- |
//! | all properties, in a call | [`conformance`], [`Kit::run`] |
//! | … as tests | [`conformance_tests!`](crate::conformance_tests) |
//! | the models of this library on trial | [`kvm`], [`pfn_caches`], [`gru`], [`xpmem`] |
//! | random operations on processes, with any set of devices | [`Suite`] |
//! | each allocation made to fail, in turn | [`fail_each`], [`Suite::fail_each`] |
//! | the mistakes that others made, caught | [`museum`] |
//! | an IOTLB of 150 lines | `examples/iotlb.rs` |

mod aside;
mod device;
mod inject;
mod kit;
mod log;
mod models;
pub mod museum;
mod neighbour;
mod property;
mod reference;
mod suite;
mod trial;
mod verdict;

pub use device::{Attached, Declared, Device, Holds, Idle, Refused};
pub use inject::{Broken, Failed, Fault, fail_each};
pub use kit::{Kit, conformance};
pub use models::{gru, kvm, pfn_caches, xpmem};
pub use property::Property;
pub use reference::{Checks, Reference};
pub use suite::{Disturbances, Failure, Profile, Suite};
pub use verdict::{Conformance, Outcome, Seen, Side, Step, Verdict};

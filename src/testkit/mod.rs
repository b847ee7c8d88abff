//! External MMUs put on trial.
//!
//! You have written an [`ExternalMmu`](crate::notifier::ExternalMmu). Say how memory is used through it, and the kit tells
//! you whether it is coherent:
//!
//! ```
//! use emmu::{driver::*, testkit::{Device, Refused, conformance}};
//! use std::sync::Arc;
//!
//! /// A device with a table of translations.
//! struct Table(Gate<OrderedStore<Vpn>, (), Atomic>);
//!
//! impl Table {
//!     fn new(seat: Seat) -> Arc<Self> {
//!         Arc::new(Self(Gate::new(seat, OrderedStore::default(), ())))
//!     }
//!     /// Makes a translation: again as long as windows are in the way.
//!     fn miss(&self, cx: &mut CallCx<'_>, mm: &Mm, at: Vpn, access: Access) -> Result<(), Refused> {
//!         self.0.translate(cx, mm, at, access, |permit| drop(permit.establish(at)))?;
//!         Ok(())
//!     }
//! }
//!
//! impl SpinningMmu for Table {
//!     fn invalidate<'i>(&self, cx: AtomicCallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
//!         self.0.exclude(cx, inv, |(), _, _| ())
//!     }
//!     fn translations(&self, visit: &mut dyn FnMut(Translation)) -> bool {
//!         self.0.audit(visit)
//!     }
//! }
//!
//! impl Device for Table {
//!     fn read(&self, cx: &mut CallCx<'_>, mm: &Mm, addr: u64) -> Result<u8, Refused> {
//!         let at = Vpn::containing(addr);
//!         loop {
//!             if let Some(view) = self.0.lock(cx).lookup(&at) {
//!                 return Ok(view.read_u8((addr - at.addr()) as usize));
//!             }
//!             self.miss(cx, mm, at, Access::Read)?;
//!         }
//!     }
//!     fn write(&self, cx: &mut CallCx<'_>, mm: &Mm, addr: u64, byte: u8) -> Result<(), Refused> {
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
//! ```rs
//! emmu::conformance_tests!(Table::new);
//! ```
//!
//! # From nothing to a verdict
//!
//! 1. `cargo add emmu`, and `cargo add emmu --dev --features testkit`: your device needs the library, its tests the kit.
//!    A device that lives in tests alone needs the second only.
//! 2. Write the MMU. What the example has is all that there must be: a [`Gate`](crate::notifier::Gate) around what you keep,
//!    a callback that [`exclude`](crate::notifier::Gate::exclude)s a range, and `translations`, so that an oracle can look.
//!    A device with a lock that sleeps, a TLB, or acknowledgements from afar: the models in [`extmmu`](crate::extmmu).
//! 3. Write [`Device`]: how a byte is read and written through it. Each access comes to an end; it tries again as
//!    long as windows are in its way, and says [`Refused::Gone`] after its address space. If what [`Declared`] has by default is
//!    not what your device is, say what it is.
//! 4. `emmu::conformance_tests!(Table::new);` and `cargo test`. A device that is built from more than its
//!    [`Seat`](crate::notifier::Seat), or registers itself: [`Kit::attaching`]. So also one that comes from another crate than its
//!    tests, as those in `tests/` do, where [`Device`] cannot be implemented for it: a type of the test's own has it, and uses it.
//!
//! ```rs
//! struct User(Arc<Table>); // impl Device for User
//!
//! fn kit() -> Kit {
//!     Kit::attaching(|cx, mm| {
//!         let (table, registration) = mm.register(cx, Table::new);
//!         Attached { device: Arc::new(User(Arc::clone(&table))), mmu: table, registration }
//!     })
//! }
//! emmu::conformance_tests!(kit = kit());
//! ```
//!
//! # Reading a failure
//!
//! The process is on the left, your device on the right, and what was seen below:
//!
//! ```text
//! retry                  FAILED   what was looked up before a window is not used after it
//!     store n + 1 to pages 0..16
//!                                  has looked up page 3
//!     madvise 3..4 DontNeed
//!     store 201 to page 3
//!                                  reads page 3: 4
//!   seen: the device reads 4 at 0x40003000, where 201 is: a stale translation
//! ```
//!
//! The last line of the right column is what your device did wrong, the one on the left above it what it did not hear of. `O4` and the like are the
//! invariants of the [oracle](crate::oracle), which looks at what `translations` shows; the numbers are explained there.
//!
//! `scripts` and `failures` run whole scripts on another machine. What fails is made as short as it can be and saved:
//!
//! ```text
//! scripts                FAILED   whatever the processes do, the device reads and writes what they would
//!     {"as":0,"op":"mmap","addr":"0x1000000c000","len":32768,…}  returns 0x1000000c000
//!     {"as":0,"op":"store","addr":"0x1000000d000","byte":7}  returns 0
//!     {"as":0,"op":"madvise","addr":"0x1000000d000","len":4096,"advice":"dontneed"}  returns 0
//!     drawn from EMMU_TESTKIT_SEED=7241113480209853124
//!     saved as /tmp/emmu-aabc878ff0bef485.jsonl
//!   seen: O4: a table translates 0x1000000d000-0x1000000e000 to pfn:0x41, the page table says nothing
//! ```
//!
//! Run it again, with your device, without it, and on the kernel of your machine:
//!
//! ```rs
//! let script = replay::read("it", &std::fs::read(path)?)?;
//! Suite::new([Kit::new(Table::new)]).again(&script)?;   // your device: fails until it is right
//! assert!(replay::replay(&script)?.is_whole());         // this library does what the script says that it did
//! let linux = host::record(&Plan::from(&script))?;      // feature `host`: real processes do the same
//! println!("{}", linux.script.to_jsonl());
//! ```
//!
//! A folder of such scripts, given to [`Suite::regressions`], is run first from then on.
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
//! * **Time is watched.** What hangs is reported with the steps that led there; nothing waits for ever. A machine that is
//!   busy with other things is no hang: when the [deadline](Kit::deadline) is over, the kit first works for as long itself.
//! * **Panics are verdicts.** One of your device is caught and reported, before what others say for it, and a device is
//!   not called while its panic unwinds.
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
//! A verdict of all properties takes 1.5 seconds of one processor in a debug build (the IOTLB of `examples/`), most of it for 64 random
//! scripts. A device that hangs takes more: each property that shows it waits for twice the [deadline](Kit::deadline).
//!
//! `EMMU_TESTKIT_CASES` makes the run deep: so many random scripts of [`Property::Scripts`] and of each [`Suite`], 10000
//! for a night. They are the same scripts each time, so a test says today what it said yesterday; `EMMU_EXPLORE=1` draws
//! others, and `EMMU_TESTKIT_SEED` what was drawn before: each failure prints its own.
//! [nextest](https://nexte.st) spreads it over machines: the tests are made to be partitioned, `cargo nextest run --features testkit
//! --partition hash:1/4` and so on, as no two share anything.
//!
//! # More of it
//!
//! | | |
//! | --- | --- |
//! | all properties, in a call | [`conformance`], [`Kit::run`] |
//! | … as tests | [`conformance_tests!`](crate::conformance_tests) |
//! | the models of this library on trial | [`kvm`], [`pfn_caches`], [`gru`], [`xpmem`] |
//! | random operations on processes, with any set of devices | [`Suite`] |
//! | the model of pages that they are held against, for an address space of your own too | [`Reference`] |
//! | everything that can fail made to fail, one at a time or at random | [`Suite::fail_each`], [`Disturbances::random_faults`], [`fail_each`] |
//! | on one thread, on many, in every schedule of a seed | [`Suite`], its three forms |
//! | the mistakes that others made, caught | [`museum`] |
//! | an IOTLB of 90 lines | `examples/iotlb.rs` |

mod aside;
mod device;
mod fault;
pub mod fuzz;
mod inject;
mod kit;
mod log;
mod models;
pub mod museum;
mod neighbour;
mod patience;
mod property;
mod reference;
mod suite;
mod trial;
mod verdict;

pub use device::{Attached, Declared, Device, Holds, Refused};
pub use fault::{Broken, Fault};
pub use inject::{Failed, fail_each};
pub use kit::{Kit, conformance};
pub use models::{gru, kvm, pfn_caches, xpmem};
pub use property::Property;
pub use reference::{Checks, Reference};
pub use suite::{Disturbances, Failure, Profile, Suite};
pub use verdict::{Conformance, Outcome, Seen, Side, Step, Verdict};

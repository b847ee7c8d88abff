//! A test kit for external MMUs: trials that find incoherent translations.
//!
//! Give the kit an [`ExternalMmu`](crate::notifier::ExternalMmu) and a way to use memory through
//! it. The kit checks whether the device is coherent:
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
//!     /// Makes a translation; repeats the look-up while windows are open.
//!     fn miss(&self, cx: &mut CallCx<'_>, mm: &Mm, at: Vpn, access: Access) -> Result<(), Refused> {
//!         self.0.translate(cx, mm, at, access, |permit| drop(permit.establish(at)))?;
//!         Ok(())
//!     }
//! }
//!
//! impl SpinningMmu for Table {
//!     fn invalidate<'i>(&self, cx: AtomicCallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
//!         self.0.exclude_entries(cx, inv)
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
//! In a test one line makes a `#[test]` of each [`Property`]:
//!
//! ```rs
//! emmu::conformance_tests!(Table::new);
//! ```
//!
//! # From nothing to a verdict
//!
//! 1. `cargo add emmu`, and `cargo add emmu --dev --features testkit`: your device needs the
//!    library, its tests need the kit. A device that lives in tests alone needs the second command
//!    only.
//! 2. Write the MMU. The example has the necessary parts: a [`Gate`](crate::notifier::Gate) around
//!    the store of translations, a callback that [`exclude`](crate::notifier::Gate::exclude)s a
//!    range, and `translations`, which shows the store to an oracle. For a device with a lock that
//!    sleeps, a TLB, or remote acknowledgements, see the models in [`extmmu`](crate::extmmu).
//! 3. Write [`Device`]: the read and the write of a byte through the MMU. Each access must end. An
//!    access tries again while windows are in its way, and returns [`Refused::Gone`] after the end
//!    of the address space. Override [`Device::declares`] if the defaults of [`Declared`] do not
//!    fit: a device that only reads declares that ([`Declared::reads_only()`]) and has no `write`;
//!    one that evicts translations by itself declares [`Holds::Tlb`].
//! 4. Write `emmu::conformance_tests!(Table::new);` and run `cargo test`. A property that is about
//!    something that the device does not declare counts as `ok`, and says `skipped:`. Use
//!    [`Kit::attaching`] for a device that needs more than its [`Seat`](crate::notifier::Seat), or
//!    that registers itself. Use it also if the device comes from another crate than its tests, as
//!    those in `tests/` do: the test cannot implement [`Device`] for a foreign type, so a type of
//!    the test implements it and uses the device.
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
//! A report shows the process on the left, the device on the right, and the violation below:
//!
//! ```text
//! retry                  FAILED   the device does not use a look-up that a window has overtaken
//!     page 0 is 0x40000000-0x40001000
//!     store n + 1 to pages 0..16
//!                                  has looked up page 3
//!     madvise 3..4 DontNeed
//!     store 201 to page 3
//!                                  reads page 3: 4
//!   seen: the device reads 4 at 0x40003000, and memory has 201 there: a stale translation
//! ```
//!
//! Ranges are half-open, of bytes in hexadecimal, and of pages by number (`3..4`). The second line
//! says where page 0 is.
//!
//! The last line of the right column is the error of the device; the line above it on the left is
//! the change that the device missed. `O4` and the like are the invariants of the
//! [oracle](crate::oracle), which checks the translations that `translations` shows; its
//! documentation explains the numbers.
//!
//! `scripts` and `failures` run whole scripts on another machine. The kit shortens a script that
//! fails and saves it:
//!
//! ```text
//! scripts                FAILED   the device reads and writes the bytes that the processes would, in any script
//!     {"as":0,"op":"mmap","addr":"0x1000000c000","len":32768,…}  returns 0x1000000c000
//!     {"as":0,"op":"store","addr":"0x1000000d000","byte":7}  returns 0
//!     {"as":0,"op":"madvise","addr":"0x1000000d000","len":4096,"advice":"dontneed"}  returns 0
//!     drawn from EMMU_TESTKIT_SEED=7241113480209853124
//!     saved as /tmp/emmu-aabc878ff0bef485.jsonl
//!   seen: O4: Table translates 0x1000000d000-0x1000000e000 to pfn:0x41, and the page table maps nothing; the last window there was over 0x1000000d000-0x1000000e000
//! ```
//!
//! Run the script again with your device, without it, and on the kernel of your machine:
//!
//! ```rs
//! let script = replay::read("it", &std::fs::read(path)?)?;
//! Suite::new([Kit::new(Table::new)]).again(&script)?;   // your device: fails until it is right
//! assert!(replay::replay(&script)?.is_whole());         // this library repeats the recorded outcomes
//! let linux = host::record(&Plan::from(&script))?;      // feature `host`: real processes do the same
//! println!("{}", linux.script.to_jsonl());
//! ```
//!
//! Pass a folder of such scripts to [`Suite::regressions`]: from then on they run first.
//!
//! # Methods
//!
//! Each property runs on a machine of its own. Your device is registered between two neighbours
//! that belong to the kit, and an [oracle](crate::oracle) watches it. The kit provokes each race on
//! purpose:
//!
//! * **Windows overtake look-ups.** After a look-up of your device, and before the result reaches
//!   it, another thread drops, moves, protects, copies or migrates that page: each operation at
//!   each look-up in turn, on whichever thread the device looks the page up. A device that uses
//!   the old result fails in the first run ([`Property::Retry`]).
//! * **Windows overtake uses.** Your device has found a [`Cached`](crate::notifier::Cached)
//!   translation and is about to follow it, or to lock its gate; or it has got a new one, and
//!   unlocks the gate before it enters that in its TLB. Another thread takes the page away. A
//!   device that holds the lock which its invalidation needs makes that thread wait: the
//!   kit sees the thread sleep, and lets the access go on. A device that does not is found by the
//!   oracle ([`Property::Reuse`]). Only Linux shows that a thread sleeps; elsewhere this property
//!   is skipped.
//! * **Windows stop in the middle.** The neighbour that the chain calls after your device acts
//!   while the window is open and the page table still has the old entry ([`Property::HoldsOff`]),
//!   or refuses the window, so that your device receives the end of a window that never opened
//!   ([`Property::Pairing`]).
//! * **Both sides are read.** The kit compares the device's bytes with the process's, byte by byte.
//! * **Time is limited.** The kit reports a hang with the steps that led there and never waits for
//!   ever. A busy machine is no hang: at the [deadline](Kit::deadline) the kit first works for as
//!   long itself.
//! * **Panics are verdicts.** The kit catches a panic of your device, reports it before its echoes
//!   on other threads, and does not call the device while its panic unwinds.
//!
//! A [`Verdict`] holds the steps, in two columns, the violations, and the oracle that reported each
//! ([`Seen::oracle`]).
//!
//! # Requirements on the device
//!
//! The kit requires the behaviour that the device [declares](Declared), and no more: references or
//! none, sleeping or not, answers to aging or not, remembered refusals or not, coherent or not. The
//! kit accepts all legal behaviour: windows that are larger than needed, repeated or empty,
//! accesses held off by windows elsewhere, entries dropped without need, retries without need, and
//! "young" for a page that is not.
//!
//! # Duration
//!
//! All properties take 7 seconds of one processor as Cargo builds tests (the IOTLB of `examples/`),
//! most of it for 64 random scripts. These lines in the `Cargo.toml` of the device's workspace make
//! it 3 seconds; they optimize this library and leave the device as it is:
//!
//! ```toml
//! [profile.dev.package.emmu]
//! opt-level = 1
//! ```
//!
//! A device that hangs takes more: each property that shows the
//! hang waits for twice the [deadline](Kit::deadline).
//!
//! `EMMU_TESTKIT_CASES` makes the run deep: it sets the number of random scripts of
//! [`Property::Scripts`] and of each [`Suite`], 10000 for a night. The scripts are equal in every
//! run, so a test repeats its verdict; `EMMU_EXPLORE=1` draws others, and `EMMU_TESTKIT_SEED`
//! repeats a draw: each failure prints its seed. [nextest](https://nexte.st) spreads the tests over
//! machines (`cargo nextest run --features testkit --partition hash:1/4` and so on), as no two
//! tests share anything.
//!
//! # Entry points
//!
//! | for | use |
//! | --- | --- |
//! | all properties, in a call | [`conformance`], [`Kit::run`] |
//! | … as tests | [`conformance_tests!`](crate::conformance_tests) |
//! | the models of this library on trial | [`kvm`], [`pfn_caches`], [`gru`], [`xpmem`], [`gpu`], [`regcache`], [`odp`], [`sva`] |
//! | random operations on processes, with any set of devices | [`Suite`] |
//! | the model of pages, also for an address space of your own | [`Reference`] |
//! | the failure of each operation that can fail, in turn or at random | [`Suite::fail_each`], [`Disturbances::random_faults`], [`fail_each`] |
//! | one thread, many, or every schedule of a seed | [`Suite`], its three forms |
//! | historical mistakes, each with the check that catches it | [`museum`] |
//! | whole devices | `examples/iotlb.rs`; of TLBs alone, and reading alone: `examples/read_cache.rs` |
//!
//! # Files
//!
//! | file | holds |
//! | --- | --- |
//! | `conformance` | the trial: all properties, one, or one test for each |
//! | `kit` | the way to build a device, and the limits of its trial |
//! | `catalogue` | names and statements of the properties |
//! | `property` | the checks of the properties |
//! | `suite` | random scripts |
//! | `reference` | the model of pages |
//! | `museum` | historical mistakes |
//! | `fuzz` | fuzz targets |
//! | `models` | kits for the models of this library |
//! | `page_faulters` | kits for those whose devices raise page faults: ODP and SVA |
//! | `inject`, `fault` | the failure of each operation in turn, and the kinds of faults |
//! | `place` | the pages of a check, by number |
//! | `trial` | machine, process, neighbours and oracle of one check |
//! | `timed_thread`, `patience` | threads with a deadline, and waiting on a busy machine |
//! | `asleep` | threads that sleep, as the system shows them |
//! | `neighbour` | a driver that acts inside of windows |
//! | `device` | the trait of a device, and its declarations |
//! | `verdict`, `log` | steps, violations and reports |
//! | `settings` | the variables of the environment |

mod asleep;
mod catalogue;
mod conformance;
mod device;
mod fault;
pub mod fuzz;
mod inject;
mod kit;
mod log;
mod models;
pub mod museum;
mod neighbour;
mod page_faulters;
mod patience;
mod place;
mod property;
mod reference;
mod settings;
mod suite;
mod timed_thread;
mod trial;
mod verdict;

pub use catalogue::Property;
pub use conformance::conformance;
pub use device::{Attached, AttachedTlb, Declared, Device, Holds, Leave, Refused};
pub use fault::{Broken, Fault};
pub use inject::{Failed, fail_each};
pub use kit::Kit;
pub use models::{gpu, gru, kvm, pfn_caches, regcache, xpmem};
pub use page_faulters::{odp, sva};
pub use reference::{Checks, Reference};
pub use suite::{Disturbances, Failure, Profile, Suite};
pub use verdict::{Conformance, PropertyOutcome, Seen, Side, TrialStep, Verdict};

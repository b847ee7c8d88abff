//! The userfaultfds of a script's processes: the execution of operations on them, and of accesses
//! that wait for them.
//!
//! The handler is the script: an access that waits is answered as the script says, and repeated.

use super::{
    came::{done, failed, touched},
    hex::Hex,
    observe::looked_at,
    op::Op,
    script::Outcome,
    uffd_op::{Answer, Answered, Resolve, Results, ScanOf},
};
use crate::{
    addr::{PAGE_SIZE, VpnRange},
    ctx::CallCx,
    error::{Errno, FaultError, UserfaultError},
    mm::{
        FillMode, Mm, MoveMode, PageCategories, ProtectMode, RegisterMode, ScanArgs, ScanFlags,
        UffdFeatures, UffdMessage, Userfault,
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// A userfaultfd and the processes that have it open: a fork inherits it.
struct Open {
    uffd: Userfault,
    holders: BTreeSet<u32>,
}

/// All userfaultfds of a script.
#[derive(Default)]
pub(super) struct Userfaults {
    /// By the process that made it; the recorder holds it as well.
    open: BTreeMap<u32, Open>,
    /// Closed by the process that made it and by the recorder, but not by its children.
    inherited: Vec<Open>,
}

type Done = (Outcome, Results);

fn only(outcome: Outcome) -> Done {
    (outcome, Results::default())
}

/// The kind of the message of a fault.
const PAGE_FAULT: u8 = 0x12;

impl Userfaults {
    /// Notes that a child has every userfaultfd that its parent has.
    pub(super) fn forked(&mut self, parent: u32, child: u32) {
        let all = self.open.values_mut().chain(&mut self.inherited);
        for open in all.filter(|open| open.holders.contains(&parent)) {
            open.holders.insert(child);
        }
    }
    /// Notes that a process has ended: what only it had open is closed.
    pub(super) fn exited(&mut self, cx: &mut CallCx<'_>, process: u32) {
        for open in self.open.values_mut().chain(&mut self.inherited) {
            open.holders.remove(&process);
        }
        let all = std::mem::take(&mut self.inherited);
        let (last, kept) = all.into_iter().partition(|open| open.holders.is_empty());
        self.inherited = kept;
        let last: Vec<Open> = last;
        last.into_iter().for_each(|open| open.uffd.close(cx));
    }
    /// Executes an operation of process `actor`, whose memory is `mm`.
    pub(super) fn act(&mut self, cx: &mut CallCx<'_>, (actor, mm): (u32, &Mm), op: &Op) -> Done {
        match op {
            Op::Uffd(open) => {
                let uffd = mm.userfaultfd();
                let features = UffdFeatures::from_bits_retain(open.features.unwrap_or(0));
                let agreed = uffd.api(Userfault::VERSION, features);
                let holders = BTreeSet::from([actor]);
                self.open.insert(actor, Open { uffd, holders });
                only(done(agreed.map(drop)))
            }
            Op::UffdClose {} => {
                let Some(mut open) = self.open.remove(&actor) else {
                    return only(failed(Errno::EBADF));
                };
                open.holders.remove(&actor);
                match open.holders.is_empty() {
                    true => open.uffd.close(cx),
                    false => self.inherited.push(open),
                }
                only(Outcome::Ret(0))
            }
            Op::FaultLoad(fault) => {
                let of = (fault.of.unwrap_or(actor), &*fault.resolve);
                self.wait(cx, of, |cx| mm.load(cx, fault.addr))
            }
            Op::FaultStore(fault) => {
                let of = (fault.of.unwrap_or(actor), &*fault.resolve);
                self.wait(cx, of, |cx| {
                    mm.store(cx, fault.addr, fault.byte).map(|()| 0)
                })
            }
            other => match Answer::of(other) {
                Some(answer) => self.answer(cx, actor, &answer),
                None => unreachable!("{other:?} is not of a userfaultfd"),
            },
        }
    }
    /// Repeats an access until it does not wait, and answers each message as the script says.
    fn wait(
        &self,
        cx: &mut CallCx<'_>,
        (of, resolve): (u32, &[Resolve]),
        mut access: impl FnMut(&mut CallCx<'_>) -> Result<u8, FaultError>,
    ) -> Done {
        let mut events = Vec::new();
        let mut answers = resolve.iter();
        let outcome = loop {
            let result = access(cx);
            let waits = matches!(result, Err(FaultError::Userfault(_)));
            let message = self.open.get(&of).filter(|_| waits);
            let message = message.and_then(|open| open.uffd.read());
            let (Some(UffdMessage::PageFault(fault)), Some(Resolve(call))) =
                (message, answers.next())
            else {
                break touched(result);
            };
            let (answer, results) = self.answer(cx, of, call);
            let answered = Answered::of(answer, &results);
            events.push((PAGE_FAULT, fault.flags.bits(), Hex(fault.addr), answered));
        };
        let results = Results {
            events: Some(events),
            ..Results::default()
        };
        (outcome, results)
    }
    /// Executes a call on the userfaultfd that process `owner` made.
    fn answer(&self, cx: &mut CallCx<'_>, owner: u32, call: &Answer) -> Done {
        let Some(Open { uffd, .. }) = self.open.get(&owner) else {
            return only(failed(Errno::EBADF));
        };
        match call {
            Answer::UffdRegister(r) => {
                let mode = RegisterMode::from_bits_retain(r.mode);
                only(done(uffd.register(cx, r.addr, r.len, mode)))
            }
            Answer::UffdUnregister(r) => only(done(uffd.unregister(cx, r.addr, r.len))),
            Answer::UffdWake(r) => only(done(uffd.wake(r.addr, r.len))),
            Answer::UffdWriteprotect(r) => {
                let mode = ProtectMode::from_bits_retain(r.mode);
                only(done(uffd.write_protect(cx, r.addr, r.len, mode)))
            }
            call => fill(cx, uffd, call),
        }
    }
}

/// Executes a call that fills or moves pages.
fn fill(cx: &mut CallCx<'_>, uffd: &Userfault, call: &Answer) -> Done {
    let mode = |mode: &Option<u64>| FillMode::from_bits_retain(mode.unwrap_or(0));
    match call {
        Answer::UffdPoison(f) => {
            let poisoned = uffd.poison(cx, f.addr, f.len, mode(&f.mode));
            only(filled(poisoned, f.len).0)
        }
        Answer::UffdCopy(f) => {
            let bytes = vec![f.byte; usize::try_from(f.len).expect("refused by the parser")];
            let (outcome, copied) = filled(uffd.copy(cx, f.addr, &bytes, mode(&f.mode)), f.len);
            let copied = Some(copied);
            (
                outcome,
                Results {
                    copied,
                    ..Results::default()
                },
            )
        }
        Answer::UffdZeropage(f) | Answer::UffdContinue(f) => {
            let mode = mode(&f.mode);
            let result = match call {
                Answer::UffdZeropage(_) => uffd.zeropage(cx, f.addr, f.len, mode),
                _ => uffd.map_present(cx, f.addr, f.len, mode),
            };
            let (outcome, done) = filled(result, f.len);
            let done = Some(done);
            (
                outcome,
                Results {
                    done,
                    ..Results::default()
                },
            )
        }
        Answer::UffdMove(m) => {
            let mode = MoveMode::from_bits_retain(m.mode.unwrap_or(0));
            let (outcome, moved) = filled(uffd.move_pages(cx, m.addr, (m.src, m.len), mode), m.len);
            let moved = Some(moved);
            (
                outcome,
                Results {
                    moved,
                    ..Results::default()
                },
            )
        }
        other => unreachable!("{other:?} fills no page"),
    }
}

/// Returns outcome and count of a call that fills pages: a call that did not fill all fails, and
/// one that failed because of its arguments leaves the count alone.
fn filled(result: Result<u64, UserfaultError>, len: u64) -> (Outcome, i64) {
    use UserfaultError as E;
    match result {
        Ok(bytes) => {
            let outcome = match bytes == len {
                true => Outcome::Ret(0),
                false => failed(Errno::EAGAIN),
            };
            (outcome, i64::try_from(bytes).unwrap_or(i64::MAX))
        }
        Err(why @ (E::Handshake | E::Range(_) | E::Ended)) => (failed(why.errno()), 0),
        Err(why) => (failed(why.errno()), -i64::from(why.errno().raw())),
    }
}

impl Answer {
    /// Returns the operation as a call on a userfaultfd, if it is one.
    pub(crate) fn of(op: &Op) -> Option<Self> {
        Some(match op {
            Op::UffdRegister(r) => Self::UffdRegister(r.clone()),
            Op::UffdUnregister(r) => Self::UffdUnregister(r.clone()),
            Op::UffdWake(r) => Self::UffdWake(r.clone()),
            Op::UffdCopy(f) => Self::UffdCopy(f.clone()),
            Op::UffdZeropage(f) => Self::UffdZeropage(f.clone()),
            Op::UffdContinue(f) => Self::UffdContinue(f.clone()),
            Op::UffdPoison(f) => Self::UffdPoison(f.clone()),
            Op::UffdWriteprotect(r) => Self::UffdWriteprotect(r.clone()),
            Op::UffdMove(m) => Self::UffdMove(m.clone()),
            _ => return None,
        })
    }
}

impl Answered {
    /// Returns outcome and results of a call on a userfaultfd as the result of an answer.
    pub(crate) fn of(outcome: Outcome, results: &Results) -> Self {
        let (ret, err) = match outcome {
            Outcome::Ret(ret) => (Some(ret), None),
            Outcome::Err(errno) => (None, Some(errno)),
            Outcome::Signal(signal) => (None, Some(signal.to_string())),
        };
        Self {
            ret,
            err,
            copied: results.copied,
            done: results.done,
            moved: results.moved,
        }
    }
}

impl Op {
    /// Returns true if the operation is on a userfaultfd or the pagemap, or waits for an answer.
    pub(crate) fn has_results(&self) -> bool {
        Answer::of(self).is_some()
            || matches!(
                self,
                Self::Uffd(_)
                    | Self::UffdClose {}
                    | Self::FaultLoad(_)
                    | Self::FaultStore(_)
                    | Self::PagemapScan(_)
                    | Self::ClearRefs(_)
            )
    }
}

/// Executes a scan of `mm`.
pub(super) fn scan(cx: &mut CallCx<'_>, mm: &Mm, of: &ScanOf) -> Done {
    let categories = PageCategories::from_bits_retain;
    let args = ScanArgs {
        start: of.start,
        end: of.end,
        flags: ScanFlags::from_bits_retain(of.flags),
        regions: ScanOf::REGIONS,
        pages: 0,
        inverted: categories(of.inverted.unwrap_or(0)),
        mask: categories(of.mask),
        any_of: categories(of.anyof.unwrap_or(0)),
        reported: categories(of.reported()),
    };
    match mm.pagemap_scan(cx, &args) {
        Ok(scan) => {
            let regions = scan.regions.iter();
            let regions: Vec<_> = regions
                .map(|r| (Hex(r.start), Hex(r.end), r.categories.bits()))
                .collect();
            let outcome = Outcome::Ret(regions.len() as u64);
            let regions = Some(regions);
            (
                outcome,
                Results {
                    regions,
                    ..Results::default()
                },
            )
        }
        Err(why) => only(failed(why.errno())),
    }
}

/// Executes a write to `clear_refs` of `mm`.
pub(super) fn clear_refs(cx: &mut CallCx<'_>, mm: &Mm, value: i64) -> Done {
    let cleared = mm.clear_refs(cx, value);
    only(done(cleared))
}

/// Returns the addresses of the pages of the arena that userfaultfd write-protects.
pub(super) fn protected(cx: &mut CallCx<'_>, mm: &Arc<Mm>, arena: VpnRange) -> Vec<u64> {
    let looked_at = looked_at(cx, mm, arena);
    let pages = looked_at.map(|part| mm.protected_pages(cx, part));
    let pages = pages.unwrap_or_default();
    pages.into_iter().map(|page| page.0 * PAGE_SIZE).collect()
}

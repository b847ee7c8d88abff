//! The number of pages that a step may bring in, guard or lock, known before the step: one line can
//! ask for 64 TiB.

use super::{
    limits::beyond,
    op::Op,
    uffd_op::{Answer, Resolve},
};
use crate::{
    addr::PAGE_SIZE,
    ctx::CallCx,
    mm::{Advice, MapFlags, MlockFlags, MlockallFlags, Mm},
};

/// The most bytes that one call advises (`MAX_RW_COUNT`).
const MOST_BYTES: u64 = 0x7fff_f000;

/// The pages for which a step may do work one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// None.
    Little,
    /// All pages of a new mapping of so many bytes.
    New(u64),
    /// In the mappings between these addresses.
    Mapped(u64, u64),
}

impl Work {
    pub(super) fn of_op(op: &Op) -> Self {
        match *op {
            Op::Mmap { len, flags, .. } => Self::mapping(len, flags),
            Op::Mlock { addr, len } | Op::Pin { addr, len } => Self::range(addr, len),
            Op::Mlock2 { addr, len, flags } => {
                Self::locked(MlockFlags::from_bits_retain(flags), addr, len)
            }
            Op::Mlockall { flags } => Self::all_locked(MlockallFlags::from_bits_retain(flags)),
            Op::ToDevice(ref r) | Op::FromDevice(ref r) => Self::range(r.addr, r.len),
            Op::FaultLoad(ref f) => Self::answers(f.of, &f.resolve),
            Op::FaultStore(ref f) => Self::answers(f.of, &f.resolve),
            Op::PagemapScan(ref s) => Self::range(s.start, s.end.saturating_sub(s.start)),
            Op::Madvise { addr, len, advice } => Self::advised(addr, len, Some(advice)),
            Op::Fallocate { len, .. } | Op::DirectWrite { len, .. } => Self::New(len),
            Op::DirectRead { addr, len, .. } | Op::DirectWriteFrom { addr, len, .. } => {
                Self::range(addr, len)
            }
            Op::SelfProcessMadvise { ref iov, advice }
            | Op::ProcessMadvise {
                ref iov, advice, ..
            } => match Self::advised(0, 0, Some(advice)) {
                Self::Little => Self::Little,
                _ => {
                    let all = iov.iter().map(|range| range.1);
                    Self::New(all.fold(0, u64::saturating_add).min(MOST_BYTES))
                }
            },
            _ => Answer::of(op).map_or(Self::Little, |answer| {
                let (addr, len) = filled(&answer);
                Self::range(addr, len)
            }),
        }
    }
    /// The answers of a handler, on the process that waits or on another one.
    fn answers(of: Option<u32>, answers: &[Resolve]) -> Self {
        let filled = answers.iter().map(|answer| filled(&answer.0));
        if of.is_some() {
            return Self::New(filled.map(|(_, len)| len).fold(0, u64::saturating_add));
        }
        let ends = filled.map(|(addr, len)| (addr, addr.saturating_add(len)));
        let both = ends.reduce(|(a, b), (c, d)| (a.min(c), b.max(d)));
        both.map_or(Self::Little, |(start, end)| Self::Mapped(start, end))
    }
    pub(super) fn mapping(len: u64, flags: MapFlags) -> Self {
        match flags.intersects(MapFlags::POPULATE | MapFlags::LOCKED) {
            true => Self::New(len),
            false => Self::Little,
        }
    }
    pub(super) fn locked(flags: MlockFlags, addr: u64, len: u64) -> Self {
        match flags.contains(MlockFlags::ONFAULT) {
            true => Self::Little,
            false => Self::range(addr, len),
        }
    }
    pub(super) fn all_locked(flags: MlockallFlags) -> Self {
        let now = flags.contains(MlockallFlags::CURRENT);
        match now && !flags.contains(MlockallFlags::ONFAULT) {
            true => Self::Mapped(0, u64::MAX),
            false => Self::Little,
        }
    }
    pub(super) fn range(addr: u64, len: u64) -> Self {
        Self::Mapped(addr, addr.saturating_add(len))
    }
    pub(super) fn advised(addr: u64, len: u64, advice: Option<Advice>) -> Self {
        match advice {
            Some(Advice::PopulateRead | Advice::PopulateWrite | Advice::GuardInstall) => {
                Self::range(addr, len)
            }
            _ => Self::Little,
        }
    }
    /// Returns the text of the limit if the work is more than `most` pages.
    pub(super) fn is_too_much(self, cx: &mut CallCx<'_>, mm: &Mm, most: u64) -> Option<String> {
        let bytes = match self {
            Self::Little => return None,
            Self::New(len) => len,
            Self::Mapped(start, end) => {
                let lines = mm.maps(cx);
                let part = |from: u64, to: u64| to.min(end).saturating_sub(from.max(start));
                lines.iter().map(|l| part(l.start, l.end)).sum()
            }
        };
        (bytes.div_ceil(PAGE_SIZE) > most).then(|| beyond(most, "pages in one step"))
    }
}

/// Address and length of the pages that an answer fills, moves or protects, one by one.
fn filled(answer: &Answer) -> (u64, u64) {
    match answer {
        Answer::UffdRegister(_) | Answer::UffdUnregister(_) | Answer::UffdWake(_) => (0, 0),
        Answer::UffdWriteprotect(r) => (r.addr, r.len),
        Answer::UffdCopy(c) => (c.addr, c.len),
        Answer::UffdZeropage(f) | Answer::UffdContinue(f) | Answer::UffdPoison(f) => {
            (f.addr, f.len)
        }
        Answer::UffdMove(m) => (m.addr, m.len),
    }
}

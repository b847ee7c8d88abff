//! Segments: exported memory, and its names.

use crate::{
    addr::VpnRange,
    notifier::Access,
    sync::{AtomicBool, Ordering},
};
use std::fmt;

/// The name of a segment of some owner.
///
/// A process that knows the name may attach the segment. A name cannot be guessed, since the host
/// draws half of it at random (with the `remote` feature; without it no name leaves the process).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SegId {
    /// Ascending in the order in which segments are made.
    serial: u64,
    secret: u64,
}

impl SegId {
    pub(super) fn fresh() -> Self {
        Self {
            serial: super::serial::fresh(),
            secret: secret(),
        }
    }
    /// Returns the name as a number, for another process that may attach the segment.
    pub fn number(self) -> u128 {
        u128::from(self.serial) << 64 | u128::from(self.secret)
    }
    /// Returns the name for a number. The segment need not exist: attaching it shows.
    #[allow(clippy::cast_possible_truncation, reason = "each half by itself")]
    pub fn from_number(number: u128) -> Self {
        Self {
            serial: (number >> 64) as u64,
            secret: number as u64,
        }
    }
}

#[cfg(all(feature = "remote", target_os = "linux"))]
fn secret() -> u64 {
    let mut bytes = [0; 8];
    let drawn = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    // So few bytes come whole, and at once, as soon as the host has booted.
    assert_eq!(drawn, Ok(bytes.len()), "the host draws numbers");
    u64::from_ne_bytes(bytes)
}
#[cfg(not(all(feature = "remote", target_os = "linux")))]
fn secret() -> u64 {
    0
}

/// Without the secret: output is read by others than the partition.
impl fmt::Debug for SegId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SegId({})", self.serial)
    }
}

/// An exported range.
#[derive(Debug)]
pub(super) struct Segment {
    /// Cleared when the segment is taken back, or the owner ends.
    is_there: AtomicBool,
    pub(super) range: VpnRange,
    pub(super) access: Access,
    /// The attachment that it was made of, if it was made of one.
    pub(super) parent: Option<Parent>,
}

/// The segment and the attachment of which a segment was made. It ends with either of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parent {
    /// The segment that is attached there.
    pub(super) segment: SegId,
    pub(super) attachment: u64,
}

impl Segment {
    pub(super) fn new(range: VpnRange, access: Access, parent: Option<Parent>) -> Self {
        Self {
            is_there: AtomicBool::new(true),
            range,
            access,
            parent,
        }
    }
    pub(super) fn is_there(&self) -> bool {
        self.is_there.load(Ordering::Acquire)
    }
    pub(super) fn end(&self) {
        self.is_there.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::SegId;

    #[test]
    fn a_name_is_its_number_and_is_not_printed() {
        let (a, b) = (SegId::fresh(), SegId::fresh());
        assert!(a < b && SegId::from_number(a.number()) == a);
        let printed = format!("{a:?}");
        assert_eq!(printed, format!("SegId({})", a.number() >> 64));
        let next = SegId::from_number(a.number() + (1 << 64));
        let guessed = cfg!(all(feature = "remote", target_os = "linux"));
        assert_ne!(
            next.secret == b.secret,
            guessed,
            "{next:?} is no name of {b:?}"
        );
    }
}

//! Exported memory, and its names.

use crate::{
    addr::VpnRange,
    notifier::Access,
    sync::{AtomicBool, Ordering},
};
use std::fmt;

/// Names a segment of some owner. Whoever knows the name may attach the segment: it cannot be guessed, since half of it is
/// drawn by the host (with the `remote` feature; without it no name leaves the process).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "remote", derive(serde::Serialize, serde::Deserialize))]
pub struct SegId {
    /// In the order in which segments are made.
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
    /// The number, to tell it to another process that may attach the segment.
    pub fn number(self) -> u128 {
        u128::from(self.serial) << 64 | u128::from(self.secret)
    }
    /// The segment of that number; whether there is one shows when it is attached.
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
    // So few bytes come whole, and at once, from the time on when the host is up.
    assert_eq!(drawn, Ok(bytes.len()), "the host draws numbers");
    u64::from_ne_bytes(bytes)
}
#[cfg(not(all(feature = "remote", target_os = "linux")))]
fn secret() -> u64 {
    0
}

/// The secret is not told: what is printed is read by others than the partition.
impl fmt::Debug for SegId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SegId({})", self.serial)
    }
}

/// Exported memory.
#[derive(Debug)]
pub(super) struct Segment {
    /// Until it is taken back, or the owner ends.
    is_there: AtomicBool,
    pub(super) range: VpnRange,
    pub(super) access: Access,
    /// The attachment that it was made of, if its memory is somebody else's.
    pub(super) parent: Option<u64>,
}

impl Segment {
    pub(super) fn new(range: VpnRange, access: Access, parent: Option<u64>) -> Self {
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

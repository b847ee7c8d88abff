//! [`Fault`]: the kinds of operations that a suite can make fail, and the ways to fail.

use std::fmt::{self, Display};

/// A kind of operation that a suite can make fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// An allocation of the machine: a frame, a table page, a VMA, a node of a reverse map, an
    /// object.
    Allocation,
    /// A window that must not block: a driver refuses it after the devices have agreed. Reclaim
    /// opens such windows first.
    WouldBlock,
    /// An acknowledgement of a device, in one of these ways
    /// ([`Device::break_acknowledgement`](super::Device)).
    Acknowledgement(Broken),
}

/// A way in which an acknowledgement goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// The party that owes the acknowledgement dies of the request.
    Dies,
    /// The acknowledgement never comes.
    Hangs,
    /// The acknowledgement comes twice.
    Twice,
}

impl Fault {
    /// Every fault.
    pub const ALL: &'static [Self] = &[
        Self::Allocation,
        Self::WouldBlock,
        Self::Acknowledgement(Broken::Dies),
        Self::Acknowledgement(Broken::Hangs),
        Self::Acknowledgement(Broken::Twice),
    ];
}

impl Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Allocation => "an allocation",
            Self::WouldBlock => "a window that must not block",
            Self::Acknowledgement(Broken::Dies) => "an acknowledgement (the other side dies)",
            Self::Acknowledgement(Broken::Hangs) => "an acknowledgement (it never comes)",
            Self::Acknowledgement(Broken::Twice) => "an acknowledgement (it comes twice)",
        })
    }
}

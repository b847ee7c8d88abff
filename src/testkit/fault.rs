//! Faults that a suite injects: what fails, and in which way.

use std::fmt::{self, Display};

/// What can be made to fail in a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// An allocation of the machine: a frame, a table page, a VMA, a node of a reverse map, an object.
    Allocation,
    /// A window that must not block: somebody refuses it after the devices have agreed. Reclaim opens such windows first.
    WouldBlock,
    /// An acknowledgement of a device, in one of these ways ([`Device::break_acknowledgement`](super::Device)).
    Acknowledgement(Broken),
}

/// How an acknowledgement goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// Who would have to give it dies of the question.
    Dies,
    /// It never comes.
    Hangs,
    /// It comes twice.
    Twice,
}

impl Fault {
    /// Every kind.
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
            Self::WouldBlock => "a window that must not block, refused",
            Self::Acknowledgement(Broken::Dies) => "an acknowledgement, by a death",
            Self::Acknowledgement(Broken::Hangs) => "an acknowledgement, which never comes",
            Self::Acknowledgement(Broken::Twice) => "an acknowledgement, which comes twice",
        })
    }
}

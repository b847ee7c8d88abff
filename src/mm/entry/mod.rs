//! What entries, flags and arguments say: the vocabulary of all other rooms.

pub(in crate::mm) mod flags;
pub(in crate::mm) mod not_present;
pub(in crate::mm) mod pte;
pub(in crate::mm) mod release;

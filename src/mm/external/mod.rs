//! What drivers of external MMUs ask of an address space: registration, translations, ages, exports.

pub(in crate::mm) mod aging;
pub(in crate::mm) mod export;
pub(in crate::mm) mod register;
pub(in crate::mm) mod resolve;
pub(in crate::mm) mod walker;

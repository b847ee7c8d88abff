//! Pages of 2 MiB of private memory: whose they are, and how they are split for good.

pub(in crate::mm) mod object;
pub(in crate::mm) mod split_folio;

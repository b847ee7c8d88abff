//! Requests of drivers: registration, translations, accessed state, exports of frames.
//!
//! A driver calls most of these with its own locks released, since they may take the mmap lock and
//! fault. [`Mm::try_resolve`](crate::Mm::try_resolve) and [`Walker`](crate::mm::Walker) take no
//! lock, so a driver may use them in any context. The other direction, the calls from an address
//! space to its drivers, is [`crate::notifier`].
//!
//! | question | file |
//! | --- | --- |
//! | how is a driver registered, and how does it leave? | `register` |
//! | how does a driver get the frame of a page? | `resolve` |
//! | how does a driver get the frames of many pages? | `resolve_range` |
//! | how does a device walk the table itself? | `secondary` |
//! | how does a driver keep a frame by its number? | `export` |
//! | was a page used? | `aging` |
//! | what does the page table hold at this moment? | `walker` |
//! | which windows are open? | `open_windows` |

pub(in crate::mm) mod aging;
pub(in crate::mm) mod export;
mod open_windows;
pub(in crate::mm) mod register;
pub(in crate::mm) mod resolve;
mod resolve_range;
mod secondary;
pub(in crate::mm) mod walker;

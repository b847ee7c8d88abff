//! The IOTLB of a vhost back-end, filled and invalidated by messages over Unix sockets (feature
//! `vm-memory`, Unix).
//!
//! The *front-end* has the address space; it is an external MMU of it. The *back-end* has the
//! devices, and an IOTLB of its own ([`vm_memory::Iommu`](vm_memory::iommu::Iommu)). It lives in
//! the same process, or (feature `host-mapping`, Linux) in another one that maps the machine's
//! frames.
//!
//! Messages are those of vhost-user, `VHOST_USER_IOTLB_MSG` and `VHOST_USER_BACKEND_IOTLB_MSG` with
//! `VHOST_USER_PROTOCOL_F_REPLY_ACK`: a header of 12 bytes, `struct vhost_iotlb_msg`; the answer is
//! a header and eight bytes, 0 or a number of Linux's errors. Each side has a socket of its own to
//! ask on. Several pages, or regions, are one batch (`VHOST_IOTLB_BATCH_BEGIN` and `_END`), which
//! takes effect and is answered at its end.
//!
//! ```text
//! device        back-end                        front-end             address space
//! access ------> miss  ---- MISS ------------->  look-up -----------> fault
//!                                                admitted: the gate is locked
//!                fills <--- UPDATE ------------  |
//!                      ---- 0 ---------------->  |
//!                                                the gate is unlocked
//! goes on <----        <--- 0 -----------------
//!                                                callback <---------- window
//!                drops <--- INVALIDATE --------  | the gate is locked
//!                      ---- 0 ---------------->  | the window opens
//! ```
//!
//! Guarantee: when a window opens, the back-end has no entry of its range, and no iterator of
//! `get_slices` over it lives. How: an update is sent with the gate locked under which its
//! translation is valid, and an invalidation under the same gate, so that they arrive in order; the
//! window waits for the answer, and the back-end for its iterators. In one process, the front-end
//! looks itself that it is so, and the back-end reaches nothing that was not shown to it: neither
//! depends on the messages. A slice that outlives its iterator is seen by nothing, as in
//! `vm_memory` itself.
//!
//! A back-end that closes its end has no entry any more. One that does not answer keeps windows
//! waiting, as on Linux.
//!
//! | file | holds |
//! | --- | --- |
//! | `message` | messages as bytes |
//! | `channel` | streams of messages: headers, answers, batches |
//! | `front_end` | the driver on an address space: look-ups, windows |
//! | `back_end` | the IOTLB on the side of the devices: misses, updates |
//! | `frame_memory` | the memory behind the IOTLB, by frames that it maps |

mod back_end;
mod channel;
mod frame_memory;
mod front_end;
mod message;

pub use back_end::{BackEnd, IotlbGuard};
pub use frame_memory::{FrameMemory, FrameRegion};
pub use front_end::FrontEnd;
pub use message::{BadMessage, IotlbMessage, MessageKind};

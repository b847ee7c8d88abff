//! Scenarios written by hand: each kind of thing that the host can do to a guest's memory, at least
//! once.

use super::steps::{Rights, Step, What};
use Step::*;

const fn map(page: u64, n: u64, what: What) -> Step {
    Map {
        page,
        n,
        what,
        rights: Rights::Write,
    }
}
const fn store(page: u64, byte: u8) -> Step {
    Store { page, byte }
}
const fn guest(page: u64, byte: u8) -> Step {
    GuestStore { page, byte }
}
const fn protect(page: u64, rights: Rights) -> Step {
    Protect { page, n: 1, rights }
}
const fn shift(from: u64, to: u64) -> Step {
    Move { from, n: 1, to }
}

/// Stores of both sides, mappings over mappings, pages dropped, moved away, moved in, gone.
pub const MEMORY: &[Step] = &[
    store(1, 0xa1),
    guest(1, 0xa2),
    guest(2, 0xa3),
    store(2, 0xa4),
    map(1, 1, What::Anon),
    store(1, 0xa5),
    DontNeed { page: 1, n: 2 },
    guest(2, 0xa6),
    map(20, 2, What::Anon),
    store(20, 0xa7),
    shift(20, 1),
    shift(2, 21),
    guest(2, 0xa8),
    shift(21, 2),
    Unmap { page: 1, n: 1 },
    guest(1, 0xa9),
    map(1, 1, What::SharedAnon),
    guest(1, 0xaa),
    Unmap { page: 0, n: 12 },
    map(0, 12, What::Anon),
];

/// A child keeps what was; who writes first gets the copy, processor or guest.
pub const FORKS: &[Step] = &[
    store(1, 0xb1),
    guest(2, 0xb2),
    guest(3, 0xb3),
    Fork,
    store(1, 0xb4),
    guest(2, 0xb5),
    DontNeed { page: 3, n: 1 },
    guest(4, 0xb6),
    Leave,
    store(3, 0xb7),
    guest(1, 0xb8),
    map(5, 2, What::SharedAnon),
    guest(5, 0xb9),
    Fork,
    guest(5, 0xba),
    store(6, 0xbb),
    Fork,
    shift(1, 2),
    guest(2, 0xbc),
    Leave,
];

/// A file behind the guest: written through, cut off, extended, punched; private copies stay.
pub const FILES: &[Step] = &[
    map(1, 4, What::Shared(0)),
    map(6, 4, What::Private(0)),
    Pwrite {
        page: 0,
        byte: 0xc1,
    },
    guest(1, 0xc2),
    guest(6, 0xc3),
    Pwrite {
        page: 0,
        byte: 0xc4,
    },
    store(2, 0xc5),
    Punch { page: 1, n: 2 },
    guest(3, 0xc6),
    Truncate { pages: 1 },
    guest(4, 0xc7),
    guest(6, 0xc8),
    Truncate { pages: 8 },
    guest(4, 0xc9),
    store(7, 0xca),
    Pwrite {
        page: 1,
        byte: 0xcb,
    },
    DontNeed { page: 6, n: 4 },
    Fork,
    guest(6, 0xcc),
    Pwrite {
        page: 0,
        byte: 0xcd,
    },
    Truncate { pages: 0 },
    Leave,
    Truncate { pages: 4 },
];

/// Rights taken and given.
pub const RIGHTS: &[Step] = &[
    store(1, 0xd1),
    protect(1, Rights::Read),
    guest(1, 0xd2),
    store(1, 0xd3),
    protect(1, Rights::None),
    guest(1, 0xd4),
    protect(1, Rights::Write),
    guest(1, 0xd5),
    Fork,
    protect(1, Rights::Read),
    protect(1, Rights::Write),
    guest(1, 0xd6),
    Leave,
    map(2, 1, What::Shared(3)),
    protect(2, Rights::Read),
    guest(2, 0xd7),
    Pwrite {
        page: 3,
        byte: 0xd8,
    },
];

/// Each thing that the host does to the page of the clock, and a tick after it.
pub const CLOCK: &[Step] = &[
    Tick,
    map(0, 1, What::Shared(0)),
    Tick,
    Tick,
    map(0, 1, What::Shared(1)),
    Tick,
    map(20, 1, What::Shared(2)),
    shift(20, 0),
    Tick,
    Punch { page: 2, n: 1 },
    Tick,
    map(0, 1, What::Anon),
    Tick,
    Fork,
    Tick,
    Leave,
    DontNeed { page: 0, n: 1 },
    Tick,
    protect(0, Rights::Read),
    Tick,
    protect(0, Rights::Write),
    Tick,
    map(0, 1, What::Private(3)),
    Tick,
    map(0, 1, What::Shared(4)),
    Tick,
    Truncate { pages: 2 },
    Tick,
    Truncate { pages: 8 },
    Tick,
    Unmap { page: 0, n: 1 },
    Tick,
];

/// Where the ticks of [`CLOCK`] are seen: by the guest, in which page of the file, by the child.
pub const LANDED: &[(bool, Option<usize>, bool)] = &[
    (true, None, false),
    (true, Some(0), false),
    (true, Some(0), false),
    (true, Some(1), false),
    (true, Some(2), false),
    (true, Some(2), false),
    (true, None, false),
    (true, None, false),
    (true, None, false),
    (false, None, false),
    (true, None, false),
    (true, None, false),
    (true, Some(4), false),
    (false, None, false),
    (true, Some(4), false),
    (false, None, false),
];

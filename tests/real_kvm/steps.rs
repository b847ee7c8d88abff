//! What happens to the memory of a guest, as data, and what can be seen afterwards.

use proptest::prelude::*;
use std::fmt;

pub const PAGE: u64 = 4096;
/// Pages of the guest that the host works on: guest page `p` is page `p` of the arena.
pub const PAGES: u64 = 12;
/// Pages of the arena; those above the guest's are room to move to.
pub const ARENA: u64 = 24;
/// Pages of the file at the start.
pub const FILE_PAGES: u64 = 8;
/// Guest-physical address of the first of the pages.
pub const GPA: u64 = 0x10_0000;
/// The byte of a page that is written and read. The clock is at the start of page 0.
pub const OFFSET: u64 = 64;
/// Where the clock's time is in its page (`pvclock_vcpu_time_info.system_time`).
pub const TIME: u64 = 16;

/// What is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Anon,
    SharedAnon,
    /// The file from that page on.
    Private(u64),
    Shared(u64),
}

/// Rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rights {
    None,
    Read,
    Write,
}

/// Something that the host or its guest does. Pages are those of the arena, or of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Map {
        page: u64,
        n: u64,
        what: What,
        rights: Rights,
    },
    Unmap {
        page: u64,
        n: u64,
    },
    Move {
        from: u64,
        n: u64,
        to: u64,
    },
    DontNeed {
        page: u64,
        n: u64,
    },
    Protect {
        page: u64,
        n: u64,
        rights: Rights,
    },
    /// The host's processor writes.
    Store {
        page: u64,
        byte: u8,
    },
    /// The guest writes.
    GuestStore {
        page: u64,
        byte: u8,
    },
    Punch {
        page: u64,
        n: u64,
    },
    Truncate {
        pages: u64,
    },
    /// The file is written.
    Pwrite {
        page: u64,
        byte: u8,
    },
    /// A child from now on; the one before exits.
    Fork,
    /// The child exits.
    Leave,
    /// The clock in page 0 of the guest is advanced.
    Tick,
}

/// Where the last tick is to be seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fresh {
    pub guest: bool,
    pub file: Vec<bool>,
    pub child: Option<bool>,
}

/// What a step came to. Bytes are none where reading is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub outcome: Result<(), i32>,
    pub guest: Vec<Option<u8>>,
    pub child: Option<Vec<Option<u8>>>,
    pub file: Vec<Option<u8>>,
    pub fresh: Option<Fresh>,
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = |of: &[Option<u8>]| {
            let word = |b: &Option<u8>| b.map_or("--".to_owned(), |b| format!("{b:02x}"));
            of.iter().map(word).collect::<Vec<_>>().join(" ")
        };
        let child = self.child.as_deref().map_or("none".to_owned(), bytes);
        let (guest, file) = (bytes(&self.guest), bytes(&self.file));
        write!(
            f,
            "{:?}; guest {guest}; child {child}; file {file}",
            self.outcome
        )?;
        match &self.fresh {
            Some(fresh) => write!(f, "; {fresh:?}"),
            None => Ok(()),
        }
    }
}

/// Something that executes steps.
pub trait Engine {
    /// Does it and looks around.
    fn step(&mut self, step: &Step) -> Seen;
}

fn rights() -> impl Strategy<Value = Rights> {
    prop_oneof![4 => Just(Rights::Write), 2 => Just(Rights::Read), 1 => Just(Rights::None)]
}

fn what() -> impl Strategy<Value = What> {
    prop_oneof![
        3 => Just(What::Anon),
        1 => Just(What::SharedAnon),
        2 => (0..FILE_PAGES).prop_map(What::Private),
        2 => (0..FILE_PAGES).prop_map(What::Shared),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let (page, n) = (0..PAGES, 1..4_u64);
    prop_oneof![
        3 => (page.clone(), n.clone(), what(), rights())
            .prop_map(|(page, n, what, rights)| Step::Map { page, n, what, rights }),
        1 => (page.clone(), n.clone()).prop_map(|(page, n)| Step::Unmap { page, n }),
        3 => (0..ARENA - 4, n.clone(), 0..ARENA - 4).prop_map(|(from, n, to)| Step::Move { from, n, to }),
        2 => (page.clone(), n.clone()).prop_map(|(page, n)| Step::DontNeed { page, n }),
        2 => (page.clone(), n.clone(), rights())
            .prop_map(|(page, n, rights)| Step::Protect { page, n, rights }),
        5 => (page.clone(), any::<u8>()).prop_map(|(page, byte)| Step::Store { page, byte }),
        5 => (page, any::<u8>()).prop_map(|(page, byte)| Step::GuestStore { page, byte }),
        1 => (0..FILE_PAGES, n).prop_map(|(page, n)| Step::Punch { page, n }),
        1 => (0..=FILE_PAGES).prop_map(|pages| Step::Truncate { pages }),
        2 => (0..FILE_PAGES, any::<u8>()).prop_map(|(page, byte)| Step::Pwrite { page, byte }),
        2 => Just(Step::Fork),
        1 => Just(Step::Leave),
        3 => Just(Step::Tick),
    ]
}

/// Up to `most` random steps.
pub fn scenario(most: usize) -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step(), 1..=most)
}

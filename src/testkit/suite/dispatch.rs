//! The dispatch from a [`Profile`] to its file: header, opening, looks, operations.

use super::{
    arena::{ARENA, AROUND, BASE, FEW, FILE_PAGES, PAGES, PROCESSES, RW, at},
    device,
    draw::Draw,
    files, holds, huge, mixed_profile, pages, pool,
    profile::Profile,
    shared, swap, tracked,
};
use crate::{
    addr::PAGE_SIZE,
    mm::{Advice, FolioPolicies, FolioPolicy, FolioSize, MapFlags},
    replay::{FileKind, FileSpec, Header, OURS, Op, OpenMode, PoolBefore},
};
use std::collections::BTreeMap;

/// Returns the header of scripts that come from draws.
pub(super) fn header(profile: Profile) -> Header {
    let file = |kind| FileSpec {
        size: FILE_PAGES * PAGE_SIZE,
        kind,
    };
    let mut files = BTreeMap::from([
        ("f0".to_owned(), file(FileKind::Memfd)),
        ("f1".to_owned(), file(FileKind::Disk)),
        ("f2".to_owned(), file(FileKind::Xip)),
    ]);
    let pages = match profile {
        Profile::Huge => huge::ARENA,
        Profile::Pool => pool::ARENA,
        _ => 4 * PAGES,
    };
    if profile == Profile::Pool {
        files.insert(pool::FILE.to_owned(), pool::file());
    }
    if profile == Profile::Shared {
        files.insert(shared::FILE.to_owned(), shared::file());
    }
    let end = BASE + pages * PAGE_SIZE;
    let mut header = Header::new("testkit", 0, OURS, BASE..end, files);
    for nth in 0..3 {
        let direct = (format!("f{nth}"), OpenMode::Direct);
        header.opens.insert(format!("d{nth}"), direct);
    }
    header.folios = folios(profile);
    match profile {
        Profile::Pool => header.with_pool(PoolBefore {
            pages: pool::POOL,
            promised: 0,
        }),
        _ => header,
    }
}

/// Returns the folios of a profile of private memory: small ones where few pages are mapped.
fn folios(profile: Profile) -> Option<FolioPolicies> {
    let sizes: &[FolioSize] = match profile {
        Profile::Swap | Profile::Holds => &[FolioSize::Kib16],
        Profile::Huge => &[FolioSize::Kib32, FolioSize::Kib512],
        _ => return None,
    };
    let none = FolioPolicies::default();
    let each = sizes.iter();
    Some(each.fold(none, |all, &size| all.with(size, FolioPolicy::Always)))
}

/// Returns the operations at the beginning of every script of a profile.
pub(super) fn opening(profile: Profile, file: u32) -> Vec<(u32, Op)> {
    let map = |page, n, flags: MapFlags, file| Op::Mmap {
        addr: at(page),
        len: n * PAGE_SIZE,
        prot: RW,
        flags: flags | MapFlags::FIXED,
        file,
        off: 0,
    };
    let name = || Some(format!("f{file}"));
    let ops = match profile {
        Profile::Mixed | Profile::Pages => Vec::new(),
        Profile::Huge => huge::opening(),
        Profile::Pool => pool::opening(),
        Profile::Tracked => tracked::opening(),
        Profile::Device => {
            device::opening(file, |page, n, file| map(page, n, MapFlags::PRIVATE, file))
        }
        Profile::Shared => shared::opening(|page, n, file| map(page, n, MapFlags::SHARED, file)),
        Profile::Swap => vec![map(0, FEW, MapFlags::PRIVATE, None)],
        Profile::Holds => vec![
            map(0, FEW / 2, MapFlags::PRIVATE, None),
            map(FEW / 2, FEW / 2, MapFlags::PRIVATE, name()),
        ],
        Profile::Files => vec![
            map(files::SHARED_AT, FILE_PAGES, MapFlags::SHARED, name()),
            map(files::SECOND_AT, FILE_PAGES, MapFlags::SHARED, name()),
            map(files::PRIVATE_AT, FILE_PAGES, MapFlags::PRIVATE, name()),
        ],
    };
    ops.into_iter().map(|op| (0, op)).collect()
}

/// Returns a load of every page of the profile by every living process.
pub(super) fn looks(profile: Profile, living: &[u32]) -> Vec<(u32, Op)> {
    let pages: Vec<u64> = match profile {
        Profile::Mixed => (0..2 * PAGES).collect(),
        Profile::Pages | Profile::Tracked => (0..ARENA + AROUND).collect(),
        Profile::Swap => (0..FEW).collect(),
        Profile::Holds | Profile::Device | Profile::Shared => (0..2 * FEW).collect(),
        Profile::Huge => huge::looked_at(),
        Profile::Pool => pool::looked_at(),
        Profile::Files => files::looked_at(),
    };
    let by = |who: &u32| {
        let who = *who;
        pages
            .iter()
            .map(move |page| (who, Op::Load { addr: at(*page) }))
    };
    living.iter().flat_map(by).collect()
}

impl Profile {
    /// Returns true if a look at every page follows this operation. None follows an operation that
    /// pages out: a look would bring every page back.
    pub(super) fn looks_after(self, op: Option<&Op>) -> bool {
        let out = matches!(
            op,
            Some(
                Op::Reclaim {}
                    | Op::Madvise {
                        advice: Advice::PageOut,
                        ..
                    }
            )
        );
        match self {
            Self::Mixed | Self::Huge | Self::Pool | Self::Holds | Self::Device | Self::Shared => {
                false
            }
            // A draw that gives no operation stands for a look.
            Self::Pages | Self::Tracked => op.is_none(),
            Self::Files | Self::Swap => !out,
        }
    }
    /// Returns true if a look at every page ends the script.
    pub(super) fn looks_at_the_end(self) -> bool {
        self != Self::Mixed
    }
    /// Returns the operation of a draw and its process; `None` if the operation is impossible now.
    pub(super) fn op(self, d: Draw, file: u32, living: &[u32], fresh: u32) -> Option<(u32, Op)> {
        let who = living[d.who as usize % living.len()];
        let room = living.len() < PROCESSES;
        let op = match self {
            Self::Mixed => return Some(mixed_profile::op(d, who, living, fresh)),
            Self::Pages => pages::op(d),
            Self::Files => files::op(d, file),
            Self::Swap => swap::op(d),
            Self::Huge => huge::op(d),
            Self::Pool => pool::op(d),
            Self::Tracked => tracked::op(d),
            Self::Holds => holds::op(d, file, living),
            Self::Device => device::op(d, file),
            Self::Shared => shared::op(d),
        };
        match op {
            Some(op) if tracked::is_of_the_first(&op) => Some((0, op)),
            Some(Op::Fork { .. }) => room.then_some((who, Op::Fork { child: fresh })),
            Some(Op::Exit {}) if who == 0 => None,
            op => Some((who, op?)),
        }
    }
}

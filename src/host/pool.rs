//! The pool of huge pages of this machine: a recording that uses huge pages has it alone, and
//! leaves it as it was.

use super::{
    alone::Alone,
    plan::{Plan, Unavailable},
};
use crate::{
    mm::{MapFlags, ShmGetFlags},
    replay::{FileKind, Op, PoolBefore, Shmget},
};
use std::{fs, io, time::Duration};

/// The folder with the counters of pages of 2 MiB.
const FOLDER: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB";

/// The counters of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counters {
    total: u64,
    free: u64,
    promised: u64,
    surplus: u64,
}

impl Counters {
    fn now() -> io::Result<Self> {
        Ok(Self {
            total: counter("nr_hugepages")?,
            free: counter("free_hugepages")?,
            promised: counter("resv_hugepages")?,
            surplus: counter("surplus_hugepages")?,
        })
    }
    /// Returns the counters once the memory of processes that have ended is free.
    fn settled() -> io::Result<Self> {
        for _ in 0..100 {
            let now = Self::now()?;
            if now.free == now.total {
                return Ok(now);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Self::now()
    }
}

fn counter(name: &str) -> io::Result<u64> {
    let text = fs::read_to_string(format!("{FOLDER}/{name}"))?;
    text.trim().parse().map_err(io::Error::other)
}

/// Sets the pages that the pool has for good: those beyond go as soon as nothing is promised.
fn set(pages: u64) -> io::Result<()> {
    fs::write(format!("{FOLDER}/nr_hugepages"), pages.to_string())
}

/// The pool during a recording.
pub(super) struct Pool {
    /// Pages that the pool had for good, if the recording changed them.
    before: Option<u64>,
    about: PoolBefore,
    _alone: Alone,
}

impl Pool {
    /// Returns the pool for a plan, with the pages that the plan asks for; `None` for a plan that
    /// uses no huge pages.
    pub(super) fn of(plan: &Plan) -> Result<Option<Self>, Unavailable> {
        if !uses_huge_pages(plan) {
            return Ok(None);
        }
        let alone = Alone::with(FOLDER)?;
        let found = Counters::settled()?;
        if found.free != found.total || counter("nr_overcommit_hugepages")? != 0 {
            return Err(Unavailable::Pool("others use it, or it may grow"));
        }
        let mut pool = Self {
            before: None,
            about: PoolBefore {
                pages: found.total,
                promised: found.promised,
            },
            _alone: alone,
        };
        if let Some(free) = plan.huge_pages {
            pool.before = Some(found.total - found.surplus);
            set(free + found.promised)?;
            pool.about.pages = free + found.promised;
            if Counters::now()? != pool.full() {
                return Err(Unavailable::Pool("the machine has too few huge pages"));
            }
        }
        Ok(Some(pool))
    }
    /// The counters before the first step.
    fn full(&self) -> Counters {
        let PoolBefore { pages, promised } = self.about;
        Counters {
            total: pages,
            free: pages,
            promised,
            surplus: 0,
        }
    }
    /// Returns the pool before the first step, or an error if others have changed it since.
    pub(super) fn before(&self) -> Result<PoolBefore, Unavailable> {
        match Counters::now()?.total == self.about.pages {
            true => Ok(self.about),
            false => Err(Unavailable::Pool("others have changed it")),
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if let Some(before) = self.before {
            // The pages of the processes come back first, so that the pool gives them up.
            let _settled = Counters::settled();
            let _set = set(before);
        }
    }
}

/// Returns true if a plan maps huge pages of a pool: its outcomes depend on the pool.
fn uses_huge_pages(plan: &Plan) -> bool {
    let of_file = |kind| kind == FileKind::Hugetlb;
    let of_op = |op: &Op| match op {
        Op::Mmap { flags, .. } => flags.contains(MapFlags::HUGETLB),
        Op::Shmget(Shmget { flags, .. }) => {
            ShmGetFlags::from_bits_retain(*flags).contains(ShmGetFlags::HUGETLB)
        }
        _ => false,
    };
    plan.huge_pages.is_some()
        || plan.files.values().any(|file| of_file(file.kind))
        || plan.steps.iter().any(|(_, op)| of_op(op))
}

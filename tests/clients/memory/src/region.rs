//! A mapping: a machine with one process.

use crate::lock;
use emmu::{
    Machine, MachineConfig, MemConfig, Mm, Overcommit, PAGE_SIZE,
    ctx::CallCx,
    extmmu::{HostMapping, HostMappingError},
    mm::{Advice, MmapArgs},
    oracle::Oracle,
};
use std::{
    error::Error,
    ffi::c_void,
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

/// Frames that the process does not need.
const SPARE: u64 = 256;
/// Pages that a disturbance works on.
const TURN: u64 = 64;

pub(crate) struct Region {
    machine: Arc<Machine>,
    first: *mut c_void,
    state: Mutex<Option<State>>,
    /// Set if a thread waits to end it.
    ending: AtomicBool,
}

// SAFETY: the address is a number here; nothing is accessed through it.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

struct State {
    mm: Arc<Mm>,
    mapping: HostMapping,
    oracle: Arc<Oracle>,
    at: u64,
    pages: u64,
    /// Where the next disturbance begins.
    next: u64,
    turns: u64,
    /// Takes frames that the process gave back, and writes to them.
    hog: (Arc<Mm>, u64),
    child: Option<Child>,
}

impl Region {
    pub(crate) fn new(len: usize, shared: bool) -> Result<Arc<Self>, Box<dyn Error>> {
        let pages = (len as u64).div_ceil(PAGE_SIZE);
        let frames = pages.saturating_mul(2).saturating_add(SPARE).min(1 << 20);
        let machine = Machine::new(MachineConfig {
            memory: MemConfig {
                frames: u32::try_from(frames)?,
                swap: u32::try_from(frames)?,
                ..MemConfig::default()
            },
            overcommit: Overcommit::Always,
            ..MachineConfig::default()
        });
        let state = machine.with_current(|cx| State::new(cx, &machine, pages, shared))??;
        Ok(Arc::new(Self {
            machine,
            first: state.mapping.as_ptr().as_ptr().cast(),
            state: Mutex::new(Some(state)),
            ending: AtomicBool::new(false),
        }))
    }
    pub(crate) fn first(&self) -> *mut c_void {
        self.first
    }
    /// Does to the process's pages what an operating system may do at any time. Returns false if the
    /// process has ended.
    pub(crate) fn disturb(&self) -> bool {
        if self.ending.load(Ordering::Acquire) {
            return false;
        }
        let mut state = lock(&self.state);
        let Some(state) = &mut *state else {
            return false;
        };
        let done = self
            .machine
            .with_current(|cx| state.disturb(cx, &self.machine));
        done.expect("this thread has no token");
        true
    }
    /// Ends the process. Returns how often it was disturbed.
    pub(crate) fn end(&self) -> u64 {
        self.ending.store(true, Ordering::Release);
        let state = lock(&self.state).take().expect("it ends once");
        let State {
            mm,
            mapping,
            oracle,
            turns,
            hog,
            child,
            ..
        } = state;
        let ended = self.machine.with_current(|cx| {
            child.into_iter().for_each(|child| child.end(cx));
            hog.0.exit(cx);
            mm.exit(cx);
        });
        ended.expect("this thread has no token");
        drop(mapping);
        oracle.audit_end(&mm);
        oracle.assert_silent();
        drop((mm, hog));
        assert_eq!(self.machine.mem().in_use(), 0, "frames are left");
        turns
    }
}

impl State {
    fn new(
        cx: &mut CallCx<'_>,
        machine: &Arc<Machine>,
        pages: u64,
        shared: bool,
    ) -> Result<Self, Box<dyn Error>> {
        let mm = Mm::new(machine);
        let oracle = Oracle::new(machine);
        let args = MmapArgs::anonymous(pages * PAGE_SIZE);
        let at = mm.mmap(cx, &if shared { args.shared() } else { args })?;
        mm.madvise(cx, at, pages * PAGE_SIZE, Advice::Mergeable)?;
        let len = usize::try_from(pages * PAGE_SIZE)?;
        let mapping = HostMapping::new(cx, &mm, (at, len))?;
        if !mapping.serves_kernel() {
            // The tests read files into their memory.
            let why = io::ErrorKind::PermissionDenied.into();
            return Err(HostMappingError::NoUserfaultfd(why).into());
        }
        oracle.watch(&mm, mapping.driver());
        let hog = Mm::new(machine);
        let its = hog.mmap(cx, &MmapArgs::anonymous(TURN * PAGE_SIZE))?;
        Ok(Self {
            mm,
            mapping,
            oracle,
            at,
            pages,
            next: 0,
            turns: 0,
            hog: (hog, its),
            child: None,
        })
    }
    fn disturb(&mut self, cx: &mut CallCx<'_>, machine: &Machine) {
        let pages: Vec<u64> = (0..TURN.min(self.pages))
            .map(|n| self.at + (self.next + n) % self.pages * PAGE_SIZE)
            .collect();
        match self.turns % 4 {
            0 => {
                self.child
                    .take()
                    .into_iter()
                    .for_each(|child| child.end(cx));
                self.child = Some(Child::of(&self.mm, cx, &pages));
            }
            2 => {
                let same: Vec<(&Mm, u64)> = pages.iter().map(|&page| (&*self.mm, page)).collect();
                machine.merge_same_pages(cx, &same);
                self.check_hog(cx);
                self.next = (self.next + TURN / 2) % self.pages;
            }
            3 => {
                for &page in pages.iter().step_by(3) {
                    let out = self.mm.madvise(cx, page, PAGE_SIZE, Advice::PageOut);
                    out.expect("there is swap");
                }
                machine.reclaim(cx, 4);
            }
            _ => {}
        }
        for &page in &pages {
            self.mm.migrate(cx, page).expect("there is memory");
        }
        self.oracle.assert_silent();
        self.turns += 1;
    }
    /// Checks that nothing was stored to the frames of another process, and takes others.
    fn check_hog(&mut self, cx: &mut CallCx<'_>) {
        let (hog, at) = &self.hog;
        let len = TURN * PAGE_SIZE;
        let mut bytes = vec![0; usize::try_from(len).expect("some pages")];
        hog.read_bytes(cx, *at, &mut bytes).expect("it is mapped");
        let fill = if self.turns < 4 { 0 } else { 0xdb };
        assert!(bytes.iter().all(|&byte| byte == fill), "not its own store");
        hog.madvise(cx, *at, len, Advice::DontNeed)
            .expect("it is mapped");
        bytes.fill(0xdb);
        hog.write_bytes(cx, *at, &bytes).expect("there is memory");
    }
}

/// A child of the process, and what it has: nothing that its parent stores.
struct Child {
    mm: Arc<Mm>,
    pages: Vec<(u64, Vec<u8>)>,
}

impl Child {
    fn of(mm: &Mm, cx: &mut CallCx<'_>, pages: &[u64]) -> Self {
        let mm = mm.fork(cx).expect("there is memory");
        for &page in pages.iter().step_by(5) {
            mm.store(cx, page, 0xdb).expect("there is memory");
        }
        let pages = pages.iter().map(|&page| (page, read(&mm, cx, page)));
        let pages = pages.collect();
        Self { mm, pages }
    }
    fn end(self, cx: &mut CallCx<'_>) {
        for (page, bytes) in &self.pages {
            assert!(read(&self.mm, cx, *page) == *bytes, "a store of its parent");
        }
        self.mm.exit(cx);
    }
}

fn read(mm: &Mm, cx: &mut CallCx<'_>, page: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(PAGE_SIZE).expect("a page")];
    mm.read_bytes(cx, page, &mut bytes).expect("it is mapped");
    bytes
}

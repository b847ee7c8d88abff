//! What scripts must come to, from a model that knows nothing but pages.
//!
//! [`Reference`] follows the steps of a script and says of each whether it came out right: rights, contents and sharing
//! of pages, over forks, moves, files, guards, reclaim. It has no VMAs, no page tables, no frames: where the address space
//! counts and splits, it has a map from page numbers to pages. So what the two agree on was computed in two ways.
//!
//! [`Suite`](super::Suite) has one beside every script. With a machine at hand, [`Reference::check`] holds the structures of
//! the processes themselves against it: VMAs against pages, entries against contents, the counts of frames
//! against entries, reverse maps against page tables, accounts against objects.
//!
//! # What it knows
//!
//! Operations on mapped pages: `mmap` (private, shared, files; fixed or not, populated), `munmap`, `mprotect`, `mremap` in
//! all forms, `madvise`, `msync`, `mseal`, `mlock` and its like, loads and stores of any byte, reads of files into memory, copies between
//! processes, `fork`, `exit`, `ftruncate`, `punch_hole`, `pwrite`, `fsync`, reclaim, migration, merging; of files every
//! size and offset, with ext4's and shmem's rules for what lies beyond their ends; memory that may be dropped; that no
//! machine here has huge pages of a pool. It takes what happened for granted where only VMAs could tell: where a mapping
//! without `FIXED` went, whether one could grow in place. After something else that succeeded (`remap_file_pages`, stacks, locks of private pages of files,
//! odd addresses) it is [lost](Reference::is_lost), and says nothing any more.

mod advise;
mod check;
mod copies;
mod files;
mod kinds;
mod locks;
mod ops;
mod page;
mod seals;

pub use check::Checks;

use crate::{
    addr::{Vpn, VpnRange},
    error::FaultError,
    mm::Prot,
    replay::{FileKind, Header, Op, OpenMode, Outcome},
};
use page::{Bytes, Freed, Kind, Object, PAGE, Pages, refusal, split};
use std::collections::{BTreeMap, BTreeSet};

/// See the module.
///
/// ```
/// use emmu::{replay::{Header, Op, Outcome}, mm::{MapFlags, Prot}, testkit::Reference};
///
/// let header = Header::new("mine", 0, "emmu", 1 << 40..1 << 41, Default::default());
/// let mut reference = Reference::new(&header);
/// let map = Op::Mmap {
///     addr: 1 << 40, len: 4096, prot: Prot::READ, flags: MapFlags::PRIVATE | MapFlags::FIXED, file: None, off: 0,
/// };
/// reference.step(0, &map, &Outcome::Ret(1 << 40)).expect("mapped where it was asked for");
/// let why = reference.step(0, &Op::Load { addr: 1 << 40 }, &Outcome::Ret(7)).unwrap_err();
/// assert_eq!(why, "it returns 7, and the model of pages returns 0");
/// ```
#[derive(Clone, Debug)]
pub struct Reference {
    objects: Vec<Object>,
    files: BTreeMap<String, usize>,
    processes: BTreeMap<u32, Pages>,
    /// Processes that lock all that they map.
    locks_all: BTreeSet<u32>,
    /// Where entries are looked for.
    arena: VpnRange,
    /// Something happened of which it knows too little.
    lost: bool,
    /// It is known which pages of objects are in memory.
    resident: bool,
    /// Others write beside the script: a private page of an object may be a copy from any time.
    copied: bool,
}

impl Reference {
    /// Process 0 with nothing mapped, and the files of a script.
    pub fn new(header: &Header) -> Self {
        let (objects, mut files) = Object::files(header);
        for (name, (file, _)) in &header.opens {
            files.insert(name.clone(), files[file]);
        }
        // It knows nothing of what a file was not opened for.
        let mut opens = header.opens.values();
        let lost = opens.any(|(_, mode)| *mode != OpenMode::ReadWrite);
        let arena = header.arena();
        Self {
            objects,
            files,
            processes: BTreeMap::from([(0, Pages::new())]),
            locks_all: BTreeSet::new(),
            arena: VpnRange::new(Vpn::containing(arena.start), Vpn::containing(arena.end))
                .expect("a header with an empty arena is refused"),
            lost,
            // The model does not know which pages come in along with a page.
            resident: !header.files.values().any(|f| f.kind.comes_together()),
            copied: false,
        }
    }
    /// Whether something happened of which it knows too little to go on.
    pub fn is_lost(&self) -> bool {
        self.lost
    }
    /// A step was done, and came to this.
    ///
    /// # Errors
    ///
    /// What it must have come to. Nothing more can be said after that.
    pub fn step(&mut self, actor: u32, op: &Op, came: &Outcome) -> Result<(), String> {
        if self.lost {
            return Ok(());
        }
        match *op {
            Op::Load { addr } => self.load(actor, addr, came),
            Op::Store { addr, byte } => self.store(actor, addr, byte, came),
            ref call => self.call(actor, call, came),
        }
    }
    /// Memory was looked for, beside the script: what was freed lazily may be gone.
    pub fn pressure(&mut self) {
        for object in &mut self.objects {
            object.tail_perhaps = object.tail().is_some();
        }
        self.pages_out();
    }
    /// The same, where nothing is written back.
    fn pages_out(&mut self) {
        self.resident = false;
        for page in self.processes.values_mut().flat_map(Pages::values_mut) {
            page.idle = true;
            match page.freed {
                Freed::Lazily => page.freed = Freed::Perhaps,
                Freed::No if page.droppable => page.freed = Freed::Perhaps,
                // Dropped or not, written before or after: nothing of it is known.
                Freed::Hazy if page.droppable => page.own = None,
                Freed::No | Freed::Perhaps | Freed::Hazy => {}
            }
        }
    }
    /// Somebody used pages beside the script: which of them are in memory is not known any more.
    pub fn others(&mut self) {
        self.resident = false;
    }
    /// Somebody writes to pages while the script runs, to bytes that it does not look at.
    pub fn writers(&mut self) {
        self.others();
        self.copied = true;
    }
    /// A process's page was looked up for writing by somebody beside the script: from now on a private one is a copy, of what
    /// its object has at this moment, whether anything is written or not.
    pub fn copies(&mut self, process: u32, at: Vpn) {
        let addr = at.addr();
        let Some(page) = self.processes.get(&process).and_then(|p| p.get(&at.0)) else {
            return;
        };
        let refused = refusal(Some(page), &self.objects, addr, true).is_some();
        if refused
            || page.shared
            || page.object.is_none()
            || page.own.is_some()
            || self.is_hazy(page)
        {
            return;
        }
        self.copy_now(process, addr);
    }
    /// A private page is a copy from now on, of what is behind it at this moment: what may have gone of that is not known of
    /// the copy either, and stays as it was then.
    fn copy_now(&mut self, process: u32, addr: u64) {
        let mut bytes = self.bytes(process, addr);
        let tail = self.tail_of(&self.processes[&process][&split(addr).0]);
        let page = self.page(process, addr);
        if let Some(tail) = tail {
            bytes.retain(|&offset, _| offset < tail);
            page.freed = Freed::Hazy;
        }
        page.own = Some(bytes);
    }
    /// Whether a page may be a private copy that the script did not make, of what its object had then.
    fn is_hazy(&self, page: &page::Page) -> bool {
        self.copied && !page.shared && page.object.is_some() && page.own.is_none()
    }
    /// Why a process must be refused a read or a write of the byte at `addr`.
    pub fn refusal(&self, process: u32, addr: u64, write: bool) -> Option<FaultError> {
        let page = self.processes.get(&process)?.get(&split(addr).0);
        refusal(page, &self.objects, addr, write)
    }

    /// As a read or a write of MAP_POPULATE, which says nothing where it must not.
    fn populate(&mut self, process: u32, number: u64) {
        let addr = number * PAGE;
        let refused = self.refusal(process, addr, false);
        let seen = self.processes[&process].get(&number);
        if refused.is_some() || seen.is_some_and(|p| self.is_hazy(p)) {
            // A copy that others made before may have older bytes.
            return;
        }
        self.touch(process, addr);
        let page = self.page(process, addr);
        if !page.shared && page.prot.contains(Prot::WRITE) {
            self.copy_now(process, addr);
        }
    }
    fn load(&mut self, actor: u32, addr: u64, came: &Outcome) -> Result<(), String> {
        if let Some(why) = self.refusal(actor, addr, false) {
            return refused(why, came);
        }
        let (byte, freed) = self.byte(actor, addr);
        if let (Freed::Hazy, None, Outcome::Ret(_)) = (freed, byte, came) {
            self.touch(actor, addr);
            return Ok(());
        }
        let byte = byte.unwrap_or_default();
        if byte != 0 && self.is_uncertain(actor, addr) {
            self.settle_tail(actor, addr, *came == Outcome::Ret(0));
        }
        let byte = self.byte(actor, addr).0.unwrap_or_default();
        let gone = freed == Freed::Perhaps && *came == Outcome::Ret(0);
        if gone && byte != 0 {
            self.page(actor, addr).clear();
        } else {
            must(&Outcome::Ret(byte.into()), came)?;
        }
        self.touch(actor, addr);
        Ok(())
    }
    fn store(&mut self, actor: u32, addr: u64, byte: u8, came: &Outcome) -> Result<(), String> {
        if let Some(why) = self.refusal(actor, addr, true) {
            return refused(why, came);
        }
        must(&Outcome::Ret(0), came)?;
        self.put(actor, addr, &[byte]);
        Ok(())
    }
    /// Bytes are written that lie in one page, which may be written.
    fn put(&mut self, actor: u32, addr: u64, new: &[u8]) {
        let mut bytes = self.bytes(actor, addr);
        let (number, first) = split(addr);
        let written: Vec<(u16, u8)> = (first..).zip(new.iter().copied()).collect();
        for &(offset, byte) in &written {
            match byte {
                0 => bytes.remove(&offset),
                _ => bytes.insert(offset, byte),
            };
        }
        self.touch(actor, addr);
        let seen = &self.processes[&actor][&number];
        let (hazy, uncertain) = (self.is_hazy(seen), self.tail_of(seen).is_some());
        let page = self.page(actor, addr);
        // Whether the others are there is not to be seen from here.
        let shared = page.shared && page.object.is_some();
        let alone = hazy || page.freed == Freed::Perhaps || (uncertain && !shared);
        if alone {
            bytes.retain(|&o, _| written.iter().any(|&(offset, _)| offset == o));
        }
        page.freed = match page.freed {
            Freed::Hazy => Freed::Hazy,
            _ if alone => Freed::Hazy,
            _ => Freed::No,
        };
        match page.object {
            Some((object, index)) if page.shared => {
                self.objects[object].pages.insert(index, bytes);
            }
            _ => page.own = Some(bytes),
        }
    }
    /// Where bytes begin of a page that shows its object's, which may have gone with a page that was written back.
    fn tail_of(&self, page: &page::Page) -> Option<u16> {
        let (object, index) = page.object.filter(|_| page.own.is_none())?;
        self.objects[object].uncertain(index)
    }
    fn is_uncertain(&self, process: u32, addr: u64) -> bool {
        let (number, offset) = split(addr);
        let tail = self.tail_of(&self.processes[&process][&number]);
        tail.is_some_and(|tail| offset >= tail)
    }
    /// A byte of such a tail was seen: all of it went, or nothing.
    fn settle_tail(&mut self, process: u32, addr: u64, gone: bool) {
        let page = &self.processes[&process][&split(addr).0];
        let (object, _) = page.object.expect("an object's tail");
        let object = &mut self.objects[object];
        match gone {
            true => object.drop_tail(),
            false => object.tail_perhaps = false,
        }
    }
    /// A page of a process that may be accessed.
    fn page(&mut self, process: u32, addr: u64) -> &mut page::Page {
        let pages = self.processes.get_mut(&process).expect("it lives");
        pages.get_mut(&split(addr).0).expect("it is mapped")
    }
    /// The page of the object behind an address is in memory from now on.
    fn touch(&mut self, process: u32, addr: u64) {
        let page = self.page(process, addr);
        page.idle = false;
        if let (Some((object, index)), None) = (page.object, &page.own) {
            let object = &mut self.objects[object];
            match object.kind {
                // A hole of a file that is used in place stays one until it is written.
                Kind::File(FileKind::Xip) => return,
                // More than this is read.
                Kind::File(FileKind::Disk) if !object.pages.contains_key(&index) => {
                    self.resident = false;
                }
                _ => {}
            }
            object.pages.entry(index).or_default();
        }
    }
    /// What the page of an address has, whatever its rights are.
    fn bytes(&self, process: u32, addr: u64) -> Bytes {
        let page = self.processes[&process].get(&split(addr).0);
        page.map_or_else(Bytes::new, |page| {
            self.shown(page).cloned().unwrap_or_default()
        })
    }
    fn shown<'r>(&'r self, page: &'r page::Page) -> Option<&'r Bytes> {
        match (&page.own, page.object) {
            (Some(own), _) => Some(own),
            (None, Some((object, index))) => self.objects[object].pages.get(&index),
            (None, None) => None,
        }
    }
    fn byte(&self, process: u32, addr: u64) -> (Option<u8>, Freed) {
        let (number, offset) = split(addr);
        let page = &self.processes[&process][&number];
        if self.is_hazy(page) {
            return (None, Freed::Hazy);
        }
        let byte = self.shown(page).and_then(|bytes| bytes.get(&offset));
        (byte.copied(), page.freed)
    }
}

fn refused(why: FaultError, came: &Outcome) -> Result<(), String> {
    let wanted = match why.signal() {
        Some(signal) => Outcome::Signal(signal),
        None => Outcome::Err(why.errno().to_string()),
    };
    must(&wanted, came).map_err(|text| format!("{text}: {why}"))
}

/// What came is what must come.
fn must(wanted: &Outcome, came: &Outcome) -> Result<(), String> {
    if came == wanted {
        Ok(())
    } else {
        Err(format!("it {came}, and the model of pages {wanted}"))
    }
}

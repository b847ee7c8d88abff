//! [`Reference`]: the state of the model, and the dispatch of a step.

use super::{
    held::Holds,
    outcome::must,
    page::{Bytes, Freed, Kind, Object, PAGE, Page, Pages, refusal, split},
};
use crate::{
    addr::{Vpn, VpnRange},
    error::FaultError,
    mm::Prot,
    replay::{FileKind, Header, Op, OpenMode, Outcome},
};
use std::collections::{BTreeMap, BTreeSet};

/// A model of the pages of processes that follows a script and checks each outcome.
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
    pub(super) objects: Vec<Object>,
    pub(super) files: BTreeMap<String, usize>,
    /// The names under which files are open for direct transfers.
    pub(super) direct: BTreeSet<String>,
    pub(super) processes: BTreeMap<u32, Pages>,
    /// Processes that lock all that they map.
    pub(super) locks_all: BTreeSet<u32>,
    /// The segment of the script, and the number of attachments so far.
    pub(super) segment: Option<usize>,
    pub(super) attachments: u32,
    /// Pages that the kernel's I/O holds.
    pub(super) holds: Holds,
    /// There is a pool of huge pages, and it is large enough.
    pub(super) pool: bool,
    /// The range in which the model follows entries.
    pub(super) arena: VpnRange,
    /// A step outside of the model happened.
    pub(super) lost: bool,
    /// The model knows which pages of objects are in memory.
    pub(super) resident: bool,
    /// Threads next to the script write: a private page of an object may be a copy from any time.
    pub(super) copied: bool,
    /// The pages of process 0 that were certainly written since they were last protected.
    pub(super) written: BTreeSet<Vpn>,
}

impl Reference {
    /// Returns a model of process 0 with nothing mapped, and of the files of a script.
    pub fn new(header: &Header) -> Self {
        let (objects, mut files) = Object::files(header);
        for (name, (file, _)) in &header.opens {
            files.insert(name.clone(), files[file]);
        }
        // A file that is not open for both reading and writing is outside of the model.
        let mut opens = header.opens.values();
        let usual = |mode| matches!(mode, OpenMode::ReadWrite | OpenMode::Direct);
        let lost = opens.any(|&(_, mode)| !usual(mode));
        let direct =
            |(name, of): (&String, &(_, _))| (of.1 == OpenMode::Direct).then(|| name.clone());
        let arena = header.arena();
        let pool = header.huge_pages().iter().any(|pool| pool.pages > 0);
        Self {
            objects,
            files,
            direct: header.opens.iter().filter_map(direct).collect(),
            processes: BTreeMap::from([(0, Pages::new())]),
            locks_all: BTreeSet::new(),
            segment: None,
            attachments: 0,
            holds: Holds::default(),
            arena: VpnRange::new(Vpn::containing(arena.start), Vpn::containing(arena.end))
                .expect("a header with an empty arena is refused"),
            lost,
            pool,
            // The model does not know which pages come in along with a page.
            resident: !pool && !header.files.values().any(|f| f.kind.comes_together()),
            copied: false,
            written: BTreeSet::new(),
        }
    }
    /// Returns true after a step outside of the model, from which on every outcome is accepted.
    pub fn is_lost(&self) -> bool {
        self.lost
    }
    /// Follows a step of process `actor` with its outcome.
    ///
    /// # Errors
    ///
    /// The difference from the expected outcome. The model is of no use after an error.
    pub fn step(&mut self, actor: u32, op: &Op, came: &Outcome) -> Result<(), String> {
        if self.lost {
            return Ok(());
        }
        self.note_written(actor, op, came);
        match *op {
            Op::Load { addr } => self.load(actor, addr, came),
            Op::Store { addr, byte } => self.store(actor, addr, byte, came),
            ref call => self.call(actor, call, came),
        }
    }
    /// Notes memory pressure next to the script: lazily freed pages may be gone.
    pub fn pressure(&mut self) {
        for object in &mut self.objects {
            object.tail_perhaps = object.tail().is_some();
        }
        self.pages_out();
    }
    /// Notes memory pressure without writeback.
    pub(super) fn pages_out(&mut self) {
        self.resident = false;
        for page in self.processes.values_mut().flat_map(Pages::values_mut) {
            page.idle = true;
            match page.freed {
                Freed::Lazily => page.freed = Freed::Perhaps,
                Freed::No if page.droppable => page.freed = Freed::Perhaps,
                // Dropped or not, written before or after: the bytes are unknown.
                Freed::Hazy if page.droppable => page.own = None,
                Freed::No | Freed::Perhaps | Freed::Hazy => {}
            }
        }
    }
    /// Notes that threads next to the script used pages: from now on the model does not know which
    /// pages are in memory.
    pub fn others(&mut self) {
        self.resident = false;
    }
    /// Notes that threads next to the script write to bytes that the script does not read.
    pub fn writers(&mut self) {
        self.others();
        self.copied = true;
    }
    /// Notes a look-up for writing of a process's page by a device: a private page is a copy of its
    /// object at this moment from now on, even if nothing is written.
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
    /// Makes a private page a copy of the page behind it at this moment. Bytes that may be gone
    /// from that page stay unknown in the copy.
    pub(super) fn copy_now(&mut self, process: u32, addr: u64) {
        let mut bytes = self.bytes(process, addr);
        let tail = self.tail_of(&self.processes[&process][&split(addr).0]);
        let page = self.page(process, addr);
        if let Some(tail) = tail {
            bytes.retain(|&offset, _| offset < tail);
            page.freed = Freed::Hazy;
        }
        page.own = Some(bytes);
    }
    /// Returns true if a page may be a private copy of its object that the script did not make.
    pub(super) fn is_hazy(&self, page: &Page) -> bool {
        self.copied && !page.shared && page.object.is_some() && page.own.is_none()
    }
    /// Returns the reason to refuse a process a read or write of the byte at `addr`, or `None`.
    pub fn refusal(&self, process: u32, addr: u64, write: bool) -> Option<FaultError> {
        let page = self.processes.get(&process)?.get(&split(addr).0);
        refusal(page, &self.objects, addr, write)
    }

    /// Faults a page in for `MAP_POPULATE`, which ignores refusals.
    pub(super) fn populate(&mut self, process: u32, number: u64) {
        let addr = number * PAGE;
        let refused = self.refusal(process, addr, false);
        let seen = self.processes[&process].get(&number);
        if refused.is_some() || seen.is_some_and(|p| self.is_hazy(p)) {
            // An earlier copy may have older bytes.
            return;
        }
        self.touch(process, addr);
        let page = self.page(process, addr);
        if !page.shared && page.prot.contains(Prot::WRITE) {
            self.copy_now(process, addr);
        }
    }
    pub(super) fn load(&mut self, actor: u32, addr: u64, came: &Outcome) -> Result<(), String> {
        if let Some(why) = self.refusal(actor, addr, false) {
            return refused(why, came);
        }
        self.read(actor, addr, came)
    }
    /// Reads one byte of a page that can be read.
    pub(super) fn read(&mut self, actor: u32, addr: u64, came: &Outcome) -> Result<(), String> {
        let (byte, freed) = self.byte(actor, addr);
        if let (Freed::Hazy, None, Outcome::Ret(_)) = (freed, byte, came) {
            self.touch(actor, addr);
            return Ok(());
        }
        let byte = byte.unwrap_or_default();
        if byte != 0 && self.is_uncertain(actor, addr) {
            self.decide_tail(actor, addr, *came == Outcome::Ret(0));
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
    pub(super) fn store(
        &mut self,
        actor: u32,
        addr: u64,
        byte: u8,
        came: &Outcome,
    ) -> Result<(), String> {
        if let Some(why) = self.refusal(actor, addr, true) {
            return refused(why, came);
        }
        must(&Outcome::Ret(0), came)?;
        self.put(actor, addr, &[byte]);
        Ok(())
    }
    /// Writes bytes to one writable page.
    pub(super) fn put(&mut self, actor: u32, addr: u64, new: &[u8]) {
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
        // The presence of the other pages is unknown here.
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
    /// Returns the offset of the object's tail that the page shows, if writeback may have zeroed
    /// that tail.
    pub(super) fn tail_of(&self, page: &Page) -> Option<u16> {
        let (object, index) = page.object.filter(|_| page.own.is_none())?;
        self.objects[object].uncertain(index)
    }
    pub(super) fn is_uncertain(&self, process: u32, addr: u64) -> bool {
        let (number, offset) = split(addr);
        let tail = self.tail_of(&self.processes[&process][&number]);
        tail.is_some_and(|tail| offset >= tail)
    }
    /// Notes that a load saw a byte of such a tail: all of the tail is gone, or none.
    pub(super) fn decide_tail(&mut self, process: u32, addr: u64, gone: bool) {
        let page = &self.processes[&process][&split(addr).0];
        let (object, _) = page.object.expect("an object's tail");
        let object = &mut self.objects[object];
        match gone {
            true => object.drop_tail(),
            false => object.tail_perhaps = false,
        }
    }
    /// Returns an accessible page of a process.
    pub(super) fn page(&mut self, process: u32, addr: u64) -> &mut Page {
        let pages = self.processes.get_mut(&process).expect("it lives");
        pages.get_mut(&split(addr).0).expect("it is mapped")
    }
    /// Notes that the page of the object behind an address is in memory from now on.
    pub(super) fn touch(&mut self, process: u32, addr: u64) {
        let page = self.page(process, addr);
        page.idle = false;
        if let (Some((object, index)), None) = (page.object, &page.own) {
            let object = &mut self.objects[object];
            match object.kind {
                // A hole of a file that executes in place stays a hole until a write.
                Kind::File(FileKind::Xip) => return,
                // Read-ahead brings in more than this page.
                Kind::File(FileKind::Disk) if !object.pages.contains_key(&index) => {
                    self.resident = false;
                }
                _ => {}
            }
            object.pages.entry(index).or_default();
        }
    }
    /// Returns the bytes of the page at an address, whatever its rights.
    pub(super) fn bytes(&self, process: u32, addr: u64) -> Bytes {
        let page = self.processes[&process].get(&split(addr).0);
        page.map_or_else(Bytes::new, |page| {
            self.shown(page).cloned().unwrap_or_default()
        })
    }
    pub(super) fn shown<'r>(&'r self, page: &'r Page) -> Option<&'r Bytes> {
        match (&page.own, page.object) {
            (Some(own), _) => Some(own),
            (None, Some((object, index))) => self.objects[object].pages.get(&index),
            (None, None) => None,
        }
    }
    pub(super) fn byte(&self, process: u32, addr: u64) -> (Option<u8>, Freed) {
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

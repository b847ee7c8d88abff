//! The outside view of an address space: `/proc/PID/maps` and the pagemap.

use crate::mm::{
    entry::{flags::VmFlags, pte::RawPte},
    space::Mm,
    vma::{Vma, layout::Layout},
};
use crate::{
    addr::{PAGE_SHIFT, Pfn, Vpn, VpnRange},
    ctx::CallCx,
    frame::{FrameFlags, PhysMem},
};
use std::fmt;

/// One line of `/proc/PID/maps`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct MapsLine {
    /// First byte.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
    /// The rights and properties of the VMA.
    pub flags: VmFlags,
    /// Offset into the object in bytes; 0 for anonymous memory.
    pub offset: u64,
    /// Name of the object, `[heap]`, `[stack]`, `[anon:NAME]`, `[anon_shmem:NAME]`, or empty.
    pub name: String,
    /// True if no object and no device is mapped.
    pub anonymous: bool,
}

impl MapsLine {
    /// Returns the four letters of the rights: `rwxp`, `r--s`, ….
    pub fn perms(&self) -> String {
        self.letters().map(char::from).iter().collect()
    }
    pub(crate) fn letters(&self) -> [u8; 4] {
        let letter = |flag, letter, without| match self.flags.contains(flag) {
            true => letter,
            false => without,
        };
        [
            letter(VmFlags::READ, b'r', b'-'),
            letter(VmFlags::WRITE, b'w', b'-'),
            letter(VmFlags::EXEC, b'x', b'-'),
            letter(VmFlags::MAYSHARE, b's', b'p'),
        ]
    }
}

/// The kernel's format, the name in column 74; device and inode are always 0.
impl fmt::Display for MapsLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = format!(
            "{:08x}-{:08x} {} {:08x} 00:00 0 ",
            self.start,
            self.end,
            self.perms(),
            self.offset
        );
        if self.name.is_empty() {
            f.write_str(&line)
        } else {
            write!(f, "{line:<73}{}", self.name)
        }
    }
}

/// The state of a page that has an entry, as the pagemap shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageState {
    /// Present, private anonymous memory.
    Anon(Pfn),
    /// Present, a page of an object.
    Object(Pfn),
    /// The zero page.
    Zero,
    /// In swap; or a marker of userfaultfd, which the pagemap shows so as well.
    Swap,
    /// A guard marker.
    Guard,
}

impl PageState {
    #[inline]
    fn of(pte: RawPte, mem: &PhysMem) -> Option<Self> {
        if pte.is_none() || pte.file_index().is_some() {
            None
        } else if pte.is_zero_page() {
            let pfn = pte.pfn();
            Some(match pfn == mem.zero_pfn() {
                true => Self::Zero,
                // The pagemap shows the huge zero page as a page of a file.
                false => Self::Object(pfn),
            })
        } else if let Some(pfn) = pte.counted() {
            let anon = mem.flags(pfn).contains(FrameFlags::ANON);
            Some(if anon {
                Self::Anon(pfn)
            } else {
                Self::Object(pfn)
            })
        } else if pte.is_guard() {
            Some(Self::Guard)
        } else {
            // The pagemap shows a page that moves, and a marker, as one in swap.
            Some(Self::Swap)
        }
    }
}

impl Mm {
    /// Returns the VMAs, ascending, as `/proc/PID/maps` lists them.
    ///
    /// # Examples
    ///
    /// ```
    /// use emmu::mm::MmapArgs;
    /// # let machine = emmu::Machine::new(Default::default());
    /// # let mut thread = machine.enter()?;
    /// # let mut cx = thread.cx();
    /// # let mm = emmu::Mm::new(&machine);
    ///
    /// mm.mmap(&mut cx, &MmapArgs::anonymous(0x1000).fixed(0x10000))?;
    /// let maps = mm.maps(&mut cx);
    /// assert_eq!(maps[0].to_string().trim_end(), "00010000-00011000 rw-p 00000000 00:00 0");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn maps(&self, cx: &mut CallCx<'_>) -> Vec<MapsLine> {
        let g = self.lock_shared_over(cx, None);
        let layout = &*g.layout;
        layout.vmas.iter().map(|v| line(layout, v)).collect()
    }
    /// Returns each page of `range` that has an entry, ascending.
    pub fn pagemap(&self, cx: &mut CallCx<'_>, range: VpnRange) -> Vec<(Vpn, PageState)> {
        let mut out = Vec::new();
        self.each_page(cx, range, |at, state| out.push((at, state)));
        out
    }
    /// Returns each page of `range` that userfaultfd write-protects, present or not, ascending (bit
    /// 57 of the pagemap).
    pub fn protected_pages(&self, cx: &mut CallCx<'_>, range: VpnRange) -> Vec<Vpn> {
        let mut out = Vec::new();
        let mut g = self.lock_shared_over(cx, None);
        self.for_each_entry(&mut g.cx, range, |at, pte| {
            out.extend(pte.is_uffd_wp().then_some(at));
        });
        out
    }
    /// Returns the end of the VMA that lies across `at`, beginning before it.
    #[cfg(feature = "replay")]
    pub(crate) fn end_of_vma_across(&self, cx: &mut CallCx<'_>, at: Vpn) -> Option<Vpn> {
        let g = self.lock_shared_over(cx, None);
        let vma = g.layout.vmas.get(at).filter(|vma| vma.start() < at);
        vma.map(Vma::end)
    }
    /// Visits each page of `range` that has an entry, ascending; otherwise like
    /// [`pagemap`](Self::pagemap).
    pub(crate) fn each_page(
        &self,
        cx: &mut CallCx<'_>,
        range: VpnRange,
        mut visit: impl FnMut(Vpn, PageState),
    ) {
        // A reader of the pagemap reads the counts of the frames next.
        self.machine().settle_counts(cx);
        let mut g = self.lock_shared_over(cx, None);
        let mem = self.machine().mem();
        let pooled = |at| {
            let vma = g.layout.vmas.get(at);
            vma.is_some_and(|vma| vma.flags.contains(VmFlags::HUGETLB))
        };
        self.for_each_entry(&mut g.cx, range, |at, pte| {
            // Of a huge page of a pool markers do not show (`pagemap_hugetlb_range`).
            let shown = !pte.is_marker() || !pooled(at);
            if let Some(state) = PageState::of(pte, mem).filter(|_| shown) {
                visit(at, state);
            }
        });
    }
}

fn line(layout: &Layout, vma: &Vma) -> MapsLine {
    let (start, end) = (vma.start().addr(), vma.end().addr());
    let file = vma.file.as_ref().or(vma.device());
    let name = match file.map(|file| file.object()) {
        Some(object) => match vma.extras.label() {
            Some(label) => format!("[anon_shmem:{label}]"),
            None => object.name().into_owned(),
        },
        None if start < layout.brk && end > layout.start_brk => "[heap]".into(),
        None if start <= layout.start_stack
            && end >= layout.start_stack
            && layout.start_stack > 0 =>
        {
            "[stack]".into()
        }
        None => vma
            .extras
            .label()
            .map_or(String::new(), |label| format!("[anon:{label}]")),
    };
    MapsLine {
        start,
        end,
        flags: vma.flags,
        offset: file.map_or(0, |_| vma.pgoff << PAGE_SHIFT),
        name,
        anonymous: file.is_none(),
    }
}

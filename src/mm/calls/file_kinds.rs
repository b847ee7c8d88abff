//! The rules of a mapping by the kind of its file: rights, seals, devices, and refusals that come
//! when the old mappings are gone already.

use crate::mm::{
    entry::{
        args::{MmapArgs, TYPE},
        flags::{MapFlags, Prot, VmFlags},
    },
    guard::{AfterYield, MmapWriteGuard},
    vma::layout::Promise,
};
use crate::{
    addr::VpnRange,
    error::MmapError,
    file::{Coming, File, Mappable, MayWrite},
};
use std::{convert::Infallible, sync::Arc};

/// The flags that a mapping of a file may have where unknown flags are refused (`LEGACY_MAP_MASK`).
/// The bits of the huge page sizes are among them, `FIXED_NOREPLACE` is not.
const VALID: MapFlags = MapFlags::from_bits_retain(0x7c04_0080)
    .union(MapFlags::SHARED_VALIDATE)
    .union(MapFlags::FIXED)
    .union(MapFlags::ANONYMOUS)
    .union(MapFlags::MAP_32BIT)
    .union(MapFlags::GROWSDOWN)
    .union(MapFlags::DENYWRITE)
    .union(MapFlags::EXECUTABLE)
    .union(MapFlags::LOCKED)
    .union(MapFlags::NORESERVE)
    .union(MapFlags::POPULATE)
    .union(MapFlags::NONBLOCK)
    .union(MapFlags::STACK);

/// The properties of a file on which the flags of its mappings depend.
pub(super) struct FileKind {
    readable: bool,
    writable: bool,
    /// The file system forbids to execute anything (`path_noexec`).
    no_exec: bool,
    mappable: bool,
    knows_sync: bool,
}

impl FileKind {
    /// Returns the properties of a file of the pool of huge pages, made for one mapping alone.
    pub(super) fn huge() -> Self {
        Self {
            readable: true,
            writable: true,
            no_exec: false,
            mappable: true,
            knows_sync: false,
        }
    }
    pub(super) fn of(file: &File) -> Self {
        let object = file.object();
        Self {
            readable: file.is_readable(),
            writable: file.is_writable(),
            no_exec: object.is_no_exec(),
            mappable: object.mappable() != Mappable::No,
            knows_sync: object.knows_sync(),
        }
    }
    /// Adds the flags of a mapping. A shared mapping of a file that is not writable never becomes
    /// writable. The checks come in Linux's order (`do_mmap`).
    pub(super) fn flags(&self, args: &MmapArgs, flags: VmFlags) -> Result<VmFlags, MmapError> {
        let bad = Err(MmapError::Flags(args.flags.bits()));
        let kind = args.flags & TYPE;
        let shared = kind == MapFlags::SHARED || kind == MapFlags::SHARED_VALIDATE;
        let known = match self.knows_sync {
            true => VALID | MapFlags::SYNC,
            false => VALID,
        };
        if !shared && kind != MapFlags::PRIVATE {
            return bad;
        }
        if kind == MapFlags::SHARED_VALIDATE && !known.contains(args.flags) {
            return Err(MmapError::FlagsUnsupported(args.flags.bits()));
        }
        let writes = shared && args.prot.contains(Prot::WRITE);
        if (writes && !self.writable) || !self.readable {
            return Err(MmapError::Access);
        }
        if self.no_exec && flags.contains(VmFlags::EXEC) {
            return Err(MmapError::NoExec);
        }
        if !self.mappable {
            return Err(MmapError::Unmappable);
        }
        if flags.contains(VmFlags::GROWSDOWN) {
            return bad;
        }
        let flags = match self.no_exec {
            true => flags - VmFlags::MAYEXEC,
            false => flags,
        };
        Ok(match (shared, self.writable) {
            (false, _) => flags,
            (true, true) => flags | VmFlags::SHARED | VmFlags::MAYSHARE,
            (true, false) => (flags | VmFlags::MAYSHARE) - VmFlags::MAYWRITE,
        })
    }
}

/// The flags of a mapping after the seals of its object. While the announcement lives, no seal
/// against a writable mapping is added.
type Announced<'f> = (VmFlags, Option<Coming<'f>>);

/// Takes the right to write from a shared mapping of an object that is sealed against it
/// (`memfd_check_seals_mmap`).
#[inline]
pub(super) fn heed_seals(file: Option<&File>, flags: VmFlags) -> Result<Announced<'_>, MmapError> {
    let writes = flags.contains(VmFlags::SHARED | VmFlags::MAYWRITE);
    let Some(file) = file.filter(|_| writes) else {
        return Ok((flags, None));
    };
    match file.announce_shared() {
        MayWrite::Yes(coming) => Ok((flags, Some(coming))),
        MayWrite::Never if flags.contains(VmFlags::WRITE) => Err(MmapError::WriteSealed),
        MayWrite::Never => Ok((flags - VmFlags::MAYWRITE, None)),
    }
}

/// The file behind a mapping: that of an object with pages, or a device for anonymous memory.
#[derive(Clone, Default)]
pub(in crate::mm) struct Source {
    pub(in crate::mm) file: Option<Arc<File>>,
    pub(in crate::mm) device: Option<Arc<File>>,
}

impl Source {
    /// Returns the source of a mapping of that file. A shared mapping of zeros has an object of its
    /// own, as shared anonymous memory has.
    #[inline]
    pub(super) fn of(file: Option<&Arc<File>>, flags: VmFlags) -> Self {
        file.map_or_else(Self::default, |file| Self::of_file(Arc::clone(file), flags))
    }
    fn of_file(file: Arc<File>, flags: VmFlags) -> Self {
        let (file, device) = match file.object().mappable() {
            Mappable::Zeros if flags.contains(VmFlags::SHARED) => (None, None),
            Mappable::Zeros => (None, Some(file)),
            _ => (Some(file), None),
        };
        Self { file, device }
    }
}

impl MmapWriteGuard<'_> {
    /// Returns the flags that the object adds to its mapping, or the reason why it refuses it
    /// (`->mmap_prepare`): the old mappings are gone when it is asked.
    #[inline]
    pub(super) fn prepare_mapping(
        &self,
        file: Option<&File>,
        flags: VmFlags,
        pages: u64,
    ) -> Result<VmFlags, MmapError> {
        match file {
            None => Ok(flags),
            Some(file) => self.prepare_mapping_of(file, flags, pages),
        }
    }
    fn prepare_mapping_of(
        &self,
        file: &File,
        flags: VmFlags,
        pages: u64,
    ) -> Result<VmFlags, MmapError> {
        let object = file.object();
        if flags.contains(VmFlags::SYNC) && object.knows_sync() {
            return Err(MmapError::NotSynchronous);
        }
        let shared = VmFlags::SHARED | VmFlags::MAYSHARE;
        object.check_mapping(flags.contains(shared))?;
        if !object.is_secret() {
            return Ok(flags);
        }
        if !flags.intersects(shared) {
            return Err(MmapError::PrivateSecret);
        }
        if !self.layout.may_lock(pages) {
            return Err(MmapError::LockLimit(pages));
        }
        Ok(flags | VmFlags::LOCKED | VmFlags::DONTDUMP)
    }
    /// Removes the old mappings of a range whose new one is refused.
    pub(super) fn refuse_late(
        &mut self,
        range: VpnRange,
        flags: VmFlags,
        why: MmapError,
    ) -> Result<Infallible, MmapError> {
        let old = self.gather(range)?;
        self.layout.may_expand(flags, range.pages() - old.pages)?;
        if flags.accountable() {
            let more = range.pages().saturating_sub(old.accounted);
            self.layout.charge(more)?;
            drop(Promise::made(self.mm.machine(), more));
        }
        self.complete_unmap(range, true, AfterYield::OnlyPages);
        Err(why)
    }
}

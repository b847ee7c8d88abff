//! Operations of single kinds of scripts: files by their path, secret memory, a segment of System
//! V, protection keys and policies.

use super::{
    came::{done, failed, returned, touched},
    op::Op,
    own_memory::OwnMemory,
    script::Outcome,
    special_op::{AnonName, Mbind, OpenPath, PkeyMprotect, Shmat, Shmget},
};
use crate::{
    addr::PAGE_SIZE,
    ctx::CallCx,
    error::Errno,
    file::{DeviceFile, DiskFile, File, FileMode, MemStore, MemoryObject, SecretMem},
    mm::{Machine, MapFlags, MbindFlags, Mm, MmapArgs, PolicyMode, ShmFlags, ShmGetFlags, ShmId},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// The things that a script names besides the files of its header.
#[derive(Debug, Default)]
pub(super) struct Special {
    /// Names of descriptors that are not open.
    closed: BTreeSet<String>,
    /// Files by path whose contents no script has, and the bytes of them that are known.
    unknown: BTreeMap<String, (Arc<DiskFile>, BTreeSet<u64>)>,
    /// Paths that the kernel could not open, and why.
    missing: BTreeMap<String, String>,
    secret: Option<Arc<File>>,
    /// All segments that were made; the last is that of the script.
    segments: Vec<ShmId>,
    device: OwnMemory,
}

/// Executes a call of one process that names nothing of the script.
pub(super) fn own_call(cx: &mut CallCx<'_>, mm: &Mm, op: &Op) -> Outcome {
    match *op {
        Op::Exec { addr } => touched(mm.fetch(cx, addr).map(|_| 0)),
        Op::PkeyAlloc {} => returned(mm.pkey_alloc().map(u64::from)),
        Op::PkeyMprotect(PkeyMprotect {
            addr,
            len,
            prot,
            pkey,
        }) => done(mm.pkey_mprotect(cx, (addr, len), prot, pkey)),
        Op::Mbind(Mbind {
            addr,
            len,
            mode,
            flags,
        }) => {
            let Some(mode) = PolicyMode::from_raw(mode) else {
                return failed(Errno::EINVAL);
            };
            let nodes = u64::from(mode != PolicyMode::Default);
            let flags = MbindFlags::from_bits_retain(flags);
            done(mm.mbind(cx, (addr, len), (mode, nodes), flags))
        }
        Op::Shmdt { addr } => done(mm.shmdt(cx, addr)),
        Op::AnonName(AnonName {
            addr,
            len,
            ref name,
        }) => done(mm.name_memory(cx, addr, len, name.as_deref())),
        ref other => unreachable!("{other:?} is not such a call"),
    }
}

impl Special {
    /// Returns true for operations that this executes.
    pub(super) fn is_of(op: &Op) -> bool {
        let other = matches!(
            op,
            Op::Open(_)
                | Op::BadFd { .. }
                | Op::Secret { .. }
                | Op::MmapSecret(_)
                | Op::Shmget(_)
                | Op::Shmat(_)
                | Op::Shmrm {}
                | Op::Shmlock {}
                | Op::Shmunlock {}
        );
        other || op.is_of_device()
    }
    /// Executes such an operation; files that it opens become `files`.
    pub(super) fn execute(
        &mut self,
        cx: &mut CallCx<'_>,
        mm: &Mm,
        op: &Op,
        files: &mut BTreeMap<String, Arc<File>>,
    ) -> Outcome {
        let machine = mm.machine();
        match op {
            op if op.is_of_device() => self.device.execute(cx, mm, op),
            Op::Open(OpenPath { path, .. }) if self.missing.contains_key(path) => {
                Outcome::Err(self.missing[path].clone())
            }
            Op::Open(OpenPath { path, mode, name }) => {
                let file = self.open(machine, path, *mode);
                done(file.map(|file| {
                    files.insert(name.clone(), file);
                }))
            }
            Op::BadFd { name, .. } => {
                self.closed.insert(name.clone());
                Outcome::Ret(0)
            }
            Op::Secret { len } => done(self.new_secret(cx, machine, *len)),
            Op::MmapSecret(map) => {
                if self.secret.is_none() {
                    return failed(Errno::EBADF);
                }
                let args = MmapArgs {
                    addr: map.addr,
                    len: map.len,
                    prot: map.prot,
                    flags: map.flags,
                    file: self.secret.clone(),
                    offset: 0,
                };
                returned(mm.mmap(cx, &args))
            }
            _ => self.of_segment(cx, mm, op),
        }
    }
    fn of_segment(&mut self, cx: &mut CallCx<'_>, mm: &Mm, op: &Op) -> Outcome {
        let machine = mm.machine();
        if let Op::Shmget(Shmget { len, flags }) = *op {
            let flags = ShmGetFlags::CREAT | ShmGetFlags::from_bits_retain(flags);
            let made = machine.shmget(0, len, flags);
            return done(made.map(|id| self.segments.push(id)));
        }
        let Some(&id) = self.segments.last() else {
            return failed(Errno::EINVAL);
        };
        match *op {
            Op::Shmat(Shmat { addr, flags }) => {
                returned(mm.shmat(cx, id, addr, ShmFlags::from_bits_retain(flags)))
            }
            Op::Shmrm {} => done(machine.shm_remove(id)),
            Op::Shmlock {} => done(mm.shm_lock(cx, id)),
            Op::Shmunlock {} => done(machine.shm_unlock(id)),
            ref other => unreachable!("{other:?} is not of a segment"),
        }
    }
    /// Removes what would outlive the processes: segments, and the device.
    pub(super) fn end(mut self, cx: &mut CallCx<'_>, machine: &Machine) {
        for id in self.segments.drain(..) {
            let _gone_before = machine.shm_remove(id);
        }
        self.device.end(cx, machine);
    }
    fn new_secret(
        &mut self,
        cx: &mut CallCx<'_>,
        machine: &Arc<Machine>,
        len: u64,
    ) -> Result<(), Errno> {
        let object = SecretMem::new(machine.host()).map_err(|e| e.errno())?;
        let file = File::open(object, FileMode::ReadWrite);
        let sized = file.truncate(cx.reborrow(), len);
        self.secret = Some(file);
        sized.map_err(|e| e.errno())
    }
    /// Opens a file by its path. What the kernel has under `/proc` and `/dev` cannot be mapped, but
    /// for `/dev/zero`; the rest are files on disk, of one page.
    fn open(&mut self, machine: &Arc<Machine>, path: &str, mode: u32) -> Result<Arc<File>, Errno> {
        let host = machine.host();
        let of_kernel = ["/proc", "/dev", "/sys"].map(|dir| path.strip_prefix(dir));
        let of_kernel = of_kernel
            .iter()
            .flatten()
            .any(|rest| rest.is_empty() || rest.starts_with('/'));
        let object: Arc<dyn MemoryObject> = if path == "/dev/zero" {
            DeviceFile::zero(host)
        } else if of_kernel {
            DeviceFile::unmappable(host, path)
        } else if let Some((known, _)) = self.unknown.get(path) {
            Arc::clone(known) as Arc<dyn MemoryObject>
        } else {
            let store = Box::<MemStore>::default();
            let new = DiskFile::new(host, path, PAGE_SIZE, store).map_err(|e| e.errno())?;
            let (known, path) = ((Arc::clone(&new), BTreeSet::new()), path.to_owned());
            self.unknown.insert(path, known);
            new
        };
        let mode = match mode & 3 {
            0 => FileMode::ReadOnly,
            1 => FileMode::WriteOnly,
            _ => FileMode::ReadWrite,
        };
        Ok(File::open(object, mode))
    }
    /// Returns the failure of an operation that names a descriptor that is not open; `None` for any
    /// other, and for a mapping of anonymous memory, which ignores the descriptor.
    pub(super) fn is_closed(&self, op: &Op) -> Option<Outcome> {
        op.file().filter(|name| self.closed.contains(*name))?;
        match *op {
            Op::Mmap { off, .. } if !off.is_multiple_of(PAGE_SIZE) => Some(failed(Errno::EINVAL)),
            Op::Mmap { flags, .. } if flags.contains(MapFlags::ANONYMOUS) => None,
            _ => Some(failed(Errno::EBADF)),
        }
    }
    /// Learns from an outcome whether the recorded machine had a file, and bytes of it.
    pub(super) fn believe(&mut self, cx: &mut CallCx<'_>, mm: &Mm, step: (&Op, &Outcome)) {
        match step {
            (Op::Open(of), Outcome::Err(why)) => {
                self.missing.insert(of.path.clone(), why.clone());
            }
            (Op::Open(of), _) => {
                self.missing.remove(&of.path);
            }
            (&Op::Load { addr }, &Outcome::Ret(byte)) => self.believe_byte(cx, mm, addr, byte),
            _ => {}
        }
    }
    /// Learns a byte of a file by path from the load of it: the first that the script has of that
    /// byte is believed.
    fn believe_byte(&mut self, cx: &mut CallCx<'_>, mm: &Mm, addr: u64, byte: u64) {
        let Ok(byte) = u8::try_from(byte) else {
            return;
        };
        let lines = match self.unknown.is_empty() {
            true => return,
            false => mm.maps(cx),
        };
        let line = lines.iter().find(|l| (l.start..l.end).contains(&addr));
        let Some((line, (file, known))) =
            line.and_then(|line| Some((line, self.unknown.get_mut(&line.name)?)))
        else {
            return;
        };
        let at = line.offset + (addr - line.start);
        if at < file.size() && known.insert(at) {
            // A failure shows as a difference.
            let _written = file.write_at(cx.reborrow(), at, &[byte]);
            let _clean = file.sync(cx.reborrow(), 0, u64::MAX);
        }
    }
}

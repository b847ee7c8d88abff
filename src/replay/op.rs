//! One recorded operation, typed. Writing an operation that was read gives equal JSON.

use super::{
    hex::Hex,
    resource::Resource,
    special_op::{self, MremapKeys},
    uffd_op,
    wire_words::{advice, hex, is_zero, map_flags, msync_flags, nullable, prot},
};
use crate::mm::{Advice, MapFlags, MremapArgs, MsyncFlags, Prot};
use serde::{Deserialize, Serialize};

/// An operation and its arguments, as the process passed them: no argument has been checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
#[allow(
    missing_docs,
    reason = "the fields are the arguments of the system call of that name"
)]
pub enum Op {
    /// `mmap`; anonymous without a file.
    Mmap {
        #[serde(with = "hex")]
        addr: u64,
        len: u64,
        #[serde(with = "prot")]
        prot: Prot,
        #[serde(with = "map_flags")]
        flags: MapFlags,
        #[serde(deserialize_with = "nullable")]
        file: Option<String>,
        off: u64,
    },
    /// `munmap`.
    Munmap {
        #[serde(with = "hex")]
        addr: u64,
        len: u64,
    },
    /// `mprotect`.
    Mprotect {
        #[serde(with = "hex")]
        addr: u64,
        len: u64,
        #[serde(with = "prot")]
        prot: Prot,
    },
    /// `mremap`.
    Mremap(#[serde(with = "MremapKeys")] MremapArgs),
    /// `remap_file_pages` with protection and flags 0.
    RemapFilePages {
        #[serde(with = "hex")]
        addr: u64,
        len: u64,
        pgoff: u64,
    },
    /// `madvise`.
    Madvise {
        #[serde(with = "hex")]
        addr: u64,
        len: u64,
        #[serde(with = "advice")]
        advice: Advice,
    },
    /// `msync`; without flags `MS_SYNC`.
    Msync {
        #[serde(with = "hex")]
        addr: u64,
        len: u64,
        #[serde(
            with = "msync_flags",
            default = "msync_flags::usual",
            skip_serializing_if = "msync_flags::are_usual"
        )]
        flags: MsyncFlags,
    },
    /// `mlock`.
    Mlock {
        #[serde(with = "hex")]
        addr: u64,
        len: u64,
    },
    /// `munlock`.
    Munlock {
        #[serde(with = "hex")]
        addr: u64,
        len: u64,
    },
    /// A load of one byte.
    Load {
        #[serde(with = "hex")]
        addr: u64,
    },
    /// A store of one byte.
    Store {
        #[serde(with = "hex")]
        addr: u64,
        byte: u8,
    },
    /// A fork; `child` is the number of the new process.
    Fork { child: u32 },
    /// An exit of the process.
    Exit {},
    /// `ftruncate`.
    Ftruncate { file: String, len: u64 },
    /// `fallocate` with `FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE`.
    PunchHole { file: String, off: u64, len: u64 },
    /// A `pwrite` of one byte.
    Pwrite { file: String, off: u64, byte: u8 },
    /// `fsync`.
    Fsync { file: String },
    /// Reclaim of every page that these processes own.
    Reclaim {},
    /// The kernel frees so many frames (`frames` in a script), if possible. Only scripts of this
    /// library have this operation and the following ones: no kernel offers them.
    Shrink {
        #[serde(rename = "frames")]
        pages: u64,
    },
    /// Migration of the page to another frame.
    Migrate {
        #[serde(with = "hex")]
        addr: u64,
    },
    /// Private pages of all processes come to share the frame of the first page that they are equal
    /// to.
    Merge {},
    /// `brk`.
    Brk {
        #[serde(with = "hex")]
        addr: u64,
    },
    /// `mlock2`.
    Mlock2 {
        #[serde(with = "hex")]
        addr: u64,
        len: u64,
        flags: u32,
    },
    /// `mlockall`.
    Mlockall { flags: u32 },
    /// `munlockall`.
    Munlockall {},
    /// `mincore`, of at most 64 pages; returns a bit for each, the lowest for the first.
    Mincore {
        #[serde(with = "hex")]
        addr: u64,
        len: u64,
    },
    /// `mseal`.
    Mseal {
        #[serde(with = "hex")]
        addr: u64,
        len: u64,
    },
    /// A new resource limit: so many bytes, or so many more than are in use, or none.
    Rlimit {
        which: Resource,
        #[serde(deserialize_with = "nullable")]
        bytes: Option<u64>,
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        over: bool,
    },
    /// The end of the process's `CAP_IPC_LOCK`.
    DropIpcLock {},
    /// `process_vm_readv`: from `remote` of process `target` to `addr`.
    PvmRead {
        #[serde(with = "hex")]
        addr: u64,
        len: u64,
        target: u32,
        #[serde(with = "hex")]
        remote: u64,
    },
    /// `process_vm_writev`: from `addr` to `remote` of process `target`.
    PvmWrite {
        #[serde(with = "hex")]
        addr: u64,
        len: u64,
        target: u32,
        #[serde(with = "hex")]
        remote: u64,
    },
    /// A `pread` of one byte; returns 256 at the end of the file.
    Pread { file: String, off: u64 },
    /// `sync_file_range`.
    SyncFileRange {
        file: String,
        off: u64,
        len: u64,
        flags: u32,
    },
    /// `pread` of a file into memory of the process.
    ReadInto {
        file: String,
        off: u64,
        #[serde(with = "hex")]
        addr: u64,
        len: u64,
    },
    /// `pwrite` to a file from memory of the process.
    WriteFrom {
        file: String,
        off: u64,
        #[serde(with = "hex")]
        addr: u64,
        len: u64,
    },
    /// `process_madvise` of another process; returns the number of advised bytes.
    ProcessMadvise {
        target: u32,
        iov: Vec<(Hex, u64)>,
        #[serde(with = "advice")]
        advice: Advice,
        flags: u32,
    },
    /// `process_madvise` of the process itself.
    SelfProcessMadvise {
        iov: Vec<(Hex, u64)>,
        #[serde(with = "advice")]
        advice: Advice,
    },
    /// `io_uring_register`: a long-term pin on memory, as a buffer that is written to. It takes the
    /// place of the one that the process had.
    Pin {
        #[serde(with = "hex")]
        addr: u64,
        len: u64,
    },
    /// The end of the pin of the process.
    Unpin {},
    /// `vmsplice` of memory into a new pipe, which keeps references on its pages.
    Vmsplice {
        #[serde(with = "hex")]
        addr: u64,
        len: u64,
    },
    /// The process closes the pipe of its last `vmsplice`; processes that were forked since have it
    /// still.
    Drain {},
    /// A read of one byte from `/proc/PID/mem` of process `target`.
    MemRead {
        #[serde(with = "hex")]
        addr: u64,
        target: u32,
    },
    /// A write of one byte to `/proc/PID/mem` of process `target`.
    MemWrite {
        #[serde(with = "hex")]
        addr: u64,
        target: u32,
        byte: u8,
    },
    /// Process `target` is killed; `process_mrelease` frees its memory before it ends.
    ExitAndReap { target: u32 },
    /// `ksmd` merges equal pages of mergeable memory (mode 1: four scans), or unmerges all merged
    /// memory (mode 2).
    Ksm {
        #[serde(default = "special_op::scans")]
        mode: u8,
    },
    /// `prctl` with an option that is known: see `about_op`.
    Prctl {
        option: u32,
        a2: u64,
        #[serde(default, skip_serializing_if = "is_zero")]
        a3: u64,
    },
    /// `prctl(PR_SET_VMA_ANON_NAME)`.
    AnonName(special_op::AnonName),
    /// A new thread with this number; it shares the memory of the process.
    Thread { thread: u32 },
    /// Migration of these pages, each named by a process and an address, one after the other.
    MigrateMany { moves: Vec<(u32, Hex)> },
    /// `MADV_HUGEPAGE` of these ranges of the process, then full scans of `khugepaged`.
    Khugepaged { advise: Vec<(Hex, u64)> },
    /// A write to `/proc/sys/vm/drop_caches`; 2: the shrinkers, which split huge pages of which a
    /// part was given back.
    DropCaches { value: u32 },
    /// `swapoff` of the only swap device.
    Swapoff {},
    /// `swapon` of it.
    Swapon {},
    /// A limit of the memory of all processes, in bytes (`memory.limit_in_bytes`).
    Limit { bytes: u64 },
    /// `fallocate`.
    Fallocate {
        file: String,
        mode: u32,
        off: u64,
        len: u64,
    },
    /// A `pwrite` of equal bytes, from memory that no process of the script has.
    DirectWrite {
        file: String,
        off: u64,
        len: u64,
        byte: u8,
    },
    /// `pread` of a file that is open for direct transfers into memory of the process.
    DirectRead {
        file: String,
        off: u64,
        #[serde(with = "hex")]
        addr: u64,
        len: u64,
    },
    /// `pwrite` to such a file from memory of the process.
    DirectWriteFrom {
        file: String,
        off: u64,
        #[serde(with = "hex")]
        addr: u64,
        len: u64,
    },
    /// `posix_fadvise` with `POSIX_FADV_DONTNEED`.
    FadviseDontneed { file: String, off: u64, len: u64 },
    /// `fcntl(F_ADD_SEALS)`.
    Seal { file: String, seals: u32 },
    /// `memfd_secret` and `ftruncate`: the secret memory of the script from here on.
    Secret { len: u64 },
    /// `mmap` of the secret memory.
    MmapSecret(special_op::MmapSecret),
    /// `open` of a file by its path: the script names it so from here on.
    Open(special_op::OpenPath),
    /// A name for a descriptor that is not open.
    BadFd { name: String, fd: i64 },
    /// A jump to an address where an instruction to return is.
    Exec {
        #[serde(with = "hex")]
        addr: u64,
    },
    /// `shmget` of a new segment: that of the script from here on.
    Shmget(special_op::Shmget),
    /// `shmat` of the segment.
    Shmat(special_op::Shmat),
    /// `shmdt`.
    Shmdt {
        #[serde(with = "hex")]
        addr: u64,
    },
    /// `shmctl(IPC_RMID)` of the segment.
    Shmrm {},
    /// `shmctl(SHM_LOCK)` of the segment.
    Shmlock {},
    /// `shmctl(SHM_UNLOCK)`.
    Shmunlock {},
    /// `pkey_alloc`.
    PkeyAlloc {},
    /// `pkey_mprotect`.
    PkeyMprotect(special_op::PkeyMprotect),
    /// `mbind` to node 0; the default policy, 0, without nodes.
    Mbind(special_op::Mbind),
    /// `userfaultfd` and `UFFDIO_API`.
    Uffd(uffd_op::Open),
    /// The end of the process's userfaultfd.
    UffdClose {},
    /// `UFFDIO_REGISTER`.
    UffdRegister(uffd_op::Moded),
    /// `UFFDIO_UNREGISTER`.
    UffdUnregister(uffd_op::Part),
    /// `UFFDIO_WAKE`.
    UffdWake(uffd_op::Part),
    /// `UFFDIO_COPY` of pages that are filled with one byte.
    UffdCopy(uffd_op::Copy),
    /// `UFFDIO_ZEROPAGE`.
    UffdZeropage(uffd_op::Fill),
    /// `UFFDIO_CONTINUE`.
    UffdContinue(uffd_op::Fill),
    /// `UFFDIO_POISON`.
    UffdPoison(uffd_op::Fill),
    /// `UFFDIO_WRITEPROTECT`.
    UffdWriteprotect(uffd_op::Moded),
    /// `UFFDIO_MOVE`.
    UffdMove(uffd_op::Move),
    /// A load that waits for answers.
    FaultLoad(uffd_op::FaultLoad),
    /// A store that waits for answers.
    FaultStore(uffd_op::FaultStore),
    /// `PAGEMAP_SCAN`.
    PagemapScan(uffd_op::ScanOf),
    /// A write to `/proc/PID/clear_refs`.
    ClearRefs(uffd_op::Clear),
    /// The beginning of a device with memory of its own. No kernel was recorded with one.
    Device(special_op::NewDevice),
    /// The end of the device, if no page is left there.
    RemoveDevice {},
    /// All pages come home from the device; returns the number of those that are left.
    EvictDevice {},
    /// Pages migrate to the device; returns the number of those that did.
    ToDevice(special_op::Bytes),
    /// Pages come home; returns the number of those that did.
    FromDevice(special_op::Bytes),
    /// The device has a page of memory alone.
    Exclusive {
        #[serde(with = "hex")]
        addr: u64,
    },
}

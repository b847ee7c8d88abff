//! Errors whose cause no recording shows: kinds of files, rights and limits of processes, the
//! memory of the machine, the configuration of its kernel.
//!
//! If the rules of this library accept a call that failed for such a reason, the replay takes the
//! recorded error and skips the call.

use super::{
    call::{Call, Returned},
    files::{Descriptors, Objects},
    huge,
    place::{attach_args, map_args},
};
use crate::{
    ctx::CallCx,
    mm::{Advice, MapFlags, Mm, Prot},
};

/// Errors of files: kinds, rights, seals, leases, drivers.
const OF_FILES: &[&str] = &[
    "EACCES",
    "EPERM",
    "ENODEV",
    "ENXIO",
    "EIO",
    "ETXTBSY",
    "EAGAIN",
    "EOPNOTSUPP",
    "EROFS",
    "EFBIG",
    "ENOSPC",
    "EDQUOT",
    "EINTR",
    "ENFILE",
];
/// Errors of the rights and limits of a process.
const OF_LIMITS: &[&str] = &["EPERM", "EAGAIN"];
/// Errors of segments, whose files may be unknown too.
const OF_SEGMENTS: &[&str] = &[
    "EINVAL", "EIDRM", "EACCES", "EPERM", "ENOMEM", "ENFILE", "EMFILE",
];

/// Returns true if the call failed for a reason outside of the replayed state; such a call had no
/// other effect than those that this function causes.
pub(super) fn failed(
    cx: &mut CallCx<'_>,
    mm: &Mm,
    (files, objects): (&Descriptors, &mut Objects),
    call: &Call,
    returned: &Returned,
) -> bool {
    let Returned::Error(errno) = returned else {
        return false;
    };
    let among = |errors: &[&str]| errors.contains(&&**errno);
    match *call {
        Call::Mmap {
            flags, ref file, ..
        } if huge::is_behind(files, flags, file) => {
            if errno == "ENOMEM" {
                huge::gave_up(cx, mm, call);
            }
            true
        }
        Call::Mmap { .. } => {
            is_outside(files, call, errno)
                && matches!(map_args(files, objects, call, returned), Some(Ok(args))
                    if mm.would_map_at(cx, &args).is_ok())
        }
        Call::Mremap(args) => {
            args.new_len > args.old_len
                && among(&["ENOMEM", "EAGAIN"])
                && mm.would_remap_to(cx, args).is_ok()
        }
        Call::Shmat { .. } => {
            let args = attach_args(objects, call, returned);
            among(OF_SEGMENTS)
                && matches!(args, Some(Ok(args)) if mm.would_map_at(cx, &args).is_ok())
        }
        Call::Ftruncate { ref file, .. } | Call::Fallocate { ref file, .. } => {
            file.is_open() && among(OF_FILES)
        }
        Call::Mlock { addr, len, .. } => {
            // The kernel checks the limit before the pages.
            among(OF_LIMITS) || errno == "ENOMEM" && is_whole(cx, mm, addr, len)
        }
        Call::Mlockall { .. } => among(OF_LIMITS) || errno == "ENOMEM",
        Call::Madvise { advice, .. } => is_of_kernel(advice, errno),
        // The replay does not follow the call that allocates keys.
        Call::PkeyMprotect { .. } => errno == "EINVAL",
        // Kernels may be built without names for memory.
        Call::NameMemory { .. } => true,
        _ => false,
    }
}

/// Returns true if this error of an `mmap` comes from its file, from limits or from the size of
/// memory.
fn is_outside(files: &Descriptors, call: &Call, errno: &str) -> bool {
    let Call::Mmap {
        prot,
        flags,
        ref file,
        ..
    } = *call
    else {
        return false;
    };
    let anonymous = flags.contains(MapFlags::ANONYMOUS);
    if !anonymous {
        // Sockets, pipes and devices have drivers with errors of their own.
        let driver = !file.path.starts_with('/') || file.path.starts_with("/dev/");
        // The mode of a file is known if its opening was seen.
        let seen = files.get(file).is_some() && errno == "EACCES";
        if driver || OF_FILES.contains(&errno) && !seen {
            return true;
        }
    }
    let private = flags & MapFlags::SHARED_VALIDATE == MapFlags::PRIVATE;
    let promised = !flags.contains(MapFlags::NORESERVE)
        && if private {
            prot.contains(Prot::WRITE)
        } else {
            anonymous
        };
    match errno {
        "ENOMEM" => promised,
        "EAGAIN" => true,
        _ => false,
    }
}

/// Returns true if every page of a range is mapped.
fn is_whole(cx: &mut CallCx<'_>, mm: &Mm, addr: u64, len: u64) -> bool {
    let Some(end) = addr.checked_add(len) else {
        return false;
    };
    let mut at = addr;
    for line in mm.maps(cx) {
        if line.start <= at && at < line.end {
            at = line.end;
        }
    }
    at >= end
}

/// Returns true if an error of `madvise` depends on the configuration of the kernel, or on the
/// state of single pages.
fn is_of_kernel(advice: u64, errno: &str) -> bool {
    let known = i32::try_from(advice).ok().and_then(Advice::from_raw);
    match known {
        None => true,
        Some(Advice::Mergeable | Advice::Unmergeable | Advice::HugePage | Advice::NoHugePage) => {
            errno == "EINVAL"
        }
        Some(Advice::Collapse) => true,
        Some(Advice::PopulateRead | Advice::PopulateWrite) => {
            !["EINVAL", "ENOMEM"].contains(&errno)
        }
        Some(Advice::Remove) => OF_FILES.contains(&errno),
        Some(_) => errno == "EPERM" || errno == "EAGAIN",
    }
}

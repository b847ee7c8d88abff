//! Secret memory, the segment of System V, and names of memory: a plan has no numbers or addresses
//! of them.

use super::{
    call::system_call,
    family::Family,
    plan::{Plan, Unavailable},
    raw::{memfd_secret, remove_segment},
};
use crate::replay::{AnonName, MmapSecret, Op, Outcome, Shmat, Shmget};
use std::{
    collections::BTreeMap,
    ffi::CString,
    fs::File,
    io,
    os::fd::{AsRawFd, RawFd},
};

/// The mode of a segment: its owner reads and writes.
const OWNER: u32 = 0o600;

/// Secret memory and segments, made and to be made.
#[derive(Debug)]
pub(super) struct Special {
    /// A file without a size for each step that makes secret memory, in their order.
    secrets: Vec<File>,
    /// The secret memory of this moment is the one before this.
    next: usize,
    /// The segment of this moment is the last.
    segments: Vec<i32>,
    /// The names that the plan gives to memory: the processes are forks of this one, so each lies
    /// at the same address there.
    names: BTreeMap<String, CString>,
}

impl Special {
    /// Opens the files of secret memory: a process has them all from the beginning, as it must
    /// map what another one makes.
    pub(super) fn of(plan: &Plan) -> Result<Self, Unavailable> {
        let makes = |(_, op): &&(u32, Op)| matches!(op, Op::Secret { .. });
        let secrets = plan.steps.iter().filter(makes).map(|_| memfd_secret());
        let secrets = secrets.collect::<io::Result<_>>();
        Ok(Self {
            secrets: secrets.map_err(Unavailable::Secret)?,
            next: 0,
            segments: Vec::new(),
            names: plan.steps.iter().filter_map(name).collect(),
        })
    }
    /// Returns the descriptors that the processes need.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        self.secrets.iter().map(AsRawFd::as_raw_fd)
    }
    /// Returns true for the operations that this executes.
    pub(super) fn is_of(op: &Op) -> bool {
        matches!(
            op,
            Op::Secret { .. }
                | Op::MmapSecret(_)
                | Op::AnonName(_)
                | Op::Shmget(_)
                | Op::Shmat(_)
                | Op::Shmrm {}
                | Op::Shmlock {}
                | Op::Shmunlock {}
        )
    }
    /// Executes such an operation in a process.
    pub(super) fn act(&mut self, family: &mut Family, actor: u32, op: &Op) -> io::Result<Outcome> {
        let (nr, args) = match *op {
            Op::Secret { len } => {
                self.next += 1;
                (libc::SYS_ftruncate, [self.secret(), len, 0, 0, 0, 0])
            }
            Op::MmapSecret(MmapSecret {
                addr,
                len,
                prot,
                flags,
            }) => {
                let (prot, flags) = (prot.bits().into(), flags.bits().into());
                (libc::SYS_mmap, [addr, len, prot, flags, self.secret(), 0])
            }
            Op::Shmget(Shmget { len, flags }) => {
                let flags = flags | OWNER | libc::IPC_CREAT.cast_unsigned();
                let key = u64::from(libc::IPC_PRIVATE.cast_unsigned());
                let request = system_call(libc::SYS_shmget, [key, len, flags.into(), 0, 0, 0]);
                return Ok(match family.ask(actor, request)? {
                    Outcome::Ret(id) => {
                        self.segments
                            .push(i32::try_from(id).map_err(io::Error::other)?);
                        Outcome::Ret(0)
                    }
                    failed => failed,
                });
            }
            Op::AnonName(ref named) => (libc::SYS_prctl, self.naming(named)),
            Op::Shmat(Shmat { addr, flags }) => {
                let args = [self.segment(), addr, flags.into(), 0, 0, 0];
                (libc::SYS_shmat, args)
            }
            ref other => {
                let what = match other {
                    Op::Shmrm {} => libc::IPC_RMID,
                    Op::Shmlock {} => libc::SHM_LOCK,
                    _ => libc::SHM_UNLOCK,
                };
                let what = u64::from(what.cast_unsigned());
                (libc::SYS_shmctl, [self.segment(), what, 0, 0, 0, 0])
            }
        };
        family.ask(actor, system_call(nr, args))
    }
    /// Returns the arguments of `prctl` that give memory a name, or take it away.
    fn naming(&self, named: &AnonName) -> [u64; 6] {
        let known = named.name.as_ref().and_then(|name| self.names.get(name));
        let name = known.map_or(0, |name| name.as_ptr() as u64);
        let (set, what) = (libc::PR_SET_VMA as u64, libc::PR_SET_VMA_ANON_NAME as u64);
        [set, what, named.addr, named.len, name, 0]
    }
    /// Returns the descriptor of the secret memory of this moment; a bad one before the first.
    fn secret(&self) -> u64 {
        let last = self.next.checked_sub(1).and_then(|n| self.secrets.get(n));
        last.map_or(u64::MAX, |file| file.as_raw_fd() as u64)
    }
    /// Returns the number of the segment of this moment; a bad one before the first.
    fn segment(&self) -> u64 {
        self.segments.last().map_or(u64::MAX, |&id| id as u64)
    }
}

/// Returns the name that a step gives to memory, as the kernel reads it.
fn name((_, op): &(u32, Op)) -> Option<(String, CString)> {
    match op {
        Op::AnonName(AnonName {
            name: Some(name), ..
        }) => Some((name.clone(), CString::new(name.as_str()).ok()?)),
        _ => None,
    }
}

impl Drop for Special {
    fn drop(&mut self) {
        // A segment lives on without processes.
        self.segments.iter().for_each(|&id| remove_segment(id));
    }
}

//! Memory of a process that another one reads and writes by force: `/proc/PID/mem`, and `ptrace`
//! for a debugger (`access_remote_vm` with `FOLL_FORCE`).
//!
//! The rights of a mapping do not bind such an access, only those that it could have. A forced
//! write to private memory copies the page as a write of the process would; the entry stays
//! read-only. Shared memory without the right to write is not written.

use crate::mm::{
    fault::follow::{Follow, Hold},
    space::Mm,
};
use crate::{
    addr::{Pfn, Vpn, by_page},
    ctx::CallCx,
    error::{FaultError, RemoteAccessError},
    notifier::Access,
};

impl Mm {
    /// Reads memory of this process for another one, whatever the rights of its mappings. Returns
    /// the number of bytes read: fewer if a page after those cannot be had.
    ///
    /// # Errors
    ///
    /// [`RemoteAccessError`], if not even one byte could be read.
    pub fn read_remote(
        &self,
        cx: &mut CallCx<'_>,
        addr: u64,
        out: &mut [u8],
    ) -> Result<usize, RemoteAccessError> {
        let mem = self.machine().mem();
        let mut done = 0;
        let read = by_page(addr, out, |at, offset, part| {
            let page = (at, addr.max(at.addr()));
            self.force(cx, page, Access::Read, |pfn| mem.read(pfn, offset, part))?;
            done += part.len();
            Ok(())
        });
        some(done, read)
    }
    /// Writes memory of this process for another one, as a debugger does. Private memory need not
    /// be writable, only such that `mprotect` could make it so; shared memory must be writable.
    /// Returns the number of bytes written: fewer if a page after those cannot be had.
    ///
    /// # Errors
    ///
    /// [`RemoteAccessError`], if not even one byte could be written.
    ///
    /// # Examples
    ///
    /// ```
    /// use emmu::{Machine, MachineConfig, Mm, mm::{MmapArgs, Prot}};
    ///
    /// let machine = Machine::new(MachineConfig::default());
    /// let mut thread = machine.enter().unwrap();
    /// let mut cx = thread.cx();
    /// let mm = Mm::new(&machine);
    /// let code = mm.mmap(&mut cx, &MmapArgs::anonymous(0x1000).prot(Prot::READ))?;
    /// assert_eq!(mm.write_remote(&mut cx, code, &[0xcc]), Ok(1)); // A breakpoint.
    /// assert_eq!(mm.load(&mut cx, code), Ok(0xcc));
    /// assert!(mm.store(&mut cx, code, 0).is_err());
    /// mm.exit(&mut cx);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn write_remote(
        &self,
        cx: &mut CallCx<'_>,
        addr: u64,
        bytes: &[u8],
    ) -> Result<usize, RemoteAccessError> {
        let mem = self.machine().mem();
        let mut done = 0;
        let written = by_page(addr, bytes, |at, offset, part| {
            let page = (at, addr.max(at.addr()));
            self.force(cx, page, Access::Write, |pfn| mem.write(pfn, offset, part))?;
            done += part.len();
            Ok(())
        });
        some(done, written)
    }
    /// Runs `f` on the frame of a page under the lock of its entry. A stack above the page grows
    /// first, if that is needed.
    fn force(
        &self,
        cx: &mut CallCx<'_>,
        page: (Vpn, u64),
        access: Access,
        mut f: impl FnMut(Pfn),
    ) -> Result<(), FaultError> {
        let how = Follow {
            access,
            hold: Hold::Reference,
            force: true,
        };
        match self.follow_page(cx, page, how, &mut f) {
            Err(FaultError::NotMapped(_)) if self.grow_stack(cx, page.0).is_ok() => {
                self.follow_page(cx, page, how, f)
            }
            done => done,
        }
    }
}

/// Returns the number of bytes that were done, or why there are none.
fn some(done: usize, ended: Result<(), FaultError>) -> Result<usize, RemoteAccessError> {
    match ended {
        Err(why) if done == 0 => Err(RemoteAccessError(why)),
        _ => Ok(done),
    }
}

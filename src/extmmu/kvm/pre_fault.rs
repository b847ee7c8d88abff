//! Guest frames that are faulted in before the guest uses them (`KVM_PRE_FAULT_MEMORY`).

use super::{
    config::VmType,
    exit::Exit,
    gfn::{C_BIT, Gfn},
    vcpu::{Vcpu, place},
};
use crate::{
    addr::PAGE_SIZE,
    ctx::CallCx,
    error::{Errno, HasErrno},
    notifier::Access,
};
use thiserror::Error;

/// No guest frame could be faulted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PreFaultError {
    /// The range is empty, has parts of pages, or leaves the address space.
    #[error("[{gpa:#x}, +{size:#x}) are no guest frames")]
    Range {
        /// The first guest-physical byte address.
        gpa: u64,
        /// The number of bytes.
        size: u64,
    },
    /// A load of the first frame would leave the guest.
    #[error(transparent)]
    Exit(#[from] Exit),
}

impl PreFaultError {
    /// Returns the errno of the ioctl (`kvm_tdp_map_page`).
    pub const fn errno(self) -> Errno {
        match self {
            Self::Range { .. } => Errno::EINVAL,
            Self::Exit(Exit::Mmio(_) | Exit::ReadOnly(_)) => Errno::ENOENT,
            Self::Exit(Exit::Fault { .. }) => Errno::EFAULT,
            Self::Exit(Exit::MemoryFault { errno, .. }) => errno,
            Self::Exit(Exit::Gone) => Errno::EIO,
        }
    }
}

impl HasErrno for PreFaultError {
    fn errno(&self) -> Errno {
        PreFaultError::errno(*self)
    }
}

impl Vcpu {
    /// Faults in the guest frames of `[gpa, gpa + size)` for reading, and returns how many bytes
    /// are left at the end: 0, if all could be had (`KVM_PRE_FAULT_MEMORY`).
    ///
    /// Frames have their pages, shared or private, when this returns; a window may take them again.
    /// `gpa` has no [C-bit](C_BIT). The first frame that cannot be had ends the call, and is an
    /// error only if it is the first of all.
    ///
    /// # Errors
    ///
    /// [`PreFaultError`]; nothing was faulted in.
    ///
    /// # Examples
    ///
    /// ```
    /// use emmu::extmmu::kvm::{Gfn, MemSlot, SlotFlags, Vm, VmConfig};
    /// use emmu::{Errno, PAGE_SIZE, addr::Vpn, mm::MmapArgs};
    /// # let machine = emmu::Machine::new(Default::default());
    /// # let mut thread = machine.enter()?;
    /// # let mut cx = thread.cx();
    /// # let mm = emmu::Mm::new(&machine);
    /// # let (vm, _registration) = Vm::create(&mut cx, &mm, VmConfig::default());
    ///
    /// let at = mm.mmap(&mut cx, &MmapArgs::anonymous(4 * PAGE_SIZE))?;
    /// let (hva, flags) = (Vpn::containing(at), SlotFlags::empty());
    /// vm.set_memory(&mut cx, MemSlot { id: 0, gfn: Gfn(0), pages: 4, hva, flags })?;
    /// let vcpu = vm.vcpu(&mut cx);
    /// // The slot ends after two of these three pages.
    /// assert_eq!(vcpu.pre_fault_memory(&mut cx, 2 * PAGE_SIZE, 3 * PAGE_SIZE), Ok(PAGE_SIZE));
    /// assert_eq!(vm.entries(&mut cx), 2);
    /// let beyond = vcpu.pre_fault_memory(&mut cx, 4 * PAGE_SIZE, PAGE_SIZE);
    /// assert_eq!(beyond.unwrap_err().errno(), Errno::ENOENT);
    /// # mm.exit(&mut cx);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn pre_fault_memory(
        &self,
        cx: &mut CallCx<'_>,
        gpa: u64,
        size: u64,
    ) -> Result<u64, PreFaultError> {
        let whole = gpa.is_multiple_of(PAGE_SIZE) && size.is_multiple_of(PAGE_SIZE);
        let end = gpa.checked_add(size).filter(|_| whole && size > 0);
        let end = end.filter(|&end| !self.has_c_bit() || end <= C_BIT);
        let end = end.ok_or(PreFaultError::Range { gpa, size })?;
        let mut at = gpa;
        while at < end {
            match self.pre_fault(cx, at) {
                Ok(behind) => at = behind.min(end),
                Err(why) if at == gpa => return Err(why.into()),
                Err(_) => break,
            }
        }
        Ok(end - at)
    }
    /// Faults in a guest frame, and returns the address behind the entry that has it.
    fn pre_fault(&self, cx: &mut CallCx<'_>, gpa: u64) -> Result<u64, Exit> {
        let gfn = Gfn::containing(gpa);
        let private = self.has_c_bit() && self.vm().is_private(gfn, Gfn(gfn.0 + 1));
        let seen = if private { gpa | C_BIT } else { gpa };
        self.miss(cx, self.tlb.lock(), place(seen), Access::Read)?;
        // An entry that a window took meanwhile counts as one of 4 KiB.
        let tlb = self.tlb.lock();
        let entry = tlb.process.get(0, gfn.0);
        let pages = entry.map_or(1, |entry| entry.range().pages());
        Ok(((gfn.0 & !(pages - 1)) + pages) * PAGE_SIZE)
    }
    fn has_c_bit(&self) -> bool {
        self.vm().config.vm_type == VmType::Snp
    }
}

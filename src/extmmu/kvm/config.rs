//! The configuration of a virtual machine, and the mistakes that tests make on purpose.

use crate::extmmu::References;

/// The bits that the processor's page-table walk sets in entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum AccessedBits {
    /// The walk sets accessed bits.
    #[default]
    Present,
    /// The walk sets none, as in early EPT: aging counts an entry that exists as used, and zaps it.
    Absent,
}

/// The type of a virtual machine: the way in which its guest has private memory.
///
/// Nothing is encrypted here, and nothing keeps the process from a private page but the guest file
/// that it is in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum VmType {
    /// All guest frames are shared (`KVM_X86_DEFAULT_VM`).
    #[default]
    Default,
    /// An access has the kind that the guest frame has (`KVM_X86_SW_PROTECTED_VM`).
    SwProtected,
    /// The guest says which kind it means, by the [C-bit](super::C_BIT) of the address
    /// (`KVM_X86_SNP_VM`).
    Snp,
}

impl VmType {
    /// Returns true if guest frames can be private (`kvm_arch_has_private_mem`).
    pub const fn has_private_memory(self) -> bool {
        !matches!(self, Self::Default)
    }
}

/// The configuration of a virtual machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct VmConfig {
    /// The policy for references on frames.
    pub references: References,
    /// The presence of accessed bits.
    pub accessed: AccessedBits,
    /// The type of the machine.
    pub vm_type: VmType,
    /// A mistake made on purpose, for a test that must find it.
    pub mistake: Option<KvmMistake>,
    /// A mistake made on purpose with guest files or memory attributes.
    pub guest_mistake: Option<GuestMemoryMistake>,
}

mistakes! {
    /// Mistakes that drivers of this kind have made, for tests that must find them.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
    pub enum KvmMistake {
        /// TLBs are not flushed when entries are zapped (B23).
        NoFlush,
        /// TLBs are flushed at the end of the window.
        LateFlush,
        /// The last page of a range is not flushed.
        ShortFlush,
        /// The result of a look-up is used without validation (B11).
        NoRetry,
        /// The dirty bit is not set in the entry (B26).
        LostDirty,
        /// A gfn-to-pfn cache becomes valid outside of its lock (B22).
        EarlyValid,
        /// Windows do not invalidate gfn-to-pfn caches.
        DeafCache,
        /// The end of a window does not find the slots that its beginning found, and does not count
        /// it out (B34).
        LostEnd,
    }
}

mistakes! {
    /// Mistakes with guest files and memory attributes, for tests that must find them.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
    pub enum GuestMemoryMistake {
        /// A hole that is punched in a guest file leaves the guest's entries of its pages.
        PunchKeepsEntries,
        /// A slot may lose its guest file by a change of its flags, and the file forgets the slot
        /// without a window (C51).
        FlagFlip,
        /// Attributes change when the window over their guest frames has ended.
        AttributesAfterWindow,
        /// A conversion removes the entries of the new kind, and not those of the old one.
        WrongKindZapped,
        /// The page of a guest file is entered without a check of the fault's stamp.
        UncheckedGuestFault,
    }
}

//! The answer of an IOMMU to a window over slices, and the mistakes that tests make on purpose.

/// The answer to a window over pages of which there are slices.
///
/// In each case a window waits for the iterators of `get_slices` over its pages, as `vm_memory`
/// asks of an IOTLB. But a slice of the thread that opens the window, or of a thread that itself
/// waits for memory meanwhile, is revoked and not waited for: the one would wait for itself, and
/// two of the others for each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum OnWindow {
    /// The window waits until the slices are dropped.
    ///
    /// A slice stays with its thread. A thread that has slices must not wait for a thread that
    /// changes the address space, nor call the address space itself. A slice that is forgotten
    /// ([`std::mem::forget`]) keeps windows over its page from opening.
    #[default]
    Wait,
    /// The window revokes the slices and opens. A store through a revoked slice is lost; it reaches
    /// neither the memory of the process nor that of another. The first use of one is kept
    /// ([`ProcessIommu::stale_use`](super::ProcessIommu::stale_use)).
    Revoke,
    /// Revokes as [`Revoke`](Self::Revoke) does, and the use of a revoked slice panics with a
    /// [`StaleUse`](super::StaleUse), as does a store through a slice that was asked for reading.
    Strict,
}

/// The configuration of an IOMMU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct IommuConfig {
    /// The answer to a window over pages of which there are slices.
    pub on_window: OnWindow,
    /// A mistake made on purpose, for a test that must find it.
    pub mistake: Option<IommuMistake>,
}

/// Mistakes that an IOMMU in front of `vm_memory` could make, for tests that must find them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum IommuMistake {
    /// Windows neither wait for slices nor revoke them, as with `vm_memory`'s own memory.
    IgnoresSlices,
    /// Slices for writing are translated for reading.
    WritesUnseen,
}

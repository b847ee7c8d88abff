//! The configuration of a machine's memory: its size, its swap device, and the kind of its
//! contents.

/// The kind of contents that frames have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Contents {
    /// Real contents of 4 KiB, allocated by the first write.
    #[default]
    Real,
    /// Real contents that can be lent to other processes of the host: XPmem partitions there. While
    /// a frame is lent, its bytes lie in memory that these processes have mapped. Single bytes are
    /// never torn there, as on hardware; longer accesses may be.
    #[cfg(all(feature = "remote", target_os = "linux"))]
    Shared,
    /// No contents: reads give zeros, writes are lost. For very large address spaces.
    None,
}

/// Size and kind of a machine's memory. The `Default` is 256 MiB with contents and no swap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct MemConfig {
    /// The number of frames of 4 KiB, without the zero page; at most 2^28.
    pub frames: u32,
    /// The kind of contents of the frames.
    pub contents: Contents,
    /// The number of slots, of a page each, on the swap device; 0: there is no device.
    pub swap: u32,
}

impl Default for MemConfig {
    fn default() -> Self {
        Self {
            frames: 65536,
            contents: Contents::Real,
            swap: 0,
        }
    }
}

//! Size and kind of a memory.

/// Whether frames have contents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Contents {
    /// Real 4-KiB contents, made on the first write.
    #[default]
    Real,
    /// The same, and frames can be lent to other processes of the host: XPmem partitions there. While one is, its bytes lie
    /// in memory that these processes have mapped; each byte is whole, as on hardware, and no more than that.
    #[cfg(all(feature = "remote", target_os = "linux"))]
    Shared,
    /// None: reads give zeros, writes are lost. For very large spaces.
    None,
}

/// Size and kind of a machine's memory. `Default` is 256 MiB with contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemConfig {
    /// Frames of 4 KiB, the zero page not counted; at most 2^28.
    pub frames: u32,
    /// Whether they have contents.
    pub contents: Contents,
    /// Slots of a page each on the swap device; 0: there is none.
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

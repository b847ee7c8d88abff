//! What lies behind a page cache: a disk, as far as an address space can tell.

use crate::{addr::PAGE_SIZE, sync::Mutex};
use std::{collections::BTreeMap, fmt};

/// Bytes in a page.
#[allow(clippy::cast_possible_truncation)]
pub const BLOCK: usize = PAGE_SIZE as usize;

/// A read or write of a block failed (`EIO`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("block {0} cannot be read or written")]
pub struct StoreError(pub u64);

impl From<StoreError> for crate::error::ObjectError {
    fn from(e: StoreError) -> Self {
        Self::Io(e.0)
    }
}

/// Blocks of a page each, by page number.
///
/// A store may be slow: it is called with the page in question locked and, but for writing, with the object kept from
/// being cut; so who wants that page, or cuts the object, waits, and nobody else does. It may ask its own file for what
/// needs no token, such as its size or its dirty pages. It must not wait for somebody who accesses, reads, writes or
/// cuts the file: he may be waiting for this very page.
pub trait Store: Send + Sync + fmt::Debug {
    /// Fills `out` with block `index`; says whether there is one. A hole leaves `out` as it is, all zero.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    fn read(&self, index: u64, out: &mut [u8; BLOCK]) -> Result<bool, StoreError>;
    /// Writes block `index`.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: the page stays dirty.
    fn write(&self, index: u64, bytes: &[u8; BLOCK]) -> Result<(), StoreError>;
    /// Makes holes of blocks `[from, to)`.
    fn discard(&self, from: u64, to: u64);
    /// Whether block `index` is a hole. A block that cannot be read is none.
    fn is_hole(&self, index: u64) -> bool {
        matches!(self.read(index, &mut [0; BLOCK]), Ok(false))
    }
}

/// A store in the memory of the host.
#[derive(Debug, Default)]
pub struct MemStore(Mutex<BTreeMap<u64, Box<[u8; BLOCK]>>>);

impl MemStore {
    /// Blocks that are no holes.
    pub fn blocks(&self) -> usize {
        self.0.lock().len()
    }
}

impl Store for MemStore {
    fn read(&self, index: u64, out: &mut [u8; BLOCK]) -> Result<bool, StoreError> {
        let blocks = self.0.lock();
        let found = blocks.get(&index);
        if let Some(block) = found {
            out.copy_from_slice(&**block);
        }
        Ok(found.is_some())
    }
    fn write(&self, index: u64, bytes: &[u8; BLOCK]) -> Result<(), StoreError> {
        self.0.lock().insert(index, Box::new(*bytes));
        Ok(())
    }
    fn discard(&self, from: u64, to: u64) {
        let mut blocks = self.0.lock();
        let mut above = blocks.split_off(&from);
        blocks.append(&mut above.split_off(&to));
    }
    fn is_hole(&self, index: u64) -> bool {
        !self.0.lock().contains_key(&index)
    }
}

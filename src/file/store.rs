//! Stores: the blocks behind a page cache, as a disk looks to an address space.

use crate::{addr::PAGE_SIZE, sync::Mutex};
use std::{collections::BTreeMap, fmt};

/// The number of bytes in a block: a page.
#[allow(clippy::cast_possible_truncation)]
pub const BLOCK: usize = PAGE_SIZE as usize;

/// A read or write of a block failed (`EIO`); its number.
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
/// A store may be slow. It is called with the page locked and, except for writing, with the object
/// kept from being cut: only threads that want that page, or cut the object, wait for it. It may
/// ask its own file for anything that needs no token, such as the size or the number of dirty
/// pages. It must not wait for a thread that accesses, reads, writes or cuts the file: that thread
/// may be waiting for this very page.
pub trait Store: Send + Sync + fmt::Debug {
    /// Fills `out` with block `index` and returns true; returns false for a hole, and leaves `out`
    /// as it is, all zero.
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
    /// Makes blocks `[from, to)` holes.
    fn discard(&self, from: u64, to: u64);
    /// Takes blocks `[from, to)` out: those behind them, up to `end`, move down into their place,
    /// and the last blocks become holes.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: the blocks below the failing one have moved, the others have not.
    fn collapse(&self, from: u64, to: u64, end: u64) -> Result<(), StoreError> {
        for index in to..end {
            copy_block(self, index, index - (to - from))?;
        }
        self.discard(end - (to - from), end);
        Ok(())
    }
    /// Puts `count` holes in front of block `at`: the blocks from there on, up to `end`, move up.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: the blocks above the failing one have moved, the others have not.
    fn insert(&self, at: u64, count: u64, end: u64) -> Result<(), StoreError> {
        for index in (at..end).rev() {
            copy_block(self, index, index + count)?;
        }
        self.discard(at, at + count);
        Ok(())
    }
    /// Returns true if block `index` is a hole. A block that cannot be read is none.
    fn is_hole(&self, index: u64) -> bool {
        matches!(self.read(index, &mut [0; BLOCK]), Ok(false))
    }
}

/// Copies a block, or makes a hole like another.
fn copy_block<S: Store + ?Sized>(store: &S, from: u64, to: u64) -> Result<(), StoreError> {
    let mut block = [0; BLOCK];
    match store.read(from, &mut block)? {
        true => store.write(to, &block),
        false => {
            store.discard(to, to + 1);
            Ok(())
        }
    }
}

/// A store in the memory of this process.
#[derive(Debug, Default)]
pub struct MemStore(Mutex<BTreeMap<u64, Box<[u8; BLOCK]>>>);

impl MemStore {
    /// Returns the number of blocks that are not holes.
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
    fn collapse(&self, from: u64, to: u64, _: u64) -> Result<(), StoreError> {
        let mut blocks = self.0.lock();
        let behind = blocks.split_off(&to);
        drop(blocks.split_off(&from));
        let moved = behind
            .into_iter()
            .map(|(at, block)| (at - (to - from), block));
        blocks.extend(moved);
        Ok(())
    }
    fn insert(&self, at: u64, count: u64, _: u64) -> Result<(), StoreError> {
        let mut blocks = self.0.lock();
        let behind = blocks.split_off(&at);
        blocks.extend(behind.into_iter().map(|(at, block)| (at + count, block)));
        Ok(())
    }
    fn is_hole(&self, index: u64) -> bool {
        !self.0.lock().contains_key(&index)
    }
}

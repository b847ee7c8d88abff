//! Objects of a test's own.

use super::{PAGE, World};
use emmu::{
    MachineConfig, MemConfig,
    ctx::FaultCx,
    error::ObjectError,
    file::{DiskFile, File, FileMode, MemStore, MemoryObject, PageRequest, Shmem, XipFile},
    frame::Frame,
    rmap::Mapping,
};
use std::{borrow::Cow, sync::Arc};

/// An object without pages: enough to be refused.
#[derive(Debug)]
pub struct Empty(Arc<Mapping>);

impl MemoryObject for Empty {
    fn name(&self) -> Cow<'_, str> {
        Cow::Borrowed("/empty")
    }
    fn mapping(&self) -> &Arc<Mapping> {
        &self.0
    }
    fn size(&self) -> u64 {
        0
    }
    fn page(&self, _: FaultCx<'_>, index: u64, _: &PageRequest) -> Result<Frame<'_>, ObjectError> {
        Err(ObjectError::Beyond(index))
    }
    fn resident(&self, _: u64) -> Option<Frame<'_>> {
        None
    }
}

/// An open file without pages.
pub fn empty(w: &World) -> Arc<File> {
    let object = Arc::new(Empty(w.machine.host().mapping()));
    File::open(object, FileMode::ReadWrite)
}

/// Shared memory of `n` pages, byte 0 of page `p` being `p + 1`.
pub fn shmem(w: &mut World, n: u64) -> Arc<File> {
    let object = Shmem::memfd(w.machine.host(), "m", n * PAGE).expect("small");
    fill(w, File::open(object, FileMode::ReadWrite), n)
}
/// A file on a store, filled alike and written back.
pub fn disk(w: &mut World, n: u64) -> (Arc<DiskFile>, Arc<File>) {
    let store = Box::<MemStore>::default();
    let object = DiskFile::new(w.machine.host(), "/d", n * PAGE, store).expect("small");
    let file = fill(w, File::open(object.clone(), FileMode::ReadWrite), n);
    file.sync(w.thread.cx()).expect("written");
    (object, file)
}
/// A file without cache, all holes.
pub fn xip(w: &World, n: u64) -> (Arc<XipFile>, Arc<File>) {
    let object = XipFile::new(w.machine.host(), "/x", n * PAGE).expect("small");
    (object.clone(), File::open(object, FileMode::ReadWrite))
}
fn fill(w: &mut World, file: Arc<File>, n: u64) -> Arc<File> {
    for page in 0..n {
        let byte = u8::try_from(page % 255 + 1).expect("small");
        file.write_at(w.thread.cx(), page * PAGE, &[byte])
            .expect("enough memory");
    }
    file
}
/// A machine with that many frames and slots of swap.
pub fn swapping(frames: u32, swap: u32) -> World {
    World::with(MachineConfig {
        memory: MemConfig {
            frames,
            swap,
            ..MemConfig::default()
        },
        ..MachineConfig::default()
    })
}

//! A memory object that acts when it is asked for a page.

use emmu::{
    Machine, PAGE_SIZE,
    ctx::FaultCx,
    error::ObjectError,
    file::{Backing, File, FileMode, MemoryObject, PageCache, PageRequest},
    frame::Frame,
    rmap::Mapping,
};
use std::{borrow::Cow, fmt, sync::Arc};

/// An object of pages that begin with `byte`; `act` is called with the index of a page before the
/// page is made or found.
pub(crate) struct Acting<F> {
    cache: Arc<PageCache>,
    pages: u64,
    byte: u8,
    act: F,
}

impl<F: Fn(u64) + Send + Sync + 'static> Acting<F> {
    /// Opens a new object.
    pub(crate) fn open(machine: &Machine, pages: u64, byte: u8, act: F) -> Arc<File> {
        let cache = PageCache::new(machine.host(), Backing::Swap).unwrap();
        let object = Self {
            cache,
            pages,
            byte,
            act,
        };
        File::open(Arc::new(object), FileMode::ReadWrite)
    }
}

impl<F> fmt::Debug for Acting<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Acting")
    }
}

impl<F: Fn(u64) + Send + Sync> MemoryObject for Acting<F> {
    fn name(&self) -> Cow<'_, str> {
        "/acting".into()
    }
    fn mapping(&self) -> &Arc<Mapping> {
        self.cache.mapping()
    }
    fn size(&self) -> u64 {
        self.pages * PAGE_SIZE
    }
    fn page(
        &self,
        mut cx: FaultCx<'_>,
        index: u64,
        _: &PageRequest,
    ) -> Result<Frame<'_>, ObjectError> {
        (self.act)(index);
        let mut filling = self.cache.filling(&mut cx);
        let (frame, _new) = filling.get_or_make(index, |frame| {
            frame.write(0, &[self.byte]);
            Ok(())
        })?;
        Ok(frame)
    }
    fn resident(&self, _: u64) -> Option<Frame<'_>> {
        None
    }
}

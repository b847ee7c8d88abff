//! An object that shows the pages of a file of huge pages, one small page at a time.

use crate::common::{PAGE, World, at};
use emmu::{
    FaultError, HugeSize, MemConfig,
    ctx::FaultCx,
    error::ObjectError,
    file::{File, FileMode, HugetlbFile, MemoryObject, PageRequest},
    frame::Frame,
    mm::MapFlags,
    rmap::Mapping,
};
use std::{borrow::Cow, sync::Arc};

#[derive(Debug)]
struct Parts(Arc<HugetlbFile>);

impl MemoryObject for Parts {
    fn name(&self) -> Cow<'_, str> {
        "/parts".into()
    }
    fn mapping(&self) -> &Arc<Mapping> {
        self.0.mapping()
    }
    fn size(&self) -> u64 {
        self.0.size()
    }
    fn page(&self, _: FaultCx<'_>, index: u64, _: &PageRequest) -> Result<Frame<'_>, ObjectError> {
        self.resident(index).ok_or(ObjectError::Beyond(index))
    }
    fn resident(&self, index: u64) -> Option<Frame<'_>> {
        self.0.resident(index)
    }
}

#[test]
fn a_part_of_a_huge_page_of_a_pool_is_not_mapped_alone() {
    let mut w = World::with_pool(
        MemConfig {
            frames: 4096,
            ..MemConfig::default()
        },
        1,
    );
    let huge = HugetlbFile::memfd(w.machine.host(), "h", 512 * PAGE, HugeSize::Mib2).unwrap();
    let whole = File::open(huge.clone(), FileMode::ReadWrite);
    w.map_file(0, 512, &whole, 0, MapFlags::SHARED);
    w.put(3, 7);
    let parts = File::open(Arc::new(Parts(huge)), FileMode::ReadWrite);
    for kind in [MapFlags::SHARED, MapFlags::PRIVATE] {
        w.map_file(1024, 512, &parts, 0, kind);
        let refused = Err(FaultError::Object {
            addr: at(1027),
            why: ObjectError::NotItsPage(3),
        });
        assert_eq!(w.get(1027), refused);
        let stored = w.mm.store(&mut w.thread.cx(), at(1027), 8);
        assert_eq!(stored.map(|()| 8), refused);
    }
    assert_eq!(w.get(3), Ok(7));
}

//! A page of a file that is found when the test lets it be.

use crate::{
    exporter::{BASE, PAGE, World},
    stores::{Puppet, Strings},
};
use emmu::{
    ctx::CallCx,
    file::{DiskFile, File, FileMode},
    mm::MmapArgs,
};
use std::sync::Arc;

/// Maps the page at [`BASE`]. A look-up of it stands before the door, which is shut.
pub(crate) fn map(cx: &mut CallCx<'_>, w: &World) -> (Arc<File>, Arc<Strings>) {
    let strings = Arc::new(Strings::default());
    *strings.guarded.lock().unwrap() = Some(0);
    strings.door.shut();
    let store = Box::new(Puppet(Arc::clone(&strings)));
    let file = DiskFile::new(w.machine.host(), "slow", PAGE, store).unwrap();
    let file = File::open(file, FileMode::ReadWrite);
    let args = MmapArgs::anonymous(PAGE)
        .shared()
        .file(&file, 0)
        .fixed(BASE);
    w.mm.mmap(cx, &args).unwrap();
    (file, strings)
}

//! The files of a script.

use super::script::{FileKind, OpenMode, Script};
use crate::{
    addr::PAGE_SIZE,
    ctx::{Cx, Sleepable, rank},
    file::{DiskFile, File, FileMode, MemStore, MemoryObject, Shmem, XipFile},
    mm::Machine,
};
use std::{collections::BTreeMap, sync::Arc};

type Idle<'t> = Cx<'t, rank::Idle, Sleepable>;

/// The files of a script, filled as its header says.
pub(super) fn open(
    cx: &mut Idle<'_>,
    machine: &Arc<Machine>,
    script: &Script,
) -> BTreeMap<String, Arc<File>> {
    let mut files = BTreeMap::new();
    for (name, about) in &script.header.files {
        let object: Arc<dyn MemoryObject> = match about.kind {
            FileKind::Memfd => {
                Shmem::memfd(machine.host(), name, about.size).expect("files are small")
            }
            FileKind::Disk => DiskFile::new(
                machine.host(),
                &format!("/{name} (deleted)"),
                about.size,
                Box::<MemStore>::default(),
            )
            .expect("files are small"),
            FileKind::Xip => {
                XipFile::new(machine.host(), &format!("/{name} (deleted)"), about.size)
                    .expect("files are small")
            }
        };
        let file = File::open(object, FileMode::ReadWrite);
        for page in 0..about.size.div_ceil(PAGE_SIZE) {
            let byte = u8::try_from(page % 200 + 1).expect("at most 200");
            file.write_at(cx.reborrow(), page * PAGE_SIZE, &[byte])
                .expect("enough memory");
        }
        files.insert(name.clone(), file);
    }
    for (name, (file, mode)) in &script.header.opens {
        let mode = match mode {
            OpenMode::ReadOnly => FileMode::ReadOnly,
            OpenMode::WriteOnly => FileMode::WriteOnly,
            OpenMode::ReadWrite => FileMode::ReadWrite,
        };
        let object = Arc::clone(files[file].object());
        files.insert(name.clone(), File::open(object, mode));
    }
    files
}

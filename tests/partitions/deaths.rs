//! Partitions that go between two messages: nothing stays lent to a partition that is gone.

use crate::{
    exporter::{BASE, LONG, PAGE, wait_until, with},
    raw::{Request, ToOwner},
};
use emmu::{
    extmmu::xpmem::remote::RemoteConfig,
    file::{DiskFile, File, FileMode, Store, StoreError},
    mm::MmapArgs,
    notifier::Access,
};
use std::sync::{
    Mutex,
    mpsc::{Receiver, SyncSender, sync_channel},
};

/// A store whose reads begin, and end when they may.
#[derive(Debug)]
struct Slow {
    begun: SyncSender<()>,
    go_on: Mutex<Receiver<()>>,
}

impl Store for Slow {
    fn read(&self, _: u64, _: &mut [u8; 4096]) -> Result<bool, StoreError> {
        self.begun.send(()).unwrap();
        self.go_on.lock().unwrap().recv().unwrap();
        Ok(false)
    }
    fn write(&self, _: u64, _: &[u8; 4096]) -> Result<(), StoreError> {
        Ok(())
    }
    fn discard(&self, _: u64, _: u64) {}
}

/// The page is looked up for a partition that is gone when it is found.
#[test]
fn a_partition_that_goes_during_its_fault_leaves_no_page_lent() {
    with(LONG, |cx, w| {
        let ((begun, begins), (lets, go_on)) = (sync_channel(8), sync_channel(8));
        let go_on = Mutex::new(go_on);
        let store = Box::new(Slow { begun, go_on });
        let file = DiskFile::new(w.machine.host(), "slow", PAGE, store).unwrap();
        let file = File::open(file, FileMode::ReadWrite);
        let args = MmapArgs::anonymous(PAGE)
            .shared()
            .file(&file, 0)
            .fixed(BASE);
        w.mm.mmap(cx, &args).unwrap();
        let (mut raw, served) = w.raw(1, RemoteConfig::default());
        let handle = raw.attach(w.segment, 2).unwrap();
        // The second question waits for the answer to the first.
        for at in [0, PAGE] {
            let access = Access::Write;
            let request = Request::Page { handle, at, access };
            assert!(raw.say(&ToOwner::Ask { token: at, request }));
        }
        begins.recv().unwrap();
        drop(raw);
        wait_until(|| served.is_cut_off());
        lets.send(()).unwrap();
        wait_until(|| w.owner.connections() == 0);
        assert_eq!((w.owner.lent(), w.owner.exported(cx)), (0, 0));
        w.mm.munmap(cx, BASE, PAGE).unwrap();
        drop(file);
    });
}

//! Partitions that go between two messages: nothing stays lent to a partition that is gone.

use crate::{
    exporter::{BASE, LONG, PAGE, wait_until, with},
    raw::{Request, ToOwner},
    slow_page,
};
use emmu::{extmmu::xpmem::remote::RemoteConfig, notifier::Access};

/// The page is looked up for a partition that is gone when it is found.
#[test]
fn a_partition_that_goes_during_its_fault_leaves_no_page_lent() {
    with(LONG, |cx, w| {
        let (file, strings) = slow_page::map(cx, w);
        let (mut raw, served) = w.raw(1, RemoteConfig::default());
        let handle = raw.attach(w.segment, 2).unwrap();
        // The second question waits for the answer to the first.
        for at in [0, PAGE] {
            let access = Access::Write;
            let request = Request::Page { handle, at, access };
            assert!(raw.say(&ToOwner::Ask { token: at, request }));
        }
        strings.door.wait();
        drop(raw);
        wait_until(|| served.is_cut_off());
        strings.door.open();
        wait_until(|| w.owner.connections() == 0);
        assert_eq!((w.owner.lent(), w.owner.exported(cx)), (0, 0));
        w.mm.munmap(cx, BASE, PAGE).unwrap();
        drop(file);
    });
}

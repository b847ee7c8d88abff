//! The operations whose memory is compared. Each works on memory of its own side, so that any two
//! of them commute.

use crate::world::{Driver, Side, page};
use emmu::{
    PAGE_SIZE,
    addr::{Vpn, VpnRange},
    driver::FaultRequest,
    mm::{Advice, MapFlags, MmapArgs, MremapArgs, MremapFlags, Prot},
    notifier::{Access, Event},
};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The worlds that an operation runs in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum In {
    /// Those without devices and those with.
    All,
    /// Those without devices.
    Bare,
    /// Those with devices.
    Devices,
}

/// An operation.
pub(crate) struct Operation {
    /// Its name in the list.
    pub(crate) name: &'static str,
    pub(crate) worlds: In,
    /// Whether its memory is shared by a fork before it runs.
    pub(crate) forked: bool,
    pub(crate) prepare: fn(&mut Side<'_, '_>),
    pub(crate) work: fn(&mut Side<'_, '_>),
}

/// Counts of both sides, on a line of its own, and of each side, side by side: an operation that is
/// known to meet itself.
#[derive(Default)]
#[repr(C)]
pub(crate) struct Control {
    both: AtomicU64,
    _gap: [u64; 7],
    left: AtomicU64,
    right: AtomicU64,
}

/// Where it is to be found, and whether beside something else.
pub(crate) const CONTROLS: [(&str, bool); 3] = [
    ("Control.both", false),
    ("Control.left", true),
    ("Control.right", true),
];

/// The operation that is known to meet itself: what does not find that, finds nothing.
pub(crate) const CONTROL: Operation = new("control", In::All, nothing, |s| {
    let control = &s.world.control;
    control.both.fetch_add(1, Relaxed);
    [&control.left, &control.right][s.who].fetch_add(1, Relaxed);
});

const fn new(
    name: &'static str,
    worlds: In,
    prepare: fn(&mut Side<'_, '_>),
    work: fn(&mut Side<'_, '_>),
) -> Operation {
    Operation {
        name,
        worlds,
        forked: false,
        prepare,
        work,
    }
}

/// All operations, in the order of the tables.
pub(crate) const OPERATIONS: &[Operation] = &[
    new("load", In::All, touched, load),
    new("store", In::All, touched, store),
    new("fault zero page", In::All, begun, load),
    new("fault anonymous", In::All, begun, store),
    new("fault new table", In::Bare, mapped, store),
    new("fault many", In::Bare, many, |s| {
        for n in 0..MANY {
            let (mm, at) = (&s.share().mm, s.at + n * PAGE_SIZE);
            mm.store(&mut s.cx, at, 1).expect("mapped");
        }
    }),
    new("fault own file", In::Bare, |s| file(s, false), load),
    new("fault same file", In::Bare, |s| file(s, true), load),
    Operation {
        forked: true,
        ..new("fault copy on write", In::All, touched, store)
    },
    new("mmap", In::All, nothing, mapped),
    new("mmap populate", In::Bare, nothing, |s| {
        map(s, |a| a.flags(MapFlags::POPULATE));
    }),
    new("munmap", In::All, touched, |s| {
        let (mm, at) = (&s.share().mm, s.at);
        mm.munmap(&mut s.cx, at, PAGES * PAGE_SIZE).expect("mapped");
    }),
    new("mprotect", In::All, touched, |s| {
        let (mm, at) = (&s.share().mm, s.at);
        mm.mprotect(&mut s.cx, at, PAGES * PAGE_SIZE, Prot::READ)
            .expect("mapped");
    }),
    new("mremap", In::Bare, touched, |s| {
        let (mm, at) = (&s.share().mm, s.at);
        let args = MremapArgs {
            addr: at,
            old_len: PAGES * PAGE_SIZE,
            new_len: PAGES * PAGE_SIZE,
            flags: MremapFlags::MAYMOVE | MremapFlags::FIXED,
            new_addr: at + 2 * PAGES * PAGE_SIZE,
        };
        mm.mremap(&mut s.cx, args).expect("there is room");
    }),
    new("madvise dontneed", In::All, touched, |s| {
        let (mm, at) = (&s.share().mm, s.at);
        mm.madvise(&mut s.cx, at, PAGE_SIZE, Advice::DontNeed)
            .expect("mapped");
    }),
    new("window", In::All, touched, |s| {
        let mut guard = s.share().mm.lock_shared(&mut s.cx);
        let mut lease = guard.lease();
        lease.window(page(s.at), Event::Clear).close();
    }),
    new("fork of another", In::Bare, other_touched, fork),
    new(
        "exit of another",
        In::Bare,
        |s| {
            other_touched(s);
            fork(s)
        },
        |s| {
            let child = s.children.pop().expect("forked before");
            child.exit(&mut s.cx);
        },
    ),
    new("driver hit", In::Devices, translated, |s| {
        let gate = &s.devices().driver.0;
        let gate = gate.lock(&mut s.cx);
        assert!(gate.lookup(&Vpn::containing(s.at)).is_some());
    }),
    new("driver miss", In::Devices, touched, translate),
    new("driver miss range", In::Devices, touched, |s| {
        let share = s.share();
        let gate = &s.devices().driver.0;
        let range = VpnRange::new(Vpn::containing(s.at), Vpn::containing(s.at).plus(PAGES));
        let range = range.expect("some");
        gate.translate_range(&mut s.cx, &share.mm, range, FaultRequest::Read, |permit| {
            drop(permit.establish(|page| page.range().start()));
        })
        .expect("mapped");
    }),
    new(
        "kvm hit",
        In::Devices,
        |s| {
            touched(s);
            kvm(s)
        },
        kvm,
    ),
    new("kvm miss", In::Devices, touched, kvm),
    new(
        "gru hit",
        In::Devices,
        |s| {
            touched(s);
            gru(s)
        },
        gru,
    ),
    new("gru miss", In::Devices, touched, gru),
    new("register", In::Devices, nothing, register),
    new("unregister", In::Devices, register, |s| {
        let registration = s.registrations.pop().expect("registered before");
        s.share().mm.unregister(&mut s.cx, registration);
    }),
];

/// Pages of the memory of an operation.
const PAGES: u64 = 4;
/// Pages of an operation that needs more than a thread has at hand: frames, and pins until garbage
/// is collected.
const MANY: u64 = 130;

fn nothing(_: &mut Side<'_, '_>) {}

fn map(s: &mut Side<'_, '_>, args: impl FnOnce(MmapArgs) -> MmapArgs) {
    let args = args(MmapArgs::anonymous(PAGES * PAGE_SIZE)).fixed(s.at);
    let (mm, cx) = (&s.share().mm, &mut s.cx);
    mm.mmap(cx, &args).expect("there is room");
}
fn mapped(s: &mut Side<'_, '_>) {
    map(s, |a| a);
}
fn many(s: &mut Side<'_, '_>) {
    let args = MmapArgs::anonymous(MANY * PAGE_SIZE).fixed(s.at);
    let (mm, cx) = (&s.share().mm, &mut s.cx);
    mm.mmap(cx, &args).expect("there is room");
}
fn load(s: &mut Side<'_, '_>) {
    let (mm, at) = (&s.share().mm, s.at);
    mm.load(&mut s.cx, at).expect("mapped");
}
fn store(s: &mut Side<'_, '_>) {
    let (mm, at) = (&s.share().mm, s.at);
    mm.store(&mut s.cx, at, 1).expect("mapped");
}
/// All pages are there.
fn touched(s: &mut Side<'_, '_>) {
    mapped(s);
    for n in 0..PAGES {
        let (mm, at) = (&s.share().mm, s.at + n * PAGE_SIZE);
        mm.store(&mut s.cx, at, 1).expect("mapped");
    }
}
/// The last page is there, and so the table.
fn begun(s: &mut Side<'_, '_>) {
    mapped(s);
    let (mm, at) = (&s.share().mm, s.at + (PAGES - 1) * PAGE_SIZE);
    mm.store(&mut s.cx, at, 1).expect("mapped");
}
/// A file is mapped and has its pages; the last one is mapped, and so the table is there.
fn file(s: &mut Side<'_, '_>, same: bool) {
    let share = s.share();
    let file = if same { &s.world.file } else { &share.file };
    file.write_at(
        s.cx.reborrow(),
        s.offset,
        &[1; (PAGES * PAGE_SIZE) as usize],
    )
    .expect("it is large enough");
    let offset = s.offset;
    map(s, |a| a.file(file, offset).shared());
}
fn other_touched(s: &mut Side<'_, '_>) {
    let (mm, at) = (&s.share().other, s.at);
    let args = MmapArgs::anonymous(PAGE_SIZE).fixed(at);
    mm.mmap(&mut s.cx, &args).expect("there is room");
    mm.store(&mut s.cx, at, 1).expect("mapped");
}
fn fork(s: &mut Side<'_, '_>) {
    let child = s.share().other.fork(&mut s.cx);
    s.children.push(child.expect("there is memory"));
}
fn translate(s: &mut Side<'_, '_>) {
    let share = s.share();
    let gate = &s.devices().driver.0;
    let at = Vpn::containing(s.at);
    gate.translate(&mut s.cx, &share.mm, at, Access::Read, |permit| {
        drop(permit.establish(at));
    })
    .expect("mapped");
}
fn translated(s: &mut Side<'_, '_>) {
    touched(s);
    translate(s);
}
fn kvm(s: &mut Side<'_, '_>) {
    let devices = s.devices();
    devices.vcpu.load(&mut s.cx, s.offset).expect("in the slot");
}
fn gru(s: &mut Side<'_, '_>) {
    let devices = s.devices();
    devices
        .context
        .read(&mut s.cx, s.at, &mut [0])
        .expect("mapped");
}
fn register(s: &mut Side<'_, '_>) {
    let (_driver, registration) = s.share().mm.register(&mut s.cx, Driver::new);
    s.registrations.push(registration);
}

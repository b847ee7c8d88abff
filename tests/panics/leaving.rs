//! Drivers that panic as they leave, and as an address space ends.

use crate::{
    bomb::{Bomb, Call},
    common::{PAGE, at},
    world::{On, World},
};
use emmu::{notifier::Access, reclaim::RmapWindows};
use std::panic::{AssertUnwindSafe, catch_unwind};

fn world(on: On) -> World {
    let mut w = World::new(on, RmapWindows::Sleepable);
    w.sixteen();
    w
}

#[test]
fn an_address_space_ends_whatever_its_drivers_do() {
    for on in [On::Chain, On::Range] {
        for call in [Call::Leave, Call::End, Call::Release] {
            let mut w = world(on);
            let mm = w.mm.clone();
            w.bomb.arm(call, 1);
            catch_unwind(AssertUnwindSafe(|| mm.exit(&mut w.cx()))).unwrap_err();
            assert!(!w.bomb.disarm(), "{call:?}");
            assert_eq!(mm.maps(&mut w.cx()).len(), 0, "{call:?}");
            assert_eq!(mm.windows_open(), 0);
            // Whoever unregisters finds that it was done.
            w.leave();
        }
    }
}

#[test]
fn a_driver_that_panics_as_it_leaves_is_told_of_windows_until_the_end() {
    for on in [On::Chain, On::Range] {
        for call in [Call::Leave, Call::End, Call::Release] {
            let mut w = world(on);
            let seated = w.seated.take().unwrap();
            w.bomb.arm(call, 1);
            catch_unwind(AssertUnwindSafe(|| seated.unregister(&mut w.cx()))).unwrap_err();
            assert!(!w.bomb.disarm());
            w.check();
            let mm = w.mm.clone();
            mm.munmap(&mut w.cx(), at(0), 4 * PAGE).unwrap();
            w.check();
            w.reads(0..4, &[None]);
            w.reads(4..16, &[Some(1)]);
            w.end();
        }
    }
}

/// Who panics whenever it is asked cannot have a window; the address space ends all the same.
#[test]
fn a_driver_that_always_panics() {
    for on in [On::Chain, On::Range] {
        let mut w = world(on);
        let mm = w.mm.clone();
        for _ in 0..3 {
            w.bomb.arm(Call::Begin, 1);
            let work = || mm.munmap(&mut w.cx(), at(0), 4 * PAGE);
            catch_unwind(AssertUnwindSafe(work)).unwrap_err();
            w.check();
            w.reads(0..16, &[Some(1)]);
        }
        w.bomb.arm(Call::Leave, 1);
        catch_unwind(AssertUnwindSafe(|| mm.exit(&mut w.cx()))).unwrap_err();
        w.leave();
    }
}

/// A second panic, while the first unwinds, would end the process.
#[test]
fn drivers_that_panic_together() {
    for (first, second) in [
        (Call::Begin, Call::End),
        (Call::SecondPass, Call::End),
        (Call::End, Call::Begin),
        (Call::End, Call::SecondPass),
        (Call::End, Call::End),
    ] {
        let mut w = world(On::Chain);
        let mm = w.mm.clone();
        let (other, seated) = mm.register(&mut w.cx(), Bomb::new);
        other.take(&mut w.cx(), &mm, at(1), Access::Write);
        w.bomb.arm(first, 1);
        other.arm(second, 1);
        let work = AssertUnwindSafe(|| mm.munmap(&mut w.cx(), at(0), 4 * PAGE));
        catch_unwind(work).unwrap_err();
        w.bomb.disarm();
        other.disarm();
        w.check();
        w.reads_alike(0..4, &[Some(1), None]);
        w.reads(4..16, &[Some(1)]);
        // And as they leave.
        w.bomb.arm(Call::Leave, 1);
        other.arm(Call::Release, 1);
        catch_unwind(AssertUnwindSafe(|| mm.exit(&mut w.cx()))).unwrap_err();
        assert!(!w.bomb.disarm() && !other.disarm(), "both were asked");
        drop(seated);
        w.leave();
    }
}

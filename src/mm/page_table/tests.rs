//! Tables made, found, moved and freed; readers under a pin outlive the unlinking.

use super::{Bounds, LeafAt, PageTable};
use crate::{
    addr::{PMD_PAGES, PUD_PAGES, Pfn, TASK_PAGES, Vpn, VpnRange},
    ctx::Epoch,
    frame::{MemConfig, PhysMem},
    mm::pte::{RawPte, Rights},
};
use std::{convert::Infallible, sync::Arc};

fn table() -> (PageTable, Epoch) {
    let mem = Arc::new(PhysMem::new(MemConfig {
        frames: 16,
        ..MemConfig::default()
    }));
    let epoch = Epoch::new();
    (PageTable::new(&mem, &epoch), epoch)
}

fn pte(n: u32) -> RawPte {
    let rights = Rights {
        read: true,
        write: true,
    };
    RawPte::frame(Pfn(n), rights)
}

fn range(a: u64, b: u64) -> VpnRange {
    VpnRange::new(Vpn(a), Vpn(b)).unwrap()
}

fn set(leaf: LeafAt<'_>, at: u64, pte: RawPte) {
    leaf.lock().unwrap().set(Vpn(at), pte);
}

const ALONE: Bounds = Bounds {
    floor: Vpn(0),
    ceiling: None,
};

#[test]
fn entries_are_found_where_they_were_put_also_at_both_ends() {
    let (table, epoch) = table();
    let local = epoch.register();
    let guard = local.pin();
    let pin = table.pin(&guard);
    for at in [Vpn(0), Vpn(511), Vpn(512), Vpn(TASK_PAGES - 1)] {
        let leaf = table.make_leaf(at, pin).unwrap();
        set(leaf, at.0, pte(at.0 as u32 & 0xff));
        assert_eq!(
            table.leaf(at, pin).unwrap().peek(at).pfn(),
            Pfn(at.0 as u32 & 0xff)
        );
    }
    // Two leaves share the upper levels; the top has its own.
    assert_eq!(table.tables(), 4 + 3);
    assert!(table.leaf(Vpn(1024), pin).is_none());
    table.free_all(pin);
    assert_eq!(table.tables(), 0);
}

#[test]
fn leaves_are_visited_in_order_and_clipped() {
    let (table, epoch) = table();
    let local = epoch.register();
    let guard = local.pin();
    let pin = table.pin(&guard);
    for at in [5, 5 + PUD_PAGES, 5 + 7 * PMD_PAGES] {
        table.make_leaf(Vpn(at), pin).unwrap();
    }
    let mut seen = Vec::new();
    table
        .leaves(range(100, PUD_PAGES + 50), pin, |part, _| {
            seen.push((part.start().0, part.end().0));
            Ok::<(), Infallible>(())
        })
        .unwrap();
    let whole = (7 * PMD_PAGES, 8 * PMD_PAGES);
    assert_eq!(seen, [(100, PMD_PAGES), whole, (PUD_PAGES, PUD_PAGES + 50)]);
    assert_eq!(table.first_pmd(range(3, 9), pin), Some(Vpn(3)));
    assert_eq!(
        table.first_pmd(range(2 * PUD_PAGES, 3 * PUD_PAGES), pin),
        None
    );
}

#[test]
fn a_table_is_freed_unless_a_neighbour_reaches_into_it() {
    let (table, epoch) = table();
    let local = epoch.register();
    let guard = local.pin();
    let pin = table.pin(&guard);
    table.make_leaf(Vpn(10), pin).unwrap();
    let near = |floor: u64, ceiling: u64| Bounds {
        floor: Vpn(floor),
        ceiling: Some(Vpn(ceiling)),
    };
    table.free_range(range(10, 20), near(5, 10 * PUD_PAGES), pin);
    assert_eq!(table.tables(), 3, "the VMA below shares the leaf");
    table.free_range(range(10, 20), near(0, 500), pin);
    assert_eq!(table.tables(), 3, "the VMA above shares the leaf");
    table.free_range(range(10, 20), near(0, 600), pin);
    assert_eq!(table.tables(), 2, "it shares the level above");
    table.free_range(range(10, 20), ALONE, pin);
    assert_eq!(table.tables(), 0);
}

#[test]
fn whole_tables_move_and_only_into_nothing() {
    let (table, epoch) = table();
    let local = epoch.register();
    let guard = local.pin();
    let pin = table.pin(&guard);
    let leaf = table.make_leaf(Vpn(7), pin).unwrap();
    set(leaf, 7, pte(3));
    assert!(table.move_pmd(Vpn(0), Vpn(4 * PMD_PAGES), pin).unwrap());
    assert!(table.leaf(Vpn(7), pin).is_none());
    let moved = table.leaf(Vpn(4 * PMD_PAGES + 7), pin).unwrap();
    assert_eq!(moved.peek(Vpn(7)), pte(3));
    table.make_leaf(Vpn(0), pin).unwrap();
    assert!(!table.move_pmd(Vpn(0), Vpn(4 * PMD_PAGES), pin).unwrap());
    assert!(table.move_pud(Vpn(0), Vpn(9 * PUD_PAGES), pin).unwrap());
    assert!(table.leaf(Vpn(9 * PUD_PAGES), pin).is_some());
}

#[test]
fn an_empty_leaf_is_freed_and_not_found_again_a_full_one_stays() {
    let (table, epoch) = table();
    let local = epoch.register();
    let guard = local.pin();
    let pin = table.pin(&guard);
    let leaf = table.make_leaf(Vpn(7), pin).unwrap();
    set(leaf, 7, pte(3));
    table.free_if_empty(Vpn(7), pin);
    assert!(leaf.lock().is_some());
    set(leaf, 7, RawPte::NONE);
    table.free_if_empty(Vpn(7), pin);
    assert!(leaf.lock().is_none());
    assert_eq!(table.tables(), 2);
}

#[test]
#[should_panic(expected = "another machine's epoch")]
fn a_pin_of_another_epoch_is_refused() {
    let (table, _epoch) = table();
    let other = Epoch::new();
    let foreign = other.register();
    let guard = foreign.pin();
    let _pin = table.pin(&guard);
}

#[test]
fn a_reader_under_a_pin_outlives_the_freeing_of_its_table() {
    let (table, epoch) = table();
    let rounds = if cfg!(miri) { 20 } else { 2000 };
    std::thread::scope(|s| {
        s.spawn(|| {
            let local = epoch.register();
            for _ in 0..rounds {
                let guard = local.pin();
                if let Some(leaf) = table.leaf(Vpn(7), table.pin(&guard)) {
                    let seen = leaf.peek(Vpn(7));
                    assert!(seen.is_none() || seen == pte(3));
                }
            }
        });
        let local = epoch.register();
        for _ in 0..rounds {
            let guard = local.pin();
            let pin = table.pin(&guard);
            let leaf = table.make_leaf(Vpn(7), pin).unwrap();
            set(leaf, 7, pte(3));
            table.free_range(range(7, 8), ALONE, pin);
            guard.flush();
        }
    });
    assert_eq!(table.tables(), 0);
}

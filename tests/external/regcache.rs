//! The registration cache: what is found, what is pinned, and when it is given up; and what shows
//! when a cache makes one of its mistakes.

use crate::common::{
    PAGE, RW, World, at,
    calls::READ,
    objects::{disk, swapping},
};
use emmu::{
    Errno,
    extmmu::regcache::{RegCache, RegCacheConfig, RegError, RegMistake, RegStats},
    mm::{Advice, MapFlags, PageState},
    notifier::Access,
};
use std::sync::Arc;

/// A process with 64 pages, each its number plus one, and a cache.
fn with(config: RegCacheConfig) -> (World, Arc<RegCache>) {
    let mut w = swapping(4096, 4096);
    w.map(0, 64, RW);
    (0..64).for_each(|page| w.put(page, page as u8 + 1));
    let (cache, _stays) = RegCache::attach(&mut w.thread.cx(), &w.mm, config);
    (w, cache)
}
fn default() -> (World, Arc<RegCache>) {
    mistaken(None)
}
fn mistaken(mistake: Option<RegMistake>) -> (World, Arc<RegCache>) {
    with(RegCacheConfig {
        mistake,
        ..RegCacheConfig::default()
    })
}
fn read(w: &mut World, cache: &RegCache, page: u64) -> Result<u8, RegError> {
    let mut byte = [0];
    cache.read(&mut w.thread.cx(), at(page), &mut byte)?;
    Ok(byte[0])
}
fn stats(w: &mut World, cache: &RegCache) -> RegStats {
    cache.stats(&mut w.thread.cx())
}
/// The pages of `0..64` that are mapped and pinned.
fn pinned(w: &mut World) -> u64 {
    let entries = w.mm.pagemap(&mut w.thread.cx(), World::pages(0, 64));
    let pins = |state: &PageState| match state {
        PageState::Anon(pfn) => w.machine.mem().pins(*pfn),
        _ => 0,
    };
    entries.iter().map(|(_, state)| pins(state)).sum()
}

#[test]
fn a_second_transfer_finds_the_region() {
    let (mut w, cache) = default();
    assert_eq!(read(&mut w, &cache, 5), Ok(6));
    cache.write(&mut w.thread.cx(), at(6) - 2, b"abcd").unwrap();
    let mut seen = [0; 4];
    w.mm.read_bytes(&mut w.thread.cx(), at(6) - 2, &mut seen)
        .unwrap();
    assert_eq!(&seen, b"abcd");
    let now = stats(&mut w, &cache);
    assert_eq!((now.regions, now.pages), (1, 4), "a block");
    assert_eq!((now.misses, now.hits), (1, 1));
    assert_eq!(pinned(&mut w), 4);
    assert_eq!(cache.bill().pins, 4);
    w.end();
}

#[test]
fn regions_that_overlap_become_one() {
    let (mut w, cache) = default();
    let across = at(4) - 10;
    cache.read(&mut w.thread.cx(), at(1), &mut [0]).unwrap();
    cache.read(&mut w.thread.cx(), at(9), &mut [0]).unwrap();
    assert_eq!(stats(&mut w, &cache).regions, 2);
    let mut bytes = vec![0; 5 * PAGE as usize];
    cache.read(&mut w.thread.cx(), across, &mut bytes).unwrap();
    let now = stats(&mut w, &cache);
    assert_eq!((now.regions, now.pages, now.waiting), (1, 12, 0));
    assert_eq!(pinned(&mut w), 12, "each page once");
    w.end();
}

/// Memory is unmapped, and other memory comes to its address: the old pages are found no more, and
/// free when the cache is used next.
#[test]
fn a_window_takes_the_region_and_deregisters_nothing() {
    let (mut w, cache) = default();
    assert_eq!(read(&mut w, &cache, 2), Ok(3));
    let before = w.machine.mem().in_use();
    w.mm.munmap(&mut w.thread.cx(), at(1), 3 * PAGE).unwrap();
    assert_eq!(stats(&mut w, &cache).waiting, 1);
    assert_eq!(w.machine.mem().in_use(), before, "pinned still");
    w.map(1, 3, RW);
    assert_eq!(read(&mut w, &cache, 2), Ok(0));
    assert_eq!(stats(&mut w, &cache).waiting, 0);
    assert_eq!(pinned(&mut w), 4);
    w.end();
}

#[test]
fn a_cache_without_a_monitor_gives_pages_of_a_mapping_that_is_gone() {
    let (mut w, cache) = mistaken(Some(RegMistake::DeafMonitor));
    assert_eq!(read(&mut w, &cache, 2), Ok(3));
    w.mm.munmap(&mut w.thread.cx(), at(1), 3 * PAGE).unwrap();
    w.map(1, 3, RW);
    assert_eq!(
        read(&mut w, &cache, 2),
        Ok(3),
        "of the mapping that is gone"
    );
}

#[test]
fn a_transfer_in_progress_ends_on_its_pages() {
    for (mistake, revoked) in [(None, false), (Some(RegMistake::InvalidatesTwice), true)] {
        let (mut w, cache) = mistaken(mistake);
        let handle = cache
            .acquire(&mut w.thread.cx(), (at(8), 16), Access::Write)
            .unwrap();
        w.advise(8, 1, Advice::DontNeed).unwrap();
        w.advise(9, 1, Advice::DontNeed).unwrap();
        assert!(!handle.is_current() && handle.is_pinned());
        let mut byte = [0];
        let came = handle.read(&mut w.thread.cx(), at(8), &mut byte);
        if revoked {
            assert_eq!(came, Err(RegError::Revoked(at(8))));
            continue;
        }
        assert_eq!((came, byte), (Ok(()), [9]));
        // A second user registers the new page meanwhile; the old one stays pinned with the handle.
        assert_eq!(read(&mut w, &cache, 8), Ok(0));
        assert_eq!(stats(&mut w, &cache).waiting, 1);
        drop(handle);
        assert_eq!(cache.collect(&mut w.thread.cx()), 1);
        assert_eq!(pinned(&mut w), 4);
        w.end();
    }
}

#[test]
fn the_region_that_was_not_used_for_long_makes_room() {
    let small = RegCacheConfig {
        regions: 3,
        ..RegCacheConfig::default()
    };
    let (mut w, cache) = with(small);
    for page in [0, 4, 8, 1, 12] {
        read(&mut w, &cache, page).unwrap();
    }
    let now = stats(&mut w, &cache);
    assert_eq!((now.regions, now.evictions), (3, 1));
    assert_eq!(pinned(&mut w), 12);
    // The region of page 4 went; that of page 0 had been used again.
    read(&mut w, &cache, 0).unwrap();
    assert_eq!(stats(&mut w, &cache).misses, now.misses);
    read(&mut w, &cache, 4).unwrap();
    assert_eq!(stats(&mut w, &cache).misses, now.misses + 1);
    w.end();
}

#[test]
fn an_eviction_that_leaves_something_shows_in_the_pins() {
    for (mistake, left) in [
        (RegMistake::LeaksOnEviction, 16),
        (RegMistake::EvictsPinsOnly, 12),
    ] {
        let (mut w, cache) = with(RegCacheConfig {
            mistake: Some(mistake),
            regions: 3,
            ..RegCacheConfig::default()
        });
        for page in [0, 4, 8, 12] {
            read(&mut w, &cache, page).unwrap();
        }
        assert_eq!(pinned(&mut w), left, "{mistake:?}");
    }
}

#[test]
fn a_region_in_use_does_not_make_room() {
    for (mistake, stays) in [(None, true), (Some(RegMistake::EvictsInUse), false)] {
        let (mut w, cache) = with(RegCacheConfig {
            regions: 1,
            mistake,
            ..RegCacheConfig::default()
        });
        let handle = cache
            .acquire(&mut w.thread.cx(), (at(0), 8), Access::Read)
            .unwrap();
        for page in [4, 8, 12] {
            read(&mut w, &cache, page).unwrap();
        }
        assert_eq!(handle.is_current(), stays);
        let came = handle.read(&mut w.thread.cx(), at(0), &mut [0]);
        assert_eq!(came.is_ok(), stays, "{came:?}");
        drop(handle);
        cache.collect(&mut w.thread.cx());
    }
}

/// A file that must know of each write refuses a long-term pin. The region has none, and the cache
/// does not ask again before a window.
#[test]
fn a_refusal_to_pin_is_remembered_with_the_region() {
    let (mut w, cache) = default();
    let (_, file) = disk(&mut w, 8);
    w.map_file(100, 8, &file, 0, MapFlags::SHARED);
    for byte in [7, 8] {
        cache.write(&mut w.thread.cx(), at(101), &[byte]).unwrap();
        assert_eq!(w.get(101), Ok(byte));
    }
    let now = stats(&mut w, &cache);
    assert_eq!((now.misses, now.hits, cache.bill().pins), (1, 1, 0));
    // Writeback makes the page clean in a window, and the next write asks for it again.
    file.sync(w.thread.cx()).unwrap();
    cache.write(&mut w.thread.cx(), at(101), &[9]).unwrap();
    assert_eq!(w.get(101), Ok(9));
    assert_eq!(stats(&mut w, &cache).misses, 2);
    let handle = cache
        .acquire(&mut w.thread.cx(), (at(101), 1), Access::Read)
        .unwrap();
    assert!(!handle.is_pinned());
    w.mm.munmap(&mut w.thread.cx(), at(100), 8 * PAGE).unwrap();
    let gone = handle.read(&mut w.thread.cx(), at(101), &mut [0]);
    assert_eq!(gone, Err(RegError::Invalidated(at(101))));
}

#[test]
fn the_process_decides_what_may_be_registered() {
    let (mut w, cache) = default();
    w.mm.mprotect(&mut w.thread.cx(), at(3), PAGE, READ)
        .unwrap();
    assert_eq!(read(&mut w, &cache, 3), Ok(4));
    let denied = cache.write(&mut w.thread.cx(), at(3), &[1]).unwrap_err();
    assert_eq!(denied.errno(), Errno::EPERM);
    // The block has a page that cannot be written: the page that is asked for can.
    assert_eq!(cache.write(&mut w.thread.cx(), at(2), &[1]), Ok(()));
    assert_eq!(pinned(&mut w), 1);
    w.mm.mprotect(&mut w.thread.cx(), at(3), PAGE, RW).unwrap();
    assert_eq!(cache.write(&mut w.thread.cx(), at(3), &[1]), Ok(()));

    let mut cx = w.thread.cx();
    let refused = [
        (cache.read(&mut cx, at(500), &mut [0]), Errno::EFAULT),
        (
            cache.read(&mut cx, u64::MAX - 1, &mut [0; 4]),
            Errno::EINVAL,
        ),
        (cache.read(&mut cx, 1 << 47, &mut [0; 4]), Errno::EINVAL),
    ];
    for (came, errno) in refused {
        assert_eq!(came.unwrap_err().errno(), errno);
    }
    assert_eq!(cache.read(&mut cx, at(500), &mut []), Ok(()));
    let nothing = cache.acquire(&mut cx, (at(0) + 1, 0), Access::Read);
    assert_eq!(nothing.unwrap_err().errno(), Errno::EINVAL);
    let handle = cache.acquire(&mut cx, (at(0), 4), Access::Read).unwrap();
    for (from, len) in [(at(4), 1), (at(0) - 1, 1), (u64::MAX, 2)] {
        let outside = handle.read(&mut cx, from, &mut vec![0; len]);
        assert_eq!(outside.unwrap_err().errno(), Errno::EACCES);
    }
    drop(handle);
    w.end();
}

/// No window comes when something is mapped where nothing was.
#[test]
fn no_refusal_of_a_hole_outlives_a_mapping() {
    for (mistake, known) in [(None, true), (Some(RegMistake::KeepsRefusals), false)] {
        let (mut w, cache) = mistaken(mistake);
        assert!(read(&mut w, &cache, 80).is_err());
        w.map(80, 1, RW);
        assert_eq!(read(&mut w, &cache, 80).is_ok(), known);
    }
}

#[test]
fn an_end_gives_up_all_pins() {
    let (mut w, cache) = default();
    (0..16).for_each(|page| assert!(read(&mut w, &cache, page).is_ok()));
    w.mm.exit(&mut w.thread.cx());
    assert_eq!(w.machine.mem().in_use(), 0);
    assert!(read(&mut w, &cache, 0).is_err());
}

#[test]
fn a_handle_that_outlives_the_process_keeps_its_pages() {
    let (mut w, cache) = default();
    let handle = cache
        .acquire(&mut w.thread.cx(), (at(0), 4), Access::Read)
        .unwrap();
    w.mm.exit(&mut w.thread.cx());
    let mut byte = [0];
    handle.read(&mut w.thread.cx(), at(0), &mut byte).unwrap();
    assert_eq!((byte, w.machine.mem().in_use()), ([1], 4));
    drop(handle);
    assert_eq!(w.machine.mem().in_use(), 0);
}

/// A pinned page stays where it is, and a fork copies it for the child at once.
#[test]
fn a_pinned_region_stays_with_its_process() {
    let (mut w, cache) = default();
    read(&mut w, &cache, 0).unwrap();
    w.advise(0, 64, Advice::PageOut).unwrap();
    assert_eq!(w.mm.migrate(&mut w.thread.cx(), at(0)), Ok(None));
    let child = w.mm.fork(&mut w.thread.cx()).unwrap();
    cache.write(&mut w.thread.cx(), at(0), &[77]).unwrap();
    assert_eq!(w.get(0), Ok(77));
    assert_eq!(child.load(&mut w.thread.cx(), at(0)), Ok(1));
    child.exit(&mut w.thread.cx());
    w.end();
}

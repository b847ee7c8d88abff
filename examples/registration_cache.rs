//! A registration cache, as UCX, libfabric and Open MPI have one: memory stays registered after a
//! transfer, until a window takes it. Then caches with a mistake, which send bytes of memory that
//! the process has given back.
//!
//! ```text
//! cargo run --example registration_cache
//! ```

use emmu::{
    Machine, MachineConfig, Mm, PAGE_SIZE,
    ctx::CallCx,
    extmmu::regcache::{RegCache, RegCacheConfig, RegMistake},
    mm::MmapArgs,
    notifier::Access,
};
use std::{error::Error, sync::Arc};

const BUFFER: u64 = 1 << 40;
const PAGES: u64 = 16;

fn main() -> Result<(), Box<dyn Error>> {
    let machine = Machine::new(MachineConfig::default());
    let mut thread = machine.enter()?;
    let mut cx = thread.cx();
    let mm = Mm::new(&machine);
    let config = RegCacheConfig {
        regions: 2,
        ..RegCacheConfig::default()
    };
    let (cache, registration) = RegCache::attach(&mut cx, &mm, config);

    // The first transfer registers and pins a block, the second finds it.
    buffer(&mut cx, &mm, b'a')?;
    for round in 1..=2 {
        let sent = send(&mut cx, &cache)?;
        println!("round {round} sends {sent:?}: {}", shown(&mut cx, &cache));
    }

    // The buffer is freed, and another one comes to its address. The old region is found no more.
    // Its pins go after the window, with the next transfer.
    buffer(&mut cx, &mm, b'b')?;
    println!("a new buffer: {}", shown(&mut cx, &cache));
    let sent = send(&mut cx, &cache)?;
    println!("round 3 sends {sent:?}: {}", shown(&mut cx, &cache));

    // A transfer in progress keeps its pages, though the process frees them.
    let handle = cache.acquire(&mut cx, (BUFFER, 4), Access::Read)?;
    buffer(&mut cx, &mm, b'c')?;
    let mut bytes = [0];
    handle.read(&mut cx, BUFFER, &mut bytes)?;
    let (sent, next) = (char::from(bytes[0]), send(&mut cx, &cache)?);
    println!("in progress: {sent:?}, the next one: {next:?}");
    drop(handle);

    // Room for two regions: the one that was not used for the longest time goes.
    for page in [4, 8, 12] {
        cache.read(&mut cx, BUFFER + page * PAGE_SIZE, &mut [0])?;
    }
    println!("three more blocks: {}", shown(&mut cx, &cache));
    mm.unregister(&mut cx, registration);
    mm.exit(&mut cx);
    println!("frames in use at the end: {}", machine.mem().in_use());

    drop(thread);
    mistakes()
}

/// Shows what caches with a mistake send and keep.
fn mistakes() -> Result<(), Box<dyn Error>> {
    for mistake in [RegMistake::DeafMonitor, RegMistake::LeaksOnEviction] {
        let machine = Machine::new(MachineConfig::default());
        let mut thread = machine.enter()?;
        let mut cx = thread.cx();
        let mm = Mm::new(&machine);
        let config = RegCacheConfig {
            regions: 2,
            mistake: Some(mistake),
            ..RegCacheConfig::default()
        };
        let (cache, _registration) = RegCache::attach(&mut cx, &mm, config);
        buffer(&mut cx, &mm, b'a')?;
        send(&mut cx, &cache)?;
        buffer(&mut cx, &mm, b'b')?;
        let sent = send(&mut cx, &cache)?;
        println!("\n{mistake:?}: sends {sent:?}, memory has 'b'");
        for page in [4, 8, 12] {
            cache.read(&mut cx, BUFFER + page * PAGE_SIZE, &mut [0])?;
        }
        mm.exit(&mut cx);
        drop(cache);
        println!("  frames in use at the end: {}", machine.mem().in_use());
    }
    Ok(())
}

/// Maps a buffer at the address, in the place of the one before, and fills it.
fn buffer(cx: &mut CallCx<'_>, mm: &Arc<Mm>, byte: u8) -> Result<(), Box<dyn Error>> {
    mm.mmap(cx, &MmapArgs::anonymous(PAGES * PAGE_SIZE).fixed(BUFFER))?;
    for page in 0..PAGES {
        mm.store(cx, BUFFER + page * PAGE_SIZE, byte)?;
    }
    Ok(())
}

/// Sends the first byte of the buffer.
fn send(cx: &mut CallCx<'_>, cache: &RegCache) -> Result<char, Box<dyn Error>> {
    let mut byte = [0];
    cache.read(cx, BUFFER, &mut byte)?;
    Ok(char::from(byte[0]))
}

fn shown(cx: &mut CallCx<'_>, cache: &RegCache) -> String {
    let s = cache.stats(cx);
    format!(
        "{} regions, {} to deregister, {} hits, {} evictions",
        s.regions, s.waiting, s.hits, s.evictions
    )
}

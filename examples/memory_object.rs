//! An object of one's own behind a mapping: a table of squares that is computed when a page is
//! touched, and dropped when memory is short.
//!
//! ```text
//! cargo run --example memory_object
//! ```

use emmu::{
    Machine, MachineConfig, Mm, PAGE_SIZE,
    ctx::FaultCx,
    error::ObjectError,
    file::{Backing, File, FileMode, MemoryObject, PageCache, PageRequest},
    frame::Frame,
    mm::{Advice, MmapArgs, Prot},
    rmap::Mapping,
};
use std::{borrow::Cow, error::Error, sync::Arc};

/// Numbers in a page.
const NUMBERS: u64 = PAGE_SIZE / 8;

/// The squares of 0 to 8191, eight bytes each. A page cache keeps the pages that have been asked
/// for; `Backing::Store` says that a clean page may be dropped, since it can be computed again.
#[derive(Debug)]
struct Squares(Arc<PageCache>);

impl MemoryObject for Squares {
    fn name(&self) -> Cow<'_, str> {
        Cow::Borrowed("/squares")
    }
    fn mapping(&self) -> &Arc<Mapping> {
        self.0.mapping()
    }
    fn size(&self) -> u64 {
        16 * PAGE_SIZE
    }
    /// The fault of a page. `filling` excludes a cut of the object; the page is locked while the
    /// closure fills it, so each page is computed once.
    fn page(
        &self,
        mut cx: FaultCx<'_>,
        index: u64,
        _: &PageRequest,
    ) -> Result<Frame<'_>, ObjectError> {
        if index >= self.pages() {
            return Err(ObjectError::Beyond(index));
        }
        let compute = |frame: &Frame<'_>| {
            for n in 0..NUMBERS {
                let square = (index * NUMBERS + n).pow(2);
                frame.write(8 * n as usize, &square.to_ne_bytes());
            }
            Ok(())
        };
        let (frame, _new) = self.0.filling(&mut cx).get_or_make(index, compute)?;
        Ok(frame)
    }
    /// A page that a fault next to it may map as well, without computing anything.
    fn resident(&self, index: u64) -> Option<Frame<'_>> {
        self.0.get(index)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let machine = Machine::new(MachineConfig::default());
    let mut thread = machine.enter()?;
    let mut cx = thread.cx();
    let pages = PageCache::new(machine.host(), Backing::Store)?;
    let file = File::open(Arc::new(Squares(Arc::clone(&pages))), FileMode::ReadOnly);

    // Two processes map the table. One look-up makes one page, for both.
    let args = MmapArgs::anonymous(16 * PAGE_SIZE).file(&file, 0);
    let args = args.prot(Prot::READ);
    let mm = Mm::new(&machine);
    let other = Mm::new(&machine);
    let at = mm.mmap(&mut cx, &args)?;
    let there = other.mmap(&mut cx, &args)?;
    let mut bytes = [0; 8];
    mm.read_bytes(&mut cx, at + 8 * 1000, &mut bytes)?;
    assert_eq!(u64::from_ne_bytes(bytes), 1_000_000);
    other.read_bytes(&mut cx, there + 8 * 1001, &mut bytes)?;
    assert_eq!(u64::from_ne_bytes(bytes), 1_002_001);
    assert_eq!(pages.len(), 1);
    println!("{}", mm.maps(&mut cx)[0]);

    // A process may drop the page: the object still has it.
    mm.madvise(&mut cx, at, 16 * PAGE_SIZE, Advice::DontNeed)?;
    assert_eq!(pages.len(), 1);
    mm.read_bytes(&mut cx, at + 8 * 1000, &mut bytes)?;
    assert_eq!(u64::from_ne_bytes(bytes), 1_000_000);

    // An access beyond the object is SIGBUS; the table ends with its last page.
    let beyond = mm.mmap(&mut cx, &args.clone().file(&file, 16 * PAGE_SIZE))?;
    let refused = mm.load(&mut cx, beyond).unwrap_err();
    println!("beyond the table: {refused}");

    other.exit(&mut cx);
    mm.exit(&mut cx);
    Ok(())
}

//! A hardware walker: follows the tables without a lock.

use crate::mm::{entry::pte::Pte, page_table::TableView, space::Mm};
use crate::{
    addr::{TASK_PAGES, Vpn},
    ctx::{Below, Context, Cx, rank},
};

impl Mm {
    /// Pins the page table for reading: any number of lookups, none of which takes a lock or waits.
    /// The thread may not sleep while the walker lives.
    ///
    /// # Panics
    ///
    /// If the token is of a thread that entered another machine.
    ///
    /// # Examples
    ///
    /// ```
    /// use emmu::{PAGE_SIZE, addr::Vpn, mm::{MmapArgs, Pte}};
    /// # let machine = emmu::Machine::new(Default::default());
    /// # let mut thread = machine.enter()?;
    /// # let mut cx = thread.cx();
    /// # let mm = emmu::Mm::new(&machine);
    ///
    /// let at = mm.mmap(&mut cx, &MmapArgs::anonymous(PAGE_SIZE))?;
    /// let page = Vpn::containing(at);
    /// assert_eq!(mm.walker(&mut cx).pte(page), Pte::None);
    /// mm.store(&mut cx, at, 7)?;
    /// assert!(matches!(mm.walker(&mut cx).pte(page), Pte::Present { write: true, .. }));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn walker<'w, R: Below<rank::Ptl>, C: Context>(
        &'w self,
        cx: &'w mut Cx<'_, R, C>,
    ) -> Walker<'w, R> {
        Walker {
            mm: self,
            view: self.table.view(cx),
        }
    }
}

/// A page table under an epoch pin. Tables that were reachable when it was taken stay readable, and
/// may have changed since.
pub struct Walker<'w, R: crate::ctx::Rank> {
    mm: &'w Mm,
    view: TableView<'w, R>,
}

impl<R: crate::ctx::Rank> Walker<'_, R> {
    /// Returns the entry of `at` as it is at this moment; `Pte::None` above the end of the address
    /// space. The frame number gives no access to the frame: for that, draw a
    /// [`Ticket`](crate::notifier::Ticket).
    #[inline]
    pub fn pte(&self, at: Vpn) -> Pte {
        if at.0 >= TASK_PAGES {
            return Pte::None;
        }
        let leaf = self.view.leaf(at);
        leaf.map_or(Pte::None, |leaf| leaf.peek(at).into())
    }
}

impl<R: crate::ctx::Rank> std::fmt::Debug for Walker<'_, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Walker").field("mm", self.mm).finish()
    }
}

//! The protocol side of an invalidation window: its place on the board, and who agreed to it.

use super::{
    chain::{Chain, Notifiers},
    entry::{Entry, Visit, Visits},
    ops::{Ack, Begun, Event, ExternalMmu, Finish, Invalidation, WouldBlock, demand},
};
use crate::{
    addr::VpnRange,
    ctx::{Atomic, Below, Context, Cx, Sleepable, rank},
};
use smallvec::SmallVec;
use std::{convert::Infallible, marker::PhantomData};

/// How a window of this context asks one driver.
pub trait WindowContext: Context {
    /// What a driver may answer instead of complying.
    type Refusal: std::fmt::Debug;
    /// What a driver may have left for a second pass.
    type Owed<'s>;
    #[doc(hidden)]
    fn ask<'s, 'i>(
        ext: &'s dyn ExternalMmu,
        cx: Cx<'_, rank::Callback, Self>,
        inv: Invalidation<'i>,
    ) -> Result<Begun<'i, Self::Owed<'s>>, Self::Refusal>;
    #[doc(hidden)]
    fn settle<'i>(
        owed: Self::Owed<'_>,
        cx: Cx<'_, rank::Callback, Self>,
        inv: Invalidation<'i>,
    ) -> Ack<'i>;
}

impl WindowContext for Sleepable {
    type Refusal = Infallible;
    type Owed<'s> = Finish<'s>;
    fn ask<'s, 'i>(
        ext: &'s dyn ExternalMmu,
        cx: Cx<'_, rank::Callback, Self>,
        inv: Invalidation<'i>,
    ) -> Result<Begun<'i, Finish<'s>>, Infallible> {
        Ok(ext.invalidate_begin(cx, inv))
    }
    fn settle<'i>(
        owed: Finish<'_>,
        cx: Cx<'_, rank::Callback, Self>,
        inv: Invalidation<'i>,
    ) -> Ack<'i> {
        owed.run(cx, inv)
    }
}

/// Who must not wait has nothing to wait for later.
impl WindowContext for Atomic {
    type Refusal = WouldBlock;
    type Owed<'s> = Infallible;
    fn ask<'i>(
        ext: &dyn ExternalMmu,
        cx: Cx<'_, rank::Callback, Self>,
        inv: Invalidation<'i>,
    ) -> Result<Begun<'i, Infallible>, WouldBlock> {
        ext.try_invalidate_start(cx, inv).map(Begun::Done)
    }
    fn settle<'i>(
        owed: Infallible,
        _: Cx<'_, rank::Callback, Self>,
        _: Invalidation<'i>,
    ) -> Ack<'i> {
        match owed {}
    }
}

/// Every registered driver acknowledged the range; `Drop` ends it, for exactly those.
///
/// With nobody ever registered it is one load and a null pointer. For that to be all, what is behind the pointer lies
/// elsewhere, and nothing of the fast path takes the address of the window.
#[must_use]
pub(crate) struct OpenWindow<'w, C: Context> {
    live: Option<Box<Live<'w>>>,
    range: VpnRange,
    cx: Cx<'w, rank::Window, C>,
}

/// What there is to end, if anybody was ever registered.
struct Live<'w> {
    chain: &'w Chain,
    /// What an oracle knows it by.
    id: u64,
    visits: Visits,
    /// So many of them, the first ones, were asked and did not refuse: they are told the end.
    agreed: usize,
    /// Nobody refused.
    open: bool,
}

/// A window that is being announced: ended if anybody refuses, or panics.
struct Opening<'a, 'w, C: Context> {
    live: Option<Box<Live<'w>>>,
    range: VpnRange,
    cx: Cx<'a, rank::Window, C>,
}

impl<'w, C: WindowContext> OpenWindow<'w, C> {
    /// With nobody ever registered: one load.
    #[inline(always)]
    pub(crate) fn open<R: Below<rank::Window>>(
        notifiers: &'w Notifiers,
        cx: Cx<'w, R, C>,
        range: VpnRange,
        event: Event,
    ) -> Result<Self, C::Refusal> {
        Self::open_at(notifiers, cx.into_descended(), range, event)
    }
    /// A window inside another: drivers must expect that they nest.
    pub(crate) fn nested<'n>(
        &'n mut self,
        notifiers: &'n Notifiers,
        range: VpnRange,
        event: Event,
    ) -> Result<OpenWindow<'n, C>, C::Refusal> {
        OpenWindow::open_at(notifiers, self.cx.reborrow(), range, event)
    }
    #[inline(always)]
    fn open_at(
        notifiers: &'w Notifiers,
        mut cx: Cx<'w, rank::Window, C>,
        range: VpnRange,
        event: Event,
    ) -> Result<Self, C::Refusal> {
        let live = match notifiers.chain() {
            None => None,
            Some(chain) => Opening::announce(chain, cx.reborrow(), range, event)?,
        };
        Ok(Self { live, range, cx })
    }
}

impl<'a, 'w, C: WindowContext> Opening<'a, 'w, C> {
    #[cold]
    #[inline(never)]
    fn announce(
        chain: &'w Chain,
        cx: Cx<'a, rank::Window, C>,
        range: VpnRange,
        event: Event,
    ) -> Result<Option<Box<Live<'w>>>, C::Refusal> {
        let mut opening = Self {
            live: None,
            range,
            cx,
        };
        opening.ask_all(chain, event)?;
        Ok(opening.live.take())
    }
    fn ask_all(&mut self, chain: &'w Chain, event: Event) -> Result<(), C::Refusal> {
        // The board before the chain: a driver that registers later finds the window on the board.
        chain.board.begin(self.range);
        let id = chain.board.next_watched();
        let live = self.live.insert(Box::new(Live {
            chain,
            id,
            visits: SmallVec::new(),
            agreed: 0,
            open: false,
        }));
        chain.present(&mut self.cx, self.range, &mut live.visits);
        // First everybody is asked, then those are waited for who are not done: all at the same time.
        let mut owed: SmallVec<[(&Entry, C::Owed<'_>); 1]> = SmallVec::new();
        for visit in &live.visits {
            let entry = visit.entry();
            let asking = |w: &dyn super::WindowWatch| w.asking(id, self.range, entry.ext.name());
            chain.board.watched(asking);
            let cx = self.cx.descend();
            let left = demand(self.range, event, entry.reg, |inv| {
                C::ask(&*entry.ext, cx, inv)
            })?;
            live.agreed += 1;
            owed.extend(left.map(|left| (entry, left)));
        }
        for (entry, left) in owed {
            let asking = |w: &dyn super::WindowWatch| w.asking(id, self.range, entry.ext.name());
            chain.board.watched(asking);
            let cx = self.cx.descend();
            let Ok(None::<Infallible>) = demand(self.range, event, entry.reg, |inv| {
                Ok::<_, Infallible>(Begun::Done(C::settle(left, cx, inv)))
            });
        }
        live.open = true;
        chain.board.watched(|w| w.opened(id, self.range));
        Ok(())
    }
}

impl Live<'_> {
    #[cold]
    #[inline(never)]
    fn end<C: Context>(mut self: Box<Self>, mut cx: Cx<'_, rank::Window, C>, range: VpnRange) {
        if self.open {
            self.chain.board.watched(|w| w.closing(range));
        }
        self.chain.board.end(range);
        self.visits.truncate(self.agreed);
        // All sequences first: who is told of an end finds no window open.
        self.visits.iter_mut().for_each(Visit::close_window);
        while let Some(visit) = self.visits.pop() {
            let cx = cx.descend();
            visit.entry().ext.invalidate_end(cx, range);
        }
        self.chain.board.watched(|w| w.closed(self.id));
    }
}

impl<C: Context> OpenWindow<'_, C> {
    /// What is covered, and the token for what is done inside.
    #[inline]
    pub(crate) fn split(&mut self) -> (Coverage<'_>, Cx<'_, rank::Window, C>) {
        let coverage = Coverage {
            range: self.range,
            window: PhantomData,
        };
        (coverage, self.cx.reborrow())
    }
}

impl<C: Context> Drop for OpenWindow<'_, C> {
    #[inline(always)]
    fn drop(&mut self) {
        if let Some(live) = self.live.take() {
            live.end(self.cx.reborrow(), self.range);
        }
    }
}

impl<C: Context> Drop for Opening<'_, '_, C> {
    fn drop(&mut self) {
        if let Some(live) = self.live.take() {
            live.end(self.cx.reborrow(), self.range);
        }
    }
}

/// The range of a window known to be open for `'w`.
#[derive(Clone, Copy)]
pub(crate) struct Coverage<'w> {
    range: VpnRange,
    window: PhantomData<&'w ()>,
}

impl Coverage<'_> {
    pub(crate) fn range(self) -> VpnRange {
        self.range
    }
}

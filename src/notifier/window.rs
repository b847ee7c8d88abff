//! The protocol side of an invalidation window: its place on the board, and who agreed to it.

use super::{
    chain::{Chain, Notifiers},
    entry::Visit,
    ops::{Ack, Event, ExternalMmu, Invalidation, WouldBlock, demand},
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
    #[doc(hidden)]
    fn ask<'i>(
        ext: &dyn ExternalMmu,
        cx: Cx<'_, rank::Callback, Self>,
        inv: Invalidation<'i>,
    ) -> Result<Ack<'i>, Self::Refusal>;
}

impl WindowContext for Sleepable {
    type Refusal = Infallible;
    fn ask<'i>(
        ext: &dyn ExternalMmu,
        cx: Cx<'_, rank::Callback, Self>,
        inv: Invalidation<'i>,
    ) -> Result<Ack<'i>, Infallible> {
        Ok(ext.invalidate_start(cx, inv))
    }
}

impl WindowContext for Atomic {
    type Refusal = WouldBlock;
    fn ask<'i>(
        ext: &dyn ExternalMmu,
        cx: Cx<'_, rank::Callback, Self>,
        inv: Invalidation<'i>,
    ) -> Result<Ack<'i>, WouldBlock> {
        ext.try_invalidate_start(cx, inv)
    }
}

/// Every registered driver acknowledged the range; `Drop` ends it, for exactly those.
#[must_use]
pub(crate) struct OpenWindow<'w, C: Context> {
    live: Option<Live<'w>>,
    range: VpnRange,
    cx: Cx<'w, rank::Window, C>,
}

/// What there is to end, if anybody was ever registered.
struct Live<'w> {
    chain: &'w Chain,
    agreed: SmallVec<[Visit; 4]>,
    /// Nobody refused.
    open: bool,
}

impl<'w, C: WindowContext> OpenWindow<'w, C> {
    /// With nobody ever registered: one load.
    #[inline]
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
    #[inline]
    fn open_at(
        notifiers: &'w Notifiers,
        cx: Cx<'w, rank::Window, C>,
        range: VpnRange,
        event: Event,
    ) -> Result<Self, C::Refusal> {
        let mut window = Self {
            live: None,
            range,
            cx,
        };
        if let Some(chain) = notifiers.chain() {
            window.announce(chain, event)?;
        }
        Ok(window)
    }
    fn announce(&mut self, chain: &'w Chain, event: Event) -> Result<(), C::Refusal> {
        // The board before the chain: a driver that registers later finds the window on the board.
        chain.board.begin(self.range);
        let live = self.live.insert(Live {
            chain,
            agreed: SmallVec::new(),
            open: false,
        });
        for visit in chain.present(&mut self.cx, self.range) {
            let entry = visit.entry();
            let cx = self.cx.descend();
            demand(self.range, event, entry.reg, |inv| {
                C::ask(&*entry.ext, cx, inv)
            })?;
            live.agreed.push(visit);
        }
        live.open = true;
        chain.board.watched(|w| w.opened(self.range));
        Ok(())
    }
}

impl<C: Context> OpenWindow<'_, C> {
    fn end(&mut self) {
        let Some(mut live) = self.live.take() else {
            return;
        };
        if live.open {
            live.chain.board.watched(|w| w.closing(self.range));
        }
        live.chain.board.end(self.range);
        // All sequences first: who is told of an end finds no window open.
        live.agreed.iter_mut().for_each(Visit::close_window);
        while let Some(visit) = live.agreed.pop() {
            let cx = self.cx.descend();
            visit.entry().ext.invalidate_end(cx, self.range);
        }
    }
    /// What is covered, and the token for what is done inside.
    pub(crate) fn split(&mut self) -> (Coverage<'_>, Cx<'_, rank::Window, C>) {
        let coverage = Coverage {
            range: self.range,
            window: PhantomData,
        };
        (coverage, self.cx.reborrow())
    }
}

impl<C: Context> Drop for OpenWindow<'_, C> {
    #[inline]
    fn drop(&mut self) {
        if self.live.is_some() {
            self.end();
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

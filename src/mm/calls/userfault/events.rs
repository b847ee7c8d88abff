//! Events of an address space for the handlers of its userfaultfds.
//!
//! On Linux the call that changes the address space waits until the handler has read the event.
//! Here it returns; as on Linux, nothing is answered until the event was read
//! ([`UserfaultError::Changing`](crate::error::UserfaultError::Changing)).

use crate::addr::{PAGE_SIZE, Vpn, VpnRange};
use crate::mm::{
    calls::{mremap::Remap, munmap::Gathered},
    entry::{flags::VmFlags, uffd_flags::UffdFeatures},
    guard::MmapWriteGuard,
    space::Mm,
    vma::{
        Vma,
        userfault::{Context, Event, same_userfault},
    },
};
use std::{
    any::Any,
    sync::{Arc, Weak},
};

/// The userfaultfds that a fork makes for the child, each with that of the parent. Without
/// [`send`](Self::send) the fork failed, and no handler is told.
#[derive(Default)]
pub(in crate::mm) struct ForkEvents(Vec<(Arc<Context>, Arc<Context>)>);

impl ForkEvents {
    /// Registers `copy`, the child's copy of `vma`, with a userfaultfd of the child, or with none
    /// (`dup_userfaultfd`).
    pub(in crate::mm) fn inherit(&mut self, vma: &Vma, copy: &mut Vma, child: &Mm) {
        copy.forget_userfault();
        let Some(parent) = vma.userfault_told(UffdFeatures::EVENT_FORK) else {
            return;
        };
        let made = self.0.iter().find(|(made, _)| Arc::ptr_eq(made, parent));
        let context = match made {
            Some((_, context)) => Arc::clone(context),
            None => {
                parent.begin_change();
                let context = parent.forked(child.as_any());
                self.0.push((Arc::clone(parent), Arc::clone(&context)));
                context
            }
        };
        copy.flags |= vma.flags & VmFlags::UFFD;
        copy.extras.change(|rare| rare.userfault = Some(context));
    }
    /// Tells the parents' handlers (`dup_userfaultfd_complete`).
    pub(in crate::mm) fn send(mut self) {
        for (parent, child) in self.0.drain(..) {
            parent.end_change(Some(Event::Fork(child)));
        }
    }
}

impl Drop for ForkEvents {
    fn drop(&mut self) {
        for (parent, _) in &self.0 {
            parent.end_change(None);
        }
    }
}

/// The userfaultfds that want to know of the end of a range. Without [`send`](Self::send) nothing
/// was unmapped.
#[must_use]
pub(in crate::mm) struct Watchers {
    contexts: Vec<Arc<Context>>,
    range: VpnRange,
}

impl Watchers {
    /// Tells the handlers (`userfaultfd_unmap_complete`).
    pub(in crate::mm) fn send(mut self) {
        let (start, end) = (self.range.start().addr(), self.range.end().addr());
        for context in self.contexts.drain(..) {
            context.end_change(Some(Event::Unmap { start, end }));
        }
    }
}

impl Drop for Watchers {
    fn drop(&mut self) {
        for context in &self.contexts {
            context.end_change(None);
        }
    }
}

impl Mm {
    /// This address space, for a [`Context`].
    pub(super) fn as_any(&self) -> Weak<dyn Any + Send + Sync> {
        self.me.clone()
    }
}

impl MmapWriteGuard<'_> {
    /// Returns the userfaultfds that want to know that `range`, whose VMAs were gathered, is about
    /// to be unmapped (`userfaultfd_unmap_prep`).
    #[inline]
    pub(in crate::mm) fn watchers(&self, range: VpnRange, gathered: &Gathered) -> Option<Watchers> {
        let registered = gathered.registered;
        registered.then(|| self.watchers_of_registered(range))
    }
    fn watchers_of_registered(&self, range: VpnRange) -> Watchers {
        let mut contexts: Vec<Arc<Context>> = Vec::new();
        for vma in self.layout.vmas.range(range) {
            let Some(context) = vma.userfault_told(UffdFeatures::EVENT_UNMAP) else {
                continue;
            };
            let known = |c: &Arc<Context>| same_userfault(Some(c), Some(context));
            if !contexts.iter().any(known) {
                context.begin_change();
                contexts.push(Arc::clone(context));
            }
        }
        Watchers { contexts, range }
    }
    /// Tells the handler of the source that its pages moved; without the feature for that, the VMA
    /// at the new place is no longer registered, with all that it has merged with
    /// (`mremap_userfaultfd_prep`).
    pub(in crate::mm) fn tell_moved(
        &mut self,
        context: &Context,
        (remap, to): (&Remap, VpnRange),
        new_vma: Vpn,
    ) {
        if !context.has(UffdFeatures::EVENT_REMAP) {
            return self.layout.change(new_vma, Vma::forget_userfault);
        }
        context.begin_change();
        context.end_change(Some(Event::Remap {
            from: remap.addr.addr(),
            to: to.start().addr(),
            len: remap.old * PAGE_SIZE,
        }));
    }
}

impl Vma {
    /// Tells the handler that the pages of `part` are about to be dropped (`userfaultfd_remove`).
    pub(in crate::mm) fn tell_removed(&self, part: VpnRange) {
        if let Some(context) = self.userfault_told(UffdFeatures::EVENT_REMOVE) {
            let (start, end) = (part.start().addr(), part.end().addr());
            context.begin_change();
            context.end_change(Some(Event::Remove { start, end }));
        }
    }
}

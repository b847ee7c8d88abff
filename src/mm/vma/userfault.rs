//! [`Context`]: a userfaultfd, as the VMAs that are registered with it know it. It keeps the
//! accesses that wait and the messages that its handler has not read.
//!
//! An access that waits holds no lock: a fault leaves a message here and *returns*, with the mmap
//! lock released. So an answer, which takes that lock, never waits for the access that it answers.

use crate::mm::entry::uffd_flags::{PageFaultFlags, UffdFeatures};
use crate::{
    addr::{Vpn, VpnRange},
    sync::{Condvar, Mutex, OnceLock},
};
use std::{
    any::Any,
    collections::VecDeque,
    fmt,
    sync::{Arc, Weak},
};

/// An access that waits for the handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the access waits until its page is answered"]
pub struct PageFault {
    /// The first byte of the page; with [`UffdFeatures::EXACT_ADDRESS`] the byte of the access.
    pub addr: u64,
    /// The kind of the fault.
    pub flags: PageFaultFlags,
}

/// A change of the address space that the handler is told about, in bytes.
#[derive(Clone, Debug)]
pub(in crate::mm) enum Event {
    /// A fork; the userfaultfd of the child.
    Fork(Arc<Context>),
    /// A move of a mapping.
    Remap { from: u64, to: u64, len: u64 },
    /// Pages are dropped; the mapping stays.
    Remove { start: u64, end: u64 },
    /// A mapping is gone.
    Unmap { start: u64, end: u64 },
}

/// A message for the handler.
#[derive(Debug)]
pub(in crate::mm) enum HandlerMessage {
    Fault(PageFault),
    Event(Event),
}

#[derive(Debug)]
struct Waiting {
    fault: PageFault,
    is_read: bool,
}

#[derive(Debug, Default)]
struct Queue {
    faults: VecDeque<Waiting>,
    events: VecDeque<Event>,
    /// Changes of the address space that the handler has not read about, those that are still going
    /// on included (`mmap_changing`).
    changing: usize,
}

/// A userfaultfd (`struct userfaultfd_ctx`).
pub(in crate::mm) struct Context {
    /// The address space, as its own type.
    space: Weak<dyn Any + Send + Sync>,
    /// Unset until the handshake.
    features: OnceLock<UffdFeatures>,
    queue: Mutex<Queue>,
    woken: Condvar,
}

impl Context {
    pub(in crate::mm) fn new(space: Weak<dyn Any + Send + Sync>) -> Arc<Self> {
        Arc::new(Self {
            space,
            features: OnceLock::new(),
            queue: Mutex::default(),
            woken: Condvar::new(),
        })
    }
    /// Makes the userfaultfd of a forked address space, with the same features.
    pub(in crate::mm) fn forked(&self, space: Weak<dyn Any + Send + Sync>) -> Arc<Self> {
        let child = Self::new(space);
        let _first = child.agree(self.features());
        child
    }
    /// The address space; `None` once it is gone.
    pub(in crate::mm) fn space(&self) -> Option<Arc<dyn Any + Send + Sync>> {
        self.space.upgrade()
    }
    /// Ends the handshake. Returns false if it was over already.
    pub(in crate::mm) fn agree(&self, features: UffdFeatures) -> bool {
        self.features.set(features).is_ok()
    }
    /// Returns true if the handshake is over.
    pub(in crate::mm) fn is_running(&self) -> bool {
        self.features.get().is_some()
    }
    pub(in crate::mm) fn features(&self) -> UffdFeatures {
        let agreed = self.features.get().copied();
        agreed.unwrap_or(UffdFeatures::empty())
    }
    pub(in crate::mm) fn has(&self, feature: UffdFeatures) -> bool {
        self.features().contains(feature)
    }

    /// Leaves a message about an access, unless one is there for an equal access that waits.
    /// Returns true if it left one.
    pub(in crate::mm) fn wait_for(&self, fault: PageFault) -> bool {
        let mut queue = self.queue.lock();
        let is_first = queue.faults.iter().all(|w| w.fault != fault);
        if is_first {
            let is_read = false;
            queue.faults.push_back(Waiting { fault, is_read });
        }
        is_first
    }
    /// Withdraws the message, which this access has left: the page was answered meanwhile. Equal
    /// accesses that began to wait since then try again.
    pub(in crate::mm) fn withdraw(&self, fault: PageFault) {
        let mut queue = self.queue.lock();
        queue.faults.retain(|w| w.fault != fault);
        self.woken.notify_all();
    }
    /// Wakes the accesses to `range` (`wake_userfault`).
    pub(in crate::mm) fn wake(&self, range: VpnRange) {
        let mut queue = self.queue.lock();
        let is_elsewhere = |w: &Waiting| !range.contains(Vpn::containing(w.fault.addr));
        queue.faults.retain(is_elsewhere);
        self.woken.notify_all();
    }
    /// Waits until no access to `page`, one page of the VMA, waits.
    pub(in crate::mm) fn wait_for_answer(&self, page: VpnRange) {
        let mut queue = self.queue.lock();
        let waits = |w: &Waiting| page.contains(Vpn::containing(w.fault.addr));
        while queue.faults.iter().any(waits) {
            self.woken.wait(&mut queue);
        }
    }
    /// Returns the oldest message that was not read: of an access, else of an event
    /// (`userfaultfd_ctx_read`).
    pub(in crate::mm) fn read(&self) -> Option<HandlerMessage> {
        let mut queue = self.queue.lock();
        if let Some(waiting) = queue.faults.iter_mut().find(|w| !w.is_read) {
            waiting.is_read = true;
            return Some(HandlerMessage::Fault(waiting.fault));
        }
        let event = queue.events.pop_front()?;
        queue.changing -= 1;
        Some(HandlerMessage::Event(event))
    }
    /// Returns true if there is a message to read.
    pub(in crate::mm) fn has_message(&self) -> bool {
        let queue = self.queue.lock();
        queue.faults.iter().any(|w| !w.is_read) || !queue.events.is_empty()
    }
    /// Notes that the address space begins to change: nothing is answered from here on until the
    /// handler has read the event.
    pub(in crate::mm) fn begin_change(&self) {
        self.queue.lock().changing += 1;
    }
    /// Ends the change, and leaves a message about it; without one, the change did not happen.
    pub(in crate::mm) fn end_change(&self, event: Option<Event>) {
        let mut queue = self.queue.lock();
        match event {
            Some(event) => queue.events.push_back(event),
            None => queue.changing -= 1,
        }
    }
    /// Returns true while a change is going on, or an event about one is unread.
    pub(in crate::mm) fn is_changing(&self) -> bool {
        self.queue.lock().changing > 0
    }
    /// Drops every message, and wakes every access. Returns the userfaultfds of children that no
    /// handler has read about, and none will.
    pub(in crate::mm) fn close(&self) -> Vec<Arc<Self>> {
        let mut queue = self.queue.lock();
        queue.faults.clear();
        let events = std::mem::take(&mut queue.events);
        // A change that goes on ends later, and is counted until then.
        queue.changing -= events.len();
        drop(queue);
        self.woken.notify_all();
        let unread = events.into_iter().filter_map(|event| match event {
            Event::Fork(child) => Some(child),
            _ => None,
        });
        unread.collect()
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Userfault")
            .field("features", &self.features.get())
            .finish_non_exhaustive()
    }
}

/// Returns true if both are the same userfaultfd, or none (`is_mergeable_vm_userfaultfd_ctx`).
pub(in crate::mm) fn same_userfault(a: Option<&Arc<Context>>, b: Option<&Arc<Context>>) -> bool {
    match (a, b) {
        (None, None) => true,
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_may_outlast_the_close_of_its_userfaultfd() {
        let space: Weak<()> = Weak::new();
        let context = Context::new(space);
        let unmapped = Event::Unmap { start: 0, end: 1 };
        context.begin_change();
        context.end_change(Some(unmapped.clone()));
        context.begin_change();
        assert!(context.close().is_empty());
        assert!(context.is_changing(), "one goes on");
        context.end_change(Some(unmapped));
        assert!(context.read().is_some());
        assert!(!context.is_changing());
    }
}

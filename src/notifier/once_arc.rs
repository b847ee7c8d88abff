//! A shared pointer that is set once.
//!
//! Guarantee: the value is made at most once, does not move, and lives as long as the `OnceArc`.
//! Reading it is one load.
#![allow(unsafe_code)]

use crate::sync::{AtomicPtr, Ordering, atomic_get_mut};
use std::{marker::PhantomData, ptr, sync::Arc};

/// A shared value that is made at most once, one pointer wide.
pub(super) struct OnceArc<T> {
    at: AtomicPtr<T>,
    owns: PhantomData<Arc<T>>,
}

impl<T: Send + Sync> OnceArc<T> {
    pub(super) fn new() -> Self {
        Self {
            at: AtomicPtr::new(ptr::null_mut()),
            owns: PhantomData,
        }
    }
    /// Returns the value if it is made.
    #[inline(always)]
    pub(super) fn get(&self) -> Option<&T> {
        // SAFETY: null, or from `Arc::into_raw` in `get_or_make`. The reference belongs to this
        // value, and only `drop` gives it up, which the borrow excludes. Acquire pairs with the
        // release of the exchange there.
        unsafe { self.at.load(Ordering::Acquire).as_ref() }
    }
    /// Returns a reference that may outlive this value.
    pub(super) fn share(&self) -> Option<Arc<T>> {
        // Not through a plain reference, from which the count beside the value cannot be reached.
        let at = self.at.load(Ordering::Acquire);
        if at.is_null() {
            return None;
        }
        // SAFETY: from `Arc::into_raw`, and the reference of this value keeps the count above zero
        // meanwhile.
        unsafe { Arc::increment_strong_count(at) };
        // SAFETY: takes over the reference that was added just now.
        Some(unsafe { Arc::from_raw(at) })
    }
    /// Returns the value, which `make` makes if there is none yet. Of two threads that make one at
    /// the same time, the second drops its own.
    pub(super) fn get_or_make(&self, make: impl FnOnce() -> T) -> &T {
        if let Some(value) = self.get() {
            return value;
        }
        let made = Arc::into_raw(Arc::new(make())).cast_mut();
        let set =
            self.at
                .compare_exchange(ptr::null_mut(), made, Ordering::AcqRel, Ordering::Acquire);
        if set.is_err() {
            // SAFETY: the exchange failed, so no other thread has seen it.
            drop(unsafe { Arc::from_raw(made) });
        }
        self.get().expect("set by this thread or another")
    }
}

impl<T> Drop for OnceArc<T> {
    fn drop(&mut self) {
        let at = atomic_get_mut(&mut self.at);
        if !at.is_null() {
            // SAFETY: from `Arc::into_raw`, and `&mut self` excludes every borrow through this.
            drop(unsafe { Arc::from_raw(at) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::OnceArc;

    #[test]
    fn a_lazy_value_is_one_pointer_and_made_once() {
        assert_eq!(size_of::<OnceArc<[u64; 9]>>(), size_of::<usize>());
        let lazy = OnceArc::new();
        assert!(lazy.get().is_none());
        std::thread::scope(|s| {
            for n in 0..3 {
                let lazy = &lazy;
                s.spawn(move || lazy.get_or_make(|| Box::new(n)));
            }
        });
        assert!(lazy.get().is_some());
        let shared = lazy.share().unwrap();
        assert!(std::ptr::eq(&*shared, lazy.get().unwrap()));
        assert_eq!(lazy.get_or_make(|| Box::new(99)), lazy.get().unwrap());
    }
}

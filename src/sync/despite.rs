//! Calls of foreign code, each of which must be made even if one before it panics.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
};

/// Keeps the first panic of several calls until all of them were made
/// (docs/adr/0024-a-panic-does-or-undoes.md).
#[derive(Default)]
#[must_use = "the panic goes on with `resume`"]
pub(crate) struct Despite(Option<Box<dyn Any + Send>>);

impl Despite {
    /// Makes a call; `None` if it panicked.
    pub(crate) fn call<T>(&mut self, f: impl FnOnce() -> T) -> Option<T> {
        match catch_unwind(AssertUnwindSafe(f)) {
            Ok(out) => Some(out),
            Err(why) => {
                self.0.get_or_insert(why);
                None
            }
        }
    }
    pub(crate) fn has_panic(&self) -> bool {
        self.0.is_some()
    }
    /// Continues with the first panic, unless this thread unwinds already.
    pub(crate) fn resume(self) {
        if let Some(why) = self.0
            && !panicking()
        {
            resume_unwind(why);
        }
    }
}

/// Returns true if this thread unwinds: a second panic would end the process.
#[inline]
pub(crate) fn panicking() -> bool {
    std::thread::panicking()
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::Despite;
    use std::panic::catch_unwind;

    #[test]
    fn every_call_is_made_and_the_first_panic_goes_on() {
        let mut made = 0;
        let result = catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut despite = Despite::default();
            for n in 0..4 {
                let out = despite.call(|| {
                    made += 1;
                    assert!(n % 2 == 0, "call {n}");
                    n
                });
                assert_eq!(out, (n % 2 == 0).then_some(n));
            }
            despite.resume();
        }));
        let why = result.unwrap_err();
        assert_eq!(why.downcast_ref::<String>().unwrap(), "call 1");
        assert_eq!(made, 4);
    }
}

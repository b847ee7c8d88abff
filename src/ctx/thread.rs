//! The roots of a thread's tokens.
//!
//! Guarantee: of all tokens of a thread, those that can be used derive from one another. So a
//! thread has one lock order, also when code that was handed no token asks for one.
//!
//! How: each thread has one *current root*. Its token is out, or was lent ([`Cx::lend`]): then it
//! is borrowed, so no code can use it, and its rank says that the thread holds no lock. Only a
//! token that was lent, or that is not out, is handed out.

use super::{CallCx, Cx, Epoch, Sleepable, rank};
use crate::sync;
use crossbeam_epoch::LocalHandle;
use std::{cell::Cell, rc::Rc};

/// A participant of a machine's epoch, which tokens lead to.
#[derive(Debug)]
struct Root {
    /// Dropped first: the participant must not be dropped after the collector that it is part of.
    local: LocalHandle,
    collector: Epoch,
}

impl Root {
    fn new(epoch: &Epoch) -> Rc<Self> {
        Rc::new(Self {
            local: epoch.register(),
            collector: epoch.clone(),
        })
    }
    fn is_of(&self, epoch: &Epoch) -> bool {
        self.collector.0 == epoch.0
    }
    /// Returns the root that a thread without a token has kept, or a new one if that is of another
    /// machine.
    fn kept_or_new(idle: Current, epoch: &Epoch) -> Rc<Self> {
        match idle {
            Current::Kept(root) if root.is_of(epoch) => root,
            _ => Self::new(epoch),
        }
    }
}

/// The current root of a thread.
#[derive(Debug, Default)]
enum Current {
    /// No token is out.
    #[default]
    Nowhere,
    /// No token is out, and the root is kept for the next one.
    Kept(Rc<Root>),
    /// A token of the root is out.
    Out(Rc<Root>),
    /// The token is lent to code that asks for one.
    Lent(Rc<Root>),
}

#[cfg(not(loom))]
sync::thread_local!(static CURRENT: Cell<Current> = const { Cell::new(Current::Nowhere) });
// The macro of loom accepts no constants.
#[cfg(loom)]
sync::thread_local!(static CURRENT: Cell<Current> = Cell::new(Current::Nowhere));

/// Puts a state in the place of the current one, and returns that.
///
/// A thread that ends has no state once its locals are gone. Only the destructors of other locals
/// run then, one after the other.
fn replace(state: Current) -> Current {
    let replaced = CURRENT.try_with(|current| current.replace(state));
    replaced.unwrap_or_default()
}

/// Puts a state back when a closure has run, or panicked.
struct Restore(Current);

impl Drop for Restore {
    fn drop(&mut self) {
        let _ended = replace(std::mem::take(&mut self.0));
    }
}

/// Runs `f` with a token of `root`, and makes `after` the state when it has ended.
fn with_token<T>(root: &Rc<Root>, after: Current, f: impl FnOnce(&mut CallCx<'_>) -> T) -> T {
    let _restore = Restore(after);
    let _was_taken = replace(Current::Out(Rc::clone(root)));
    f(&mut Cx::forge(&root.local))
}

/// A thread that has entered a machine: the root of all its tokens. It is not `Send`.
#[derive(Debug)]
pub struct Thread(Rc<Root>);

/// The current thread already holds a [`Thread`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this thread already entered a machine")]
pub struct AlreadyEntered;

/// A token of the current thread is in use, and was not lent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a token of this thread is in use, and was not lent")]
pub struct TokenInUse;

impl Thread {
    /// Registers the current thread.
    ///
    /// # Errors
    ///
    /// [`AlreadyEntered`] while another `Thread` of this thread lives, or inside of
    /// [`with_current`](crate::Machine::with_current): two roots would be two lock orders.
    pub fn enter(epoch: &Epoch) -> Result<Self, AlreadyEntered> {
        let root = match replace(Current::Nowhere) {
            taken @ (Current::Out(_) | Current::Lent(_)) => {
                let _nowhere = replace(taken);
                return Err(AlreadyEntered);
            }
            idle => Root::kept_or_new(idle, epoch),
        };
        let _nowhere = replace(Current::Out(Rc::clone(&root)));
        Ok(Self(root))
    }
    /// Returns the outermost token.
    pub fn cx(&mut self) -> Cx<'_, rank::Idle, Sleepable> {
        Cx::forge(&self.0.local)
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        let _out = replace(Current::Nowhere);
    }
}

impl Cx<'_, rank::Idle, Sleepable> {
    /// Lends the token to code that is handed none: while `f` runs,
    /// [`Machine::with_current`](crate::Machine::with_current) gives it out on this thread.
    ///
    /// The caller cannot use it meanwhile, as it is borrowed.
    pub fn lend<T>(&mut self, f: impl FnOnce() -> T) -> T {
        let root = match replace(Current::Nowhere) {
            Current::Out(root) => root,
            // The thread ends: a token is handed out without any note.
            Current::Nowhere => return f(),
            other => unreachable!("a token is out, not {other:?}"),
        };
        let _restore = Restore(Current::Out(Rc::clone(&root)));
        let _nowhere = replace(Current::Lent(root));
        f()
    }
}

impl Epoch {
    /// Runs `f` with the token that was lent on this thread, or with one of the thread's own if
    /// none is out; see [`Machine::with_current`](crate::Machine::with_current).
    pub(crate) fn with_current<T>(
        &self,
        f: impl FnOnce(&mut CallCx<'_>) -> T,
    ) -> Result<T, TokenInUse> {
        match replace(Current::Nowhere) {
            taken @ Current::Out(_) => {
                let _nowhere = replace(taken);
                Err(TokenInUse)
            }
            Current::Lent(root) => {
                let own = (!root.is_of(self)).then(|| Root::new(self));
                let after = Current::Lent(Rc::clone(&root));
                Ok(with_token(own.as_ref().unwrap_or(&root), after, f))
            }
            idle => {
                let root = Root::kept_or_new(idle, self);
                let after = Current::Kept(Rc::clone(&root));
                Ok(with_token(&root, after, f))
            }
        }
    }
    /// Runs `f` with a token of a new root, whatever tokens the thread has: for a `Drop` that must
    /// end something. `f` must not wait for a lock that the thread may hold.
    pub(crate) fn with_token_of_a_drop<T>(&self, f: impl FnOnce(&mut CallCx<'_>) -> T) -> T {
        let root = Root::new(self);
        let before = replace(Current::Nowhere);
        with_token(&root, before, f)
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::{AlreadyEntered, CallCx, Epoch, Thread, TokenInUse};
    use std::{
        cell::RefCell,
        panic::{AssertUnwindSafe, catch_unwind},
    };

    fn ask(epoch: &Epoch) -> Result<bool, TokenInUse> {
        epoch.with_current(|cx| cx.epoch_is(epoch))
    }

    #[test]
    fn a_token_is_handed_out_where_no_other_can_be_used() {
        let (epoch, other) = (Epoch::new(), Epoch::new());
        assert_eq!(ask(&epoch), Ok(true), "no token is out");
        // The root that is kept does not keep the thread from entering.
        let mut thread = Thread::enter(&epoch).unwrap();
        assert_eq!(Thread::enter(&epoch).unwrap_err(), AlreadyEntered);
        assert_eq!(ask(&epoch), Err(TokenInUse));
        let mut cx = thread.cx();
        cx.lend(|| {
            assert_eq!((ask(&epoch), ask(&other)), (Ok(true), Ok(true)));
            assert!(Thread::enter(&epoch).is_err(), "it would outlive the loan");
            // Inside, the token is out again, and can be lent again.
            let nested = |cx: &mut CallCx<'_>| (ask(&epoch), cx.lend(|| ask(&other)));
            let got = epoch.with_current(nested).unwrap();
            assert_eq!(got, (Err(TokenInUse), Ok(true)));
            assert_eq!(ask(&epoch), Ok(true));
        });
        assert_eq!(ask(&epoch), Err(TokenInUse), "the loan is over");
        drop(thread);
        assert_eq!(ask(&other), Ok(true));
    }

    #[test]
    fn a_panic_gives_the_token_back() {
        let epoch = Epoch::new();
        let mut thread = Thread::enter(&epoch).unwrap();
        let mut cx = thread.cx();
        let lent = catch_unwind(AssertUnwindSafe(|| {
            cx.lend(|| {
                let inner = || epoch.with_current(|_| panic!("inside"));
                assert!(catch_unwind(AssertUnwindSafe(inner)).is_err());
                assert_eq!(ask(&epoch), Ok(true), "it is lent again");
                panic!("in the loan");
            })
        }));
        assert!(lent.is_err());
        assert_eq!(ask(&epoch), Err(TokenInUse), "it is out again");
        assert!(cx.lend(|| ask(&epoch)).is_ok());
    }

    #[test]
    fn a_thread_that_ends_may_drop_its_entry_last() {
        struct Last(Epoch, Option<Thread>);
        impl Drop for Last {
            fn drop(&mut self) {
                drop(self.1.take());
                self.0.with_token_of_a_drop(|cx| assert!(cx.lend(|| true)));
            }
        }
        std::thread_local!(static LAST: RefCell<Option<Last>> = const { RefCell::new(None) });
        let ended = std::thread::spawn(|| {
            // Made before `CURRENT`, so destroyed after it.
            LAST.with(|last| {
                let epoch = Epoch::new();
                let thread = Thread::enter(&epoch).unwrap();
                *last.borrow_mut() = Some(Last(epoch, Some(thread)));
            });
        });
        ended.join().unwrap();
    }

    #[test]
    fn a_drop_has_a_token_in_any_case() {
        let epoch = Epoch::new();
        let mut thread = Thread::enter(&epoch).unwrap();
        let inside = epoch.with_token_of_a_drop(|cx| {
            assert_eq!(ask(&epoch), Err(TokenInUse));
            cx.lend(|| ask(&epoch))
        });
        assert_eq!(inside, Ok(true));
        assert!(thread.cx().lend(|| ask(&epoch)).is_ok());
    }
}

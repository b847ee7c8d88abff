//! The roots of a thread's tokens.
//!
//! Guarantee: of all tokens of a thread, those that can be used derive from one another. So a
//! thread has one lock order, also when code that was handed no token asks for one.
//!
//! How: each thread has one *current root*. Its token is out, or was lent ([`Cx::lend`]): then it
//! is borrowed, so no code can use it, and its rank says that the thread holds no lock. Only a
//! token that was lent, or that is not out, is handed out. A `Drop` takes a root of its own, and
//! makes that the current one: a [`Thread`] of another root gives no token meanwhile.

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
    /// Set when the [`Thread`] is dropped while another root is the current one.
    left: Cell<bool>,
}

impl Root {
    fn new(epoch: &Epoch) -> Rc<Self> {
        Rc::new(Self {
            local: epoch.register(),
            collector: epoch.clone(),
            left: Cell::new(false),
        })
    }
    fn is_of(&self, epoch: &Epoch) -> bool {
        self.collector.0 == epoch.0
    }
    /// Returns the root that a thread without a token has kept, or a new one if that is of another
    /// machine.
    fn kept_or_new(kept: Option<Rc<Self>>, epoch: &Epoch) -> Rc<Self> {
        let kept = kept.filter(|root| root.is_of(epoch));
        kept.unwrap_or_else(|| Self::new(epoch))
    }
    fn address(self: &Rc<Self>) -> usize {
        Rc::as_ptr(self).addr()
    }
}

/// The use of a thread's tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// No token is out.
    #[default]
    Idle,
    /// A token of the current root is out.
    Out,
    /// The token is lent to code that asks for one.
    Lent,
}

/// The current root of a thread, and the state of its tokens.
#[derive(Debug, Default)]
struct Current {
    state: State,
    /// The address of the root; 0 if no token is out or lent.
    address: usize,
    /// The root. Without a token, it is kept for the next one.
    root: Option<Rc<Root>>,
}

impl Current {
    fn idle(kept: Option<Rc<Root>>) -> Self {
        Self {
            root: kept,
            ..Self::default()
        }
    }
    fn out(root: &Rc<Root>) -> Self {
        Self {
            state: State::Out,
            address: root.address(),
            root: Some(Rc::clone(root)),
        }
    }
    /// Puts this in the place of the current one, and returns that.
    fn replace(self) -> Self {
        let now = (self.state, self.address);
        let (state, address) = NOW.try_with(|c| c.replace(now)).unwrap_or_default();
        let root = ROOT.try_with(|root| root.replace(self.root)).ok().flatten();
        Self {
            state,
            address,
            root,
        }
    }
}

// The state has no destructor: a thread that ends, and runs the destructors of its other locals,
// has it to the last, when the root is gone already.
#[cfg(not(loom))]
sync::thread_local! {
    static NOW: Cell<(State, usize)> = const { Cell::new((State::Idle, 0)) };
    static ROOT: Cell<Option<Rc<Root>>> = const { Cell::new(None) };
}
// The macro of loom accepts no constants.
#[cfg(loom)]
sync::thread_local! {
    static NOW: Cell<(State, usize)> = Cell::new((State::Idle, 0));
    static ROOT: Cell<Option<Rc<Root>>> = Cell::new(None);
}

/// Returns the state, and the address of the current root.
fn now() -> (State, usize) {
    NOW.try_with(Cell::get).unwrap_or_default()
}

/// Makes a root the current one again when a closure has run, or panicked.
struct Restore(Current);

impl Drop for Restore {
    fn drop(&mut self) {
        let before = std::mem::take(&mut self.0);
        let left = before.root.as_ref().is_some_and(|root| root.left.get());
        let _ended = match left {
            true => Current::default().replace(),
            false => before.replace(),
        };
    }
}

/// Runs `f` with a token of `root`, and makes `after` the current root when it has ended.
fn with_token<T>(root: &Rc<Root>, after: Current, f: impl FnOnce(&mut CallCx<'_>) -> T) -> T {
    let _restore = Restore(after);
    let _was_taken = Current::out(root).replace();
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
        if now().0 != State::Idle {
            return Err(AlreadyEntered);
        }
        let kept = Current::default().replace().root;
        let root = Root::kept_or_new(kept, epoch);
        let _idle = Current::out(&root).replace();
        Ok(Self(root))
    }
    /// Returns the outermost token.
    ///
    /// # Panics
    ///
    /// In a callback of a `Drop` that ends an address space or a mapping on this thread, which has
    /// a token of its own.
    pub fn cx(&mut self) -> Cx<'_, rank::Idle, Sleepable> {
        let mine = (State::Out, self.0.address());
        assert!(
            now() == mine,
            "a token of a `Drop` is in use on this thread"
        );
        Cx::forge(&self.0.local)
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        match now() == (State::Out, self.0.address()) {
            true => drop(Current::default().replace()),
            false => self.0.left.set(true),
        }
    }
}

impl Cx<'_, rank::Idle, Sleepable> {
    /// Lends the token to code that is handed none: while `f` runs,
    /// [`Machine::with_current`](crate::Machine::with_current) gives it out on this thread.
    ///
    /// The caller cannot use it meanwhile, as it is borrowed.
    pub fn lend<T>(&mut self, f: impl FnOnce() -> T) -> T {
        let out = Current::default().replace();
        debug_assert_eq!(out.state, State::Out, "a token is out");
        let lent = Current {
            state: State::Lent,
            address: out.address,
            root: out.root.clone(),
        };
        let _restore = Restore(out);
        let _idle = lent.replace();
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
        if now().0 == State::Out {
            return Err(TokenInUse);
        }
        let before = Current::default().replace();
        // A thread that ends may have lost the root that was lent.
        let root = Root::kept_or_new(before.root.clone(), self);
        let after = match before.state {
            State::Lent => before,
            State::Out | State::Idle => Current::idle(Some(Rc::clone(&root))),
        };
        Ok(with_token(&root, after, f))
    }
    /// Runs `f` with a token of a new root, whatever tokens the thread has: for a `Drop` that must
    /// end something. `f` must not wait for a lock that the thread may hold.
    pub(crate) fn with_token_of_a_drop<T>(&self, f: impl FnOnce(&mut CallCx<'_>) -> T) -> T {
        let root = Root::new(self);
        let before = Current::default().replace();
        with_token(&root, before, f)
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::{AlreadyEntered, CallCx, Epoch, Thread, TokenInUse};
    use std::{
        cell::RefCell,
        panic::{AssertUnwindSafe, catch_unwind},
        sync::mpsc,
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
            // Made before `ROOT`, so destroyed after it.
            LAST.with(|last| {
                let epoch = Epoch::new();
                let thread = Thread::enter(&epoch).unwrap();
                *last.borrow_mut() = Some(Last(epoch, Some(thread)));
            });
        });
        ended.join().unwrap();
    }

    #[test]
    fn a_token_of_a_drop_is_the_only_one() {
        let epoch = Epoch::new();
        let mut thread = Thread::enter(&epoch).unwrap();
        let mut refused = || {
            let cx = catch_unwind(AssertUnwindSafe(|| drop(thread.cx())));
            let entered = Thread::enter(&epoch).map(drop);
            (cx.is_err(), entered, ask(&epoch))
        };
        let none = (true, Err(AlreadyEntered), Err(TokenInUse));
        epoch.with_token_of_a_drop(|cx| {
            assert_eq!(refused(), none);
            cx.lend(|| {
                let asked = epoch.with_current(|_| refused());
                assert_eq!(asked, Ok(none), "the token that was lent is out again");
            });
        });
        assert!(thread.cx().epoch_is(&epoch));
        // A `Thread` that is dropped meanwhile has been left.
        epoch.with_token_of_a_drop(|_| {
            drop(thread);
            assert_eq!(ask(&epoch), Err(TokenInUse));
        });
        assert!(Thread::enter(&epoch).is_ok());
    }

    #[test]
    fn a_thread_that_ends_has_one_token_at_a_time() {
        struct Last(Epoch, mpsc::Sender<[bool; 3]>);
        impl Drop for Last {
            fn drop(&mut self) {
                let refused = |_: &mut CallCx<'_>| {
                    [ask(&self.0).is_err(), Thread::enter(&self.0).is_err(), true]
                };
                let now = self.0.with_current(refused).unwrap();
                let of_a_drop = self.0.with_token_of_a_drop(refused);
                self.1.send(now).unwrap();
                self.1.send(of_a_drop).unwrap();
            }
        }
        std::thread_local!(static LAST: RefCell<Option<Last>> = const { RefCell::new(None) });
        let (told, got) = mpsc::channel();
        let ended = std::thread::spawn(move || {
            // Made before `ROOT`, so destroyed after it.
            LAST.with(|last| {
                let epoch = Epoch::new();
                assert_eq!(ask(&epoch), Ok(true));
                *last.borrow_mut() = Some(Last(epoch, told));
            });
        });
        ended.join().unwrap();
        assert_eq!(got.iter().collect::<Vec<_>>(), [[true; 3]; 2]);
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

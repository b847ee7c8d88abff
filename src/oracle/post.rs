//! The post of a machine's oracle: watchers stay on a machine and its address spaces for good, and
//! report to the oracle that is at the post.

use crate::mm::Machine;
use std::{
    any::Any,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

/// The place where the watchers of one machine find its oracle.
#[derive(Debug, Default)]
pub(super) struct Post(Mutex<Option<Weak<Occupant>>>);

type Occupant = dyn Any + Send + Sync;

/// The posts of all machines that have, or had, an oracle.
static POSTS: Mutex<Vec<(Weak<Machine>, Arc<Post>)>> = Mutex::new(Vec::new());

#[allow(clippy::disallowed_methods, reason = "nothing waits under it")]
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Post {
    /// Returns the post of a machine, and whether this call made it.
    pub(super) fn of(machine: &Arc<Machine>) -> (Arc<Self>, bool) {
        let mut posts = lock(&POSTS);
        posts.retain(|(of, _)| of.strong_count() > 0);
        let mut mine = posts
            .iter()
            .filter(|(of, _)| of.as_ptr() == Arc::as_ptr(machine));
        if let Some((_, post)) = mine.next() {
            return (Arc::clone(post), false);
        }
        let post = Arc::<Self>::default();
        posts.push((Arc::downgrade(machine), Arc::clone(&post)));
        (post, true)
    }
    /// Returns the oracle, if it still exists.
    pub(super) fn occupant<O: Any + Send + Sync>(&self) -> Option<Arc<O>> {
        let here = lock(&self.0).as_ref()?.upgrade()?;
        here.downcast().ok()
    }
    /// Puts an oracle here, unless another one is.
    pub(super) fn take<O: Any + Send + Sync>(&self, oracle: &Arc<O>) {
        let mut here = lock(&self.0);
        if here.as_ref().is_none_or(|one| one.strong_count() == 0) {
            let oracle: Arc<Occupant> = Arc::clone(oracle) as Arc<Occupant>;
            *here = Some(Arc::downgrade(&oracle));
        }
    }
}

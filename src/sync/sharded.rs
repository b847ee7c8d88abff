//! Values for groups of threads, which so do not share a cache line.

/// A value on cache lines of its own: two lines, because processors fetch lines in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct CachePadded<T>(pub(crate) T);

/// A value for each of several groups of threads, so that threads which run at the same time seldom
/// meet.
#[derive(Debug)]
pub(crate) struct Sharded<T>(Box<[CachePadded<T>]>);

impl<T: Default> Sharded<T> {
    pub(crate) fn new() -> Self {
        Self(
            (0..super::shard_count())
                .map(|_| CachePadded(T::default()))
                .collect(),
        )
    }
}

impl<T> Sharded<T> {
    /// Returns the value of this thread's group, which is always the same one.
    #[inline]
    pub(crate) fn mine(&self) -> &T {
        &self.0[super::shard_index() & (self.0.len() - 1)].0
    }
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|shard| &shard.0)
    }
}

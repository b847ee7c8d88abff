//! A queue of pages of which some may be out of date.
//!
//! A page that is gone is not looked for: it stays until there are many. So both to append one and
//! to forget one cost the same whatever the queue has.

/// Pages in the order in which they came, each perhaps more than once.
#[derive(Debug)]
pub(super) struct Queue<T>(Vec<T>);

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Copy + PartialEq> Queue<T> {
    /// Appends a page, unless it is the last already. `is_left` tells which pages are to be kept.
    pub(super) fn note(&mut self, page: T, is_left: impl Fn(T) -> bool) {
        if self.0.last() == Some(&page) {
            return;
        }
        if self.0.len() == self.0.capacity() {
            self.0.retain(|&page| is_left(page));
            // As many must come before the next look at all.
            self.0.reserve(self.0.len() + 1);
        }
        self.0.push(page);
    }
    /// Empties the queue.
    pub(super) fn take(&mut self) -> Vec<T> {
        std::mem::take(&mut self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::Queue;
    use std::cell::Cell;

    #[test]
    fn what_is_gone_is_forgotten_and_what_is_left_is_seldom_looked_at() {
        let looks = Cell::new(0_u32);
        let mut queue = Queue::default();
        for page in 0..10_000_u32 {
            queue.note(page, |page| {
                looks.set(looks.get() + 1);
                page < 3_000 || page % 10 == 0
            });
        }
        assert!(looks.get() < 40_000, "{}", looks.get());
        let kept = queue.take();
        assert!(kept.len() < 8_192, "{}", kept.len());
        assert!((0..3_000).all(|page| kept[page as usize] == page));
        assert_eq!(kept.last(), Some(&9_999));
        assert!(queue.take().is_empty());
    }

    #[test]
    fn the_last_page_is_not_appended_again() {
        let mut queue = Queue::default();
        for page in [1, 1, 2, 1] {
            queue.note(page, |_| true);
        }
        assert_eq!(queue.take(), [1, 2, 1]);
    }
}

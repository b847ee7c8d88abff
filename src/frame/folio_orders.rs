//! Which large pages are folios, and of which size: an order for each four frames in a row.

use super::pfn::{HUGE, LEAST_FOLIO};
use crate::{
    addr::Pfn,
    sync::{AtomicU8, OnceLock, Ordering},
};

/// The order of every four frames in a row, of the folio that they were part of when they were last
/// allocated in a large page; 0 if that was a huge page. Made with the first folio.
#[derive(Debug, Default)]
pub(super) struct FolioOrders(OnceLock<Box<[AtomicU8]>>);

impl FolioOrders {
    /// Returns the number of frames in the folio that the frame was last allocated in; `None` if it
    /// was a huge page, or no large page at all.
    pub(super) fn frames(&self, pfn: Pfn) -> Option<u32> {
        let orders = self.0.get()?;
        let order = orders.get((pfn.0 / LEAST_FOLIO) as usize)?;
        match order.load(Ordering::Relaxed) {
            0 => None,
            order => Some(1 << order),
        }
    }
    /// Notes that as many frames in a row were allocated as one large page.
    pub(super) fn note(&self, head: Pfn, frames: u32, capacity: u32) {
        let is_folio = frames < HUGE;
        let made = || {
            let fours = capacity / LEAST_FOLIO + 1;
            (0..fours).map(|_| AtomicU8::new(0)).collect()
        };
        let orders = match is_folio {
            true => self.0.get_or_init(made),
            false => match self.0.get() {
                Some(orders) => orders,
                None => return,
            },
        };
        #[allow(clippy::cast_possible_truncation)] // At most 8.
        let order = if is_folio {
            frames.trailing_zeros() as u8
        } else {
            0
        };
        let first = (head.0 / LEAST_FOLIO) as usize;
        for four in &orders[first..first + (frames / LEAST_FOLIO) as usize] {
            four.store(order, Ordering::Relaxed);
        }
    }
}

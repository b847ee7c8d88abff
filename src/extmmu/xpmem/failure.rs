//! The record of partitions that had to be cut off.

use super::partition::{Breach, Partition, PartitionId};
use crate::{addr::VpnRange, sync::Mutex};
use std::{sync::Arc, time::Duration};
use thiserror::Error;

/// A partition had to be cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PartitionFailure {
    /// The partition did not answer.
    #[error(
        "partition {partition:?} has not answered the recall of {range} in {after:?}: it is fenced off"
    )]
    Hung {
        /// The partition.
        partition: PartitionId,
        /// The pages that it was asked to clear.
        range: VpnRange,
        /// The time that it had.
        after: Duration,
    },
    /// The partition broke the protocol.
    #[error("partition {partition:?} is fenced off: {breach}")]
    Broke {
        /// The partition.
        partition: PartitionId,
        /// The breach.
        breach: Breach,
    },
}

/// The number of failures that are kept, the latest ones, until they are taken.
const MOST: usize = 1024;

/// The failures since they were last taken.
#[derive(Default)]
pub(super) struct Failures(Mutex<Vec<PartitionFailure>>);

impl Failures {
    pub(super) fn note(&self, failure: PartitionFailure) {
        let mut all = self.0.lock();
        if all.len() == MOST {
            all.remove(0);
        }
        all.push(failure);
    }
    /// Adds the breaches that the partitions have recorded.
    pub(super) fn note_breaches(&self, known: &[Arc<Partition>]) {
        for partition in known {
            if let Some(breach) = partition.take_breach() {
                self.note(PartitionFailure::Broke {
                    partition: partition.id(),
                    breach,
                });
            }
        }
    }
    pub(super) fn take(&self) -> Vec<PartitionFailure> {
        std::mem::take(&mut *self.0.lock())
    }
}

#[cfg(test)]
mod tests {
    use super::{Failures, MOST, PartitionFailure};
    use crate::extmmu::xpmem::{Breach, PartitionId};

    #[test]
    fn failures_that_nobody_asks_for_do_not_pile_up() {
        let all = Failures::default();
        let nth = |n| PartitionFailure::Broke {
            partition: PartitionId(n),
            breach: Breach::Garbage,
        };
        let (most, more) = (u32::try_from(MOST).unwrap(), 3);
        (0..most + more).for_each(|n| all.note(nth(n)));
        let kept: Vec<PartitionFailure> = (more..most + more).map(nth).collect();
        assert_eq!(all.take(), kept);
        assert_eq!(all.take(), []);
    }
}

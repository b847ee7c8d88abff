//! Partitions that are threads of this process.

use super::partition::{Link, Manners, Partition, PartitionId, Recall};
use crate::sync::{
    mpsc::{Receiver, Sender, channel},
    thread,
};
use std::sync::{Arc, Weak};

impl Partition {
    /// Creates a partition with a thread that answers its recalls.
    ///
    /// # Panics
    ///
    /// If the host has no thread for it.
    pub fn new(id: PartitionId) -> Arc<Self> {
        let (recalls, asked) = channel();
        Arc::new_cyclic(|partition| {
            let partition = Weak::clone(partition);
            // The thread ends when the partition is dropped, and with it the other end of the
            // channel.
            let _detached = thread::spawn(move || answer(&partition, &asked));
            Self::with_link(id, Box::new(Thread(recalls)))
        })
    }
    /// Sets the manner of answering from now on.
    pub fn set_manners(&self, manners: Manners) {
        self.state.lock().manners = manners;
    }
}

/// The link to the partition's thread.
struct Thread(Sender<Recall>);

impl Link for Thread {
    fn ask(&self, recall: Recall) -> bool {
        self.0.send(recall).is_ok()
    }
    /// The entries are reached only through the partition, which is cut off.
    fn fence(&self) {}
}

/// Answers recalls, on the partition's thread.
fn answer(partition: &Weak<Partition>, asked: &Receiver<Recall>) {
    while let Ok(recall) = asked.recv() {
        let Some(partition) = partition.upgrade() else {
            return;
        };
        let manners = partition.state.lock().manners;
        match manners {
            Manners::Hangs => continue,
            Manners::Slow(time) => thread::sleep(time),
            Manners::Dies => partition.died(),
            _ => {}
        }
        let times = if manners == Manners::Twice { 2 } else { 1 };
        for _ in 0..times {
            if let Err(breach) = partition.answer(recall.serial, manners != Manners::Lies) {
                partition.broke(breach);
            }
        }
    }
}

//! A partition that is a thread of this process.

use super::partition::{Link, Manners, Partition, PartitionId, Recall};
use crate::sync::{
    mpsc::{Receiver, Sender, channel},
    thread,
};
use std::sync::{Arc, Weak};

impl Partition {
    /// A partition, alive.
    ///
    /// # Panics
    ///
    /// If the host has no thread for it.
    pub fn new(id: PartitionId) -> Arc<Self> {
        let (recalls, asked) = channel();
        Arc::new_cyclic(|partition| {
            let partition = Weak::clone(partition);
            // It ends when the partition goes, and with it the other end of the channel.
            let _detached = thread::spawn(move || answer(&partition, &asked));
            Self::with_link(id, Box::new(Thread(recalls)))
        })
    }
    /// Sets how it answers from now on.
    pub fn set_manners(&self, manners: Manners) {
        self.state.lock().manners = manners;
    }
}

/// The way to the partition's thread.
struct Thread(Sender<Recall>);

impl Link for Thread {
    fn ask(&self, recall: Recall) -> bool {
        self.0.send(recall).is_ok()
    }
    /// Its entries are only reached through the partition, which is cut off.
    fn fence(&self) {}
}

/// The partition's thread.
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

//! Partitions in this process: with a thread of their own, or without one.

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
    /// Creates a partition without a thread: the thread that recalls pages clears the entries
    /// itself, as the owner does where importers run under the same kernel
    /// (`xpmem_invalidate_PTEs`). No other thread has to be woken for a window.
    ///
    /// # Examples
    ///
    /// ```
    /// use emmu::{
    ///     PAGE_SIZE,
    ///     addr::VpnRange,
    ///     extmmu::xpmem::{Owner, OwnerConfig, Partition, PartitionId},
    ///     mm::MmapArgs,
    ///     notifier::Access,
    /// };
    /// # let machine = emmu::Machine::new(Default::default());
    /// # let mut thread = machine.enter()?;
    /// # let mut cx = thread.cx();
    /// # let mm = emmu::Mm::new(&machine);
    ///
    /// let (owner, _registration) = Owner::attach(&mut cx, &mm, OwnerConfig::default());
    /// let segment = owner.make(VpnRange::TASK, Access::Read);
    /// let partition = Partition::without_thread(PartitionId(1));
    /// let attachment = owner.import(&partition, segment, 0, VpnRange::TASK.pages())?;
    ///
    /// let at = mm.mmap(&mut cx, &MmapArgs::anonymous(PAGE_SIZE))?;
    /// attachment.read(&mut cx, at, &mut [0])?;
    /// mm.munmap(&mut cx, at, PAGE_SIZE)?;
    /// assert_eq!((partition.entries(), partition.answers()), (0, 1));
    /// # mm.exit(&mut cx);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn without_thread(id: PartitionId) -> Arc<Self> {
        Arc::new_cyclic(|partition| Self::with_link(id, Box::new(Here(Weak::clone(partition)))))
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

/// The link of a partition without a thread.
struct Here(Weak<Partition>);

impl Link for Here {
    fn ask(&self, recall: Recall) -> bool {
        let partition = self.0.upgrade();
        partition.is_some_and(|partition| {
            partition.answer_recall(recall);
            true
        })
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
        partition.answer_recall(recall);
    }
}

impl Partition {
    /// Answers a recall in the partition's manner.
    fn answer_recall(&self, recall: Recall) {
        let manners = self.state.lock().manners;
        match manners {
            Manners::Hangs => return,
            Manners::Slow(time) => thread::sleep(time),
            Manners::Dies => self.died(),
            _ => {}
        }
        let times = if manners == Manners::Twice { 2 } else { 1 };
        for _ in 0..times {
            if let Err(breach) = self.answer(recall.serial, manners != Manners::Lies) {
                self.broke(breach);
            }
        }
    }
}

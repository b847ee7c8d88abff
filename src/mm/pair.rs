//! The mmap locks of two address spaces at once.

use super::{Mm, MmapWriteGuard};
use crate::ctx::{Below, Cx, Sleepable, rank};
use thiserror::Error;

/// Why two mmap locks were not taken. Linux would deadlock, or has one lock only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PairError {
    /// The two are one address space.
    #[error("both are the same address space: its mmap lock can be taken once")]
    Same,
    /// They are on two machines, and a thread is on one.
    #[error("the address spaces are on two machines")]
    TwoMachines,
}

/// Two address spaces, both locked exclusively.
pub struct MmapPair<'g> {
    /// The first that was named.
    pub(super) a: MmapWriteGuard<'g>,
    /// The other.
    pub(super) b: MmapWriteGuard<'g>,
}

impl Mm {
    /// Takes the mmap locks of two address spaces, whichever way round they are named: the one at the lower address first,
    /// so that two threads which name them in different orders do not wait for each other.
    ///
    /// Below one mmap lock another cannot be taken, by type; this is the one way to hold two.
    ///
    /// # Errors
    ///
    /// [`PairError`]; nothing is locked then.
    ///
    /// # Panics
    ///
    /// If the token is of a thread that entered another machine.
    pub fn write_pair<'g, R: Below<rank::Mmap>>(
        cx: &'g mut Cx<'_, R, Sleepable>,
        a: &'g Self,
        b: &'g Self,
    ) -> Result<MmapPair<'g>, PairError> {
        if std::ptr::eq(a, b) {
            return Err(PairError::Same);
        }
        if !std::sync::Arc::ptr_eq(a.machine(), b.machine()) {
            return Err(PairError::TwoMachines);
        }
        let (one, two) = cx.descend().into_two();
        Ok(if std::ptr::from_ref(a) < std::ptr::from_ref(b) {
            let a = a.write_with(one);
            MmapPair {
                a,
                b: b.write_with(two),
            }
        } else {
            let b = b.write_with(one);
            MmapPair {
                a: a.write_with(two),
                b,
            }
        })
    }
}

impl<'g> MmapPair<'g> {
    /// The guard of the first address space. One at a time: each can open windows, and a thread has one token.
    pub fn first(&mut self) -> &mut MmapWriteGuard<'g> {
        &mut self.a
    }
    /// The guard of the second.
    pub fn second(&mut self) -> &mut MmapWriteGuard<'g> {
        &mut self.b
    }
}

impl std::fmt::Debug for MmapPair<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MmapPair").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::PairError;
    use crate::{Machine, MachineConfig, Mm};

    #[test]
    fn two_threads_take_the_pair_in_both_orders() {
        let machine = Machine::new(MachineConfig::default());
        let (a, b) = (Mm::new(&machine), Mm::new(&machine));
        let rounds = if cfg!(miri) { 5 } else { 2000 };
        std::thread::scope(|s| {
            for turned in [false, true] {
                let (machine, a, b) = (&machine, &a, &b);
                s.spawn(move || {
                    let mut thread = machine.enter().unwrap();
                    let mut cx = thread.cx();
                    for _ in 0..rounds {
                        let (a, b) = if turned { (b, a) } else { (a, b) };
                        let mut pair = Mm::write_pair(&mut cx, a, b).unwrap();
                        assert!(std::ptr::eq(pair.first().mm, &raw const **a));
                        assert!(std::ptr::eq(pair.second().mm, &raw const **b));
                    }
                });
            }
        });
    }

    #[test]
    fn one_address_space_or_two_machines_are_no_pair() {
        let machine = Machine::new(MachineConfig::default());
        let mut thread = machine.enter().unwrap();
        let mut cx = thread.cx();
        let a = Mm::new(&machine);
        assert_eq!(Mm::write_pair(&mut cx, &a, &a).err(), Some(PairError::Same));
        let other = Mm::new(&Machine::new(MachineConfig::default()));
        assert_eq!(
            Mm::write_pair(&mut cx, &a, &other).err(),
            Some(PairError::TwoMachines)
        );
        drop(a.write(&mut cx));
    }
}

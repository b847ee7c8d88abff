//! Settings of the machine, which one recording uses at a time.

use rustix::fs::{FlockOperation, flock};
use std::{fs::File, io};

/// A folder of settings that no other recording uses, in this process or another one.
pub(super) struct Alone(File);

impl Alone {
    /// Waits until no other recording uses the folder.
    pub(super) fn with(folder: &str) -> io::Result<Self> {
        let folder = File::open(folder)?;
        flock(&folder, FlockOperation::LockExclusive)?;
        Ok(Self(folder))
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        // Processes that were forked meanwhile have the folder open as well.
        let _ends_with_the_last_of_them = flock(&self.0, FlockOperation::Unlock);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn the_next_one_waits() {
        let folder = env!("CARGO_MANIFEST_DIR");
        let first = Alone::with(folder).unwrap();
        let other = File::open(folder).unwrap();
        assert!(flock(&other, FlockOperation::NonBlockingLockExclusive).is_err());
        let (tell, told) = channel();
        std::thread::scope(|s| {
            s.spawn(move || {
                let second = Alone::with(folder).unwrap();
                tell.send(()).unwrap();
                drop(second);
            });
            assert!(told.try_recv().is_err());
            drop(first);
            told.recv().unwrap();
        });
        flock(&other, FlockOperation::NonBlockingLockExclusive).unwrap();
    }
}

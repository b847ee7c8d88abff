//! Stores of a test's own: they wait, fail, look back.
#![allow(unreachable_pub, dead_code)] // Each test uses its part.

use emmu::file::{BLOCK, DiskFile, MemStore, Store, StoreError};
use std::{
    collections::BTreeSet,
    fmt,
    sync::{
        Arc, Condvar, Mutex, OnceLock, Weak,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

/// A door that can be shut, and says when somebody stands before it.
#[derive(Debug, Default)]
pub struct Door(Mutex<State>, Condvar);

#[derive(Debug, Default)]
struct State {
    shut: bool,
    waiting: u32,
}

impl Door {
    pub fn shut(&self) {
        self.0.lock().unwrap().shut = true;
    }
    pub fn open(&self) {
        self.0.lock().unwrap().shut = false;
        self.1.notify_all();
    }
    fn pass(&self) {
        let mut state = self.0.lock().unwrap();
        if !state.shut {
            return;
        }
        state.waiting += 1;
        self.1.notify_all();
        drop(self.1.wait_while(state, |state| state.shut).unwrap());
        self.0.lock().unwrap().waiting -= 1;
    }
    /// Until somebody stands before it.
    pub fn wait(&self) {
        let state = self.0.lock().unwrap();
        drop(
            self.1
                .wait_while(state, |state| state.waiting == 0)
                .unwrap(),
        );
    }
}

type Hook = Box<dyn Fn() + Send + Sync>;

/// What a test does to a store while a file has it.
#[derive(Default)]
pub struct Strings {
    pub blocks: MemStore,
    /// Before this block is read.
    pub door: Door,
    pub guarded: Mutex<Option<u64>>,
    /// Called before blocks go.
    pub on_discard: Mutex<Option<Hook>>,
    /// Blocks that cannot be read, or not be written.
    pub unreadable: Mutex<BTreeSet<u64>>,
    pub unwritable: Mutex<BTreeSet<u64>>,
    pub reads: AtomicU64,
    /// The file asks itself while it is read.
    pub own: OnceLock<Weak<DiskFile>>,
}

impl fmt::Debug for Strings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Strings")
    }
}

/// The store on its strings.
#[derive(Debug)]
pub struct Puppet(pub Arc<Strings>);

impl Store for Puppet {
    fn read(&self, index: u64, out: &mut [u8; BLOCK]) -> Result<bool, StoreError> {
        let it = &self.0;
        it.reads.fetch_add(1, SeqCst);
        if *it.guarded.lock().unwrap() == Some(index) {
            it.door.pass();
        }
        if let Some(own) = it.own.get().and_then(Weak::upgrade) {
            let _asked = (own.dirty(), own.store().is_hole(u64::MAX));
        }
        if it.unreadable.lock().unwrap().contains(&index) {
            return Err(StoreError(index));
        }
        it.blocks.read(index, out)
    }
    fn write(&self, index: u64, bytes: &[u8; BLOCK]) -> Result<(), StoreError> {
        if self.0.unwritable.lock().unwrap().contains(&index) {
            return Err(StoreError(index));
        }
        self.0.blocks.write(index, bytes)
    }
    fn discard(&self, from: u64, to: u64) {
        let hook = self.0.on_discard.lock().unwrap().take();
        if let Some(hook) = hook {
            hook();
        }
        self.0.blocks.discard(from, to);
    }
    fn collapse(&self, from: u64, to: u64, end: u64) -> Result<(), StoreError> {
        self.0.blocks.collapse(from, to, end)
    }
    fn insert(&self, at: u64, count: u64, end: u64) -> Result<(), StoreError> {
        self.0.blocks.insert(at, count, end)
    }
    fn is_hole(&self, index: u64) -> bool {
        self.0.blocks.is_hole(index)
    }
}

/// A little while, in which somebody who is not kept out has all the time that he needs. No verdict
/// depends on it: who is kept out comes later.
pub fn a_while(done: &dyn Fn() -> bool) {
    for _ in 0..60 {
        if done() {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

//! Bytes that code outside of this crate accesses at the same time: another process that maps
//! them, or a holder of their host address.
//!
//! Guarantee: each aligned 2, 4 or 8 bytes of an access that lie at a multiple of their number are
//! loaded and stored whole. No lock of this process keeps the others out, so a plain access would
//! be a data race; each access is atomic, of the largest size that fits.
#![allow(unsafe_code)]

use super::word::WordAccess;
use crate::sync::hardware::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

/// An atomic of the processor. Values are words that have the bytes in memory order.
trait Cell {
    fn load(&self, order: Ordering) -> u64;
    fn store(&self, word: u64);
    fn exchange(&self, old: u64, new: u64, access: &WordAccess) -> Result<u64, u64>;
}

macro_rules! cells {
    ($($atomic:ty: $word:ty),*) => { $(
        #[allow(clippy::cast_possible_truncation, reason = "the low bytes are meant")]
        impl Cell for $atomic {
            #[inline]
            fn load(&self, order: Ordering) -> u64 {
                u64::from(<$word>::from_le(self.load(order)))
            }
            #[inline]
            fn store(&self, word: u64) {
                self.store((word as $word).to_le(), Ordering::Relaxed);
            }
            fn exchange(&self, old: u64, new: u64, access: &WordAccess) -> Result<u64, u64> {
                let (old, new) = ((old as $word).to_le(), (new as $word).to_le());
                self.compare_exchange_weak(old, new, access.order, access.load_order())
                    .map_err(|now| u64::from(<$word>::from_le(now)))
                    .map(|was| u64::from(<$word>::from_le(was)))
            }
        }
    )* };
}
cells!(AtomicU8: u8, AtomicU16: u16, AtomicU32: u32, AtomicU64: u64);

/// Returns the atomic at the beginning of `bytes`.
///
/// # Panics
///
/// If there are fewer bytes, or they are not aligned.
#[inline]
fn cast<A: Cell>(bytes: &[AtomicU8]) -> &A {
    let at: *const A = bytes.as_ptr().cast();
    assert!(bytes.len() >= size_of::<A>() && at.is_aligned());
    // SAFETY: the bytes are that many and aligned, as was just checked, and live as long as the
    // result. They are in `UnsafeCell`s, and each value of them is a value of the atomic. Only
    // accesses of processors meet there, all of them atomic.
    unsafe { &*at }
}
/// Returns the atomic of `size` bytes at the beginning of `bytes`.
fn cell(bytes: &[AtomicU8], size: usize) -> &dyn Cell {
    match size {
        1 => &bytes[0],
        2 => cast::<AtomicU16>(bytes),
        4 => cast::<AtomicU32>(bytes),
        8 => cast::<AtomicU64>(bytes),
        _ => unreachable!("a word has 1, 2, 4 or 8 bytes"),
    }
}

/// Returns the size of the largest aligned word at the beginning of `len` bytes.
#[inline]
fn word_at(bytes: &[AtomicU8], len: usize) -> usize {
    let aligned = 1 << (bytes.as_ptr() as usize).trailing_zeros().min(3);
    let fits = 1 << len.ilog2().min(3);
    aligned.min(fits)
}

/// Loads the first bytes.
///
/// # Panics
///
/// If there are not so many.
pub(super) fn load(mut from: &[AtomicU8], mut out: &mut [u8]) {
    while !out.is_empty() {
        let n = word_at(from, out.len());
        if n == 8 {
            let all = out.len() & !7;
            let (now, later) = out.split_at_mut(all);
            for (out, from) in now.chunks_exact_mut(8).zip(from.chunks_exact(8)) {
                let word = Cell::load(cast::<AtomicU64>(from), Ordering::Relaxed);
                out.copy_from_slice(&word.to_le_bytes());
            }
            (from, out) = (&from[all..], later);
            continue;
        }
        let word = cell(from, n).load(Ordering::Relaxed);
        let (now, later) = out.split_at_mut(n);
        now.copy_from_slice(&word.to_le_bytes()[..n]);
        (from, out) = (&from[n..], later);
    }
}
/// Stores the first bytes.
///
/// # Panics
///
/// If there are not so many.
pub(super) fn store(mut to: &[AtomicU8], mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let n = word_at(to, bytes.len());
        if n == 8 {
            let (now, later) = bytes.split_at(bytes.len() & !7);
            for (bytes, to) in now.chunks_exact(8).zip(to.chunks_exact(8)) {
                let word = bytes.try_into().map(u64::from_le_bytes);
                Cell::store(cast::<AtomicU64>(to), word.expect("eight bytes"));
            }
            (to, bytes) = (&to[now.len()..], later);
            continue;
        }
        let (now, later) = bytes.split_at(n);
        let mut word = [0; 8];
        word[..n].copy_from_slice(now);
        cell(to, n).store(u64::from_le_bytes(word));
        (to, bytes) = (&to[n..], later);
    }
}
/// Does an atomic access of the first word, and returns what it was before.
///
/// # Panics
///
/// If the word is not aligned, or not there.
pub(super) fn access(at: &[AtomicU8], access: &WordAccess) -> u64 {
    let cell = cell(at, access.size);
    let mut old = cell.load(access.load_order());
    while let Some(new) = access.store_over(old) {
        match cell.exchange(old, new, access) {
            Ok(was) => return was,
            Err(now) => old = now,
        }
    }
    old
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_any_place_and_length_are_moved() {
        let bytes: Vec<AtomicU8> = (0..64).map(|_| AtomicU8::new(0xff)).collect();
        for (at, len) in [(0, 64), (1, 15), (2, 6), (3, 1), (7, 40), (63, 1), (5, 0)] {
            let new: Vec<u8> = (1..=len).map(|n| n as u8).collect();
            store(&bytes[at..], &new);
            let mut all = vec![0; 64];
            load(&bytes, &mut all);
            assert_eq!(&all[at..][..len], &new);
            assert!(all[..at].iter().chain(&all[at + len..]).all(|b| *b == 0xff));
            bytes.iter().for_each(|b| b.store(0xff, Ordering::Relaxed));
        }
    }
}

//! The driver of a disk in the guest: one request at a time.

use crate::host::{BASE, PAGE};
use emmu::{Mm, extmmu::vm_memory::ProcessAddressSpace};
use std::{
    process::Child,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::Ordering::{Acquire, Release},
    },
    thread,
};
use virtio_bindings::{
    virtio_blk::{VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT},
    virtio_ring::{VRING_DESC_F_NEXT, VRING_DESC_F_WRITE},
};
use vm_memory::{Bytes, GuestAddress, GuestAddressSpace};
use vmm_sys_util::eventfd::EventFd;

/// Offsets in the memory of the guest. The ring has a page, and each part of a request.
pub const DESCRIPTORS: u64 = 0;
pub const AVAILABLE: u64 = 0x400;
pub const USED: u64 = 0x800;
const HEADER: u64 = PAGE + 0x100;
const STATUS: u64 = 2 * PAGE + 0x200;
pub const DATA: u64 = 3 * PAGE;
pub const BUFFER: u64 = 7 * PAGE;
pub const OTHER: u64 = 10 * PAGE;

/// The number of descriptors.
pub const SIZE: u16 = 16;

/// The address of an offset, as the device has it.
pub fn iova(offset: u64) -> GuestAddress {
    GuestAddress((1 << 40) + offset)
}

pub struct Guest {
    pub mm: Arc<Mm>,
    pub space: ProcessAddressSpace,
    pub kick: EventFd,
    pub disk: Mutex<Child>,
}

impl Guest {
    pub fn mm(&self) -> &Arc<Mm> {
        &self.mm
    }
    pub fn put(&self, at: u64, bytes: &[u8]) {
        let machine = self.mm.machine();
        let done = machine.with_current(|cx| self.mm.write_bytes(cx, BASE + at, bytes));
        done.unwrap().unwrap();
    }
    pub fn get(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let machine = self.mm.machine();
        let done = machine.with_current(|cx| self.mm.read_bytes(cx, BASE + at, &mut bytes));
        done.unwrap().unwrap();
        bytes
    }
    pub fn kill_the_disk(&self) {
        let mut disk = self.disk.lock().unwrap();
        disk.kill().unwrap();
        disk.wait().unwrap();
    }
    /// Has the disk write sectors from memory; returns the status of the request.
    pub fn write(&self, sector: u32, at: u64, len: usize) -> u8 {
        self.request(VIRTIO_BLK_T_OUT, sector, (at, len))
    }
    /// Has the disk read sectors into memory; returns the status of the request.
    pub fn read(&self, sector: u32, at: u64, len: usize) -> u8 {
        self.request(VIRTIO_BLK_T_IN, sector, (at, len))
    }
    fn request(&self, kind: u32, sector: u32, data: (u64, usize)) -> u8 {
        let memory = self.space.memory();
        let written = match kind {
            VIRTIO_BLK_T_IN => VRING_DESC_F_WRITE,
            _ => 0,
        };
        let parts = [
            (HEADER, 16, VRING_DESC_F_NEXT),
            (data.0, data.1 as u64, VRING_DESC_F_NEXT | written),
            (STATUS, 1, VRING_DESC_F_WRITE),
        ];
        memory
            .write_obj([kind, 0, sector, 0], iova(HEADER))
            .unwrap();
        memory.write_obj(0xff_u8, iova(STATUS)).unwrap();
        for (nth, (at, len, flags)) in (0..).zip(parts) {
            // `struct virtq_desc`.
            let next = nth + 1;
            let words = [iova(at).0, len | u64::from(flags) << 32 | next << 48];
            memory
                .write_obj(words, iova(DESCRIPTORS + nth * 16))
                .unwrap();
        }
        let index: u16 = memory.load(iova(AVAILABLE + 2), Acquire).unwrap();
        let slot = AVAILABLE + 4 + 2 * u64::from(index % SIZE);
        memory.write_obj(0_u16, iova(slot)).unwrap();
        let next = index.wrapping_add(1);
        memory.store(next, iova(AVAILABLE + 2), Release).unwrap();
        self.kick.write(1).unwrap();
        // Nothing of it is pinned while the device works.
        drop(memory);
        while self
            .space
            .memory()
            .load::<u16>(iova(USED + 2), Acquire)
            .unwrap()
            != next
        {
            let over = self.disk.lock().unwrap().try_wait().unwrap();
            assert_eq!(over, None, "the disk is gone");
            thread::yield_now();
        }
        self.get(STATUS, 1)[0]
    }
}

impl Drop for Guest {
    /// Also where a test fails.
    fn drop(&mut self) {
        let disk = self.disk.get_mut().unwrap_or_else(PoisonError::into_inner);
        let _dead_already = disk.kill();
        let _waited_already = disk.wait();
    }
}

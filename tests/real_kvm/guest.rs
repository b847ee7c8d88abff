//! A virtual machine on `/dev/kvm` with a guest that loads and stores bytes as it is told.
#![allow(unsafe_code, reason = "memory is given to a virtual machine")]

use super::{
    long_mode,
    steps::{GPA, PAGE, PAGES},
};
use kvm_bindings::{Msrs, kvm_clock_data, kvm_msr_entry, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};

/// Ports: what to do, and the byte that it came to.
const COMMAND: u16 = 0x10;
const RESULT: u16 = 0x18;
/// Set in a command: store its highest byte. The rest is the address.
const STORE: u32 = 1 << 23;
const BYTE: u32 = 24;

/// Where code and page tables lie in the machine's own slot, which nobody touches.
const CODE: u64 = 0x1000;
const OWN: u64 = 8 * PAGE;

/// ```text
/// again: mov dx, COMMAND
///        in eax, dx
///        mov edi, eax
///        and edi, STORE - 1
///        mov edx, eax
///        shr edx, BYTE
///        test eax, STORE
///        jnz store
///        mov al, [rdi]
///        jmp done
/// store: mov [rdi], dl
/// done:  mov dx, RESULT
///        out dx, al
///        jmp again
/// ```
const PROGRAM: [u8; 38] = [
    0x66, 0xba, 0x10, 0x00, // mov dx, 0x10
    0xed, // in eax, dx
    0x89, 0xc7, // mov edi, eax
    0x81, 0xe7, 0xff, 0xff, 0x7f, 0x00, // and edi, 0x7fffff
    0x89, 0xc2, // mov edx, eax
    0xc1, 0xea, 0x18, // shr edx, 24
    0xa9, 0x00, 0x00, 0x80, 0x00, // test eax, 0x800000
    0x75, 0x04, // jnz store
    0x8a, 0x07, // mov al, [rdi]
    0xeb, 0x02, // jmp done
    0x88, 0x17, // store: mov [rdi], dl
    0x66, 0xba, 0x18, 0x00, // done: mov dx, 0x18
    0xee, // out dx, al
    0xeb, 0xda, // jmp again
];

const MSR_KVM_SYSTEM_TIME_NEW: u32 = 0x4b56_4d01;

pub struct Guest {
    vcpu: VcpuFd,
    vm: VmFd,
    /// Code and page tables.
    own: *mut u8,
}

impl Guest {
    /// A machine whose pages at [`GPA`] are the memory of this process at `hva`, mapped or not.
    pub fn new(hva: u64) -> Self {
        let kvm = Kvm::new().expect("checked before");
        let vm = kvm.create_vm().expect("a machine");
        // SAFETY: a new mapping, at an address that the kernel chooses.
        let own = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                OWN as usize,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        assert_ne!(own, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
        for (slot, gpa, size, at) in [(0, 0, OWN, own as u64), (1, GPA, PAGES * PAGE, hva)] {
            let region = kvm_userspace_memory_region {
                slot,
                flags: 0,
                guest_phys_addr: gpa,
                memory_size: size,
                userspace_addr: at,
            };
            // SAFETY: the first is the mapping above, which lives as long as the machine; the
            // second is memory that is only ever accessed as bytes of unknown value.
            unsafe { vm.set_user_memory_region(region) }.expect("a slot");
        }
        let vcpu = vm.create_vcpu(0).expect("a processor");
        let guest = Self {
            vcpu,
            vm,
            own: own.cast(),
        };
        guest.boot();
        guest
    }
    fn write_own(&self, at: u64, bytes: &[u8]) {
        assert!(at + bytes.len() as u64 <= OWN, "the machine's own slot");
        let to = self.own.wrapping_add(at as usize);
        // SAFETY: inside the mapping; the guest does not run.
        unsafe { to.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    }
    fn boot(&self) {
        self.write_own(CODE, &PROGRAM);
        long_mode::map_one_to_one(8, |at, value| self.write_own(at, &value.to_le_bytes()));
        long_mode::enter(&self.vcpu, CODE);
    }
    /// Has the guest do one thing: its byte, or none if an access left the guest.
    fn ask(&mut self, command: u32) -> Option<u8> {
        let mut refused = false;
        loop {
            match self.vcpu.run() {
                Ok(VcpuExit::IoIn(COMMAND, data)) => data.copy_from_slice(&command.to_le_bytes()),
                Ok(VcpuExit::IoOut(RESULT, data)) => return (!refused).then_some(data[0]),
                Ok(VcpuExit::MmioRead(_, data)) => {
                    data.fill(0);
                    refused = true;
                }
                Ok(VcpuExit::MmioWrite(..)) => refused = true,
                Err(e) if e.errno() == libc::EINTR => {}
                Err(e) if e.errno() == libc::EFAULT => {
                    // With shadow entries a hole ends the run in the middle of the instruction:
                    // begin again.
                    self.boot();
                    return None;
                }
                other => panic!("the guest left with {other:?}"),
            }
        }
    }
    /// The byte at a guest-physical address; none: refused.
    pub fn load(&mut self, gpa: u64) -> Option<u8> {
        self.ask(u32::try_from(gpa).expect("low"))
    }
    /// Whether a store was allowed.
    pub fn store(&mut self, gpa: u64, byte: u8) -> bool {
        let gpa = u32::try_from(gpa).expect("low");
        self.ask(gpa | STORE | u32::from(byte) << BYTE).is_some()
    }
    /// Has the clock in guest page `gpa` from now on.
    pub fn start_clock(&mut self, gpa: u64) {
        let msr = kvm_msr_entry {
            index: MSR_KVM_SYSTEM_TIME_NEW,
            data: gpa | 1,
            ..kvm_msr_entry::default()
        };
        let msrs = Msrs::from_entries(&[msr]).expect("one");
        assert_eq!(self.vcpu.set_msrs(&msrs).expect("a clock"), 1);
    }
    /// Advances the clock and has KVM write it, by entering the guest; returns the earliest time
    /// that can be read now.
    pub fn tick(&mut self) -> u64 {
        let now = self.vm.get_clock().expect("a clock").clock;
        let clock = now + 1_000_000;
        let data = kvm_clock_data {
            clock,
            ..kvm_clock_data::default()
        };
        self.vm.set_clock(&data).expect("settable");
        let _anything = self.load(CODE);
        clock
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // SAFETY: mapped in `new`; the machine never runs again.
        unsafe { libc::munmap(self.own.cast(), OWN as usize) };
    }
}

//! Single accesses of a recorded process: loads, stores and jumps, whose outcome may be a signal.
#![allow(unsafe_code)]
#![allow(
    clippy::multiple_unsafe_ops_per_block,
    reason = "all of it is registers"
)]

use super::protocol::{Answer, RETURNED, SIGNALLED};
use std::{
    arch::asm,
    ffi::{c_int, c_void},
    mem, ptr,
};

/// Ends this process.
pub(super) fn leave(status: c_int) -> ! {
    // SAFETY: ends the process, nothing else.
    unsafe { libc::_exit(status) }
}

/// Catches the signals of accesses, and the trap after a single instruction.
pub(super) fn catch_signals() {
    // SAFETY: the handler reads and writes registers alone.
    unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        action.sa_sigaction = caught as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER;
        for signal in [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGTRAP] {
            libc::sigaction(signal, &action, ptr::null_mut());
        }
    }
}

/// The value of a register while an access may fault, so that the handler recognises the fault.
const EXPECTED: u64 = 0x656d_6d75_6d6d_7521;

pub(super) fn load(addr: u64) -> Answer {
    let mut got: u64 = 0;
    // SAFETY: reads one byte, whatever it is; a fault goes on at the label, with the signal in the
    // second byte.
    unsafe {
        asm!(
            "lea rdx, [rip + 2f]",
            "movzx eax, byte ptr [rdi]",
            "2:",
            in("rdi") addr, in("rsi") EXPECTED, out("rdx") _, inout("rax") got,
            options(nostack, readonly),
        );
    }
    accessed(got)
}

pub(super) fn store(addr: u64, byte: u8) -> Answer {
    let mut got: u64 = 0;
    // SAFETY: the arena holds nothing of Rust's; a fault as above.
    unsafe {
        asm!(
            "lea rdx, [rip + 2f]",
            "mov byte ptr [rdi], cl",
            "2:",
            in("rdi") addr, in("rsi") EXPECTED, in("cl") byte, out("rdx") _, inout("rax") got,
            options(nostack),
        );
    }
    accessed(got)
}

/// The value of that register while an instruction of the arena may run.
const JUMPED: u64 = 0x656d_6d75_6d6d_7522;
/// The bit of the flags that traps after each instruction.
const TRAP: i64 = 0x100;

/// Jumps to an address and runs one instruction there, whatever it is; the outcome is 0 unless the
/// instruction cannot be fetched.
pub(super) fn execute(addr: u64) -> Answer {
    let got: u64;
    let mut ground = [0_u64; 64];
    // SAFETY: one instruction runs at the address, then the trap, or a fault, goes on at the label
    // with the stack as it was. An instruction that accesses memory does so by registers that hold
    // an address of `ground` or nothing; the arena holds nothing of Rust's.
    unsafe {
        asm!(
            "push rbx",
            "push rbp",
            "mov r15, rsp",
            "lea rdx, [rip + 2f]",
            "lea r14, [rip + 2f]",
            "push r14",
            "pushfq",
            "or qword ptr [rsp], 0x100",
            "popfq",
            "jmp rdi",
            "2:",
            "cld",
            "pop rbp",
            "pop rbx",
            inout("rdi") addr => _, inout("rsi") JUMPED => _, out("rdx") _,
            inout("rax") ground.as_mut_ptr() as u64 => got, inout("rcx") 0_u64 => _,
            out("r12") _, out("r13") _, out("r14") _, out("r15") _,
            clobber_abi("C"),
        );
    }
    accessed(got)
}

fn accessed(got: u64) -> Answer {
    match got >> 8 {
        0 => [RETURNED, got],
        signal => [SIGNALLED, signal],
    }
}

/// Ends an expected access with the signal, and this process at any other.
extern "C" fn caught(signal: c_int, about: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel's, for the time of this call.
    let (registers, at) = unsafe {
        let context = &mut *context.cast::<libc::ucontext_t>();
        (&mut context.uc_mcontext.gregs, (*about).si_addr() as i64)
    };
    let register = |which: c_int| which as usize;
    let (rip, rdi) = (register(libc::REG_RIP), register(libc::REG_RDI));
    let mut came = i64::from(signal) << 8;
    match registers[register(libc::REG_RSI)] as u64 {
        EXPECTED if signal == libc::SIGSEGV || signal == libc::SIGBUS => {}
        JUMPED => {
            let begins = registers[rip] == registers[rdi];
            match signal {
                // The trap of the jump: the instruction comes next.
                libc::SIGTRAP if begins => return,
                // The fetch failed.
                libc::SIGSEGV | libc::SIGBUS if begins && at == registers[rdi] => {}
                // It was fetched, and has run or failed otherwise.
                _ => came = 0,
            }
            registers[register(libc::REG_EFL)] &= !TRAP;
            registers[register(libc::REG_RSP)] = registers[register(libc::REG_R15)];
        }
        _ => leave(4),
    }
    registers[rip] = registers[register(libc::REG_RDX)];
    registers[register(libc::REG_RAX)] = came;
}

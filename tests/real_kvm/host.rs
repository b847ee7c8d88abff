//! The engine on this kernel: an arena of this process that is the memory of a real guest.
#![allow(
    unsafe_code,
    reason = "system calls on memory that Rust knows nothing of"
)]
#![allow(
    clippy::multiple_unsafe_ops_per_block,
    reason = "the child is system calls only"
)]

use super::{
    guest::Guest,
    steps::{
        ARENA, Engine, FILE_PAGES, Fresh, GPA, OFFSET, PAGE, PAGES, Rights, Seen, Step, TIME, What,
    },
};
use std::{
    fs::File,
    io::{self, PipeReader, PipeWriter, Read, Write},
    os::{
        fd::{AsRawFd, FromRawFd},
        unix::fs::FileExt,
    },
    sync::atomic::{AtomicU64, Ordering},
};

/// The next free place for an arena. So low that the kernel never chooses it by itself: a hole
/// stays a hole while other tests map memory.
static NEXT: AtomicU64 = AtomicU64::new(0x110_0000_0000);

pub struct Host {
    base: u64,
    guest: Guest,
    file: File,
    /// Through which bytes go to and from memory: the kernel's accesses fault as a processor's do,
    /// and are refused without a signal.
    window: (PipeReader, PipeWriter),
    child: Option<Child>,
    has_clock: bool,
    /// Clocks before this are old.
    since: u64,
}

struct Child {
    pid: libc::pid_t,
    ask: PipeWriter,
    answer: PipeReader,
}

fn sys(result: i32) -> Result<(), i32> {
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error().raw_os_error().expect("an errno")),
    }
}

fn prot(rights: Rights) -> i32 {
    match rights {
        Rights::None => libc::PROT_NONE,
        Rights::Read => libc::PROT_READ,
        Rights::Write => libc::PROT_READ | libc::PROT_WRITE,
    }
}

impl Host {
    pub fn new() -> Self {
        let base = NEXT.fetch_add(1 << 30, Ordering::Relaxed);
        // SAFETY: a new descriptor.
        let fd = unsafe { libc::memfd_create(c"f".as_ptr(), libc::MFD_CLOEXEC) };
        assert!(fd >= 0, "{}", io::Error::last_os_error());
        // SAFETY: nobody else has it.
        let file = unsafe { File::from_raw_fd(fd) };
        file.set_len(FILE_PAGES * PAGE).expect("small");
        let host = Self {
            base,
            guest: Guest::new(base),
            file,
            window: io::pipe().expect("a pipe"),
            child: None,
            has_clock: false,
            since: 0,
        };
        host.map(0, PAGES, What::Anon, Rights::Write)
            .expect("an empty arena");
        host
    }
    fn at(&self, page: u64) -> *mut libc::c_void {
        (self.base + page * PAGE) as *mut _
    }
    fn map(&self, page: u64, n: u64, what: What, rights: Rights) -> Result<(), i32> {
        let (flags, fd, offset) = match what {
            What::Anon => (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0),
            What::SharedAnon => (libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1, 0),
            What::Private(offset) => (libc::MAP_PRIVATE, self.file.as_raw_fd(), offset),
            What::Shared(offset) => (libc::MAP_SHARED, self.file.as_raw_fd(), offset),
        };
        // SAFETY: inside the arena, which holds nothing of Rust's.
        let mapped = unsafe {
            libc::mmap(
                self.at(page),
                (n * PAGE) as usize,
                prot(rights),
                flags | libc::MAP_FIXED,
                fd,
                (offset * PAGE) as i64,
            )
        };
        sys(if mapped == libc::MAP_FAILED { -1 } else { 0 })
    }
    fn relocate(&self, from: u64, n: u64, to: u64) -> Result<(), i32> {
        let len = (n * PAGE) as usize;
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        // SAFETY: both places are inside the arena.
        let moved = unsafe { libc::mremap(self.at(from), len, len, flags, self.at(to)) };
        sys(if moved == libc::MAP_FAILED { -1 } else { 0 })
    }
    /// The host's processor writes.
    fn store(&mut self, page: u64, byte: u8) -> Result<(), i32> {
        self.window.1.write_all(&[byte]).expect("room");
        let to = self.at(page).wrapping_byte_add(OFFSET as usize);
        // SAFETY: one byte of the arena.
        let n = unsafe { libc::read(self.window.0.as_raw_fd(), to, 1) };
        let stored = sys(if n == 1 { 0 } else { -1 });
        if stored.is_err() {
            self.window.0.read_exact(&mut [0]).expect("still there");
        }
        stored
    }
    fn fork(&mut self) {
        self.leave();
        let (asked, ask) = io::pipe().expect("a pipe");
        let (answer, mut answering) = io::pipe().expect("a pipe");
        let (read, written) = (asked.as_raw_fd(), answering.as_raw_fd());
        // SAFETY: the child calls nothing but system calls.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0, "{}", io::Error::last_os_error());
        if pid == 0 {
            // SAFETY: its own descriptor; with it open the child would wait for itself.
            unsafe { libc::close(ask.as_raw_fd()) };
            serve(read, written);
        }
        // The child has them, and its end must be seen here.
        answering.flush().expect("a pipe");
        drop((asked, answering));
        self.child = Some(Child { pid, ask, answer });
    }
    fn leave(&mut self) {
        if let Some(Child { pid, ask, .. }) = self.child.take() {
            drop(ask);
            // SAFETY: our own child.
            let gone = unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
            assert_eq!(gone, pid, "{}", io::Error::last_os_error());
        }
    }
    fn act(&mut self, step: &Step) -> Result<(), i32> {
        let bytes = |n: u64| (n * PAGE) as usize;
        match *step {
            Step::Map {
                page,
                n,
                what,
                rights,
            } => self.map(page, n, what, rights),
            // SAFETY: inside the arena.
            Step::Unmap { page, n } => sys(unsafe { libc::munmap(self.at(page), bytes(n)) }),
            Step::Move { from, n, to } => self.relocate(from, n, to),
            Step::DontNeed { page, n } => {
                // SAFETY: inside the arena.
                sys(unsafe { libc::madvise(self.at(page), bytes(n), libc::MADV_DONTNEED) })
            }
            Step::Protect { page, n, rights } => {
                // SAFETY: inside the arena.
                sys(unsafe { libc::mprotect(self.at(page), bytes(n), prot(rights)) })
            }
            Step::Store { page, byte } => self.store(page, byte),
            Step::GuestStore { page, byte } => {
                let stored = self.guest.store(GPA + page * PAGE + OFFSET, byte);
                if stored { Ok(()) } else { Err(libc::EFAULT) }
            }
            Step::Punch { page, n } => {
                let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
                let (from, len) = ((page * PAGE) as i64, (n * PAGE) as i64);
                // SAFETY: our own file.
                sys(unsafe { libc::fallocate(self.file.as_raw_fd(), mode, from, len) })
            }
            Step::Truncate { pages } => raw(self.file.set_len(pages * PAGE)),
            Step::Pwrite { page, byte } => {
                raw(self.file.write_all_at(&[byte], page * PAGE + OFFSET))
            }
            Step::Fork => {
                self.fork();
                Ok(())
            }
            Step::Leave => {
                self.leave();
                Ok(())
            }
            Step::Tick => {
                if !self.has_clock {
                    self.guest.start_clock(GPA);
                    self.has_clock = true;
                }
                self.since = self.guest.tick();
                Ok(())
            }
        }
    }
    /// What the child reads.
    fn ask(&mut self, addr: u64, out: &mut [u8]) -> bool {
        let child = self.child.as_mut().expect("a child");
        let mut request = [0; 16];
        request[..8].copy_from_slice(&addr.to_ne_bytes());
        request[8..].copy_from_slice(&(out.len() as u64).to_ne_bytes());
        child.ask.write_all(&request).expect("the child lives");
        let mut answer = [0; 9];
        child
            .answer
            .read_exact(&mut answer)
            .expect("the child lives");
        out.copy_from_slice(&answer[1..=out.len()]);
        answer[0] == 1
    }
    fn fresh(&mut self) -> Fresh {
        let since = self.since;
        let is_now = |ok: bool, bytes: [u8; 8]| ok && u64::from_ne_bytes(bytes) >= since;
        let mut bytes = [0; 8];
        let mut read = true;
        for (byte, gpa) in bytes.iter_mut().zip(GPA + TIME..) {
            let loaded = self.guest.load(gpa);
            read &= loaded.is_some();
            *byte = loaded.unwrap_or_default();
        }
        let guest = is_now(read, bytes);
        let child = self.child.is_some().then(|| {
            let read = self.ask(self.base + TIME, &mut bytes);
            is_now(read, bytes)
        });
        let file = (0..FILE_PAGES).map(|page| {
            let read = self.file.read_exact_at(&mut bytes, page * PAGE + TIME);
            is_now(read.is_ok(), bytes)
        });
        Fresh {
            guest,
            file: file.collect(),
            child,
        }
    }
    fn byte_of_file(&self, page: u64) -> Option<u8> {
        let mut byte = [0];
        let read = self.file.read_exact_at(&mut byte, page * PAGE + OFFSET);
        read.is_ok().then_some(byte[0])
    }
}

fn raw(result: io::Result<()>) -> Result<(), i32> {
    result.map_err(|e| e.raw_os_error().expect("an errno"))
}

/// The life of a child: answers requests, address and length, with what it reads there, until
/// nobody asks.
fn serve(asked: i32, answering: i32) -> ! {
    let mut own = [0; 2];
    // SAFETY: system calls on buffers of this function, and an address that is only passed to the
    // kernel.
    unsafe {
        if libc::pipe(own.as_mut_ptr()) != 0 {
            libc::_exit(2);
        }
        loop {
            let mut request = [0_u64; 2];
            if libc::read(asked, request.as_mut_ptr().cast(), 16) != 16 {
                libc::_exit(0);
            }
            let mut answer = [0_u8; 9];
            let len = request[1] as usize;
            let taken = libc::write(own[1], request[0] as *const _, len);
            if taken > 0 {
                libc::read(own[0], answer.as_mut_ptr().add(1).cast(), taken as usize);
            }
            answer[0] = u8::from(usize::try_from(taken) == Ok(len));
            if libc::write(answering, answer.as_ptr().cast(), 9) != 9 {
                libc::_exit(3);
            }
        }
    }
}

impl Engine for Host {
    fn step(&mut self, step: &Step) -> Seen {
        let outcome = self.act(step);
        let fresh = (*step == Step::Tick).then(|| self.fresh());
        let guest = (0..PAGES).map(|page| self.guest.load(GPA + page * PAGE + OFFSET));
        let guest = guest.collect();
        let child = self.child.is_some().then(|| {
            let mut read = |page: u64| {
                let mut byte = [0];
                let ok = self.ask(self.base + page * PAGE + OFFSET, &mut byte);
                ok.then_some(byte[0])
            };
            (0..ARENA).map(&mut read).collect()
        });
        Seen {
            outcome,
            guest,
            child,
            file: (0..FILE_PAGES)
                .map(|page| self.byte_of_file(page))
                .collect(),
            fresh,
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.leave();
        // SAFETY: the arena; the guest never runs again.
        unsafe { libc::munmap(self.at(0), (ARENA * PAGE) as usize) };
    }
}

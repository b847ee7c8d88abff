//! The invalidations of the real MMU notifier: the tracepoints of KVM, in an own instance of
//! tracefs.

use super::{ARENA, daemons};
use crate::replay::{Notice, Notified};
use std::{
    fmt::Write,
    fs::{self, File, OpenOptions},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

const ROOTS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];
const EVENTS: [(&str, Notice); 3] = [
    ("kvm_unmap_hva_range", Notice::Unmap),
    ("kvm_age_hva", Notice::Age),
    ("kvm_test_age_hva", Notice::TestAge),
];

/// A trace of one process, of its descendants, and of the thread that made the trace: what the
/// recorder does to a process by `/proc` is a step too.
pub(super) struct Trace {
    dir: PathBuf,
    pipe: File,
    /// Threads of the kernel that work for the plan.
    helpers: Vec<&'static str>,
}

impl Trace {
    /// Returns the trace of a process; the windows of these threads of the kernel are part of it.
    pub(super) fn of(pid: i32, helpers: Vec<&'static str>) -> io::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let root = ROOTS.into_iter().map(Path::new);
        let root = root.map(|r| r.join("instances")).find(|r| r.is_dir());
        let nth = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("emmu-{}-{nth}", std::process::id());
        let dir = root.ok_or(io::ErrorKind::NotFound)?.join(name);
        fs::create_dir(&dir)?;
        let opened = Self::open(&dir, pid, &helpers);
        if opened.is_err() {
            let _gone = fs::remove_dir(&dir);
        }
        Ok(Self {
            pipe: opened?,
            dir,
            helpers,
        })
    }
    fn open(dir: &Path, pid: i32, helpers: &[&str]) -> io::Result<File> {
        fs::write(dir.join("buffer_size_kb"), "256")?;
        fs::write(dir.join("options/event-fork"), "1")?;
        let me = fs::read_link("/proc/thread-self")?;
        let me = me.file_name().and_then(|tid| tid.to_str());
        let mut all = format!("{pid} {}", me.unwrap_or_default());
        for helper in helpers {
            let _done = write!(all, " {}", daemons::pid(helper)?);
        }
        fs::write(dir.join("set_event_pid"), all)?;
        for (event, _) in EVENTS {
            fs::write(dir.join("events/kvm").join(event).join("enable"), "1")?;
        }
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(libc::O_NONBLOCK);
        options.open(dir.join("trace_pipe"))
    }
    /// Returns the invalidations over the arena since the last call, in order.
    pub(super) fn take(&mut self) -> io::Result<Vec<Notified>> {
        let mut text = Vec::new();
        match self.pipe.read_to_end(&mut text) {
            Err(e) if e.kind() != io::ErrorKind::WouldBlock => return Err(e),
            _ => {}
        }
        let text = String::from_utf8_lossy(&text);
        let notified = text
            .lines()
            .filter_map(|line| notified(line, &self.helpers));
        Ok(notified
            .filter(|n| n.start < ARENA.end && n.end > ARENA.start)
            .collect())
    }
}

/// Threads of the kernel that maintain the memory of any process, at times of their own. Their
/// windows are no part of a step.
const CARETAKERS: [&str; 6] = [
    "kdamond",
    "khugepaged",
    "kcompactd",
    "kswapd",
    "ksmd",
    "migration/",
];

/// `name-77 [001] … kvm_unmap_hva_range: mmu notifier unmap range: 0x1000 -- 0x2000`
fn notified(line: &str, helpers: &[&str]) -> Option<Notified> {
    let thread = line.trim_start();
    let is_of = |name: &&str| thread.starts_with(name);
    if CARETAKERS.iter().any(is_of) && !helpers.iter().any(is_of) {
        return None;
    }
    let of = |&(event, _): &(&str, Notice)| line.contains(&format!(" {event}: "));
    let (_, notice) = EVENTS.into_iter().find(of)?;
    let mut numbers = line.split_ascii_whitespace().filter_map(|word| {
        let digits = word.strip_prefix("0x")?;
        u64::from_str_radix(digits, 16).ok()
    });
    let start = numbers.next()?;
    let end = numbers.next().unwrap_or(start + crate::PAGE_SIZE);
    Some(Notified { notice, start, end })
}

impl Drop for Trace {
    fn drop(&mut self) {
        let _off = fs::write(self.dir.join("events/kvm/enable"), "0");
        // The kernel removes an instance only after its pipe is closed.
        if let Ok(null) = File::open("/dev/null") {
            self.pipe = null;
        }
        // A process that another thread forks has the pipe, too, until it closes its unneeded
        // descriptors.
        for _ in 0..100 {
            if fs::remove_dir(&self.dir).is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Notice, Notified, notified};

    #[test]
    fn lines_of_the_tracepoints_are_read() {
        let line = "  emmu-77 [001] ..... 12.5: kvm_unmap_hva_range: mmu notifier unmap range: 0x10000000000 -- 0x10000002000";
        let (start, end) = (1 << 40, (1 << 40) + 0x2000);
        let unmap = Notified {
            notice: Notice::Unmap,
            start,
            end,
        };
        assert_eq!(notified(line, &[]), Some(unmap));
        let line = "  emmu-77 [001] ..... 12.5: kvm_age_hva: mmu notifier age hva: 0x10000000000 -- 0x10000002000";
        assert_eq!(notified(line, &[]).map(|n| n.notice), Some(Notice::Age));
        assert_eq!(notified("CPU:0 [LOST 3 EVENTS]", &[]), None);
        for caretaker in ["khugepaged-41", "kdamond.0-9001", "kswapd0-50"] {
            assert_eq!(
                notified(&line.replace("emmu-77", caretaker), &["ksmd"]),
                None
            );
        }
        let helper = line.replace("emmu-77", "ksmd-41");
        assert!(notified(&helper, &["ksmd"]).is_some());
        assert_eq!(notified(&helper, &[]), None);
        let named_alike = line.replace("emmu-77", "my-kswapd-77");
        assert!(notified(&named_alike, &[]).is_some());
    }
}

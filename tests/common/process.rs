//! A remote partition in a process of its own: the test binary, run again, which does what lines on
//! its standard input say and prints an answer to each. It ends with its input, so with its parent
//! at the latest.
#![allow(unreachable_pub, dead_code)] // Each test uses its part.

use super::thief;
use emmu::{
    extmmu::xpmem::{
        Manners, SegId,
        remote::{RemoteAttachment, RemoteError, RemotePartition},
    },
    notifier::Access,
};
use std::{
    io::{BufRead, BufReader, ErrorKind, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::PathBuf,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

const SOCKET: &str = "EMMU_TEST_SOCKET";
/// Set for a child that another process left behind.
const LEFT: &str = "EMMU_TEST_LEFT";
/// Lines for the parent begin with it; the test harness prints others.
const MARK: &str = "@ ";

/// Where processes connect; gone with it.
pub struct Meeting {
    path: PathBuf,
    listener: UnixListener,
}

impl Meeting {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let (id, nth) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(format!("emmu-test-{id}-{nth}"));
        let listener = UnixListener::bind(&path).unwrap();
        // A process that does not come up must not be waited for.
        listener.set_nonblocking(true).unwrap();
        Self { path, listener }
    }
    /// Starts a process; `entry` is the test of this binary that begins with [`serve_parent`].
    pub fn start(&self, entry: &str) -> (Process, UnixStream) {
        let this = Command::new(std::env::current_exe().unwrap());
        self.start_as(this, entry)
    }
    /// The same by a command that runs this binary.
    pub fn start_as(&self, mut this: Command, entry: &str) -> (Process, UnixStream) {
        let mut child = this
            .args(["--exact", entry, "--nocapture"])
            .env(SOCKET, &self.path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let orders = child.stdin.take().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        let mut process = Process {
            child,
            orders,
            answers,
        };
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false).unwrap();
                    return (process, stream);
                }
                Err(e) => assert!(
                    e.kind() == ErrorKind::WouldBlock && !process.is_over(),
                    "{e}"
                ),
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }
}

impl Drop for Meeting {
    fn drop(&mut self) {
        let _gone_already = std::fs::remove_file(&self.path);
    }
}

/// Killed and waited for when dropped.
pub struct Process {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Process {
    /// Gives an order, without waiting for what comes of it.
    pub fn order(&mut self, order: &str) {
        writeln!(self.orders, "{order}").unwrap();
    }
    /// What came of the last order; empty if the process is gone.
    pub fn answer(&mut self) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            if self.answers.read_line(&mut line).unwrap() == 0 {
                return String::new();
            }
            if let Some((_, answer)) = line.split_once(MARK) {
                return answer.trim_end().to_owned();
            }
        }
    }
    pub fn call(&mut self, order: &str) -> String {
        self.order(order);
        self.answer()
    }
    /// Stops it; returns when each of its threads stands.
    pub fn stop(&self) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-STOP", &pid]).status();
        assert!(sent.unwrap().success());
        let stands = |task: std::io::Result<std::fs::DirEntry>| {
            let stat = std::fs::read_to_string(task.unwrap().path().join("stat"));
            stat.unwrap().contains(") T ")
        };
        let tasks = format!("/proc/{pid}/task");
        while !std::fs::read_dir(&tasks).unwrap().all(stands) {
            std::thread::yield_now();
        }
    }
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
    /// Whether it has ended.
    pub fn is_over(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _dead_already = self.child.kill();
        let _waited_already = self.child.wait();
    }
}

/// The process, if this is one that was started by [`Meeting::start`], or left behind by one that
/// was; whether it was.
pub fn serve_parent() -> bool {
    let Some(path) = std::env::var_os(SOCKET) else {
        return false;
    };
    if std::env::var_os(LEFT).is_some() {
        println!("{MARK}left");
        obey_all(|verb, whole| Ok(steal(verb, whole).expect("it has nothing else")));
        return true;
    }
    let partition = RemotePartition::connect(&path).unwrap();
    let mut attached: Vec<RemoteAttachment> = Vec::new();
    obey_all(|verb, whole| match steal(verb, whole) {
        Some(answer) => Ok(answer),
        None => obey(&partition, &mut attached, verb, whole),
    });
    true
}

/// Obeys until there are no more orders.
fn obey_all(mut obey: impl FnMut(&str, &dyn Fn(usize) -> u128) -> Result<String, RemoteError>) {
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let words: Vec<&str> = line.split(' ').collect();
        match obey(words[0], &|n| words[n].parse().unwrap()) {
            Ok(answer) => println!("{MARK}{answer}"),
            Err(why) => println!("{MARK}{why}"),
        }
    }
}

/// What no partition does.
fn steal(verb: &str, whole: &dyn Fn(usize) -> u128) -> Option<String> {
    Some(match verb {
        "loot" => thief::loot(u64::try_from(whole(1)).unwrap()).to_string(),
        "smash" => {
            let (pages, mapped) = thief::smash(u8::try_from(whole(1)).unwrap());
            format!("{pages} {mapped}")
        }
        // A child gets the memory, and obeys from now on.
        "leave" => {
            let _theirs = thief::to_be_left();
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(std::env::args().skip(1))
                .env(LEFT, "")
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            child.wait().unwrap();
            "alone".into()
        }
        _ => return None,
    })
}

fn manners(partition: &RemotePartition, manners: Manners) -> String {
    partition.set_manners(manners);
    "ok".into()
}

/// Orders name an attachment by the order in which they were made, and a byte of it.
fn obey(
    partition: &RemotePartition,
    attached: &mut Vec<RemoteAttachment>,
    verb: &str,
    whole: &dyn Fn(usize) -> u128,
) -> Result<String, RemoteError> {
    let number = |n: usize| u64::try_from(whole(n)).unwrap();
    let nth = |n: usize| usize::try_from(number(n)).unwrap();
    Ok(match verb {
        "attach" => {
            let segment = SegId::from_number(whole(1));
            attached.push(partition.attach(segment, number(2), number(3))?);
            "ok".into()
        }
        "read" => {
            let mut byte = [0];
            attached[nth(1)].read(number(2), &mut byte)?;
            byte[0].to_string()
        }
        "write" => {
            attached[nth(1)].write(number(2), &[u8::try_from(number(3)).unwrap()])?;
            "ok".into()
        }
        "make" => {
            let made = attached[nth(1)].make(number(2), number(3), Access::Read)?;
            made.number().to_string()
        }
        "detach" => {
            attached.remove(nth(1)).detach()?;
            "ok".into()
        }
        "entries" => partition.entries().to_string(),
        "hang" => manners(partition, Manners::Hangs),
        "die" => manners(partition, Manners::Dies),
        "twice" => manners(partition, Manners::Twice),
        // Bytes all over the attachment, until the end.
        "churn" => {
            let mut at = number(1);
            loop {
                at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let byte = (at >> 33) % (attached[0].pages() * emmu::PAGE_SIZE);
                let done = if at & (1 << 40) == 0 {
                    attached[0].read(byte, &mut [0])
                } else {
                    attached[0].write(byte, &[1])
                };
                // What the address space refuses is no error here.
                if matches!(done, Err(RemoteError::Closed)) {
                    break "closed".into();
                }
            }
        }
        _ => panic!("no order: {verb}"),
    })
}

//! The threads that serve touches of hidden pages.
//!
//! There must be two: to show a page the one waits until the other has read that memory was moved.

use super::{area::Area, driver::Driver};
use crate::{
    mm::{Machine, Mm},
    notifier::Access,
};
use rustix::{
    event::{EventfdFlags, PollFd, PollFlags},
    io::Errno,
};
use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread::{Builder, JoinHandle},
    time::{Duration, Instant},
};

/// The time for which touches of a page are refused that the process may not access. Longer than a
/// thread takes that was told to touch it again: else it would wait again, and be refused later.
const REFUSED_FOR: Duration = Duration::from_millis(10);

/// A page that was touched, counted from the first one; `None`: the end.
type Message = Option<(usize, Access)>;

/// The two threads.
pub(super) struct Threads {
    to_server: Sender<Message>,
    server: Option<JoinHandle<()>>,
    reader: Option<JoinHandle<()>>,
    end: Arc<OwnedFd>,
}

impl Threads {
    /// Serves the touches of an area until this value is dropped.
    pub(super) fn new(mm: &Arc<Mm>, driver: &Arc<Driver>, area: &Arc<Area>) -> io::Result<Self> {
        let end = Arc::new(rustix::event::eventfd(0, EventfdFlags::CLOEXEC)?);
        let (to_server, touches) = channel();
        let mut threads = Self {
            to_server: to_server.clone(),
            server: None,
            reader: None,
            end: Arc::clone(&end),
        };
        let server = Server {
            machine: Arc::clone(mm.machine()),
            mm: Arc::clone(mm),
            driver: Arc::clone(driver),
            area: Arc::clone(area),
            refused: None,
        };
        let spawn = |name: &str| Builder::new().name(format!("emmu-{name}"));
        threads.server = Some(spawn("faults").spawn(move || server.run(&touches))?);
        let area = Arc::clone(area);
        threads.reader = Some(spawn("touches").spawn(move || read(&area, &end, &to_server))?);
        Ok(threads)
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        let _ended_already = self.to_server.send(None);
        // A panic of a thread was reported when it happened.
        let _panicked = self.server.take().map(JoinHandle::join);
        rustix::io::write(&*self.end, &1_u64.to_ne_bytes()).expect("its count is zero");
        let _panicked = self.reader.take().map(JoinHandle::join);
    }
}

/// Passes touches on until the end.
fn read(area: &Area, end: &OwnedFd, to_server: &Sender<Message>) {
    loop {
        let mut wait =
            [area.as_fd(), end.as_fd()].map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
        match rustix::event::poll(&mut wait, None) {
            Err(Errno::INTR) => continue,
            other => other.expect("two descriptors can be polled"),
        };
        if wait[1].revents().contains(PollFlags::IN) {
            return;
        }
        for touch in area.touches().expect("touches can be read") {
            if to_server.send(Some(touch)).is_err() {
                // The server is gone.
                let (page, _) = touch;
                area.refuse(page);
                area.wake(page);
            }
        }
    }
}

struct Server {
    machine: Arc<Machine>,
    mm: Arc<Mm>,
    driver: Arc<Driver>,
    area: Arc<Area>,
    /// Pages of which touches are refused, and for how long.
    refused: Option<(Instant, Vec<usize>)>,
}

impl Server {
    fn run(mut self, touches: &Receiver<Message>) {
        while let Some(message) = self.next(touches) {
            let Some((page, access)) = message else {
                return;
            };
            if !self.show(page, access) {
                self.area.refuse(page);
                let until = Instant::now() + REFUSED_FOR;
                let refused = self.refused.get_or_insert((until, Vec::new()));
                refused.1.push(page);
            }
            self.area.wake(page);
        }
    }
    /// Shows a page. Returns false if the process may not access it, or if a driver or an object
    /// panicked: the panic is reported, and the touches that follow are served.
    fn show(&self, page: usize, access: Access) -> bool {
        let shown = catch_unwind(AssertUnwindSafe(|| {
            let mut thread = self.machine.enter().expect("the thread is new");
            self.driver.fault(&mut thread.cx(), &self.mm, page, access)
        }));
        matches!(shown, Ok(Ok(())))
    }
    /// Returns the next touch; `None` if there will be none.
    fn next(&mut self, touches: &Receiver<Message>) -> Option<Message> {
        loop {
            let Some((until, pages)) = &self.refused else {
                return touches.recv().ok();
            };
            let left = until.saturating_duration_since(Instant::now());
            if !left.is_zero() {
                match touches.recv_timeout(left) {
                    Ok(message) => return Some(message),
                    Err(RecvTimeoutError::Disconnected) => return None,
                    Err(RecvTimeoutError::Timeout) => {}
                }
            }
            pages.iter().for_each(|&page| self.area.hide(page, 1));
            self.refused = None;
        }
    }
}

//! The host of a guest: its process, the disk's process, and what is between them.

use crate::guest::{AVAILABLE, DESCRIPTORS, Guest, SIZE, USED, iova};
use emmu::{
    Machine, MachineConfig, MemConfig, Mm,
    extmmu::{
        vhost_iotlb::FrontEnd,
        vm_memory::{GuestRegion, ProcessAddressSpace},
    },
    mm::{HeldPages, MmapArgs, PinKind},
    notifier::{Access, Registration},
    oracle::Oracle,
};
use emmu_clients_own::Reach;
use std::{
    fs,
    io::ErrorKind,
    os::{
        fd::AsRawFd,
        unix::net::{UnixListener, UnixStream},
    },
    path::PathBuf,
    process::{Child, Command},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};
use vhost::{
    VhostBackend, VhostUserMemoryRegionInfo, VringConfigData,
    vhost_user::{
        Frontend, VhostUserFrontend,
        message::{VhostUserHeaderFlag, VhostUserProtocolFeatures},
    },
};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

pub const PAGE: u64 = emmu::PAGE_SIZE;
/// Pages of the guest, and where they begin in the process.
pub const PAGES: u64 = 14;
pub const BASE: u64 = 1 << 30;

/// What stands between a process and the IOTLB of its disk.
struct Iotlb {
    front: Arc<FrontEnd>,
    registration: Registration,
    served: JoinHandle<std::io::Result<()>>,
}

pub struct Host {
    machine: Arc<Machine>,
    oracle: Arc<Oracle>,
    guest: Guest,
    iotlb: Option<Iotlb>,
    /// The table of memory stands.
    frontend: Frontend,
    held: HeldPages,
}

/// Where the disk connects.
struct Meeting {
    path: PathBuf,
    listener: UnixListener,
}

impl Meeting {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let (id, nth) = (std::process::id(), NEXT.fetch_add(1, Relaxed));
        let path = std::env::temp_dir().join(format!("emmu-disk-{id}-{nth}"));
        let listener = UnixListener::bind(&path).unwrap();
        listener.set_nonblocking(true).unwrap();
        Self { path, listener }
    }
    fn accept(&self, child: &mut Child) -> UnixStream {
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false).unwrap();
                    return stream;
                }
                Err(why) => assert_eq!(why.kind(), ErrorKind::WouldBlock),
            }
            assert_eq!(child.try_wait().unwrap(), None, "the disk is gone");
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Meeting {
    fn drop(&mut self) {
        let _gone_already = fs::remove_file(&self.path);
    }
}

fn region() -> GuestRegion {
    GuestRegion {
        guest: iova(0),
        len: PAGES * PAGE,
        process: BASE,
    }
}

impl Iotlb {
    fn new(mm: &Arc<Mm>, [misses, updates]: [UnixStream; 2]) -> Self {
        let machine = mm.machine();
        let attached =
            machine.with_current(|cx| FrontEnd::attach_memfd(cx, mm, &[region()], updates));
        let (front, registration) = attached.unwrap().unwrap();
        let serving = Arc::clone(&front);
        let served = thread::spawn(move || serving.serve(misses));
        Self {
            front,
            registration,
            served,
        }
    }
}

impl Host {
    /// Starts the disk, and tells it memory and ring.
    pub fn start(reach: Reach) -> Self {
        let machine = Machine::new(MachineConfig {
            memory: MemConfig {
                frames: 256,
                swap: 256,
                ..MemConfig::default()
            },
            ..MachineConfig::default()
        });
        let mm = Mm::new(&machine);
        let args = MmapArgs::anonymous(PAGES * PAGE).fixed(BASE);
        machine
            .with_current(|cx| mm.mmap(cx, &args))
            .unwrap()
            .unwrap();
        let oracle = Oracle::new(&machine);
        let meeting = Meeting::new();
        let mut child = Command::new(env!("CARGO_BIN_EXE_disk"))
            .arg(&meeting.path)
            .arg(reach.name())
            .spawn()
            .unwrap();
        let iotlb = (reach != Reach::Table).then(|| {
            let sockets = [(); 2].map(|()| meeting.accept(&mut child));
            Iotlb::new(&mm, sockets)
        });
        // A deaf disk has what the oracle finds.
        if let Some(iotlb) = iotlb.as_ref().filter(|_| reach != Reach::Deaf) {
            oracle.watch(&mm, Arc::clone(&iotlb.front) as _);
        }
        let frontend = Frontend::from_stream(meeting.accept(&mut child), 1);
        let pinned = if iotlb.is_some() { 1 } else { PAGES };
        let len = (pinned * PAGE) as usize;
        let held =
            machine.with_current(|cx| mm.pin(cx, BASE, len, Access::Write, PinKind::LongTerm));
        let mut held = held.unwrap().unwrap();
        set_table(&frontend, &machine, &mut held, iotlb.is_some());
        let kick = EventFd::new(EFD_NONBLOCK).unwrap();
        set_ring(&frontend, &kick);
        let space = ProcessAddressSpace::new(&mm, &[region()]);
        Self {
            machine,
            oracle,
            guest: Guest {
                mm,
                space,
                kick,
                disk: Mutex::new(child),
            },
            iotlb,
            frontend,
            held,
        }
    }
    pub fn guest(&self) -> &Guest {
        &self.guest
    }
    pub fn mm(&self) -> &Mm {
        self.guest.mm()
    }
    /// Ends everything: nothing was found, and no frame is left.
    pub fn end(self) {
        let Self {
            machine,
            oracle,
            guest,
            iotlb,
            frontend,
            held,
        } = self;
        let over = || guest.disk.lock().unwrap().wait().unwrap();
        if let Some(iotlb) = iotlb {
            let left = machine.with_current(|cx| {
                iotlb.registration.unregister(cx);
                iotlb.front.close(cx);
            });
            left.unwrap();
            drop(frontend);
            let _killed_or_ended = over();
            iotlb.served.join().unwrap().unwrap();
        } else {
            drop(frontend);
            assert!(over().success());
        }
        drop(held);
        machine.with_current(|cx| guest.mm().exit(cx)).unwrap();
        oracle.audit_end(guest.mm());
        oracle.assert_silent();
        drop(guest);
        assert_eq!(machine.mem().in_use(), 0);
    }
}

/// Sends the table of memory: the pages that are held, each by its offset in the file of frames,
/// and with an IOTLB, the file itself.
fn set_table(frontend: &Frontend, machine: &Machine, held: &mut HeldPages, whole: bool) {
    frontend.set_owner().unwrap();
    let features = frontend.get_features().unwrap();
    frontend.set_features(features).unwrap();
    let mut frontend = frontend.clone();
    let protocol = frontend.get_protocol_features().unwrap();
    assert_eq!(protocol, VhostUserProtocolFeatures::REPLY_ACK);
    frontend.set_protocol_features(protocol).unwrap();
    frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
    let file = fs::File::from(machine.mem().memfd().expect("frames have contents"));
    // A guest address is the address that the ring has: the disk asks for no translation of it.
    let region = |at, offset, len| VhostUserMemoryRegionInfo {
        guest_phys_addr: at,
        memory_size: len,
        userspace_addr: at,
        mmap_offset: offset,
        mmap_handle: file.as_raw_fd(),
    };
    let offsets = held.memfd_offsets().expect("frames have contents");
    let pages = (0..).zip(&offsets);
    let pages = pages.map(|(n, offset)| region(iova(n * PAGE).0, *offset, PAGE));
    let all = whole.then(|| region(0, 0, file.metadata().unwrap().len()));
    // In the order of their addresses, as the back-end wants them.
    let table: Vec<_> = all.into_iter().chain(pages).collect();
    frontend.set_mem_table(&table).unwrap();
}

fn set_ring(frontend: &Frontend, kick: &EventFd) {
    frontend.set_vring_num(0, SIZE).unwrap();
    let ring = VringConfigData {
        queue_max_size: SIZE,
        queue_size: SIZE,
        flags: 0,
        desc_table_addr: iova(DESCRIPTORS).0,
        used_ring_addr: iova(USED).0,
        avail_ring_addr: iova(AVAILABLE).0,
        log_addr: None,
    };
    frontend.set_vring_addr(0, &ring).unwrap();
    frontend.set_vring_base(0, 0).unwrap();
    let call = EventFd::new(EFD_NONBLOCK).unwrap();
    frontend.set_vring_call(0, &call).unwrap();
    frontend.set_vring_kick(0, kick).unwrap();
    let mut frontend = frontend.clone();
    frontend.set_vring_enable(0, true).unwrap();
}

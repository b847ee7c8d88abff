//! A virtio-blk device in a process of its own: a back-end of `vhost-user-backend`.
//!
//!     disk SOCKET REACH
//!
//! With an IOTLB it connects twice before it connects as a vhost-user back-end: for the messages
//! that it sends, and for those of the front-end. `vhost-user-backend` itself has no such messages
//! (rust-vmm/vhost#312): it maps the memory, and has the ring and its events.

use emmu::extmmu::vhost_iotlb::BackEnd;
use emmu_clients_own::Reach;
use std::{
    env,
    error::Error,
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    sync::{Arc, Mutex, PoisonError},
    thread,
};
use vhost::vhost_user::message::VhostUserProtocolFeatures;
use vhost_user_backend::{VhostUserBackend, VhostUserDaemon, VringMutex, VringT};
use virtio_bindings::{
    virtio_blk::{VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT},
    virtio_config::{VIRTIO_F_ACCESS_PLATFORM, VIRTIO_F_VERSION_1},
};
use virtio_queue::{Queue, QueueT, desc::split::Descriptor};
use vm_memory::{
    Bytes, GuestAddressSpace, GuestMemory, GuestMemoryAtomic, GuestMemoryError, GuestMemoryMmap,
    IommuMemory,
};
use vmm_sys_util::{
    epoll::EventSet,
    event::{EventConsumer, EventFlag, EventNotifier, new_event_consumer_and_notifier},
};

const SECTOR: usize = 512;
const SECTORS: usize = 256;

type Table = GuestMemoryMmap<()>;
type Behind = IommuMemory<Table, BackEnd<Table>>;

struct Disk {
    reach: Reach,
    /// The sockets of messages about the IOTLB, until there is memory.
    sockets: Mutex<Option<[UnixStream; 2]>>,
    table: Mutex<Option<GuestMemoryAtomic<Table>>>,
    behind: Mutex<Option<Behind>>,
    bytes: Mutex<Vec<u8>>,
}

fn lock<T>(at: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    at.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Disk {
    /// Serves the requests that are there.
    ///
    /// Bytes are read and written by `Bytes`, which has an iterator over slices while it uses them:
    /// an invalidation waits for it. A `Reader` of virtio-queue keeps slices alone.
    fn serve<M: GuestMemory>(&self, queue: &mut Queue, mem: &M) -> io::Result<()> {
        while let Some(chain) = queue.pop_descriptor_chain(mem) {
            let head = chain.head_index();
            let parts: Vec<Descriptor> = chain.collect();
            let Some((status, parts)) = parts.split_last() else {
                continue;
            };
            let (code, len) = match self.request(parts, mem) {
                Ok(len) => (VIRTIO_BLK_S_OK, len),
                Err(_) => (VIRTIO_BLK_S_IOERR, 0),
            };
            let code = u8::try_from(code).expect("a byte");
            let told = mem.write_obj(code, status.addr());
            told.map_err(io::Error::other)?;
            let used = queue.add_used(mem, head, len + 1);
            used.map_err(io::Error::other)?;
        }
        Ok(())
    }
    /// Reads or writes sectors. Returns how many bytes it wrote to memory.
    fn request<M: GuestMemory>(
        &self,
        parts: &[Descriptor],
        mem: &M,
    ) -> Result<u32, GuestMemoryError> {
        let refused = || GuestMemoryError::IOError(io::ErrorKind::InvalidInput.into());
        let (header, parts) = parts.split_first().ok_or_else(refused)?;
        let [kind, _, sector, _]: [u32; 4] = mem.read_obj(header.addr())?;
        let mut at = sector as usize * SECTOR;
        let mut disk = lock(&self.bytes);
        let mut written = 0;
        for part in parts {
            let bytes = at..at + part.len() as usize;
            at = bytes.end;
            let bytes = disk.get_mut(bytes).ok_or_else(refused)?;
            match kind {
                VIRTIO_BLK_T_IN => {
                    mem.write_slice(bytes, part.addr())?;
                    written += part.len();
                }
                VIRTIO_BLK_T_OUT => mem.read_slice(bytes, part.addr())?,
                _ => return Err(refused()),
            }
        }
        Ok(written)
    }
    /// Puts an IOTLB in front of the memory.
    fn behind_an_iotlb(&self, table: Table) {
        let Some([misses, updates]) = lock(&self.sockets).take() else {
            return;
        };
        let back = BackEnd::of_memfd(table, misses);
        let updates = match self.reach {
            Reach::Deaf => without_invalidations(updates),
            _ => updates,
        };
        *lock(&self.behind) = Some(back.memory());
        thread::spawn(move || back.serve(updates));
    }
}

impl VhostUserBackend for Disk {
    type Bitmap = ();
    type Vring = VringMutex;

    fn num_queues(&self) -> usize {
        1
    }
    fn max_queue_size(&self) -> usize {
        16
    }
    fn features(&self) -> u64 {
        // `VHOST_USER_F_PROTOCOL_FEATURES` is bit 30.
        [VIRTIO_F_VERSION_1, VIRTIO_F_ACCESS_PLATFORM, 30]
            .iter()
            .fold(0, |all, bit| all | 1 << bit)
    }
    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::REPLY_ACK
    }
    fn set_event_idx(&self, _enabled: bool) {}
    fn update_memory(&self, memory: GuestMemoryAtomic<Table>) -> io::Result<()> {
        if self.reach != Reach::Table {
            self.behind_an_iotlb(Table::clone(&memory.memory()));
        }
        *lock(&self.table) = Some(memory);
        Ok(())
    }
    fn exit_event(&self, _thread: usize) -> Option<(EventConsumer, EventNotifier)> {
        new_event_consumer_and_notifier(EventFlag::NONBLOCK).ok()
    }
    fn handle_event(
        &self,
        _event: u16,
        _set: EventSet,
        vrings: &[VringMutex],
        _thread: usize,
    ) -> io::Result<()> {
        let mut vring = vrings[0].get_mut();
        let behind = lock(&self.behind).clone();
        let table = lock(&self.table).as_ref().map(|table| table.memory());
        match (behind, table) {
            (Some(behind), _) => self.serve(vring.get_queue_mut(), &behind)?,
            (None, Some(table)) => self.serve(vring.get_queue_mut(), &*table)?,
            (None, None) => return Err(io::ErrorKind::InvalidInput.into()),
        }
        vring.signal_used_queue()
    }
}

/// Passes messages on, and their answers back, but for invalidations, which it answers itself.
fn without_invalidations(mut updates: UnixStream) -> UnixStream {
    /// A header, a message; a header, an errno.
    const MESSAGE: usize = 12 + 32;
    const ANSWER: usize = 12 + 8;
    let (mut to_back, passed) = UnixStream::pair().expect("a pair of sockets");
    thread::spawn(move || {
        let mut bytes = [0; MESSAGE];
        while updates.read_exact(&mut bytes).is_ok() {
            let (wants_answer, is_invalidation) = (bytes[4] & 8 != 0, bytes[12 + 25] == 3);
            let mut answer = [0; ANSWER];
            answer[0] = bytes[0];
            (answer[4], answer[8]) = (1 | 4, 8);
            let mut passed = Ok(());
            if !is_invalidation {
                passed = to_back.write_all(&bytes);
                if wants_answer {
                    passed = passed.and_then(|()| to_back.read_exact(&mut answer));
                }
            }
            if wants_answer {
                passed = passed.and_then(|()| updates.write_all(&answer));
            }
            if passed.is_err() {
                return;
            }
        }
    });
    passed
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = env::args().collect();
    let [_, socket, reach] = args.as_slice() else {
        return Err("disk SOCKET REACH".into());
    };
    let reach = Reach::of(reach).ok_or("no such reach")?;
    let sockets = match reach {
        Reach::Table => None,
        _ => Some([UnixStream::connect(socket)?, UnixStream::connect(socket)?]),
    };
    let disk = Arc::new(Disk {
        reach,
        sockets: Mutex::new(sockets),
        table: Mutex::default(),
        behind: Mutex::default(),
        bytes: Mutex::new(vec![0; SECTOR * SECTORS]),
    });
    let memory = GuestMemoryAtomic::new(Table::new());
    let daemon = VhostUserDaemon::new("disk".to_owned(), disk, memory);
    let mut daemon = daemon.map_err(|why| why.to_string())?;
    let started = daemon.start_client(socket);
    started.map_err(|why| why.to_string())?;
    // The front-end ends the connection, perhaps between two messages.
    let _ended = daemon.wait();
    let handlers = daemon.get_epoll_handlers();
    handlers.iter().for_each(|thread| thread.send_exit_event());
    Ok(())
}

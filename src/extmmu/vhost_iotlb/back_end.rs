//! The side that has the devices: an IOTLB that asks for what it lacks.

use super::{
    frame_memory::{FrameMemory, FrameRegion},
    message::{self, IotlbMessage, MessageKind},
};
use crate::{
    addr::PAGE_SIZE,
    error::Errno,
    mm::Machine,
    sync::{Mutex, RwLock, RwLockReadGuard},
};
use std::{io, ops::Deref, os::unix::net::UnixStream, sync::Arc};
use vm_memory::{
    GuestAddress, IommuMemory, Permissions,
    iommu::{Error, Iommu, Iotlb, IotlbIterator, IovaRange},
};

/// A vhost back-end: the IOTLB of devices in front of an address space elsewhere. Clones are the
/// same back-end.
///
/// # Examples
///
/// ```
/// use emmu::{Machine, MachineConfig, Mm, PAGE_SIZE, mm::{Advice, MmapArgs}};
/// use emmu::extmmu::{vhost_iotlb::{BackEnd, FrontEnd}, vm_memory::GuestRegion};
/// use std::{os::unix::net::UnixStream, thread};
/// use vm_memory::{Bytes, GuestAddress};
///
/// let machine = Machine::new(MachineConfig::default());
/// let mut root = machine.enter()?;
/// let mut cx = root.cx();
/// let mm = Mm::new(&machine);
/// let process = mm.mmap(&mut cx, &MmapArgs::anonymous(PAGE_SIZE))?;
/// let guest = GuestAddress(0x1000);
/// let region = GuestRegion { guest, len: PAGE_SIZE, process };
///
/// let [(misses, asked), (updates, applied)] = [UnixStream::pair()?, UnixStream::pair()?];
/// let (front, registration) = FrontEnd::attach(&mut cx, &mm, &[region], updates)?;
/// let back = BackEnd::new(&machine, misses);
/// let memory = back.memory();
/// thread::scope(|s| {
///     s.spawn(|| front.serve(asked));
///     s.spawn(|| back.serve(applied));
///     memory.write_obj(7_u8, guest).expect("a miss, and an update");
///     assert_eq!(mm.load(&mut cx, process), Ok(7));
///     mm.madvise(&mut cx, process, PAGE_SIZE, Advice::DontNeed).expect("invalidated");
///     assert_eq!(memory.read_obj::<u8>(guest).expect("another page"), 0);
///     mm.unregister(&mut cx, registration);
///     back.close();
///     front.close(&mut cx);
/// });
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct BackEnd(Arc<Shared>);

struct Shared {
    iotlb: RwLock<Iotlb>,
    region: FrameRegion,
    misses: Mutex<UnixStream>,
}

impl BackEnd {
    /// Makes a back-end with an empty IOTLB that sends its misses to `misses`.
    pub fn new(machine: &Machine, misses: UnixStream) -> Self {
        Self(Arc::new(Shared {
            iotlb: RwLock::new(Iotlb::new()),
            region: FrameRegion::new(machine.mem()),
            misses: Mutex::new(misses),
        }))
    }
    /// Returns guest memory behind the IOTLB.
    ///
    /// A thread that has an iterator of `get_slices` must not ask for another: an update, and each
    /// window, waits for the first.
    pub fn memory(&self) -> IommuMemory<FrameMemory, Self> {
        let region = self.0.region.clone();
        IommuMemory::new(FrameMemory { region }, self.clone(), true, ())
    }
    /// Applies updates and invalidations until the front-end closes its end. Then the IOTLB is
    /// empty. Runs on a thread of its own.
    ///
    /// # Errors
    ///
    /// Those of the socket.
    pub fn serve(&self, updates: UnixStream) -> io::Result<()> {
        let served = message::serve(&updates, |message| self.apply(message));
        self.0.iotlb.write().invalidate_all();
        self.0.region.unmap(0, u64::MAX);
        // Only now the front-end finds that this end is closed.
        drop(updates);
        served
    }
    /// Closes the socket of misses: an access that misses fails from now on.
    pub fn close(&self) {
        // A socket that is closed already is as good.
        let _closed = self.0.misses.lock().shutdown(std::net::Shutdown::Both);
    }
    fn apply(&self, message: IotlbMessage) -> Result<(), Errno> {
        let at = GuestAddress(message.iova);
        let size = usize::try_from(message.size).map_err(|_| Errno::EINVAL)?;
        let mut iotlb = self.0.iotlb.write();
        match message.kind {
            MessageKind::Miss => return Err(Errno::EINVAL),
            MessageKind::Invalidate => {
                iotlb.invalidate_mapping(at, size);
                self.0.region.unmap(message.iova, message.size);
            }
            MessageKind::Update => {
                let aligned = [message.iova, message.uaddr];
                let aligned = aligned.iter().all(|at| at.is_multiple_of(PAGE_SIZE));
                if message.size != PAGE_SIZE || !aligned {
                    return Err(Errno::EINVAL);
                }
                let to = GuestAddress(message.uaddr);
                let set = iotlb.set_mapping(at, to, size, message.perm);
                set.map_err(|_| Errno::EINVAL)?;
                self.0.region.map(message.iova, message.uaddr);
            }
        }
        Ok(())
    }
    /// Asks for a range that the IOTLB lacks. Returns the errno of the answer, or 0.
    fn miss(&self, range: &IovaRange, perm: Permissions) -> io::Result<i64> {
        let miss = IotlbMessage {
            iova: range.base.0,
            size: range.length as u64,
            uaddr: 0,
            perm,
            kind: MessageKind::Miss,
        };
        message::ask(&*self.0.misses.lock(), miss)
    }
}

/// An IOTLB from which nothing goes while this lives.
#[derive(Debug)]
pub struct IotlbGuard<'a>(RwLockReadGuard<'a, Iotlb>);

impl Deref for IotlbGuard<'_> {
    type Target = Iotlb;
    fn deref(&self) -> &Iotlb {
        &self.0
    }
}

impl Iommu for BackEnd {
    type IotlbGuard<'a> = IotlbGuard<'a>;

    fn translate(
        &self,
        iova: GuestAddress,
        length: usize,
        access: Permissions,
    ) -> Result<IotlbIterator<IotlbGuard<'_>>, Error> {
        let cannot = |reason: String| Error::CannotResolve {
            iova_range: IovaRange { base: iova, length },
            reason,
        };
        let pages = length as u64 / PAGE_SIZE;
        if iova.0.checked_add(length as u64).is_none() || pages > self.0.region.pages().into() {
            return Err(cannot("the range is too long".to_owned()));
        }
        // As often as each page is missed once, and goes again a few times.
        for _ in 0..4 * pages + 64 {
            let guard = IotlbGuard(self.0.iotlb.read());
            let fails = match Iotlb::lookup(guard, iova, length, access) {
                Ok(found) => return Ok(found),
                Err(fails) => fails,
            };
            for range in fails.misses.iter().chain(&fails.access_fails) {
                match self.miss(range, access) {
                    Ok(0) => {}
                    Ok(errno) => return Err(cannot(format!("errno {errno}"))),
                    Err(why) => return Err(cannot(why.to_string())),
                }
            }
        }
        Err(cannot(
            "its pages are never present at the same time".to_owned(),
        ))
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BackEnd")
            .field("region", &self.region)
            .finish_non_exhaustive()
    }
}

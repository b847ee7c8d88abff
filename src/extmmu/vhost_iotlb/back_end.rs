//! The side that has the devices: an IOTLB that asks for what it lacks.

use super::{
    channel::{self, Sender},
    frame_memory::{FrameMemory, FrameRegion},
    front_end::FrontEnd,
    message::{IotlbMessage, MessageKind},
};
use crate::{
    addr::PAGE_SIZE,
    error::Errno,
    sync::{Mutex, RwLock, RwLockReadGuard},
};
use std::{fmt::Debug, io, ops::Deref, os::unix::net::UnixStream, sync::Arc};
use vm_memory::{
    GuestAddress, GuestMemoryBackend, GuestMemoryRegion, IommuMemory, Permissions,
    iommu::{Error, Iommu, Iotlb, IotlbIterator, IovaRange},
};

/// A vhost back-end: the IOTLB of devices in front of an address space elsewhere, and the memory
/// `M` behind it. Clones are the same back-end.
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
/// let back = BackEnd::new(&front, misses)?;
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
#[derive(Clone)]
pub struct BackEnd<M = FrameMemory> {
    shared: Arc<Shared>,
    memory: M,
}

struct Shared {
    iotlb: Arc<RwLock<Iotlb>>,
    /// The frames that the front-end shows, if it is in this process.
    frames: Option<FrameRegion>,
    /// The number of pages of the memory.
    pages: u64,
    misses: Mutex<UnixStream>,
}

impl BackEnd {
    /// Makes a back-end in the process of its front-end. It sends its misses to `misses`. All
    /// back-ends of a front-end have one IOTLB.
    ///
    /// It reaches the pages that the front-end shows and no others, whatever comes from the
    /// sockets: the front-end keeps a list of them, and takes them back itself in a window.
    ///
    /// # Errors
    ///
    /// [`Errno::EOPNOTSUPP`]: the front-end is for a back-end in another process.
    pub fn new(front: &FrontEnd, misses: UnixStream) -> Result<Self, Errno> {
        let (region, iotlb) = front.shown().ok_or(Errno::EOPNOTSUPP)?;
        let memory = FrameMemory {
            region: region.clone(),
        };
        let pages = region.capacity().into();
        let shown = (Some(region.clone()), Arc::clone(iotlb));
        Ok(Self::over(memory, shown, pages, misses))
    }
}

impl<M: GuestMemoryBackend + Clone> BackEnd<M> {
    /// Makes a back-end in another process than the machine's, with an empty IOTLB. It sends its
    /// misses to `misses`.
    ///
    /// Its front-end is made by `FrontEnd::attach_memfd`. `memory` maps the frames of the machine
    /// (`PhysMem::memfd`) from guest address 0 on, as a vhost-user back-end does that is sent such
    /// a table of memory.
    pub fn of_memfd(memory: M, misses: UnixStream) -> Self {
        let bytes: u64 = memory.iter().map(GuestMemoryRegion::len).sum();
        Self::over(memory, (None, Arc::default()), bytes / PAGE_SIZE, misses)
    }
    /// Returns guest memory behind the IOTLB.
    ///
    /// A thread that has an iterator of `get_slices` must not ask for another, nor change the
    /// address space: an update, and each window, waits for the first.
    pub fn memory(&self) -> IommuMemory<M, Self>
    where
        M: Send + Sync + 'static,
        <M::R as GuestMemoryRegion>::B: Default,
    {
        IommuMemory::new(self.memory.clone(), self.clone(), true, Default::default())
    }
}

impl<M> BackEnd<M> {
    fn over(
        memory: M,
        (frames, iotlb): (Option<FrameRegion>, Arc<RwLock<Iotlb>>),
        pages: u64,
        misses: UnixStream,
    ) -> Self {
        let shared = Arc::new(Shared {
            iotlb,
            frames,
            pages,
            misses: Mutex::new(misses),
        });
        Self { shared, memory }
    }
    /// Applies updates and invalidations until the front-end closes its end. Then the IOTLB is
    /// empty. Runs on a thread of its own.
    ///
    /// # Errors
    ///
    /// Those of the socket.
    pub fn serve(&self, updates: UnixStream) -> io::Result<()> {
        let served = channel::serve(&updates, Sender::FrontEnd, |all| self.apply(all));
        self.shared.iotlb.write().invalidate_all();
        // Only now the front-end finds that this end is closed.
        drop(updates);
        served
    }
    /// Closes the socket of misses: an access that misses fails from now on.
    pub fn close(&self) {
        // A socket that is closed already is as good.
        let misses = self.shared.misses.lock();
        let _closed = misses.shutdown(std::net::Shutdown::Both);
    }
    fn apply(&self, messages: &[IotlbMessage]) -> Result<(), Errno> {
        let mut iotlb = self.shared.iotlb.write();
        let mut all = messages.iter();
        all.try_for_each(|message| self.shared.apply(&mut iotlb, *message))
    }
}

impl Shared {
    fn apply(&self, iotlb: &mut Iotlb, message: IotlbMessage) -> Result<(), Errno> {
        let at = GuestAddress(message.iova);
        let size = usize::try_from(message.size).map_err(|_| Errno::EINVAL)?;
        match message.kind {
            MessageKind::Invalidate => {
                iotlb.invalidate_mapping(at, size);
            }
            MessageKind::Update => {
                let is_page = message.size == PAGE_SIZE && message.iova.is_multiple_of(PAGE_SIZE);
                if !is_page || !self.may_map(message) {
                    return Err(Errno::EINVAL);
                }
                let to = GuestAddress(message.uaddr);
                let set = iotlb.set_mapping(at, to, size, message.perm);
                set.map_err(|_| Errno::EINVAL)?;
            }
            MessageKind::Miss | MessageKind::BatchBegin | MessageKind::BatchEnd => {
                return Err(Errno::EINVAL);
            }
        }
        Ok(())
    }
    /// Returns true if the front-end shows the page of an update, or, where that is not known, if
    /// it is a page of the memory.
    fn may_map(
        &self,
        IotlbMessage {
            iova, uaddr, perm, ..
        }: IotlbMessage,
    ) -> bool {
        match &self.frames {
            Some(frames) => frames.shows(iova, uaddr, perm),
            None => uaddr.is_multiple_of(PAGE_SIZE) && uaddr / PAGE_SIZE < self.pages,
        }
    }
    /// Asks for a range that the IOTLB lacks. Returns the errno of the answer, or 0.
    fn miss(&self, range: &IovaRange, perm: Permissions) -> io::Result<u64> {
        let miss = IotlbMessage {
            iova: range.base.0,
            size: range.length as u64,
            uaddr: 0,
            perm,
            kind: MessageKind::Miss,
        };
        channel::ask(&*self.misses.lock(), Sender::BackEnd, &[miss])
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

impl<M: Send + Sync + 'static> Iommu for BackEnd<M> {
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
        if iova.0.checked_add(length as u64).is_none() || pages > self.shared.pages {
            return Err(cannot("the range is too long".to_owned()));
        }
        // As often as each page is missed once, and goes again a few times.
        for _ in 0..4 * pages + 64 {
            let guard = IotlbGuard(self.shared.iotlb.read());
            let fails = match Iotlb::lookup(guard, iova, length, access) {
                Ok(found) => return Ok(found),
                Err(fails) => fails,
            };
            for range in fails.misses.iter().chain(&fails.access_fails) {
                match self.shared.miss(range, access) {
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

impl<M> Debug for BackEnd<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BackEnd")
            .field("frames", &self.shared.frames)
            .field("pages", &self.shared.pages)
            .finish_non_exhaustive()
    }
}

//! A virtual machine with a virtio disk, live-migrated to another process by its dirty pages: those
//! that its processor wrote are in KVM's dirty log, those of the disk in the bitmap of its IOMMU.
//! `cargo run --features vm-memory --example vmm`

use emmu::extmmu::iommu::{LeasedMemory, ProcessIommu};
use emmu::extmmu::kvm::{Gfn, MemSlot, SlotFlags, Vcpu, Vm, VmConfig};
use emmu::extmmu::{dirty_pages::mark_log, vm_memory::GuestRegion};
use emmu::{Machine, MachineConfig, Mm, PAGE_SIZE, addr::Vpn, ctx::CallCx, mm::MmapArgs};
use std::{sync::Arc, time::Duration};
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, IommuMemory};

type Fallible<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;
const RAM: u64 = 1 << 20; // in bytes, from guest address 0 on
const HOST: u64 = 1 << 32; // where the RAM lies in the process
const RINGS: [u32; 3] = [0, 0x1000, 0x2000]; // guest addresses: descriptors, available, used

struct Guest {
    mm: Arc<Mm>,
    vcpu: Vcpu,
    memory: IommuMemory<LeasedMemory, ProcessIommu>,
}

/// A disk (virtio-blk): its queue and its sectors, which come along with the guest.
struct Disk(Queue, [[u8; 512]; 64]);

impl Guest {
    fn new(cx: &mut CallCx<'_>, machine: &Arc<Machine>) -> Fallible<Self> {
        let mm = Mm::new(machine);
        let hva = Vpn::containing(mm.mmap(cx, &MmapArgs::anonymous(RAM).fixed(HOST))?);
        let (vm, _ends_with_mm) = Vm::create(cx, &mm, VmConfig::default());
        let (gfn, pages, flags) = (Gfn(0), RAM / PAGE_SIZE, SlotFlags::LOG_DIRTY_PAGES);
        #[rustfmt::skip]
        vm.set_memory(cx, MemSlot { id: 0, gfn, pages, hva, flags })?;
        let (guest, len, process) = (GuestAddress(0), RAM, HOST);
        #[rustfmt::skip]
        let ram = GuestRegion { guest, len, process };
        let (iommu, _ends_with_mm) = ProcessIommu::attach(cx, &mm, &[ram], Default::default());
        let (vcpu, memory) = (vm.vcpu(cx), iommu.memory());
        Ok(Self { mm, vcpu, memory })
    }
    /// The guest's driver: puts request `n` into the ring, and has the disk run.
    fn request(&self, disk: &mut Disk, n: u32, write: bool) -> Fallible<()> {
        let [header, data, status] = [0x3000, 0x8000 + n % 64 * 512, 0x4000];
        let index = u32::from(disk.0.next_avail().wrapping_add(1));
        let flags = if write { 1 } else { 3 };
        let table = [header, 0, 16, 1 << 16 | 1, data, 0, 512, 2 << 16 | flags];
        self.mm.machine().with_current(|cx| {
            let mut put = |at: u32, words: &[u32]| {
                let bytes = words.iter().flat_map(|word| word.to_le_bytes());
                self.vcpu.write(cx, at.into(), &bytes.collect::<Vec<_>>())
            };
            put(header, &[write.into(), 0, n % 64, 0])?;
            put(data, &[if write { n } else { 0 }; 128])?;
            put(RINGS[0], &table)?;
            put(RINGS[0] + 32, &[status, 0, 1, 2])?;
            put(RINGS[1], &[index << 16])
        })??;
        self.serve(disk)
    }
    fn serve(&self, Disk(queue, sectors): &mut Disk) -> Fallible<()> {
        while let Some(chain) = queue.pop_descriptor_chain(&self.memory) {
            let head = chain.head_index();
            let parts: Vec<_> = chain.map(|part| part.addr()).collect();
            let [write, sector]: [u64; 2] = self.memory.read_obj(parts[0])?;
            match (write, &mut sectors[sector as usize]) {
                (0, bytes) => self.memory.write_slice(bytes, parts[1])?,
                (_, bytes) => self.memory.read_slice(bytes, parts[1])?,
            }
            self.memory.write_obj(0_u8, parts[2])?;
            queue.add_used(&self.memory, head, 513)?;
        }
        Ok(())
    }
    fn ram(&self, cx: &mut CallCx<'_>) -> Vec<u8> {
        let mut ram = vec![0; RAM as usize];
        self.mm.read_bytes(cx, HOST, &mut ram).expect("mapped");
        ram
    }
    /// Copies the pages that were written since the last time.
    fn migrate(&self, cx: &mut CallCx<'_>, to: &Self) -> Fallible<()> {
        let dirty = self.memory.iommu().dirty_pages();
        mark_log(dirty, GuestAddress(0), &self.vcpu.vm().dirty_log(cx, 0)?);
        let (pages, ram) = (dirty.take(), self.ram(cx));
        println!("{} pages", pages.len());
        for at in pages {
            let page = &ram[at as usize..][..4096];
            to.mm.write_bytes(cx, HOST + at, page)?;
        }
        Ok(())
    }
}

fn main() -> Fallible<()> {
    let machine = Machine::new(MachineConfig::default());
    let mut thread = machine.enter()?;
    let cx = &mut thread.cx();
    let (source, target) = (Guest::new(cx, &machine)?, Guest::new(cx, &machine)?);
    let mut disk = Disk(Queue::new(16)?, [[0; 512]; 64]);
    disk.0.set_desc_table_address(Some(RINGS[0]), None);
    disk.0.set_avail_ring_address(Some(RINGS[1]), None);
    disk.0.set_used_ring_address(Some(RINGS[2]), None);
    disk.0.set_ready(true);
    std::thread::scope(|s| {
        let guest = s.spawn(|| (0..500).try_for_each(|n| source.request(&mut disk, n, true)));
        while !guest.is_finished() {
            source.migrate(cx, &target)?;
            std::thread::sleep(Duration::from_millis(1));
        }
        guest.join().expect("no panic")
    })?;
    source.migrate(cx, &target)?; // the guest is at rest
    assert!(source.ram(cx) == target.ram(cx));
    // It goes on there, and finds what it wrote on its disk.
    cx.lend(|| target.request(&mut disk, 7, false))?;
    assert!(target.ram(cx)[0x8000 + 7 * 512..][..512] == disk.1[7]);
    Ok(())
}

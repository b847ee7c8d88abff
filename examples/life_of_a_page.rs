//! One page from `mmap` to `munmap`, and after each step everything that leads to its frame.
//! `docs/life-of-a-page.md` explains the table that this prints.
//!
//! ```text
//! cargo run --example life_of_a_page
//! ```

use emmu::{
    Machine, MachineConfig, MemConfig, Mm, PAGE_SIZE,
    addr::{Pfn, Vpn},
    ctx::CallCx,
    extmmu::{
        Recorded, Recorder,
        kvm::{Gfn, MemSlot, SlotFlags, Vcpu, Vm, VmConfig},
    },
    frame::FrameFlags,
    mm::{Advice, MmapArgs, Pte},
};
use std::{error::Error, sync::Arc};

/// The address of the page.
const AT: u64 = 0x4000_0000;

/// The observers of a step: the guest that uses the page, and a recorder of windows.
struct Scene {
    machine: Arc<Machine>,
    mm: Arc<Mm>,
    vm: Arc<Vm>,
    windows: Arc<Recorder>,
    table: Vec<String>,
}

impl Scene {
    /// The counts of a frame, and its exclusive flag: a single entry will ever map it.
    fn frame(&self, pfn: Pfn) -> String {
        let mem = self.machine.mem();
        let exclusive = mem.flags(pfn).contains(FrameFlags::ANON_EXCLUSIVE);
        let sharing = if exclusive { "exclusive" } else { "shared" };
        let (refs, maps) = (mem.refcount(pfn), mem.mapcount(pfn));
        format!("{refs} refs, {maps} maps, {sharing}")
    }
    /// One row of the table: the page after a step, arrow by arrow.
    fn row(&mut self, cx: &mut CallCx<'_>, step: &str) {
        let page = Vpn::containing(AT);
        let vma = self.mm.maps(cx).first().map_or("-".into(), |m| m.perms());
        let pte = self.mm.walker(cx).pte(page);
        let (entry, frame) = match pte {
            Pte::None => ("none".to_owned(), "-".to_owned()),
            Pte::Present { pfn, write } => {
                let rights = if write { "rw" } else { "r-" };
                (format!("{pfn:?} {rights}"), self.frame(pfn))
            }
            Pte::Swap(_) => ("in swap".to_owned(), "-".to_owned()),
            Pte::Guard => ("guard".to_owned(), "-".to_owned()),
            Pte::Protected => ("protected".to_owned(), "-".to_owned()),
            Pte::Poisoned => ("poisoned".to_owned(), "-".to_owned()),
            Pte::Device { pfn, .. } => ("on a device".to_owned(), self.frame(pfn)),
            Pte::Exclusive(pfn) => ("a device's".to_owned(), self.frame(pfn)),
        };
        let shadow = self.vm.entries(cx);
        let recorded = self.windows.take();
        let windows = recorded
            .iter()
            .filter(|call| matches!(call, Recorded::Window(_)))
            .count();
        self.table.push(format!(
            "{step:<18} {vma:<5} {entry:<11} {frame:<26} {shadow:>6} {windows:>8}"
        ));
    }
}

/// Creates a guest whose memory is the page.
fn guest(cx: &mut CallCx<'_>, mm: &Arc<Mm>) -> Result<(Arc<Vm>, Vcpu), Box<dyn Error>> {
    let (vm, _stays) = Vm::create(cx, mm, VmConfig::default());
    let memory = MemSlot {
        id: 0,
        gfn: Gfn(0),
        pages: 1,
        hva: Vpn::containing(AT),
        flags: SlotFlags::empty(),
    };
    vm.set_memory(cx, memory)?;
    let vcpu = vm.vcpu(cx);
    Ok((vm, vcpu))
}

/// Plays the life of the page, and returns a row for each step.
fn life() -> Result<Vec<String>, Box<dyn Error>> {
    let memory = MemConfig {
        swap: 16,
        ..MemConfig::default()
    };
    let machine = Machine::new(MachineConfig {
        memory,
        ..MachineConfig::default()
    });
    let mut thread = machine.enter()?;
    let mut cx = thread.cx();
    let mm = Mm::new(&machine);
    let (vm, vcpu) = guest(&mut cx, &mm)?;
    let (windows, _stays) = mm.register(&mut cx, Recorder::new);
    let mut scene = Scene {
        machine: Arc::clone(&machine),
        mm: Arc::clone(&mm),
        vm,
        windows,
        table: Vec::new(),
    };

    mm.mmap(&mut cx, &MmapArgs::anonymous(PAGE_SIZE).fixed(AT))?;
    scene.row(&mut cx, "mmap");
    mm.store(&mut cx, AT, 1)?;
    scene.row(&mut cx, "first store");
    vcpu.load(&mut cx, 0)?;
    scene.row(&mut cx, "the guest loads");
    let child = mm.fork(&mut cx)?;
    scene.row(&mut cx, "fork");
    vcpu.store(&mut cx, 0, 2)?;
    scene.row(&mut cx, "the guest stores");
    child.exit(&mut cx);
    scene.row(&mut cx, "the child exits");
    mm.madvise(&mut cx, AT, PAGE_SIZE, Advice::PageOut)?;
    scene.row(&mut cx, "reclaim");
    assert_eq!(mm.load(&mut cx, AT)?, 2, "the guest's store");
    scene.row(&mut cx, "a load, from swap");
    mm.munmap(&mut cx, AT, PAGE_SIZE)?;
    scene.row(&mut cx, "munmap");
    mm.exit(&mut cx);
    Ok(scene.table)
}

fn main() -> Result<(), Box<dyn Error>> {
    println!("step               VMA   entry       frame                      shadow  windows");
    life()?.iter().for_each(|row| println!("{row}"));
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_documentation_shows_this_table() {
        let text = include_str!("../docs/life-of-a-page.md");
        for row in super::life().expect("nothing fails") {
            assert!(
                text.contains(row.trim_end()),
                "not in the documentation: {row}"
            );
        }
    }
}

//! A process that joins the table of a mapping of huge pages, while that mapping becomes another.

use crate::run::{How, explore};
use emmu::{
    HugePoolConfig, HugeSize, Machine, MachineConfig, MemConfig, Mm, PAGE_SIZE,
    addr::Vpn,
    ctx::CallCx,
    file::{File, FileMode, HugetlbFile},
    mm::{MapFlags, MmapArgs, Prot, Pte, RegisterMode, UffdFeatures, Userfault},
};
use std::sync::Arc;

const GIB: u64 = 1 << 30;
const HUGE: u64 = 512 * PAGE_SIZE;
const POOL: u64 = 4;
/// A world with a huge page has many steps.
const FEW: [How; 2] = [How::Random(60), How::Pct(60)];

fn mapping(file: &Arc<File>) -> MmapArgs {
    let args = MmapArgs::anonymous(GIB).file(file, 0).shared();
    args.flags(MapFlags::NORESERVE).fixed(GIB)
}

/// Two processes map a file; while the second one loads its first page and joins the table of the
/// first one, that carries `change` out, which is given another file. Afterwards the second one
/// stores to page 3. Returns the entry of the first one for page 3 then.
fn join_during(change: fn(&Mm, &mut CallCx<'_>, &Arc<File>)) -> Pte {
    let machine = Machine::new(MachineConfig {
        memory: MemConfig {
            frames: 512 * (POOL as u32 + 1),
            ..MemConfig::default()
        },
        huge_pages: HugePoolConfig {
            pages: POOL,
            overcommit: 0,
        },
        ..MachineConfig::default()
    });
    let [file, another] = [(); 2].map(|()| {
        let object = HugetlbFile::memfd(machine.host(), "pool", GIB, HugeSize::Mib2);
        File::open(object.unwrap(), FileMode::ReadWrite)
    });
    let [one, other] = [(); 2].map(|()| Mm::new(&machine));
    {
        let mut thread = machine.enter().unwrap();
        let mut cx = thread.cx();
        for mm in [&one, &other] {
            mm.mmap(&mut cx, &mapping(&file)).unwrap();
        }
        one.store(&mut cx, GIB, 7).unwrap();
    }
    let joins = {
        let (machine, other) = (Arc::clone(&machine), Arc::clone(&other));
        shuttle::thread::spawn(move || {
            let mut thread = machine.enter().unwrap();
            other.load(&mut thread.cx(), GIB).unwrap();
        })
    };
    let changes = {
        let (machine, one) = (Arc::clone(&machine), Arc::clone(&one));
        shuttle::thread::spawn(move || {
            let mut thread = machine.enter().unwrap();
            change(&one, &mut thread.cx(), &another);
        })
    };
    joins.join().unwrap();
    changes.join().unwrap();
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    other.store(&mut cx, GIB + 3 * HUGE, 99).unwrap();
    let pte = one.walker(&mut cx).pte(Vpn::containing(GIB + 3 * HUGE));
    other.exit(&mut cx);
    one.exit(&mut cx);
    drop(file);
    let pool = machine.mem().huge_pool(HugeSize::Mib2);
    assert_eq!(pool.free, POOL, "a page is lost");
    pte
}

#[test]
fn join_against_mprotect() {
    explore(&FEW, || {
        let pte = join_during(|mm, cx, _| mm.mprotect(cx, GIB, GIB, Prot::READ).unwrap());
        assert!(
            !matches!(pte, Pte::Present { write: true, .. }),
            "writable in read-only memory: {pte:?}"
        );
    });
}

#[test]
fn join_against_a_mapping_of_another_file() {
    explore(&FEW, || {
        let pte = join_during(|mm, cx, another| {
            mm.munmap(cx, GIB, GIB).unwrap();
            mm.mmap(cx, &mapping(another)).unwrap();
            mm.store(cx, GIB, 1).unwrap();
        });
        assert_eq!(pte, Pte::None, "a page of a file that is not mapped here");
    });
}

#[test]
fn join_against_a_registration_for_write_protection() {
    explore(&FEW, || {
        let pte = join_during(|mm, cx, _| {
            let uffd = mm.userfaultfd();
            let asked = UffdFeatures::SIGBUS | UffdFeatures::WP_UNPOPULATED;
            uffd.api(Userfault::VERSION, asked).unwrap();
            uffd.register(cx, GIB, GIB, RegisterMode::WP).unwrap();
            std::mem::forget(uffd);
        });
        assert_eq!(pte, Pte::None, "a page that was not asked for");
    });
}

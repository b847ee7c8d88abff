//! Random calls on huge pages of a pool, next to a model that only knows the bytes: what is read is
//! what was written, and at the end everything is back in the pool.

use crate::{
    common::{
        PAGE, World, at,
        calls::{FIXED, private, remap},
    },
    drawn::config,
};
use emmu::{
    HugeSize, MemConfig, Mm,
    file::{File, FileMode, HugetlbFile},
    mm::{Advice, MapFlags},
};
use proptest::prelude::*;
use std::{collections::BTreeMap, sync::Arc};

const HUGE: u64 = 512;
const SIZE: HugeSize = HugeSize::Mib2;
/// Places for huge pages in each process.
const PLACES: u64 = 6;
/// Huge pages of the file.
const FILE: u64 = 3;
const POOL: u64 = 6;
/// The small pages that are written and read.
const OFFSETS: [u64; 3] = [0, 255, 511];

type Bytes = BTreeMap<u64, u8>;

/// A huge page of a process.
#[derive(Clone, Debug)]
struct Place {
    shared: bool,
    /// The page of the file.
    file: Option<u64>,
    /// What it shows, unless that is the file's page.
    own: Option<Bytes>,
}

#[derive(Debug, Default)]
struct Model {
    file: BTreeMap<u64, Bytes>,
    processes: BTreeMap<usize, BTreeMap<u64, Place>>,
}

impl Model {
    fn place(&mut self, who: usize, at: u64) -> Option<&mut Place> {
        self.processes.get_mut(&who)?.get_mut(&at)
    }
    fn shown(&self, who: usize, at: u64) -> Option<Bytes> {
        let place = self.processes.get(&who)?.get(&at)?;
        let of_file = || place.file.and_then(|n| self.file.get(&n)).cloned();
        Some(place.own.clone().or_else(of_file).unwrap_or_default())
    }
    fn put(&mut self, who: usize, at: u64, offset: u64, byte: u8) {
        let mut bytes = self.shown(who, at).expect("it is mapped");
        bytes.insert(offset, byte);
        let place = self.place(who, at).expect("it is mapped");
        match place.file {
            Some(n) if place.shared => drop(self.file.insert(n, bytes)),
            _ => place.own = Some(bytes),
        }
    }
    /// A page that was not there is made: the file's for a shared mapping, else one of its own.
    fn loaded(&mut self, who: usize, at: u64) {
        let bytes = self.shown(who, at).expect("it is mapped");
        let place = self.processes.get_mut(&who).and_then(|p| p.get_mut(&at));
        let place = place.expect("it is mapped");
        match place.file {
            Some(n) if place.shared => drop(self.file.insert(n, bytes)),
            Some(n) if self.file.contains_key(&n) => {}
            _ => place.own = Some(bytes),
        }
    }
    /// Cuts pages out of the file. Their private copies go as well.
    fn cut(&mut self, pages: impl Fn(u64) -> bool) {
        self.file.retain(|n, _| !pages(*n));
        let places = self.processes.values_mut().flat_map(BTreeMap::values_mut);
        for place in places.filter(|p| p.file.is_some_and(&pages)) {
            place.own = None;
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Draw {
    kind: u32,
    who: usize,
    place: u64,
    n: u64,
    byte: u8,
}

fn draw() -> impl Strategy<Value = Draw> {
    let numbers = (0..100_u32, 0..4_usize, 0..PLACES, 0..3_u64, 1..=250_u8);
    numbers.prop_map(|(kind, who, place, n, byte)| Draw {
        kind,
        who,
        place,
        n,
        byte,
    })
}

struct Run {
    w: World,
    file: Arc<File>,
    processes: BTreeMap<usize, Arc<Mm>>,
    model: Model,
}

impl Run {
    fn new() -> Self {
        let w = World::with_pool(
            MemConfig {
                frames: 8192,
                ..MemConfig::default()
            },
            POOL,
        );
        let host = w.machine.host();
        let object = HugetlbFile::memfd(host, "h", FILE * HUGE * PAGE, SIZE).expect("small");
        Self {
            file: File::open(object, FileMode::ReadWrite),
            processes: BTreeMap::from([(0, Arc::clone(&w.mm))]),
            model: Model {
                processes: BTreeMap::from([(0, BTreeMap::new())]),
                ..Model::default()
            },
            w,
        }
    }
    fn step(&mut self, d: Draw) {
        let living: Vec<usize> = self.processes.keys().copied().collect();
        let who = living[d.who % living.len()];
        let mm = Arc::clone(&self.processes[&who]);
        let d = Draw { who, ..d };
        let (addr, len) = (at(d.place * HUGE), HUGE * PAGE);
        match d.kind {
            0..38 => self.store(d, &mm),
            38..54 => self.load(d, &mm),
            54..65 => self.map(d, &mm),
            65..68 => {
                mm.munmap(&mut self.w.thread.cx(), addr, len)
                    .expect("whole");
                self.model
                    .processes
                    .get_mut(&d.who)
                    .map(|p| p.remove(&d.place));
            }
            68..76 => self.drop_page(d, &mm),
            76..84 => self.move_page(d, &mm),
            84..90 => self.fork(d, &mm),
            90..93 if d.who != 0 => self.exit(d.who),
            93..96 => {
                let from = d.n * HUGE * PAGE;
                let cx = self.w.thread.cx();
                self.file.punch_hole(cx, from, len).expect("whole");
                self.model.cut(|n| n == d.n);
            }
            96..98 => {
                for size in [d.n, FILE] {
                    let bytes = size * HUGE * PAGE;
                    self.file
                        .truncate(self.w.thread.cx(), bytes)
                        .expect("whole");
                }
                self.model.cut(|n| n >= d.n);
            }
            _ => {}
        }
    }
    fn store(&mut self, d: Draw, mm: &Mm) {
        let offset = OFFSETS[usize::try_from(d.n).expect("small")];
        let addr = at(d.place * HUGE + offset);
        let done = mm.store(&mut self.w.thread.cx(), addr, d.byte);
        let is_mapped = self.model.place(d.who, d.place).is_some();
        assert!(is_mapped || done.is_err(), "{d:?}");
        if done.is_ok() {
            self.model.put(d.who, d.place, offset, d.byte);
        }
    }
    fn load(&mut self, d: Draw, mm: &Mm) {
        let wanted = self.model.shown(d.who, d.place);
        for offset in OFFSETS {
            let addr = at(d.place * HUGE + offset);
            let Ok(byte) = mm.load(&mut self.w.thread.cx(), addr) else {
                continue;
            };
            let wanted = wanted.as_ref().expect("it is mapped");
            let wanted = wanted.get(&offset).copied().unwrap_or(0);
            assert_eq!(byte, wanted, "{d:?} at {offset}");
            self.model.loaded(d.who, d.place);
        }
    }
    fn map(&mut self, d: Draw, mm: &Mm) {
        let kind = d.byte % 6;
        let mut args = private(d.place * HUGE, HUGE);
        if kind % 2 == 1 {
            args = args.shared();
        }
        let file = (kind < 4).then_some(d.n);
        args = match file {
            Some(n) => args.file(&self.file, n * HUGE * PAGE),
            None => args.flags(MapFlags::HUGETLB),
        };
        if d.byte > 200 {
            args = args.flags(MapFlags::NORESERVE);
        }
        let mapped = mm.mmap(&mut self.w.thread.cx(), &args);
        let places = self.model.processes.get_mut(&d.who).expect("it lives");
        places.remove(&d.place);
        // A nameless shared page is seen by one process here: forks drop it from the model.
        let place = Place {
            shared: kind % 2 == 1,
            file,
            own: None,
        };
        if mapped.is_ok() {
            places.insert(d.place, place);
        }
    }
    fn drop_page(&mut self, d: Draw, mm: &Mm) {
        let (addr, len) = (at(d.place * HUGE), HUGE * PAGE);
        let done = mm.madvise(&mut self.w.thread.cx(), addr, len, Advice::DontNeed);
        if let Some(place) = self.model.place(d.who, d.place) {
            done.expect("it is mapped");
            let nameless = place.shared && place.file.is_none();
            if !nameless {
                place.own = None;
            }
        }
    }
    fn move_page(&mut self, d: Draw, mm: &Mm) {
        let to = (d.place + 1 + d.n) % PLACES;
        let args = remap(d.place * HUGE, HUGE, HUGE, FIXED, to * HUGE);
        let places = self.model.processes.get_mut(&d.who).expect("it lives");
        if mm.mremap(&mut self.w.thread.cx(), args).is_ok() {
            let moved = places.remove(&d.place).expect("it was mapped");
            places.insert(to, moved);
        }
    }
    fn fork(&mut self, d: Draw, mm: &Arc<Mm>) {
        let Some(child) = (1..4).find(|n| !self.processes.contains_key(n)) else {
            return;
        };
        // Nameless shared pages would have two processes.
        let shared: Vec<u64> = self.model.processes[&d.who]
            .iter()
            .filter(|(_, p)| p.shared && p.file.is_none())
            .map(|(n, _)| *n)
            .collect();
        for place in shared {
            let (addr, len) = (at(place * HUGE), HUGE * PAGE);
            mm.munmap(&mut self.w.thread.cx(), addr, len)
                .expect("whole");
            self.model
                .processes
                .get_mut(&d.who)
                .map(|p| p.remove(&place));
        }
        let forked = mm.fork(&mut self.w.thread.cx()).expect("there is memory");
        self.processes.insert(child, forked);
        let mut places = self.model.processes[&d.who].clone();
        // A page that was taken away is not there for the child either, which is not told so.
        for (place, shown) in places
            .iter_mut()
            .filter(|(_, p)| !p.shared && p.own.is_some())
        {
            if mm.load(&mut self.w.thread.cx(), at(place * HUGE)).is_err() {
                shown.own = None;
            }
        }
        self.model.processes.insert(child, places);
    }
    fn exit(&mut self, who: usize) {
        if let Some(mm) = self.processes.remove(&who) {
            self.w.reap(&mm);
            self.model.processes.remove(&who);
        }
    }
    fn check(&self) {
        let pool = self.w.machine.mem().huge_pool(SIZE);
        assert_eq!((pool.total, pool.surplus), (POOL, 0));
        let free = i64::try_from(pool.free).expect("small");
        assert!(pool.reserved <= free, "{pool:?}");
    }
    fn end(mut self) {
        for who in 1..4 {
            self.exit(who);
        }
        self.w.mm.exit(&mut self.w.thread.cx());
        drop(self.file);
        let mem = Arc::clone(self.w.machine.mem());
        let pool = mem.huge_pool(SIZE);
        assert_eq!((pool.free, pool.reserved), (POOL, 0));
        assert_eq!(mem.set_huge_pages(SIZE, 0), 0);
        self.w.end();
    }
}

proptest! {
    #![proptest_config(config(192))]

    #[test]
    fn huge_pages_show_what_was_written(
        kinds in prop::collection::vec(1..=250_u8, usize::try_from(PLACES).expect("small")),
        draws in prop::collection::vec(draw(), 1..120),
    ) {
        let mut run = Run::new();
        for (place, byte) in (0..).zip(kinds) {
            run.step(Draw { kind: 60, who: 0, place, n: place % FILE, byte });
        }
        for d in draws {
            run.step(d);
            run.check();
        }
        for who in 0..4 {
            if let Some(mm) = run.processes.get(&who).cloned() {
                for place in 0..PLACES {
                    let d = Draw { kind: 40, who, place, n: 0, byte: 1 };
                    run.load(d, &mm);
                }
            }
        }
        run.end();
    }
}

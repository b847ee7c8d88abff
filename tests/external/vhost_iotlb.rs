//! The IOTLB of a vhost back-end: messages, their order, and windows that wait for answers.

use crate::{
    common::{PAGE, RW, World, at, calls::READ},
    ring,
};
use emmu::{
    Errno,
    extmmu::{
        vhost_iotlb::{BackEnd, BadMessage, FrontEnd, IotlbMessage, MessageKind},
        vm_memory::GuestRegion,
    },
    mm::Advice,
    notifier::Registration,
    oracle::Oracle,
};
use std::{
    io::{ErrorKind, Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    sync::{
        Arc,
        atomic::{
            AtomicBool,
            Ordering::{Acquire, Release},
        },
    },
    thread,
};
use vm_memory::{Bytes, GuestAddress, GuestMemory, GuestMemoryBackend, Permissions};

const IOVA: u64 = 0x10_0000;
const PAGES: u64 = 8;

fn iova(n: u64) -> GuestAddress {
    GuestAddress(IOVA + n * PAGE)
}

struct Host {
    w: World,
    front: Arc<FrontEnd>,
    registration: Registration,
    oracle: Arc<Oracle>,
    /// The ends of a back-end: of misses, and of updates.
    misses: UnixStream,
    applied: UnixStream,
    /// The front-end's end of misses.
    asked: UnixStream,
}

fn host() -> Host {
    let mut w = World::new();
    w.map(0, PAGES, RW);
    let region = GuestRegion {
        guest: iova(0),
        len: PAGES * PAGE,
        process: at(0),
    };
    let (misses, asked) = UnixStream::pair().unwrap();
    let (updates, applied) = UnixStream::pair().unwrap();
    let (front, registration) =
        FrontEnd::attach(&mut w.thread.cx(), &w.mm, &[region], updates).unwrap();
    let oracle = Oracle::new(&w.machine);
    oracle.watch(&w.mm, Arc::clone(&front) as _);
    Host {
        w,
        front,
        registration,
        oracle,
        misses,
        applied,
        asked,
    }
}

/// The requests of vhost-user, by the side that sends them.
const BACK_END: u32 = 1;
const FRONT_END: u32 = 22;
const NEED_REPLY: u32 = 8;

/// The next header; none: the other end is closed.
fn header(stream: &mut UnixStream) -> Option<[u32; 3]> {
    let mut words = [[0; 4]; 3];
    words
        .iter_mut()
        .try_for_each(|w| stream.read_exact(w))
        .ok()?;
    Some(words.map(u32::from_ne_bytes))
}

fn put(stream: &mut UnixStream, header: [u32; 3], payload: &[u8]) {
    let words = header.iter().flat_map(|word| word.to_ne_bytes());
    let bytes: Vec<u8> = words.chain(payload.iter().copied()).collect();
    stream.write_all(&bytes).unwrap();
}

/// The next message of the front-end, and whether it wants an answer.
fn try_next(stream: &mut UnixStream) -> Option<(IotlbMessage, bool)> {
    let [request, flags, size] = header(stream)?;
    assert_eq!((request, flags & !NEED_REPLY, size), (FRONT_END, 1, 32));
    let mut bytes = [0; IotlbMessage::BYTES];
    stream.read_exact(&mut bytes).unwrap();
    let message = IotlbMessage::from_bytes(&bytes).unwrap();
    Some((message, flags & NEED_REPLY != 0))
}

fn next(stream: &mut UnixStream) -> (IotlbMessage, bool) {
    try_next(stream).expect("a message")
}

fn receive(stream: &mut UnixStream) -> IotlbMessage {
    let (message, answered) = next(stream);
    assert!(answered, "{message:?}");
    message
}

/// The messages of a batch.
fn receive_batch(stream: &mut UnixStream) -> Vec<IotlbMessage> {
    let first = next(stream);
    assert_eq!((first.0.kind, first.1), (MessageKind::BatchBegin, false));
    let mut batch = Vec::new();
    loop {
        let (message, answered) = next(stream);
        assert_eq!(answered, message.kind == MessageKind::BatchEnd);
        if answered {
            return batch;
        }
        batch.push(message);
    }
}

fn answer(stream: &mut UnixStream, errno: u64) {
    put(stream, [FRONT_END, 5, 8], &errno.to_ne_bytes());
}

fn send(stream: &mut UnixStream, sender: u32, message: IotlbMessage) {
    put(stream, [sender, 1 | NEED_REPLY, 32], &message.to_bytes());
}

fn answered(stream: &mut UnixStream, sender: u32) -> u64 {
    assert_eq!(header(stream), Some([sender, 5, 8]));
    let mut answer = [0; 8];
    stream.read_exact(&mut answer).unwrap();
    u64::from_ne_bytes(answer)
}

fn number(errno: Errno) -> u64 {
    errno.raw().unsigned_abs().into()
}

fn miss(iova: u64, size: u64, perm: Permissions) -> IotlbMessage {
    IotlbMessage {
        iova,
        size,
        uaddr: 0,
        perm,
        kind: MessageKind::Miss,
    }
}

#[test]
fn a_message_is_what_linux_has() {
    let update = IotlbMessage {
        iova: 0x1000,
        size: 0x2000,
        uaddr: 0x3000,
        perm: Permissions::ReadWrite,
        kind: MessageKind::Update,
    };
    let bytes = update.to_bytes();
    assert_eq!(bytes[..8], 0x1000_u64.to_ne_bytes());
    assert_eq!(bytes[8..16], 0x2000_u64.to_ne_bytes());
    assert_eq!(bytes[16..24], 0x3000_u64.to_ne_bytes());
    assert_eq!(bytes[24..26], [3, 2]);
    assert_eq!(IotlbMessage::from_bytes(&bytes), Ok(update));
    let refused = |at: usize, byte: u8| {
        let mut bytes = bytes;
        bytes[at] = byte;
        IotlbMessage::from_bytes(&bytes).unwrap_err()
    };
    assert_eq!(refused(25, 4), BadMessage::Kind(4));
    assert_eq!(refused(24, 4), BadMessage::Access(4));
    let mut empty = bytes;
    empty[8..16].fill(0);
    let (iova, size) = (0x1000, 0);
    let why = IotlbMessage::from_bytes(&empty).unwrap_err();
    assert_eq!(why, BadMessage::Range { iova, size });
    assert_eq!(why.errno(), Errno::EINVAL);
}

/// A back-end by hand: each message and each answer.
#[test]
fn a_miss_is_updated_and_a_window_waits_for_the_answer() {
    let mut h = host();
    h.w.protect(5, 1, READ).unwrap();
    let (front, asked) = (Arc::clone(&h.front), h.asked.try_clone().unwrap());
    let served = thread::spawn(move || front.serve(asked));
    let ask = |h: &mut Host, miss: IotlbMessage| send(&mut h.misses, BACK_END, miss);
    // Two pages, one message each, in a batch.
    ask(&mut h, miss(IOVA + 8, PAGE, Permissions::Write));
    let batch = receive_batch(&mut h.applied);
    assert_eq!(batch.len(), 2);
    for (page, update) in (0..).zip(&batch) {
        assert_eq!((update.iova, update.size), (iova(page).0, PAGE));
        assert_eq!(update.perm, Permissions::ReadWrite);
        assert_eq!(update.kind, MessageKind::Update);
    }
    answer(&mut h.applied, 0);
    assert_eq!(answered(&mut h.misses, BACK_END), 0);
    // Errors are the answers of misses.
    for (miss, errno) in [
        (miss(iova(PAGES).0, 1, Permissions::Read), Errno::EFAULT),
        (miss(iova(5).0, 1, Permissions::Write), Errno::EFAULT),
        (miss(0, 1, Permissions::Read), Errno::EFAULT),
    ] {
        ask(&mut h, miss);
        assert_eq!(answered(&mut h.misses, BACK_END), number(errno), "{miss:?}");
    }
    put(
        &mut h.misses,
        [BACK_END, 9, 32],
        &[0xff; IotlbMessage::BYTES],
    );
    let refused = answered(&mut h.misses, BACK_END);
    assert_eq!(refused, number(Errno::EINVAL));
    // The window opens when the back-end has answered, and not before.
    let opened = AtomicBool::new(false);
    thread::scope(|s| {
        let Host { w, applied, .. } = &mut h;
        s.spawn(|| {
            let gone = receive(applied);
            assert_eq!((gone.iova, gone.size), (iova(0).0, 2 * PAGE));
            assert_eq!(gone.kind, MessageKind::Invalidate);
            assert!(!opened.load(Acquire), "the call has not returned");
            answer(applied, 0);
        });
        w.advise(0, 2, Advice::DontNeed).unwrap();
        opened.store(true, Release);
    });
    // The back-end has nothing: no message, which nothing would answer.
    h.w.advise(0, PAGES, Advice::DontNeed).unwrap();
    drop(h.misses);
    served.join().unwrap().unwrap();
    h.registration.unregister(&mut h.w.thread.cx());
    h.oracle.assert_silent();
    h.w.end();
}

/// What a front-end may send that no other one has sent yet.
#[test]
fn a_batch_takes_effect_at_its_end_and_its_first_error_is_its_answer() {
    let h = host();
    let back = BackEnd::new(&h.front, h.misses).unwrap();
    let (mut updates, applied) = UnixStream::pair().unwrap();
    let page = |n: u64, kind| IotlbMessage {
        iova: iova(n).0,
        size: PAGE,
        // No page of anything: its update is an error.
        uaddr: 1,
        perm: Permissions::Read,
        kind,
    };
    let mark = |kind| IotlbMessage {
        size: 0,
        ..page(0, kind)
    };
    use MessageKind::{BatchBegin, BatchEnd, Invalidate, Miss, Update};
    thread::scope(|s| {
        let served = s.spawn(|| back.serve(applied));
        let mut batch = |kinds: &[MessageKind], errno| {
            for kind in kinds {
                let message = match kind {
                    BatchBegin | BatchEnd => mark(*kind),
                    _ => page(0, *kind),
                };
                let flags = if *kind == BatchEnd { 9 } else { 1 };
                put(&mut updates, [FRONT_END, flags, 32], &message.to_bytes());
            }
            assert_eq!(answered(&mut updates, FRONT_END), errno, "{kinds:?}");
        };
        let einval = number(Errno::EINVAL);
        batch(&[BatchBegin, BatchEnd], 0);
        batch(&[BatchBegin, Invalidate, Invalidate, BatchEnd], 0);
        batch(&[BatchEnd], einval);
        batch(&[BatchBegin, Miss, BatchEnd], einval);
        batch(&[BatchBegin, BatchBegin, Invalidate, BatchEnd], einval);
        batch(&[BatchBegin, Update, Invalidate, BatchEnd], einval);
        let long = [Invalidate; 1025];
        let long = [&[BatchBegin], &long[..], &[BatchEnd]].concat();
        batch(&long, number(Errno::ENOSPC));
        batch(&[BatchBegin, Invalidate, BatchEnd], 0);
        // Where the next message would begin is unknown.
        put(&mut updates, [FRONT_END, 9, 33], &[0; 33]);
        let ended = served.join().unwrap();
        assert_eq!(ended.unwrap_err().kind(), ErrorKind::InvalidData);
    });
    h.registration.unregister(&mut { h.w }.thread.cx());
}

/// Sends an update that no front-end has made. Returns the answer.
fn forge(to: &mut UnixStream, (iova, uaddr): (GuestAddress, u64), perm: Permissions) -> u64 {
    let update = IotlbMessage {
        iova: iova.0,
        size: PAGE,
        uaddr,
        perm,
        kind: MessageKind::Update,
    };
    send(to, FRONT_END, update);
    answered(to, FRONT_END)
}

/// The two are in one process, and something else has the sockets between them.
#[test]
fn a_back_end_reaches_what_its_front_end_shows_whatever_it_is_told() {
    let mut h = host();
    h.w.protect(1, 1, READ).unwrap();
    h.w.put(2, 7);
    let back = BackEnd::new(&h.front, h.misses).unwrap();
    let memory = back.memory();
    let (mut forged, applied) = UnixStream::pair().unwrap();
    thread::scope(|s| {
        let (front, back, asked, mut updates) = (&h.front, &back, h.asked, h.applied);
        s.spawn(move || front.serve(asked).unwrap());
        s.spawn(move || back.serve(applied).unwrap());
        let (read, write) = (Permissions::Read, Permissions::ReadWrite);
        let einval = number(Errno::EINVAL);
        // No frame was shown, and most of these are none.
        let frames = (0..64).chain([u64::from(u32::MAX), u64::MAX / PAGE / 2]);
        for uaddr in frames.map(|frame| frame * 2 * PAGE) {
            assert_eq!(forge(&mut forged, (iova(2), uaddr), read), einval);
        }
        // One is shown, for reading: its update goes no farther than to the middle.
        let (told, seen) = std::sync::mpsc::channel();
        s.spawn(move || {
            while let Some((message, _)) = try_next(&mut updates) {
                told.send(message).unwrap();
                answer(&mut updates, 0);
            }
        });
        assert!(memory.read_obj::<u8>(iova(1)).is_err());
        let shown = seen.try_iter().last().unwrap().uaddr;
        assert_eq!(forge(&mut forged, (iova(1), shown), write), einval);
        assert_eq!(forge(&mut forged, (iova(3), shown), read), einval);
        assert_eq!(forge(&mut forged, (iova(1), shown), read), 0);
        assert_eq!(memory.read_obj::<u8>(iova(1)).unwrap(), 0);
        // The window opens with that entry gone, though no message has told the back-end.
        h.w.advise(1, 1, Advice::DontNeed).unwrap();
        let last = seen.try_iter().last().unwrap();
        assert_eq!(last.kind, MessageKind::Invalidate);
        assert_eq!(forge(&mut forged, (iova(1), shown), read), einval);
        let frames = memory.get_backend();
        assert!(frames.get_slice(GuestAddress(shown), 1).is_err());
        h.registration.unregister(&mut h.w.thread.cx());
        drop(forged);
        back.close();
        h.front.close(&mut h.w.thread.cx());
    });
    h.w.end();
}

/// A back-end that is gone has no entries, and keeps no window waiting.
#[test]
fn a_back_end_may_go() {
    let mut h = host();
    thread::scope(|s| {
        s.spawn(|| h.front.serve(h.asked.try_clone().unwrap()));
        let miss = miss(IOVA, 1, Permissions::Read);
        send(&mut h.misses, BACK_END, miss);
        receive(&mut h.applied);
        answer(&mut h.applied, 0);
        assert_eq!(answered(&mut h.misses, BACK_END), 0);
        h.applied.shutdown(Shutdown::Both).unwrap();
        h.w.advise(0, PAGES, Advice::DontNeed).unwrap();
        send(&mut h.misses, BACK_END, miss);
        assert_eq!(answered(&mut h.misses, BACK_END), number(Errno::EIO));
        h.misses.shutdown(Shutdown::Both).unwrap();
    });
    h.w.end();
}

#[test]
fn regions_are_pages() {
    let mut w = World::new();
    // The second one ends at 2^64: no message has the range that a window over it needs.
    for guest in [1, u64::MAX - (PAGE - 1)] {
        let (updates, _) = UnixStream::pair().unwrap();
        let region = GuestRegion {
            guest: GuestAddress(guest),
            len: PAGE,
            process: at(0),
        };
        let attached = FrontEnd::attach(&mut w.thread.cx(), &w.mm, &[region], updates);
        assert_eq!(attached.map(drop), Err(Errno::EINVAL));
    }
    w.end();
}

/// The ring is behind sockets.
#[test]
fn a_device_sees_each_slot_whole_behind_its_index() {
    const ROUNDS: u16 = 300;
    let mut h = host();
    let back = BackEnd::new(&h.front, h.misses).unwrap();
    let memory = back.memory();
    thread::scope(|s| {
        let (front, back, asked, applied) = (&h.front, &back, h.asked, h.applied);
        s.spawn(move || front.serve(asked).unwrap());
        s.spawn(move || back.serve(applied).unwrap());
        let pages = (&*h.w.mm, at(0)..at(PAGES));
        ring::run(|| &memory, (GuestAddress(IOVA + 2), iova(4)), ROUNDS, pages);
        assert!(!memory.check_range(iova(PAGES), 1, Permissions::Read));
        assert!(!memory.check_range(iova(0), usize::MAX, Permissions::Read));
        let mut beside = memory.clone();
        beside.set_iommu_enabled(false);
        assert!(beside.read_obj::<u8>(GuestAddress(u64::MAX / 4)).is_err());
        h.registration.unregister(&mut h.w.thread.cx());
        assert!(
            !memory.check_range(iova(0), 1, Permissions::Read),
            "it left"
        );
        back.close();
        h.front.close(&mut h.w.thread.cx());
    });
    h.oracle.assert_silent();
    h.w.end();
}

/// A back-end in this process loses the page of a window even where no invalidation arrives.
#[test]
fn a_back_end_that_hears_of_no_invalidation_reads_no_other_page() {
    let mut h = host();
    let back = BackEnd::new(&h.front, h.misses).unwrap();
    let memory = back.memory();
    let (mut to_back, applied) = UnixStream::pair().unwrap();
    thread::scope(|s| {
        let (front, back, asked, mut updates) = (&h.front, &back, h.asked, h.applied);
        s.spawn(move || front.serve(asked).unwrap());
        s.spawn(move || back.serve(applied).unwrap());
        // Between the two: it passes on all but invalidations.
        s.spawn(move || {
            while let Some((message, _)) = try_next(&mut updates) {
                let mut errno = 0;
                if message.kind != MessageKind::Invalidate {
                    send(&mut to_back, FRONT_END, message);
                    errno = answered(&mut to_back, FRONT_END);
                }
                answer(&mut updates, errno);
            }
        });
        memory.write_obj(7_u8, iova(0)).unwrap();
        let moved = h.w.mm.migrate(&mut h.w.thread.cx(), at(0)).unwrap();
        assert!(moved.is_some());
        h.w.put(0, 9);
        assert_eq!(memory.read_obj::<u8>(iova(0)).unwrap(), 9);
        h.registration.unregister(&mut h.w.thread.cx());
        back.close();
        h.front.close(&mut h.w.thread.cx());
    });
    h.w.end();
}

//! Owners that keep to no protocol: a partition leaves them, and ends no worse than closed.
#![cfg(target_os = "linux")]

use crate::{
    exporter::{LONG, PAGE},
    raw::{Reply, ToOwner, ToRemote},
};
use emmu::{
    extmmu::xpmem::{
        PartitionId, SegId, XpmemError,
        remote::{RemoteAttachment, RemoteError, RemotePartition},
    },
    notifier::Access,
};
use rustix::{
    fs::{MemfdFlags, SealFlags},
    net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags},
};
use std::{
    io::{BufRead, BufReader, IoSlice, Write},
    mem::MaybeUninit,
    os::{fd::AsFd, unix::net::UnixStream},
    sync::mpsc::channel,
};

const FIRST: u64 = 7;
const PAGES: u64 = 4;

/// What an owner sends, one after the other, when it is asked.
type Answers = Vec<Result<Reply, XpmemError>>;

fn encoded(what: &ToRemote) -> Vec<u8> {
    postcard::to_stdvec_cobs(what).unwrap()
}

/// Sends a message, with the descriptor of a piece of memory beside it; returns false if the
/// partition has left.
fn send_beside_memory(stream: &UnixStream, what: &ToRemote) -> bool {
    let memory = rustix::fs::memfd_create(c"false", MemfdFlags::ALLOW_SEALING).unwrap();
    rustix::fs::ftruncate(&memory, 2 * PAGE).unwrap();
    rustix::fs::fcntl_add_seals(&memory, SealFlags::SHRINK | SealFlags::GROW).unwrap();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [memory.as_fd()];
    assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    let bytes = encoded(what);
    let sent = rustix::net::sendmsg(
        stream,
        &[IoSlice::new(&bytes)],
        &mut control,
        SendFlags::NOSIGNAL,
    );
    sent == Ok(bytes.len())
}

fn memory(id: u64) -> ToRemote {
    let writable = true;
    ToRemote::Memory { id, writable }
}

fn send_memory(stream: &UnixStream) {
    assert!(send_beside_memory(stream, &memory(1)));
}

/// Answers each question with the next of `answers`, all of which have the question's token; then
/// recalls everything.
fn owner(mut stream: &UnixStream, answers: Vec<Answers>) {
    let mut asked = BufReader::new(stream);
    for replies in answers {
        let mut question = Vec::new();
        asked.read_until(0, &mut question).unwrap();
        let Ok(ToOwner::Ask { token, .. }) = postcard::from_bytes_cobs(&mut question) else {
            panic!("no question");
        };
        for reply in replies {
            // The partition may have left already.
            let _left = stream.write_all(&encoded(&ToRemote::Reply { token, reply }));
        }
    }
    let recall = ToRemote::Recall {
        serial: 0,
        start: 0,
        end: u64::MAX,
    };
    let _left = stream.write_all(&encoded(&recall));
}

/// An owner's end, and a partition that it has made welcome.
fn welcomed() -> (UnixStream, RemotePartition) {
    let (mut mine, theirs) = UnixStream::pair().unwrap();
    let welcome = ToRemote::Welcome {
        version: 2,
        partition: PartitionId(1),
        questions: 4,
    };
    mine.write_all(&encoded(&welcome)).unwrap();
    (mine, RemotePartition::new(theirs).unwrap())
}

/// What comes of an attachment and an access to its last page, of an owner that answers like that.
/// The partition can be dropped afterwards.
fn with_owner(answers: Vec<Answers>, access: Access) -> Result<(), RemoteError> {
    let (mine, partition) = welcomed();
    send_memory(&mine);
    let (done, ends) = channel();
    std::thread::scope(|s| {
        s.spawn(|| owner(&mine, answers));
        // Not of the scope: a partition that hangs is no reason to wait for it.
        std::thread::spawn(move || {
            let at = (PAGES - 1) * PAGE;
            let use_it = |attached: RemoteAttachment| match access {
                Access::Write => attached.write(at, &[1]),
                _ => attached.read(at, &mut [0]),
            };
            let segment = SegId::from_number(1);
            let came_of_it = partition.attach(segment, 0, PAGES).and_then(use_it);
            drop(partition);
            done.send(came_of_it).unwrap();
        });
        // The partition is dropped while the owner's end is open.
        let came_of_it = ends.recv_timeout(LONG);
        came_of_it.expect("a partition that ends")
    })
}

fn attached(first: u64, pages: u64) -> Result<Reply, XpmemError> {
    let access = Access::Write;
    Ok(Reply::Attached {
        handle: 3,
        first,
        pages,
        access,
    })
}
fn page(page: u64, writable: bool) -> Result<Reply, XpmemError> {
    Ok(Reply::Page {
        page,
        memory: 1,
        at: PAGE,
        writable,
    })
}

#[test]
fn an_owner_that_keeps_to_the_protocol_is_believed() {
    let answers = vec![
        vec![attached(FIRST, PAGES)],
        vec![page(FIRST + PAGES - 1, true)],
    ];
    with_owner(answers, Access::Write).unwrap();
}

#[test]
fn an_attachment_is_what_was_asked_for() {
    let lies = [
        page(FIRST, true),
        Ok(Reply::Done),
        Ok(Reply::Segment(SegId::from_number(1))),
        attached(u64::MAX - 1, PAGES),
        attached(FIRST, PAGES + 1),
        attached(FIRST, u64::MAX),
    ];
    for lie in lies {
        let came_of_it = with_owner(vec![vec![lie]], Access::Write);
        let closed = matches!(came_of_it, Err(RemoteError::Closed));
        assert!(closed, "{lie:?}: {came_of_it:?}");
    }
}

#[test]
fn a_page_is_the_one_that_was_asked_for() {
    let last = FIRST + PAGES - 1;
    let lies = [
        page(FIRST, true),
        page(last, false),
        Ok(Reply::Done),
        attached(FIRST, PAGES),
    ];
    for lie in lies {
        let answers = vec![vec![attached(FIRST, PAGES)], vec![lie]];
        let came_of_it = with_owner(answers, Access::Write);
        let closed = matches!(came_of_it, Err(RemoteError::Closed));
        assert!(closed, "{lie:?}: {came_of_it:?}");
    }
}

#[test]
fn a_question_has_one_answer() {
    let twice = vec![attached(FIRST, PAGES), attached(FIRST, PAGES)];
    let came_of_it = with_owner(vec![twice], Access::Read);
    assert!(
        matches!(came_of_it, Err(RemoteError::Closed)),
        "{came_of_it:?}"
    );
}

/// Sends these messages, each with a descriptor, and returns how many the partition takes before it
/// leaves.
fn taken(messages: impl Iterator<Item = ToRemote>) -> usize {
    let (mine, partition) = welcomed();
    let mut answers = mine.try_clone().unwrap();
    let reader = std::thread::spawn(move || std::io::copy(&mut answers, &mut std::io::sink()));
    let sent = messages
        .take_while(|m| send_beside_memory(&mine, m))
        .count();
    // Ends when the partition has left, whose own end is open.
    mine.shutdown(std::net::Shutdown::Write).unwrap();
    reader.join().unwrap().ok();
    let attached = partition.attach(SegId::from_number(1), 0, PAGES);
    assert!(matches!(attached, Err(RemoteError::Closed)));
    sent
}

/// Descriptors that nothing announces would stay open in the partition.
#[test]
fn a_descriptor_comes_beside_the_message_that_announces_it() {
    let recalls = (0..3_000).map(|serial| ToRemote::Recall {
        serial,
        start: 0,
        end: 1,
    });
    let sent = taken(recalls);
    assert!(sent < 3_000, "the partition stays");
}

#[test]
fn a_partition_takes_no_more_pieces_of_memory_than_it_has_descriptors_for() {
    let sent = taken((0..3_000).map(memory));
    assert!((512..3_000).contains(&sent), "{sent}");
}

/// An owner that reads nothing any more, but guesses what it is asked, and answers. What it sends
/// is not waited for by the thread that hears: nobody will use it.
#[test]
fn an_owner_that_hears_no_question_and_answers_it_is_left() {
    let (mut mine, partition) = welcomed();
    send_memory(&mine);
    let (done, ends) = channel();
    std::thread::spawn(move || {
        let attach = || partition.attach(SegId::from_number(1), 0, PAGES);
        let attached = attach().unwrap();
        done.send(None).unwrap();
        // The owner's end is closed for reading now.
        let mut came_of_it = vec![attached.read(0, &mut [0]).unwrap_err()];
        // More questions than may be open, all of which fail.
        came_of_it.extend((0..9).map(|_| attach().unwrap_err()));
        done.send(Some(came_of_it)).unwrap();
        drop(partition);
        done.send(None).unwrap();
    });
    let mut question = Vec::new();
    let mut asked = BufReader::new(&mine);
    asked.read_until(0, &mut question).unwrap();
    mine.shutdown(std::net::Shutdown::Read).unwrap();
    let reply = |token, reply| encoded(&ToRemote::Reply { token, reply });
    mine.write_all(&reply(0, attached(FIRST, PAGES))).unwrap();
    ends.recv_timeout(LONG).unwrap();
    let came_of_it = ends.recv_timeout(LONG).expect("no question waits for ever");
    let closed = |why: &RemoteError| matches!(why, RemoteError::Closed);
    assert!(came_of_it.unwrap().iter().all(closed));
    // Token 1 was that of the page.
    let _left = mine.write_all(&reply(1, page(FIRST, true)));
    let recall = ToRemote::Recall {
        serial: 0,
        start: 0,
        end: u64::MAX,
    };
    let _left = mine.write_all(&encoded(&recall));
    let dropped = ends.recv_timeout(LONG);
    dropped.expect("the partition can be dropped");
}

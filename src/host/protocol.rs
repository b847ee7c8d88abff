//! Requests to a recorded process, and its answers: words in a pipe.

/// A request to a process.
pub(super) type Request = [u64; 8];
/// The answer to a request: kind and value.
pub(super) type Answer = [u64; 2];

/// Kinds of requests, the first word: the system call of number and arguments; load from an
/// address; store a byte there; fork as a process; exit; pin bytes from an address on as a buffer
/// of io_uring, and end that; splice such bytes into a new pipe, and close the last pipe; jump to
/// an address; move pages by a userfaultfd, and tell how many bytes of them were moved.
pub(super) const CALL: u64 = 0;
pub(super) const LOAD: u64 = 1;
pub(super) const STORE: u64 = 2;
pub(super) const FORK: u64 = 3;
pub(super) const EXIT: u64 = 4;
pub(super) const PIN: u64 = 5;
pub(super) const UNPIN: u64 = 6;
pub(super) const SPLICE: u64 = 7;
pub(super) const DRAIN: u64 = 8;
pub(super) const EXEC: u64 = 9;
pub(super) const MOVE_PAGES: u64 = 10;
pub(super) const MOVED: u64 = 11;

/// More of them: begin a thread that serves as a number; keep words for the next call; advise
/// memory of a process, at ranges that were put down; ask which pages are in memory; read a byte
/// of a file; copy from or to another process; give up a right; begin a heap.
pub(super) const THREAD: u64 = 12;
pub(super) const PUT: u64 = 13;
pub(super) const ADVISE: u64 = 14;
pub(super) const MINCORE: u64 = 15;
pub(super) const READ_BYTE: u64 = 16;
pub(super) const COPY: u64 = 17;
pub(super) const DROP_IPC_LOCK: u64 = 18;
pub(super) const BEGIN_HEAP: u64 = 19;

/// Returns a request of this kind with these words.
pub(super) fn request_of(kind: u64, words: &[u64]) -> Request {
    let mut request = Request::default();
    request[0] = kind;
    let rest = request[1..].iter_mut().zip(words);
    rest.for_each(|(place, word)| *place = *word);
    request
}

/// Kinds of answers.
pub(super) const RETURNED: u64 = 0;
pub(super) const FAILED: u64 = 1;
pub(super) const SIGNALLED: u64 = 2;

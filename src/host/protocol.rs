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

/// Kinds of answers.
pub(super) const RETURNED: u64 = 0;
pub(super) const FAILED: u64 = 1;
pub(super) const SIGNALLED: u64 = 2;

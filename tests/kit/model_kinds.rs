//! What the model of pages (`emmu::testkit::Reference`) knows of each kind of operation: short
//! scripts, held against the library and against it.

use emmu::{
    replay::{Parts, Report, read, replay_parts},
    testkit::Suite,
};

/// Operations that the model of pages once took for something else, each with what it did not know.
const KINDS: &[(&str, &[&str])] = &[
    (
        "a mapping is shared or private, or is refused",
        &[
            r#"{"as":0,"op":"mmap","addr":"0x100001e5000","len":8192,"prot":"rw-","flags":["fixed"],"file":null,"off":0,"err":"EINVAL"}"#,
            r#"{"as":0,"op":"load","addr":"0x100001e5000","signal":"SIGSEGV"}"#,
        ],
    ),
    (
        "the last page of a disk file that is cut inside of it is read in",
        &[r#"{"as":0,"op":"ftruncate","file":"f1","len":33009,"ret":0}"#],
    ),
    (
        "populating a private page of a file for writing copies it",
        &[
            r#"{"as":0,"op":"mmap","addr":"0x100001e5000","len":8192,"prot":"rw-","flags":["private","fixed"],"file":"f0","off":0,"ret":"0x100001e5000"}"#,
            r#"{"as":0,"op":"madvise","addr":"0x100001e5000","len":8192,"advice":"populate_write","ret":0}"#,
            r#"{"as":0,"op":"pwrite","file":"f0","off":0,"byte":9,"ret":1}"#,
            r#"{"as":0,"op":"load","addr":"0x100001e5000","ret":1}"#,
        ],
    ),
    (
        "mlock that ends at a hole has locked what lies before, which advice does not discard",
        &[
            r#"{"as":0,"op":"mmap","addr":"0x100001e5000","len":4096,"prot":"rw-","flags":["private","fixed"],"file":null,"off":0,"ret":"0x100001e5000"}"#,
            r#"{"as":0,"op":"mlock","addr":"0x100001e5000","len":8192,"err":"ENOMEM"}"#,
            r#"{"as":0,"op":"madvise","addr":"0x100001e5000","len":4096,"advice":"dontneed","err":"EINVAL"}"#,
        ],
    ),
    (
        "MADV_REMOVE that ends at a VMA has punched the one before",
        &[
            r#"{"as":0,"op":"mmap","addr":"0x100001e5000","len":4096,"prot":"rw-","flags":["shared","fixed"],"file":"f0","off":0,"ret":"0x100001e5000"}"#,
            r#"{"as":0,"op":"mmap","addr":"0x100001e6000","len":4096,"prot":"rw-","flags":["private","fixed"],"file":null,"off":0,"ret":"0x100001e6000"}"#,
            r#"{"as":0,"op":"madvise","addr":"0x100001e5000","len":8192,"advice":"remove","err":"EINVAL"}"#,
            r#"{"as":0,"op":"load","addr":"0x100001e5000","ret":0}"#,
        ],
    ),
    (
        "MADV_REMOVE goes past what is not mapped, and is ENOMEM in the end",
        &[
            r#"{"as":0,"op":"mmap","addr":"0x100001e5000","len":4096,"prot":"rw-","flags":["shared","fixed"],"file":"f0","off":0,"ret":"0x100001e5000"}"#,
            r#"{"as":0,"op":"madvise","addr":"0x100001e4000","len":8192,"advice":"remove","err":"ENOMEM"}"#,
            r#"{"as":0,"op":"load","addr":"0x100001e5000","ret":0}"#,
        ],
    ),
    (
        "discarding what is mapped about a hole is done, and ENOMEM",
        &[
            r#"{"as":0,"op":"mmap","addr":"0x100001e5000","len":4096,"prot":"rw-","flags":["private","fixed"],"file":null,"off":0,"ret":"0x100001e5000"}"#,
            r#"{"as":0,"op":"store","addr":"0x100001e5000","byte":7,"ret":0}"#,
            r#"{"as":0,"op":"madvise","addr":"0x100001e5000","len":8192,"advice":"dontneed_locked","err":"ENOMEM"}"#,
            r#"{"as":0,"op":"load","addr":"0x100001e5000","ret":0}"#,
        ],
    ),
    (
        "memory that may be dropped is wiped by a fork, keeps so, and is no file's, stack's or locked",
        &[
            r#"{"as":0,"op":"mmap","addr":"0x100001e5000","len":4096,"prot":"rw-","flags":["droppable","fixed"],"file":null,"off":0,"ret":"0x100001e5000"}"#,
            r#"{"as":0,"op":"store","addr":"0x100001e5000","byte":7,"ret":0}"#,
            r#"{"as":0,"op":"madvise","addr":"0x100001e5000","len":4096,"advice":"keeponfork","err":"EINVAL"}"#,
            r#"{"as":0,"op":"mmap","addr":"0x100001e6000","len":4096,"prot":"rw-","flags":["droppable","fixed"],"file":"f0","off":0,"err":"EINVAL"}"#,
            r#"{"as":0,"op":"mmap","addr":"0x100001e6000","len":4096,"prot":"rw-","flags":["droppable","fixed","growsdown"],"file":null,"off":0,"err":"EINVAL"}"#,
            r#"{"as":0,"op":"mmap","addr":"0x100001e6000","len":4096,"prot":"rw-","flags":["droppable","fixed","locked"],"file":null,"off":0,"err":"EINVAL"}"#,
            r#"{"as":0,"op":"mmap","addr":"0x100001e6000","len":4096,"prot":"rw-","flags":["droppable","private","fixed"],"file":null,"off":0,"err":"EINVAL"}"#,
            r#"{"as":0,"op":"fork","child":1,"ret":1}"#,
            r#"{"as":1,"op":"load","addr":"0x100001e5000","ret":0}"#,
            r#"{"as":0,"op":"load","addr":"0x100001e5000","ret":7}"#,
        ],
    ),
    (
        "memory that may be dropped is, written or not, when memory is looked for",
        &[
            r#"{"as":0,"op":"mmap","addr":"0x100001e5000","len":4096,"prot":"rw-","flags":["droppable","fixed"],"file":null,"off":0,"ret":"0x100001e5000"}"#,
            r#"{"as":0,"op":"store","addr":"0x100001e5000","byte":7,"ret":0}"#,
            r#"{"as":0,"op":"reclaim","ret":0}"#,
            r#"{"as":0,"op":"load","addr":"0x100001e5000","ret":0}"#,
            r#"{"as":0,"op":"store","addr":"0x100001e5001","byte":8,"ret":0}"#,
            r#"{"as":0,"op":"load","addr":"0x100001e5001","ret":8}"#,
        ],
    ),
    (
        "there are no huge pages of a pool, and what was mapped in their place is gone",
        &[
            r#"{"as":0,"op":"mmap","addr":"0x10000200000","len":4096,"prot":"rw-","flags":["private","fixed"],"file":null,"off":0,"ret":"0x10000200000"}"#,
            r#"{"as":0,"op":"mmap","addr":"0x100001ff000","len":4096,"prot":"rw-","flags":["private","fixed"],"file":null,"off":0,"ret":"0x100001ff000"}"#,
            r#"{"as":0,"op":"mmap","addr":"0x10000200000","len":4096,"prot":"rw-","flags":["private","fixed","fixed_noreplace","hugetlb"],"file":null,"off":0,"err":"EEXIST"}"#,
            r#"{"as":0,"op":"load","addr":"0x10000200000","ret":0}"#,
            r#"{"as":0,"op":"mmap","addr":"0x100001ff000","len":4096,"prot":"rw-","flags":["private","fixed","hugetlb"],"file":null,"off":0,"err":"EINVAL"}"#,
            r#"{"as":0,"op":"load","addr":"0x100001ff000","ret":0}"#,
            r#"{"as":0,"op":"mmap","addr":"0x10000200000","len":4096,"prot":"rw-","flags":["private","fixed","hugetlb","growsdown"],"file":null,"off":0,"err":"EINVAL"}"#,
            r#"{"as":0,"op":"load","addr":"0x10000200000","ret":0}"#,
            r#"{"as":0,"op":"mmap","addr":"0x10000200000","len":4096,"prot":"rw-","flags":["private","fixed","hugetlb"],"file":"f0","off":0,"err":"EINVAL"}"#,
            r#"{"as":0,"op":"load","addr":"0x10000200000","ret":0}"#,
            r#"{"as":0,"op":"mmap","addr":"0x10000200000","len":4096,"prot":"rw-","flags":["private","fixed","hugetlb"],"file":null,"off":0,"err":"ENOMEM"}"#,
            r#"{"as":0,"op":"load","addr":"0x10000200000","signal":"SIGSEGV"}"#,
            r#"{"as":0,"op":"load","addr":"0x100001ff000","ret":0}"#,
            r#"{"as":0,"op":"mmap","addr":"0x10000200000","len":4096,"prot":"rw-","flags":["private","fixed"],"file":null,"off":0,"ret":"0x10000200000"}"#,
            r#"{"as":0,"op":"mmap","addr":"0x10000200000","len":4096,"prot":"rw-","flags":["private","fixed","hugetlb"],"file":null,"off":4096,"err":"EINVAL"}"#,
            r#"{"as":0,"op":"load","addr":"0x10000200000","signal":"SIGSEGV"}"#,
        ],
    ),
    (
        "MAP_32BIT is nothing where a place is named, and the second GiB else",
        &[
            r#"{"as":0,"op":"mmap","addr":"0x100001e5000","len":4096,"prot":"rw-","flags":["private","fixed","32bit"],"file":null,"off":0,"ret":"0x100001e5000"}"#,
            r#"{"as":0,"op":"store","addr":"0x100001e5000","byte":7,"ret":0}"#,
            r#"{"as":0,"op":"load","addr":"0x100001e5000","ret":7}"#,
            r#"{"as":0,"op":"mmap","addr":"0x0","len":4096,"prot":"rw-","flags":["private","32bit"],"file":null,"off":0,"ret":"0x40000000"}"#,
        ],
    ),
    (
        "every flag is looked at of a file alone, and a place not to be replaced is none of them",
        &[
            r#"{"as":0,"op":"mmap","addr":"0x100001e5000","len":4096,"prot":"rw-","flags":["shared_validate","fixed"],"file":null,"off":0,"err":"EINVAL"}"#,
            r#"{"as":0,"op":"mmap","addr":"0x100001e5000","len":4096,"prot":"rw-","flags":["shared_validate","fixed"],"file":"f0","off":0,"ret":"0x100001e5000"}"#,
            r#"{"as":0,"op":"mmap","addr":"0x100001e6000","len":4096,"prot":"rw-","flags":["shared_validate","fixed_noreplace"],"file":"f0","off":0,"err":"EOPNOTSUPP"}"#,
            r#"{"as":0,"op":"store","addr":"0x100001e5000","byte":9,"ret":0}"#,
            r#"{"as":0,"op":"load","addr":"0x100001e5000","ret":9}"#,
        ],
    ),
    (
        "nothing is locked that a lock of no page, an unknown flag or a hole is about",
        &[
            r#"{"as":0,"op":"mmap","addr":"0x100001e5000","len":4096,"prot":"rw-","flags":["private","fixed"],"file":null,"off":0,"ret":"0x100001e5000"}"#,
            r#"{"as":0,"op":"mlock2","addr":"0x100001e5000","len":4096,"flags":2,"err":"EINVAL"}"#,
            r#"{"as":0,"op":"mlock2","addr":"0x100001e5000","len":0,"flags":1,"ret":0}"#,
            r#"{"as":0,"op":"mlock2","addr":"0x100001e4000","len":8192,"flags":0,"err":"ENOMEM"}"#,
            r#"{"as":0,"op":"mlockall","flags":0,"err":"EINVAL"}"#,
            r#"{"as":0,"op":"mlockall","flags":4,"err":"EINVAL"}"#,
            r#"{"as":0,"op":"mlockall","flags":8,"err":"EINVAL"}"#,
            r#"{"as":0,"op":"munlock","addr":"0x100001e5000","len":8192,"err":"ENOMEM"}"#,
            r#"{"as":0,"op":"munlock","addr":"0x100001e5000","len":1,"ret":0}"#,
            r#"{"as":0,"op":"munlockall","ret":0}"#,
            r#"{"as":0,"op":"store","addr":"0x100001e5000","byte":7,"ret":0}"#,
            r#"{"as":0,"op":"madvise","addr":"0x100001e5000","len":4096,"advice":"dontneed","ret":0}"#,
            r#"{"as":0,"op":"load","addr":"0x100001e5000","ret":0}"#,
        ],
    ),
    (
        "what is sealed keeps its place and rights, and its data where no store could change them",
        &[
            r#"{"as":0,"op":"mmap","addr":"0x100001e5000","len":8192,"prot":"rw-","flags":["private","fixed"],"file":null,"off":0,"ret":"0x100001e5000"}"#,
            r#"{"as":0,"op":"store","addr":"0x100001e5000","byte":7,"ret":0}"#,
            r#"{"as":0,"op":"mseal","addr":"0x100001e5000","len":12288,"err":"ENOMEM"}"#,
            r#"{"as":0,"op":"mseal","addr":"0x100001e5800","len":4096,"err":"EINVAL"}"#,
            r#"{"as":0,"op":"mseal","addr":"0x100001e6000","len":0,"ret":0}"#,
            r#"{"as":0,"op":"mprotect","addr":"0x100001e5000","len":4096,"prot":"r--","ret":0}"#,
            r#"{"as":0,"op":"mseal","addr":"0x100001e5000","len":4096,"ret":0}"#,
            r#"{"as":0,"op":"munmap","addr":"0x100001e5000","len":8192,"err":"EPERM"}"#,
            r#"{"as":0,"op":"mprotect","addr":"0x100001e5000","len":8192,"prot":"rw-","err":"EPERM"}"#,
            r#"{"as":0,"op":"mmap","addr":"0x100001e5000","len":4096,"prot":"rw-","flags":["private","fixed"],"file":null,"off":0,"err":"EPERM"}"#,
            r#"{"as":0,"op":"mremap","addr":"0x100001e5000","old_len":4096,"new_len":4096,"flags":["maymove","fixed"],"new_addr":"0x100001f0000","err":"EPERM"}"#,
            r#"{"as":0,"op":"mremap","addr":"0x100001e5000","old_len":4096,"new_len":4096,"flags":[],"new_addr":"0x0","err":"EPERM"}"#,
            r#"{"as":0,"op":"mremap","addr":"0x100001e6000","old_len":4096,"new_len":4096,"flags":["maymove","fixed"],"new_addr":"0x100001e5000","err":"EPERM"}"#,
        ],
    ),
    (
        "sealed memory keeps from advice only what no store could change, and a child's is sealed too",
        &[
            r#"{"as":0,"op":"mmap","addr":"0x100001e5000","len":8192,"prot":"rw-","flags":["private","fixed"],"file":null,"off":0,"ret":"0x100001e5000"}"#,
            r#"{"as":0,"op":"store","addr":"0x100001e5000","byte":7,"ret":0}"#,
            r#"{"as":0,"op":"store","addr":"0x100001e6000","byte":7,"ret":0}"#,
            r#"{"as":0,"op":"mprotect","addr":"0x100001e5000","len":4096,"prot":"r--","ret":0}"#,
            r#"{"as":0,"op":"mseal","addr":"0x100001e5000","len":8192,"ret":0}"#,
            r#"{"as":0,"op":"madvise","addr":"0x100001e5000","len":8192,"advice":"dontneed","err":"EPERM"}"#,
            r#"{"as":0,"op":"madvise","addr":"0x100001e5000","len":4096,"advice":"guard_install","err":"EPERM"}"#,
            r#"{"as":0,"op":"load","addr":"0x100001e5000","ret":7}"#,
            r#"{"as":0,"op":"madvise","addr":"0x100001e6000","len":4096,"advice":"dontneed","ret":0}"#,
            r#"{"as":0,"op":"load","addr":"0x100001e6000","ret":0}"#,
            r#"{"as":0,"op":"fork","child":1,"ret":1}"#,
            r#"{"as":1,"op":"munmap","addr":"0x100001e6000","len":4096,"err":"EPERM"}"#,
            r#"{"as":1,"op":"load","addr":"0x100001e5000","ret":7}"#,
        ],
    ),
    (
        "a seal before which some has moved is EPERM",
        &[
            r#"{"as":0,"op":"mmap","addr":"0x100001e5000","len":8192,"prot":"rw-","flags":["private","fixed"],"file":null,"off":0,"ret":"0x100001e5000"}"#,
            r#"{"as":0,"op":"mseal","addr":"0x100001e6000","len":4096,"ret":0}"#,
            r#"{"as":0,"op":"mprotect","addr":"0x100001e5000","len":8192,"prot":"r--","err":"EPERM"}"#,
            r#"{"as":0,"op":"store","addr":"0x100001e5000","byte":1,"signal":"SIGSEGV"}"#,
            r#"{"as":0,"op":"store","addr":"0x100001e6000","byte":1,"ret":0}"#,
            r#"{"as":0,"op":"mremap","addr":"0x100001e5000","old_len":8192,"new_len":4096,"flags":[],"new_addr":"0x0","err":"EPERM"}"#,
            r#"{"as":0,"op":"load","addr":"0x100001e5000","ret":0}"#,
            r#"{"as":0,"op":"load","addr":"0x100001e6000","ret":1}"#,
        ],
    ),
    (
        "which pages share a frame is nothing to their bytes",
        &[
            r#"{"as":0,"op":"mmap","addr":"0x100001e5000","len":8192,"prot":"rw-","flags":["private","fixed"],"file":null,"off":0,"ret":"0x100001e5000"}"#,
            r#"{"as":0,"op":"store","addr":"0x100001e5000","byte":7,"ret":0}"#,
            r#"{"as":0,"op":"store","addr":"0x100001e6000","byte":7,"ret":0}"#,
            r#"{"as":0,"op":"madvise","addr":"0x100001e5000","len":8192,"advice":"mergeable","ret":0}"#,
            r#"{"as":0,"op":"ksm","mode":1,"ret":0}"#,
            r#"{"as":0,"op":"load","addr":"0x100001e5000","ret":7}"#,
            r#"{"as":0,"op":"store","addr":"0x100001e6000","byte":8,"ret":0}"#,
            r#"{"as":0,"op":"load","addr":"0x100001e5000","ret":7}"#,
            r#"{"as":0,"op":"load","addr":"0x100001e6000","ret":8}"#,
            r#"{"as":0,"op":"madvise","addr":"0x100001e5000","len":12288,"advice":"unmergeable","err":"ENOMEM"}"#,
            r#"{"as":0,"op":"ksm","mode":2,"ret":0}"#,
            r#"{"as":0,"op":"load","addr":"0x100001e5000","ret":7}"#,
        ],
    ),
    (
        "a file is read into memory up to its end, or to what may not be written",
        &[
            r#"{"as":0,"op":"mmap","addr":"0x100001e5000","len":4096,"prot":"rw-","flags":["private","fixed"],"file":null,"off":0,"ret":"0x100001e5000"}"#,
            r#"{"as":0,"op":"mmap","addr":"0x100001e6000","len":4096,"prot":"r--","flags":["private","fixed"],"file":null,"off":0,"ret":"0x100001e6000"}"#,
            r#"{"as":0,"op":"pwrite","file":"f0","off":65535,"byte":9,"ret":1}"#,
            r#"{"as":0,"op":"read_into","file":"f0","off":65535,"addr":"0x100001e5003","len":8192,"ret":1}"#,
            r#"{"as":0,"op":"load","addr":"0x100001e5003","ret":9}"#,
            r#"{"as":0,"op":"read_into","file":"f0","off":0,"addr":"0x100001e5000","len":8192,"ret":4096}"#,
            r#"{"as":0,"op":"load","addr":"0x100001e5000","ret":1}"#,
            r#"{"as":0,"op":"load","addr":"0x100001e5003","ret":0}"#,
            r#"{"as":0,"op":"read_into","file":"f0","off":0,"addr":"0x100001e6000","len":4096,"err":"EFAULT"}"#,
            r#"{"as":0,"op":"read_into","file":"f0","off":65536,"addr":"0x100001e6000","len":4096,"ret":0}"#,
            r#"{"as":0,"op":"read_into","file":"f0","off":65536,"addr":"0x100001e6000","len":18446744073709547520,"err":"EFAULT"}"#,
            r#"{"as":0,"op":"read_into","file":"f0","off":0,"addr":"0x100001e5000","len":0,"ret":0}"#,
        ],
    ),
    (
        "a copy between processes stops at what either may not touch, and a reader needs the right to read",
        &[
            r#"{"as":0,"op":"mmap","addr":"0x100001e5000","len":4096,"prot":"rw-","flags":["private","fixed"],"file":null,"off":0,"ret":"0x100001e5000"}"#,
            r#"{"as":0,"op":"store","addr":"0x100001e5000","byte":7,"ret":0}"#,
            r#"{"as":0,"op":"mmap","addr":"0x100001e6000","len":4096,"prot":"-w-","flags":["private","fixed"],"file":null,"off":0,"ret":"0x100001e6000"}"#,
            r#"{"as":0,"op":"fork","child":1,"ret":1}"#,
            r#"{"as":1,"op":"store","addr":"0x100001e5000","byte":8,"ret":0}"#,
            r#"{"as":1,"op":"pvm_read","addr":"0x100001e5000","len":8192,"target":0,"remote":"0x100001e5000","ret":4096}"#,
            r#"{"as":1,"op":"load","addr":"0x100001e5000","ret":7}"#,
            r#"{"as":1,"op":"pvm_read","addr":"0x100001e5000","len":4096,"target":0,"remote":"0x100001e6000","err":"EFAULT"}"#,
            r#"{"as":1,"op":"store","addr":"0x100001e6000","byte":5,"ret":0}"#,
            r#"{"as":1,"op":"pvm_write","addr":"0x100001e6000","len":4096,"target":0,"remote":"0x100001e5000","ret":4096}"#,
            r#"{"as":0,"op":"load","addr":"0x100001e5000","ret":5}"#,
            r#"{"as":1,"op":"pvm_write","addr":"0x100001e7000","len":4096,"target":0,"remote":"0x100001e5000","err":"EFAULT"}"#,
            r#"{"as":1,"op":"pvm_read","addr":"0x100001e5000","len":0,"target":0,"remote":"0x100001e7000","ret":0}"#,
            r#"{"as":1,"op":"pvm_read","addr":"0x100001e5000","len":9223372036854775808,"target":0,"remote":"0x100001e5000","err":"EINVAL"}"#,
            r#"{"as":1,"op":"pvm_read","addr":"0x100001e5000","len":9223372036854775807,"target":0,"remote":"0x100001e5000","ret":4096}"#,
        ],
    ),
    (
        "the other side's pages are copies of their file's from when a write came for them, made or not",
        &[
            r#"{"as":0,"op":"mmap","addr":"0x100001e5000","len":4096,"prot":"rw-","flags":["private","fixed"],"file":"f0","off":0,"ret":"0x100001e5000"}"#,
            r#"{"as":0,"op":"fork","child":1,"ret":1}"#,
            r#"{"as":1,"op":"pvm_write","addr":"0x100001e9000","len":4096,"target":0,"remote":"0x100001e5000","err":"EFAULT"}"#,
            r#"{"as":0,"op":"pwrite","file":"f0","off":0,"byte":9,"ret":1}"#,
            r#"{"as":0,"op":"load","addr":"0x100001e5000","ret":1}"#,
            r#"{"as":1,"op":"load","addr":"0x100001e5000","ret":9}"#,
        ],
    ),
    (
        "locked memory keeps from advice that would have it go, and its child's is not locked",
        &[
            r#"{"as":0,"op":"mmap","addr":"0x100001e5000","len":4096,"prot":"rw-","flags":["private","fixed"],"file":null,"off":0,"ret":"0x100001e5000"}"#,
            r#"{"as":0,"op":"store","addr":"0x100001e5000","byte":7,"ret":0}"#,
            r#"{"as":0,"op":"mlock","addr":"0x100001e5000","len":4096,"ret":0}"#,
            r#"{"as":0,"op":"madvise","addr":"0x100001e5000","len":4096,"advice":"dontneed","err":"EINVAL"}"#,
            r#"{"as":0,"op":"madvise","addr":"0x100001e5000","len":4096,"advice":"free","err":"EINVAL"}"#,
            r#"{"as":0,"op":"madvise","addr":"0x100001e5000","len":4096,"advice":"cold","err":"EINVAL"}"#,
            r#"{"as":0,"op":"madvise","addr":"0x100001e5000","len":4096,"advice":"pageout","err":"EINVAL"}"#,
            r#"{"as":0,"op":"madvise","addr":"0x100001e5000","len":4096,"advice":"guard_install","err":"EINVAL"}"#,
            r#"{"as":0,"op":"madvise","addr":"0x100001e5000","len":4096,"advice":"willneed","ret":0}"#,
            r#"{"as":0,"op":"fork","child":1,"ret":1}"#,
            r#"{"as":1,"op":"madvise","addr":"0x100001e5000","len":4096,"advice":"dontneed","ret":0}"#,
            r#"{"as":1,"op":"load","addr":"0x100001e5000","ret":0}"#,
            r#"{"as":0,"op":"load","addr":"0x100001e5000","ret":7}"#,
            r#"{"as":0,"op":"madvise","addr":"0x100001e5000","len":4096,"advice":"dontneed_locked","ret":0}"#,
            r#"{"as":0,"op":"load","addr":"0x100001e5000","ret":0}"#,
        ],
    ),
    (
        "all that is mapped, or will be, is locked until nothing is",
        &[
            r#"{"as":0,"op":"mmap","addr":"0x100001e5000","len":4096,"prot":"rw-","flags":["private","fixed","locked"],"file":null,"off":0,"ret":"0x100001e5000"}"#,
            r#"{"as":0,"op":"madvise","addr":"0x100001e5000","len":4096,"advice":"free","err":"EINVAL"}"#,
            r#"{"as":0,"op":"mlockall","flags":6,"ret":0}"#,
            r#"{"as":0,"op":"mmap","addr":"0x100001e6000","len":4096,"prot":"rw-","flags":["private","fixed"],"file":null,"off":0,"ret":"0x100001e6000"}"#,
            r#"{"as":0,"op":"madvise","addr":"0x100001e6000","len":4096,"advice":"free","err":"EINVAL"}"#,
            r#"{"as":0,"op":"munlockall","ret":0}"#,
            r#"{"as":0,"op":"madvise","addr":"0x100001e5000","len":8192,"advice":"free","ret":0}"#,
            r#"{"as":0,"op":"mmap","addr":"0x100001e6000","len":4096,"prot":"rw-","flags":["private","fixed"],"file":null,"off":0,"ret":"0x100001e6000"}"#,
            r#"{"as":0,"op":"madvise","addr":"0x100001e6000","len":4096,"advice":"free","ret":0}"#,
            r#"{"as":0,"op":"mlockall","flags":1,"ret":0}"#,
            r#"{"as":0,"op":"madvise","addr":"0x100001e6000","len":4096,"advice":"free","err":"EINVAL"}"#,
            r#"{"as":0,"op":"mmap","addr":"0x100001e6000","len":4096,"prot":"rw-","flags":["private","fixed"],"file":null,"off":0,"ret":"0x100001e6000"}"#,
            r#"{"as":0,"op":"madvise","addr":"0x100001e6000","len":4096,"advice":"free","ret":0}"#,
        ],
    ),
    (
        "a lock of what cannot be brought in is there, and ENOMEM; one that brings nothing in is not",
        &[
            r#"{"as":0,"op":"mmap","addr":"0x100001e5000","len":4096,"prot":"---","flags":["private","fixed"],"file":null,"off":0,"ret":"0x100001e5000"}"#,
            r#"{"as":0,"op":"mlock","addr":"0x100001e5000","len":4096,"err":"ENOMEM"}"#,
            r#"{"as":0,"op":"madvise","addr":"0x100001e5000","len":4096,"advice":"dontneed","err":"EINVAL"}"#,
            r#"{"as":0,"op":"munlock","addr":"0x100001e5000","len":4096,"ret":0}"#,
            r#"{"as":0,"op":"madvise","addr":"0x100001e5000","len":4096,"advice":"dontneed","ret":0}"#,
            r#"{"as":0,"op":"mlock2","addr":"0x100001e5000","len":4096,"flags":1,"ret":0}"#,
            r#"{"as":0,"op":"madvise","addr":"0x100001e5000","len":4096,"advice":"dontneed","err":"EINVAL"}"#,
        ],
    ),
    (
        "memory that may be dropped is not locked, and what mremap leaves behind is not any more",
        &[
            r#"{"as":0,"op":"mmap","addr":"0x100001e5000","len":4096,"prot":"rw-","flags":["droppable","fixed"],"file":null,"off":0,"ret":"0x100001e5000"}"#,
            r#"{"as":0,"op":"mlock","addr":"0x100001e5000","len":4096,"ret":0}"#,
            r#"{"as":0,"op":"madvise","addr":"0x100001e5000","len":4096,"advice":"free","ret":0}"#,
            r#"{"as":0,"op":"mmap","addr":"0x100001e6000","len":4096,"prot":"rw-","flags":["private","fixed"],"file":null,"off":0,"ret":"0x100001e6000"}"#,
            r#"{"as":0,"op":"mlock","addr":"0x100001e6000","len":4096,"ret":0}"#,
            r#"{"as":0,"op":"mremap","addr":"0x100001e6000","old_len":4096,"new_len":4096,"flags":["maymove","fixed","dontunmap"],"new_addr":"0x100001f0000","ret":"0x100001f0000"}"#,
            r#"{"as":0,"op":"madvise","addr":"0x100001e6000","len":4096,"advice":"free","ret":0}"#,
            r#"{"as":0,"op":"madvise","addr":"0x100001f0000","len":4096,"advice":"free","err":"EINVAL"}"#,
        ],
    ),
    (
        "shared memory that reserves nothing is promised nothing",
        &[
            r#"{"as":0,"op":"mmap","addr":"0x100001e5000","len":4096,"prot":"rw-","flags":["shared","fixed","noreserve"],"file":null,"off":0,"ret":"0x100001e5000"}"#,
            r#"{"as":0,"op":"store","addr":"0x100001e5000","byte":7,"ret":0}"#,
            r#"{"as":0,"op":"mmap","addr":"0x100001e6000","len":4096,"prot":"rw-","flags":["private","fixed","noreserve"],"file":null,"off":0,"ret":"0x100001e6000"}"#,
            r#"{"as":0,"op":"store","addr":"0x100001e6000","byte":8,"ret":0}"#,
            r#"{"as":0,"op":"load","addr":"0x100001e5000","ret":7}"#,
            r#"{"as":0,"op":"load","addr":"0x100001e6000","ret":8}"#,
        ],
    ),
    (
        "a private copy of a page of which a part may have gone stays as it was then: populated",
        &[
            r#"{"as":0,"op":"pwrite","file":"f1","off":49152,"byte":9,"ret":1}"#,
            r#"{"as":0,"op":"reclaim","ret":0}"#,
            r#"{"as":0,"op":"mmap","addr":"0x100001e5000","len":4096,"prot":"rw-","flags":["private","fixed","populate"],"file":"f1","off":49152,"ret":"0x100001e5000"}"#,
            r#"{"as":0,"op":"punch_hole","file":"f1","off":45056,"len":8192,"ret":0}"#,
            r#"{"as":0,"op":"load","addr":"0x100001e5000","ret":9}"#,
        ],
    ),
    (
        "a private copy of a page of which a part may have gone stays as it was then: advised",
        &[
            r#"{"as":0,"op":"pwrite","file":"f1","off":49152,"byte":9,"ret":1}"#,
            r#"{"as":0,"op":"mmap","addr":"0x100001e6000","len":4096,"prot":"rw-","flags":["shared","fixed"],"file":"f1","off":49152,"ret":"0x100001e6000"}"#,
            r#"{"as":0,"op":"store","addr":"0x100001e6064","byte":7,"ret":0}"#,
            r#"{"as":0,"op":"munmap","addr":"0x100001e6000","len":4096,"ret":0}"#,
            r#"{"as":0,"op":"reclaim","ret":0}"#,
            r#"{"as":0,"op":"mmap","addr":"0x100001e5000","len":4096,"prot":"rw-","flags":["private","fixed"],"file":"f1","off":49152,"ret":"0x100001e5000"}"#,
            r#"{"as":0,"op":"madvise","addr":"0x100001e5000","len":4096,"advice":"populate_write","ret":0}"#,
            r#"{"as":0,"op":"punch_hole","file":"f1","off":45056,"len":8192,"ret":0}"#,
            r#"{"as":0,"op":"load","addr":"0x100001e5000","ret":9}"#,
            r#"{"as":0,"op":"load","addr":"0x100001e5064","ret":0}"#,
        ],
    ),
    (
        "a private copy of a page of which a part may have gone stays as it was then: written to by nobody",
        &[
            r#"{"as":0,"op":"pwrite","file":"f1","off":49152,"byte":9,"ret":1}"#,
            r#"{"as":0,"op":"mmap","addr":"0x100001e6000","len":4096,"prot":"rw-","flags":["shared","fixed"],"file":"f1","off":49152,"ret":"0x100001e6000"}"#,
            r#"{"as":0,"op":"store","addr":"0x100001e6064","byte":7,"ret":0}"#,
            r#"{"as":0,"op":"munmap","addr":"0x100001e6000","len":4096,"ret":0}"#,
            r#"{"as":0,"op":"reclaim","ret":0}"#,
            r#"{"as":0,"op":"mmap","addr":"0x100001e5000","len":4096,"prot":"rw-","flags":["private","fixed"],"file":"f1","off":49152,"ret":"0x100001e5000"}"#,
            r#"{"as":0,"op":"pvm_write","addr":"0x100001e9000","len":4096,"target":0,"remote":"0x100001e5000","err":"EFAULT"}"#,
            r#"{"as":0,"op":"punch_hole","file":"f1","off":45056,"len":8192,"ret":0}"#,
            r#"{"as":0,"op":"load","addr":"0x100001e5000","ret":9}"#,
            r#"{"as":0,"op":"load","addr":"0x100001e5064","ret":0}"#,
        ],
    ),
];

#[test]
fn the_model_of_pages_knows_what_comes_of_each_kind() {
    const HEADER: &str = r#"{"profile":"fuzz","seed":0,"kernel":"emmu","page":4096,"arena":["0x10000000000","0x10040000000"],"files":{"f0":{"size":65536,"kind":"memfd"},"f1":{"size":49152,"kind":"disk"}}}"#;
    for (rule, steps) in KINDS {
        let text = [&[HEADER], *steps].concat().join("\n");
        let script = read("kind", text.as_bytes()).expect(rule);
        if let Err(failure) = Suite::new([]).again(&script) {
            panic!("{rule}:\n{failure}");
        }
        let replayed = replay_parts(&script, Parts::OUTCOMES).expect("no machine is in use");
        let report = Report::of(&replayed).map(|report| report.to_string());
        assert_eq!(report, None, "{rule}");
    }
}

//! Numbers and names of flags in the form of strace.

use super::text::{decimal, hexadecimal};

/// Every name in an argument of a followed call. Names do not clash between calls.
const WORDS: &[(&str, u64)] = &[
    ("NULL", 0),
    ("PROT_NONE", 0),
    ("PROT_READ", 1),
    ("PROT_WRITE", 2),
    ("PROT_EXEC", 4),
    ("PROT_SEM", 8),
    ("PROT_GROWSDOWN", 0x0100_0000),
    ("PROT_GROWSUP", 0x0200_0000),
    ("MAP_FILE", 0),
    ("MAP_SHARED", 0x01),
    ("MAP_PRIVATE", 0x02),
    ("MAP_SHARED_VALIDATE", 0x03),
    ("MAP_DROPPABLE", 0x08),
    ("MAP_FIXED", 0x10),
    ("MAP_ANONYMOUS", 0x20),
    ("MAP_32BIT", 0x40),
    ("MAP_ABOVE4G", 0x80),
    ("MAP_GROWSDOWN", 0x0100),
    ("MAP_DENYWRITE", 0x0800),
    ("MAP_EXECUTABLE", 0x1000),
    ("MAP_LOCKED", 0x2000),
    ("MAP_NORESERVE", 0x4000),
    ("MAP_POPULATE", 0x8000),
    ("MAP_NONBLOCK", 0x0001_0000),
    ("MAP_STACK", 0x0002_0000),
    ("MAP_HUGETLB", 0x0004_0000),
    ("MAP_SYNC", 0x0008_0000),
    ("MAP_FIXED_NOREPLACE", 0x0010_0000),
    ("MAP_UNINITIALIZED", 0x0400_0000),
    ("MAP_HUGE_SHIFT", 26),
    ("MAP_HUGE_2MB", 21 << 26),
    ("MAP_HUGE_1GB", 30 << 26),
    ("MREMAP_MAYMOVE", 1),
    ("MREMAP_FIXED", 2),
    ("MREMAP_DONTUNMAP", 4),
    ("MADV_NORMAL", 0),
    ("MADV_RANDOM", 1),
    ("MADV_SEQUENTIAL", 2),
    ("MADV_WILLNEED", 3),
    ("MADV_DONTNEED", 4),
    ("MADV_FREE", 8),
    ("MADV_REMOVE", 9),
    ("MADV_DONTFORK", 10),
    ("MADV_DOFORK", 11),
    ("MADV_MERGEABLE", 12),
    ("MADV_UNMERGEABLE", 13),
    ("MADV_HUGEPAGE", 14),
    ("MADV_NOHUGEPAGE", 15),
    ("MADV_DONTDUMP", 16),
    ("MADV_DODUMP", 17),
    ("MADV_WIPEONFORK", 18),
    ("MADV_KEEPONFORK", 19),
    ("MADV_COLD", 20),
    ("MADV_PAGEOUT", 21),
    ("MADV_POPULATE_READ", 22),
    ("MADV_POPULATE_WRITE", 23),
    ("MADV_DONTNEED_LOCKED", 24),
    ("MADV_COLLAPSE", 25),
    ("MADV_HWPOISON", 100),
    ("MADV_SOFT_OFFLINE", 101),
    ("MADV_GUARD_INSTALL", 102),
    ("MADV_GUARD_REMOVE", 103),
    ("MS_ASYNC", 1),
    ("MS_INVALIDATE", 2),
    ("MS_SYNC", 4),
    ("MLOCK_ONFAULT", 1),
    ("MCL_CURRENT", 1),
    ("MCL_FUTURE", 2),
    ("MCL_ONFAULT", 4),
    ("SHM_EXEC", 0o100_000),
    ("SHM_RDONLY", 0o10_000),
    ("SHM_RND", 0o20_000),
    ("SHM_REMAP", 0o40_000),
    ("IPC_PRIVATE", 0),
    ("F_SEAL_SEAL", 1),
    ("F_SEAL_SHRINK", 2),
    ("F_SEAL_GROW", 4),
    ("F_SEAL_WRITE", 8),
    ("F_SEAL_FUTURE_WRITE", 16),
    ("F_SEAL_EXEC", 32),
    ("FALLOC_FL_KEEP_SIZE", 1),
    ("FALLOC_FL_PUNCH_HOLE", 2),
    ("FALLOC_FL_COLLAPSE_RANGE", 8),
    ("FALLOC_FL_ZERO_RANGE", 16),
    ("FALLOC_FL_INSERT_RANGE", 32),
    ("FALLOC_FL_UNSHARE_RANGE", 64),
    ("FALLOC_FL_WRITE_ZEROES", 128),
    ("FALLOC_FL_NO_HIDE_STALE", 4),
];

/// Returns the value of `4096`, `0x1000`, `0600`, `4*1024`, `1<<20`, `PROT_READ|PROT_WRITE`, with
/// or without comments. Negative numbers wrap, as in a register.
pub(super) fn value(text: &str) -> Result<u64, String> {
    let bad = || format!("{text:?} is not a number or a known flag");
    without_comments(text)
        .split('|')
        .try_fold(0, |sum, term| Some(sum | shifted(term)?))
        .ok_or_else(bad)
}

fn shifted(term: &str) -> Option<u64> {
    let mut parts = term.split("<<");
    let first = product(parts.next()?)?;
    parts.try_fold(first, |value, by| {
        value.checked_shl(u32::try_from(product(by)?).ok()?)
    })
}

fn product(term: &str) -> Option<u64> {
    term.split('*').try_fold(1_u64, |value, factor| {
        value.checked_mul(one(factor.trim())?)
    })
}

fn one(word: &str) -> Option<u64> {
    if let Some(positive) = word.strip_prefix('-') {
        return decimal(positive).map(u64::wrapping_neg);
    }
    if let Some(digits) = word.strip_prefix("0x") {
        return hexadecimal(digits);
    }
    let octal = word.len() > 1 && word.bytes().all(|b| matches!(b, b'0'..=b'7'));
    if octal && word.starts_with('0') {
        return u64::from_str_radix(word, 8).ok();
    }
    decimal(word).or_else(|| WORDS.iter().find(|w| w.0 == word).map(|w| w.1))
}

fn without_comments(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, comment)) = rest.split_once("/*") {
        out.push_str(before);
        rest = comment.split_once("*/").map_or("", |(_, after)| after);
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::{WORDS, value};

    #[test]
    fn numbers_and_flags() {
        assert_eq!(value("0x1000"), Ok(4096));
        assert_eq!(value("0600"), Ok(0o600));
        assert_eq!(value("2*1024*1024"), Ok(2 << 20));
        assert_eq!(value("-1"), Ok(u64::MAX));
        assert_eq!(
            value("MAP_HUGETLB|21<<MAP_HUGE_SHIFT"),
            Ok(0x4_0000 | 21 << 26)
        );
        assert_eq!(value("0x66 /* MADV_??? */"), Ok(102));
        assert_eq!(value("PROT_READ|PROT_WRITE"), Ok(3));
        for bad in [
            "",
            "0x",
            "MAP_PRIVAT",
            "1||2",
            "0x1ffffffffffffffff",
            "1<<99",
            "{a=1}",
        ] {
            assert!(value(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_name_has_one_value() {
        for (nth, (name, _)) in WORDS.iter().enumerate() {
            assert!(WORDS.iter().skip(nth + 1).all(|w| w.0 != *name), "{name}");
        }
    }
}

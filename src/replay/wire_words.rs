//! The words of a script: hexadecimal addresses, protections, flag names, advice names.
//!
//! Each module here reads and writes one kind of word for serde; an unknown word is an error that
//! names it.

use crate::mm::{Advice, MapFlags, MremapFlags, MsyncFlags, Prot};
use serde::{Deserialize, Deserializer, Serializer};

/// Parses `"0x1000"`: a lower-case `0x` and digits, without sign or blank.
pub(super) fn hex_word(word: &str) -> Result<u64, String> {
    let digits = word.strip_prefix("0x").unwrap_or_default();
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(format!("{word:?} is not a hexadecimal number"));
    }
    u64::from_str_radix(digits, 16).map_err(|_| format!("{word} does not fit in 64 bits"))
}

/// Reads a `String`, not a `&str`: a word from a buffered value cannot be borrowed.
fn word<'de, D: Deserializer<'de>>(d: D) -> Result<String, D::Error> {
    String::deserialize(d)
}

/// Addresses: `"0x10000000000"`.
pub(super) mod hex {
    use super::{Deserializer, Serializer, hex_word, word};
    use serde::de::Error as _;

    pub(in crate::replay) fn serialize<S: Serializer>(at: &u64, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&format_args!("{at:#x}"))
    }
    pub(in crate::replay) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<u64, D::Error> {
        hex_word(&word(d)?).map_err(D::Error::custom)
    }
}

/// Structs of the arguments of operations, which read and write as keys of a line.
macro_rules! arguments {
    ($($(#[$m:meta])* $name:ident { $($(#[$f:meta])* $field:ident: $type:ty,)* })*) => {$(
        $(#[$m])*
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        #[allow(missing_docs, reason = "the fields are the arguments of the call")]
        pub struct $name { $($(#[$f])* pub $field: $type,)* }
    )*};
}
pub(super) use arguments;

/// Returns true for 0, which a line leaves out.
pub(super) fn is_zero<N: Default + PartialEq>(number: &N) -> bool {
    *number == N::default()
}

/// Reads a key that may be null but not missing.
pub(super) fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    d: D,
) -> Result<Option<T>, D::Error> {
    Option::deserialize(d)
}

/// Flags of `msync`: a number.
pub(super) mod msync_flags {
    use super::{Deserialize, Deserializer, MsyncFlags, Serializer};

    pub(in crate::replay) fn usual() -> MsyncFlags {
        MsyncFlags::SYNC
    }
    pub(in crate::replay) fn are_usual(flags: &MsyncFlags) -> bool {
        *flags == MsyncFlags::SYNC
    }
    pub(in crate::replay) fn serialize<S: Serializer>(
        f: &MsyncFlags,
        s: S,
    ) -> Result<S::Ok, S::Error> {
        s.serialize_u32(f.bits())
    }
    pub(in crate::replay) fn deserialize<'de, D: Deserializer<'de>>(
        d: D,
    ) -> Result<MsyncFlags, D::Error> {
        u32::deserialize(d).map(MsyncFlags::from_bits_retain)
    }
}

/// Returns the bits that have no word: `0x80`.
fn rest_word(bits: u32) -> Option<String> {
    (bits != 0).then(|| format!("{bits:#x}"))
}

/// Parses the form of [`rest_word`].
fn rest_bits(word: &str) -> Option<u32> {
    u32::try_from(hex_word(word).ok()?).ok()
}

/// Protections: `"rw-"`; bits without a letter behind it: `"rw-+0x1000000"`.
pub(super) mod prot {
    use super::{Deserializer, Prot, Serializer, rest_bits, rest_word, word};
    use serde::de::Error as _;

    const LETTERS: [(char, Prot); 3] = [('r', Prot::READ), ('w', Prot::WRITE), ('x', Prot::EXEC)];

    pub(in crate::replay) fn serialize<S: Serializer>(p: &Prot, s: S) -> Result<S::Ok, S::Error> {
        let letter = |(c, bit)| if p.contains(bit) { c } else { '-' };
        let mut word: String = LETTERS.map(letter).iter().collect();
        let lettered = LETTERS.iter().fold(Prot::empty(), |all, l| all | l.1);
        if let Some(rest) = rest_word(p.difference(lettered).bits()) {
            word.push('+');
            word.push_str(&rest);
        }
        s.serialize_str(&word)
    }
    pub(in crate::replay) fn deserialize<'de, D: Deserializer<'de>>(
        d: D,
    ) -> Result<Prot, D::Error> {
        let word = word(d)?;
        let bad = || D::Error::custom(format!("{word:?} is not a protection such as \"rw-\""));
        let (letters, rest) = word.split_once('+').unwrap_or((&word, "0x0"));
        let rest = rest_bits(rest).ok_or_else(bad)?;
        let letters: Vec<char> = letters.chars().collect();
        if letters.len() != LETTERS.len() {
            return Err(bad());
        }
        let mut prot = Prot::from_bits_retain(rest);
        for (got, (letter, bit)) in letters.into_iter().zip(LETTERS) {
            match got {
                '-' => {}
                c if c == letter => prot |= bit,
                _ => return Err(bad()),
            }
        }
        Ok(prot)
    }
}

macro_rules! flag_words {
    ($(#[$m:meta])* $module:ident, $type:ident, $($word:literal = $flag:ident),* $(,)?) => {
        $(#[$m])*
        pub(super) mod $module {
            use super::{Deserialize, Deserializer, Serializer, $type, rest_bits, rest_word};
            use serde::de::Error as _;

            const WORDS: &[(&str, $type)] = &[$(($word, $type::$flag)),*];

            pub(in crate::replay) fn serialize<S: Serializer>(
                flags: &$type,
                s: S,
            ) -> Result<S::Ok, S::Error> {
                let told = WORDS.iter().filter(|w| flags.contains(w.1));
                let rest = told.clone().fold(*flags, |rest, w| rest.difference(w.1));
                let told = told.map(|w| w.0.to_owned());
                s.collect_seq(told.chain(rest_word(rest.bits())))
            }
            pub(in crate::replay) fn deserialize<'de, D: Deserializer<'de>>(
                d: D,
            ) -> Result<$type, D::Error> {
                Vec::<String>::deserialize(d)?.iter().try_fold($type::empty(), |flags, word| {
                    let known = WORDS.iter().find(|w| w.0 == word).map(|w| w.1);
                    let known = known.or_else(|| rest_bits(word).map($type::from_bits_retain));
                    let known = known.ok_or_else(|| D::Error::custom(format!("unknown flag {word:?}")))?;
                    Ok(flags | known)
                })
            }
        }
    };
}

flag_words! {
    /// Flags of `mmap`; `anonymous` is implied without a file. Bits without a word are a number.
    map_flags, MapFlags,
    "shared" = SHARED, "private" = PRIVATE, "fixed" = FIXED, "fixed_noreplace" = FIXED_NOREPLACE,
    "noreserve" = NORESERVE, "populate" = POPULATE, "locked" = LOCKED, "anonymous" = ANONYMOUS, "32bit" = MAP_32BIT,
    "shared_validate" = SHARED_VALIDATE, "growsdown" = GROWSDOWN, "stack" = STACK, "droppable" = DROPPABLE, "nonblock" = NONBLOCK,
    "denywrite" = DENYWRITE, "executable" = EXECUTABLE, "hugetlb" = HUGETLB, "sync" = SYNC, "huge_2mb" = HUGE_2MB, "huge_1gb" = HUGE_1GB,
}
flag_words! {
    /// Flags of `mremap`.
    mremap_flags, MremapFlags,
    "maymove" = MAYMOVE, "fixed" = FIXED, "dontunmap" = DONTUNMAP,
}

const ADVICES: &[(&str, Advice)] = &[
    ("normal", Advice::Normal),
    ("random", Advice::Random),
    ("sequential", Advice::Sequential),
    ("willneed", Advice::WillNeed),
    ("dontneed", Advice::DontNeed),
    ("free", Advice::Free),
    ("remove", Advice::Remove),
    ("dontfork", Advice::DontFork),
    ("dofork", Advice::DoFork),
    ("mergeable", Advice::Mergeable),
    ("unmergeable", Advice::Unmergeable),
    ("hugepage", Advice::HugePage),
    ("nohugepage", Advice::NoHugePage),
    ("dontdump", Advice::DontDump),
    ("dodump", Advice::DoDump),
    ("wipeonfork", Advice::WipeOnFork),
    ("keeponfork", Advice::KeepOnFork),
    ("cold", Advice::Cold),
    ("pageout", Advice::PageOut),
    ("populate_read", Advice::PopulateRead),
    ("populate_write", Advice::PopulateWrite),
    ("dontneed_locked", Advice::DontNeedLocked),
    ("collapse", Advice::Collapse),
    ("guard_install", Advice::GuardInstall),
    ("guard_remove", Advice::GuardRemove),
];

/// Advice of `madvise`.
pub(super) mod advice {
    use super::{ADVICES, Advice, Deserializer, Serializer, word};
    use serde::de::Error as _;

    pub(in crate::replay) fn serialize<S: Serializer>(a: &Advice, s: S) -> Result<S::Ok, S::Error> {
        let word = ADVICES.iter().find(|w| w.1 == *a).map_or("?", |w| w.0);
        s.serialize_str(word)
    }
    pub(in crate::replay) fn deserialize<'de, D: Deserializer<'de>>(
        d: D,
    ) -> Result<Advice, D::Error> {
        let word = word(d)?;
        let known = ADVICES.iter().find(|w| w.0 == word).map(|w| w.1);
        known.ok_or_else(|| D::Error::custom(format!("unknown advice {word:?}")))
    }
}

#[cfg(test)]
mod tests {
    use super::{ADVICES, Advice, hex_word};

    #[test]
    fn every_advice_has_a_word() {
        for &a in Advice::ALL {
            assert!(ADVICES.iter().any(|w| w.1 == a), "{a:?}");
        }
    }

    #[test]
    fn addresses_are_strict() {
        assert_eq!(hex_word("0x10000000000"), Ok(1 << 40));
        assert_eq!(hex_word("0xffffffffffffffff"), Ok(u64::MAX));
        for bad in [
            "",
            "0x",
            "10",
            "0x+1",
            "0X10",
            "-0x1",
            " 0x1",
            "0x10000000000000000",
            "0xg",
        ] {
            assert!(hex_word(bad).is_err(), "{bad:?}");
        }
    }
}

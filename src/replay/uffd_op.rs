//! The arguments of operations on userfaultfds and on the pagemap, and their results beside the
//! outcome.

use super::{
    hex::Hex,
    wire_words::{arguments, hex},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

arguments! {
    /// A new userfaultfd with these features.
    Open {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        features: Option<u64>,
    }
    /// A range.
    Part {
        #[serde(with = "hex")]
        addr: u64,
        len: u64,
    }
    /// A range and a mode.
    Moded {
        #[serde(with = "hex")]
        addr: u64,
        len: u64,
        mode: u64,
    }
    /// A range that is filled.
    Fill {
        #[serde(with = "hex")]
        addr: u64,
        len: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mode: Option<u64>,
    }
    /// A range that is filled with one byte.
    Copy {
        #[serde(with = "hex")]
        addr: u64,
        len: u64,
        byte: u8,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mode: Option<u64>,
    }
    /// A range, and the source of its pages.
    Move {
        #[serde(with = "hex")]
        addr: u64,
        #[serde(with = "hex")]
        src: u64,
        len: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mode: Option<u64>,
    }
    /// A load that waits for a userfaultfd, of process `of` if that is another one, and the answers
    /// of its handler, one for each message.
    FaultLoad {
        #[serde(with = "hex")]
        addr: u64,
        resolve: Vec<Resolve>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        of: Option<u32>,
    }
    /// A store that waits, as [`FaultLoad`].
    FaultStore {
        #[serde(with = "hex")]
        addr: u64,
        byte: u8,
        resolve: Vec<Resolve>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        of: Option<u32>,
    }
    /// A scan of process `target` for at most 64 regions.
    ScanOf {
        target: u32,
        flags: u64,
        #[serde(with = "hex")]
        start: u64,
        #[serde(with = "hex")]
        end: u64,
        mask: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        inverted: Option<u64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        anyof: Option<u64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ret_mask: Option<u64>,
    }
    /// A number that is written to `clear_refs` of process `target`.
    Clear {
        target: u32,
        value: i64,
    }
}

impl Copy {
    /// Most bytes of a copy: they are held in memory.
    pub(crate) const MOST: u64 = 64 << 20;
}

impl ScanOf {
    /// Most regions of a scan.
    pub(crate) const REGIONS: usize = 64;
    /// Returns the categories that the scan reports.
    pub(crate) fn reported(&self) -> u64 {
        const UNLESS_IT_SAYS_SO: u64 = 0x7f;
        self.ret_mask.unwrap_or(UNLESS_IT_SAYS_SO)
    }
}

/// A call of a handler on its userfaultfd.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
#[allow(missing_docs, reason = "the operations of the same names")]
pub enum Answer {
    UffdRegister(Moded),
    UffdUnregister(Part),
    UffdWake(Part),
    UffdCopy(Copy),
    UffdZeropage(Fill),
    UffdContinue(Fill),
    UffdPoison(Fill),
    UffdWriteprotect(Moded),
    UffdMove(Move),
}

/// An answer of a handler, written as its name and its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolve(pub Answer);

impl Serialize for Resolve {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut keys = match serde_json::to_value(&self.0) {
            Ok(Value::Object(keys)) => keys,
            _ => Map::new(),
        };
        let name = keys.remove("op");
        (name, keys).serialize(s)
    }
}

impl<'de> Deserialize<'de> for Resolve {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let (name, mut keys): (String, Map<String, Value>) = Deserialize::deserialize(d)?;
        keys.insert("op".into(), Value::String(name));
        let answer = Answer::deserialize(Value::Object(keys)).map_err(D::Error::custom)?;
        Ok(Self(answer))
    }
}

/// The results of an operation beside its outcome. Counts are bytes, or an errno below zero.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Results {
    /// Of `uffd_copy`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copied: Option<i64>,
    /// Of `uffd_zeropage` and `uffd_continue`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done: Option<i64>,
    /// Of `uffd_move`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved: Option<i64>,
    /// Of `pagemap_scan`: start, end and categories of each region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub regions: Option<Vec<(Hex, Hex, u64)>>,
    /// Of a fault: the kind of each message, its flags, its address, and the result of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events: Option<Vec<(u8, u64, Hex, Answered)>>,
}

/// The result of an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(
    missing_docs,
    reason = "the fields are those of an outcome and of `Results`"
)]
pub struct Answered {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ret: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub err: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copied: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved: Option<i64>,
}

impl Results {
    /// The keys of the results in a line.
    pub(super) const KEYS: [&'static str; 5] = ["copied", "done", "moved", "regions", "events"];
    /// Takes the results out of the keys of a line.
    pub(super) fn take(keys: &mut Map<String, Value>) -> Result<Self, String> {
        let own = Self::KEYS.iter().filter_map(|key| keys.remove_entry(*key));
        let own = Value::Object(own.collect());
        Self::deserialize(own).map_err(|e| e.to_string())
    }
}

/// The part of a line that is about userfaultfd and the pagemap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct More {
    /// The results of the operation beside its outcome.
    pub results: Results,
    /// The pages that userfaultfd write-protects, by the addresses of their first bytes, of each
    /// process with changes.
    pub protected: BTreeMap<u32, Vec<u64>>,
}

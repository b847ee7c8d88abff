//! Where two operations meet: a line that both use and one of them stores to.

use crate::{
    arena::LINE,
    names::Names,
    trace::{Stack, Trace, Use},
};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// An operation that stores, and one that loads or stores, by number.
pub(crate) type Pair = (usize, usize);

/// The place of a meeting.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// What the first stores to.
    pub(crate) name: String,
    /// Whether the second uses something else on that line.
    pub(crate) beside: bool,
}

/// The meetings at a place.
#[derive(Default)]
pub(crate) struct Met<'t> {
    /// What the others use, if it is something else.
    pub(crate) others: BTreeSet<String>,
    /// By pair, the stacks of the first that stores and of the second that uses it.
    pub(crate) pairs: BTreeMap<Pair, (&'t Stack, &'t Stack)>,
}

/// All meetings of a world.
pub(crate) type Meetings<'t> = BTreeMap<Place, Met<'t>>;

/// All meetings of a trace whose runs are those of one side and then those of the other, in the
/// order of the operations.
pub(crate) fn find<'t>(trace: &'t Trace, names: &Names<'_>) -> Meetings<'t> {
    let (left, right) = trace.runs.split_at(trace.runs.len() / 2);
    let mut out = Meetings::new();
    let mut names = Cached {
        names,
        trace,
        known: HashMap::new(),
    };
    for (one, other) in [(left, right), (right, left)] {
        for (a, stores) in one.iter().enumerate() {
            for (line, stored) in stores.iter().filter(|(_, used)| used.stores.bytes != 0) {
                for (b, uses) in other.iter().enumerate() {
                    if let Some(used) = uses.get(line) {
                        meet(&mut names, *line, ((a, stored), (b, used)), &mut out);
                    }
                }
            }
        }
    }
    out
}

fn meet<'t>(
    names: &mut Cached<'_, '_>,
    line: u64,
    ((a, stored), (b, used)): ((usize, &'t Use), (usize, &'t Use)),
    out: &mut Meetings<'t>,
) {
    let (bytes, uses) = (stored.stores.bytes, used.loads.bytes | used.stores.bytes);
    let beside = bytes & uses == 0;
    let others = match beside {
        true => names.of(line, uses),
        false => BTreeSet::new(),
    };
    let second = match used.stores.bytes {
        0 => &used.loads.first,
        _ => &used.stores.first,
    };
    for name in names.of(line, if beside { bytes } else { bytes & uses }) {
        let met = out.entry(Place { name, beside }).or_default();
        met.others.extend(others.iter().cloned());
        met.pairs.insert((a, b), (&stored.stores.first, second));
    }
}

/// Names that were asked for.
struct Cached<'n, 'p> {
    names: &'n Names<'p>,
    trace: &'n Trace,
    known: HashMap<u64, String>,
}

impl Cached<'_, '_> {
    /// Names those bytes of a line that are set in `bytes`.
    fn of(&mut self, line: u64, bytes: u64) -> BTreeSet<String> {
        let line = line * LINE as u64;
        let set = (0..LINE as u64).filter(|n| bytes & (1 << n) != 0);
        set.map(|n| {
            let name = || self.names.byte(self.trace, line + n);
            self.known.entry(line + n).or_insert_with(name).clone()
        })
        .collect()
    }
}

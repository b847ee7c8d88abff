//! The tree against a plain map of starts to ends, with every invariant checked after each step.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{Span, VmaTree, node::LEAF};
use crate::addr::{Vpn, VpnRange};

#[derive(Clone, PartialEq, Eq, Debug)]
struct Area {
    start: u64,
    end: u64,
    tag: u32,
}

impl Span for Area {
    fn start(&self) -> Vpn {
        Vpn(self.start)
    }
    fn end(&self) -> Vpn {
        Vpn(self.end)
    }
    fn tag(&self) -> u64 {
        self.tag.into()
    }
}

fn area(start: u64, end: u64) -> Area {
    Area { start, end, tag: 0 }
}

fn pages(start: u64, end: u64) -> VpnRange {
    VpnRange::new(Vpn(start), Vpn(end)).expect("tests ask for non-empty ranges")
}

/// Takes the ranges out that lie inside `range`.
fn drained(tree: &mut VmaTree<Area>, range: VpnRange) -> Vec<Area> {
    let mut values = smallvec::SmallVec::new();
    let _hole = tree.drain_range(range, &mut values);
    values.into_vec()
}

/// The tree, and a plain map with the expected contents.
#[derive(Clone)]
struct Pair {
    tree: VmaTree<Area>,
    model: BTreeMap<u64, Area>,
}

impl Pair {
    fn new() -> Self {
        Self {
            tree: VmaTree::new(),
            model: BTreeMap::new(),
        }
    }

    /// Returns true if `[start, end)` is free, apart from the range that starts at `except`.
    fn is_free(&self, start: u64, end: u64, except: Option<u64>) -> bool {
        let mut below = self
            .model
            .range(..end)
            .rev()
            .filter(|(at, _)| Some(**at) != except);
        start < end && below.next().is_none_or(|(_, area)| area.end <= start)
    }

    /// Some start of a range, chosen by `pick`.
    fn start_at(&self, pick: u64) -> Option<u64> {
        let (first, _) = self.model.first_key_value()?;
        Some(
            self.model
                .range(..=pick)
                .next_back()
                .map_or(*first, |(start, _)| *start),
        )
    }

    fn insert(&mut self, new: Area) {
        if self.is_free(new.start, new.end, None) {
            self.tree.insert(new.clone());
            self.model.insert(new.start, new);
        }
    }

    fn remove(&mut self, pick: u64) {
        if let Some(start) = self.start_at(pick) {
            assert_eq!(
                Some(self.tree.remove(Vpn(start))),
                self.model.remove(&start)
            );
        }
    }

    /// Gives the range near `pick` new bounds, if they are free.
    fn update(&mut self, pick: u64, start: u64, end: u64) {
        let Some(old) = self.start_at(pick) else {
            return;
        };
        let fits = self.is_free(start, end, Some(old));
        let tag = self.tree.update(Vpn(old), |area| {
            area.tag += 1;
            if fits {
                (area.start, area.end) = (start, end);
            }
            area.tag
        });
        let mut area = self.model.remove(&old).expect("start_at names a range");
        area.tag += 1;
        assert_eq!(tag, area.tag);
        if fits {
            (area.start, area.end) = (start, end);
        }
        self.model.insert(area.start, area);
    }

    /// Drains `[start, end)`, widened so that no range lies partly inside.
    fn drain(&mut self, start: u64, end: u64) {
        let below = self
            .model
            .range(..end)
            .next_back()
            .map_or(0, |(_, area)| area.end);
        let start = self
            .tree
            .find(Vpn(start))
            .map_or(start, |area| area.start.min(start));
        let range = pages(start, end.max(below));
        let gone = drained(&mut self.tree, range);
        let kept = |area: &Area| !range.overlaps(pages(area.start, area.end));
        let model: Vec<Area> = self
            .model
            .values()
            .filter(|area| !kept(area))
            .cloned()
            .collect();
        self.model.retain(|_, area| kept(area));
        assert_eq!(gone[..], model);
        let hole = self.tree.hole(range);
        let below = self.model.range(..range.start().0).next_back();
        assert_eq!(hole.floor.0, below.map_or(0, |(_, area)| area.end));
        let above = self.model.range(range.end().0..).next();
        assert_eq!(hole.ceiling, above.map(|(&start, _)| Vpn(start)));
    }

    fn holes(&self) -> Vec<(u64, u64)> {
        let ends = std::iter::once(0).chain(self.model.values().map(|area| area.end));
        let starts = self.model.values().map(|area| area.start).chain([u64::MAX]);
        ends.zip(starts).collect()
    }

    fn check_gaps(&self, wanted: u64, low: u64, high: u64) {
        let mut fitting = self
            .holes()
            .into_iter()
            .map(|(from, to)| (from.max(low), to.min(high)))
            .filter(|(from, to)| to.checked_sub(*from).is_some_and(|hole| hole >= wanted));
        let lowest = fitting.clone().next().map(|(from, _)| Vpn(from));
        let highest = fitting.next_back().map(|(_, to)| Vpn(to - wanted));
        assert_eq!(self.tree.lowest_gap(wanted, Vpn(low), Vpn(high)), lowest);
        assert_eq!(self.tree.highest_gap(wanted, Vpn(low), Vpn(high)), highest);
    }

    fn check_lookups(&self, at: u64, to: u64) {
        let (tree, model) = (&self.tree, &self.model);
        let find = model.values().find(|area| area.end > at);
        assert_eq!(tree.find(Vpn(at)), find);
        let get = find.filter(|area| area.start <= at);
        assert_eq!(tree.get(Vpn(at)), get);
        let range_of = get.map(|area| (pages(area.start, area.end), area.tag.into()));
        assert_eq!(tree.range_of(Vpn(at)), range_of);
        assert_eq!(
            tree.before(Vpn(at)),
            model.range(..at).next_back().map(|(_, area)| area)
        );
        assert_eq!(
            tree.next_after(Vpn(at)),
            model.range(at..).next().map(|(_, area)| area)
        );
        if let Some(range) = VpnRange::new(Vpn(at), Vpn(to)) {
            let over = model
                .values()
                .filter(|area| area.start < to && area.end > at);
            assert!(tree.range(range).eq(over));
        }
    }

    fn check_whole(&self) {
        self.tree.check();
        assert_eq!(self.tree.len(), self.model.len());
        assert_eq!(self.tree.is_empty(), self.model.is_empty());
        assert!(self.tree.iter().eq(self.model.values()));
        assert_eq!(self.tree.first(), self.model.values().next());
        assert_eq!(self.tree.last(), self.model.values().next_back());
    }
}

#[derive(Clone, Debug)]
enum Op {
    Insert(u64, u64),
    /// A run of neighbours `step` pages apart, upwards or downwards.
    Run {
        from: u64,
        step: u64,
        count: u64,
        down: bool,
    },
    Remove(u64),
    Drain(u64, u64),
    Update(u64, u64, u64),
    /// Moves the bounds a little, as splits, merges and stack growth do.
    Nudge(u64, i64, i64),
    Gap(u64, u64, u64),
    Look(u64, u64),
    Clone,
}

/// Page numbers: in a small crowded space, in the whole user space, and at either end of all
/// numbers.
fn page() -> impl Strategy<Value = u64> {
    prop_oneof![
        6 => 0..2_000u64,
        2 => (0..200u64).prop_map(|at| at << 28),
        1 => (0..40u64).prop_map(|below| u64::MAX - below),
        1 => (0..40u64).prop_map(|above| (1 << 35) - 20 + above),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (page(), 1..20u64).prop_map(|(at, len)| Op::Insert(at, at.saturating_add(len))),
        1 => (page(), page()).prop_map(|(a, b)| Op::Insert(a.min(b), a.max(b))),
        2 => (page(), 1..4u64, 1..150u64, any::<bool>())
            .prop_map(|(from, step, count, down)| Op::Run { from, step, count, down }),
        6 => page().prop_map(Op::Remove),
        1 => (page(), 1..300u64).prop_map(|(at, len)| Op::Drain(at, at.saturating_add(len))),
        3 => (page(), page(), 1..20u64).prop_map(|(pick, at, len)| Op::Update(pick, at, at.saturating_add(len))),
        4 => (page(), -3..4i64, -3..4i64).prop_map(|(pick, low, high)| Op::Nudge(pick, low, high)),
        4 => (prop_oneof![1..5u64, page()], page(), page()).prop_map(|(n, a, b)| Op::Gap(n.max(1), a.min(b), a.max(b))),
        4 => (page(), page()).prop_map(|(at, to)| Op::Look(at, to)),
        1 => Just(Op::Clone),
    ]
}

fn apply(pair: &mut Pair, op: &Op) {
    match *op {
        Op::Insert(start, end) => pair.insert(area(start, end)),
        Op::Run {
            from,
            step,
            count,
            down,
        } => {
            for n in 0..count {
                let n = if down { count - n } else { n };
                let start = from.saturating_add(n * step);
                pair.insert(area(start, start.saturating_add(1)));
            }
        }
        Op::Remove(pick) => pair.remove(pick),
        Op::Drain(start, end) if start < end => pair.drain(start, end),
        Op::Drain(..) => {}
        Op::Update(pick, start, end) => pair.update(pick, start, end),
        Op::Nudge(pick, low, high) => {
            if let Some(start) = pair.start_at(pick) {
                let end = pair.model[&start].end;
                pair.update(
                    start,
                    start.saturating_add_signed(low),
                    end.saturating_add_signed(high),
                );
            }
        }
        Op::Gap(wanted, low, high) => {
            pair.check_gaps(wanted, low, high);
            pair.check_gaps(wanted, 0, u64::MAX);
            pair.check_gaps(wanted, high, low.min(high));
        }
        Op::Look(at, to) => pair.check_lookups(at, to),
        Op::Clone => {
            let copy = pair.clone();
            // Changes of the original leave the copy whole.
            pair.remove(0);
            copy.check_whole();
        }
    }
}

proptest! {
    #![proptest_config(crate::drawn::config(128))]

    #[test]
    fn any_sequence_of_changes_leaves_what_a_plain_map_has(ops in prop::collection::vec(op(), 1..120)) {
        let mut pair = Pair::new();
        for op in &ops {
            apply(&mut pair, op);
            pair.check_whole();
            pair.check_gaps(2, 0, 2_000);
        }
        let holes = pair.holes();
        for &(from, to) in holes.iter().step_by(1 + holes.len() / 40) {
            for at in [from.saturating_sub(1), from, from.saturating_add(1), to.saturating_sub(1), to] {
                pair.check_lookups(at, at.saturating_add(30));
                pair.check_gaps(3, at, 1_500);
                pair.check_gaps(3, 500, at);
            }
        }
        while let Some(start) = pair.start_at(900) {
            pair.remove(start);
            pair.check_whole();
        }
    }
}

/// A cheap generator of pseudo-random numbers with a fixed seed.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

fn shuffled(count: u64) -> Vec<u64> {
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let mut all: Vec<u64> = (0..count).collect();
    for last in (1..all.len()).rev() {
        all.swap(last, numbers.below(last as u64 + 1) as usize);
    }
    all
}

fn filled(starts: impl IntoIterator<Item = u64>) -> VmaTree<Area> {
    let mut tree = VmaTree::new();
    for start in starts {
        tree.insert(area(start, start + 1));
    }
    tree
}

#[test]
fn a_hundred_thousand_ranges_come_and_go_at_random() {
    let order = shuffled(100_000);
    let spread = |n: &u64| n * ((1 << 35) / 100_000);
    let mut tree = filled(order.iter().map(spread));
    tree.check();
    assert!(
        tree.iter()
            .map(|area| area.start)
            .eq((0..100_000).map(|n| spread(&n)))
    );
    for (done, n) in order.iter().rev().enumerate() {
        assert_eq!(
            tree.get(Vpn(spread(n))).map(|area| area.start),
            Some(spread(n))
        );
        assert_eq!(tree.remove(Vpn(spread(n))).start, spread(n));
        if done % 5_000 == 0 {
            tree.check();
        }
    }
    assert!(tree.is_empty());
    tree.check();
}

#[test]
fn moves_within_a_large_tree_keep_every_gap_right() {
    let count = 20_000;
    let mut pair = Pair::new();
    for n in shuffled(count) {
        pair.insert(area(n * 10 + 3, n * 10 + 6));
    }
    let mut numbers = Numbers(88_172_645_463_325_252);
    for step in 0..40_000 {
        let near = numbers.below(count * 10);
        let start = near.saturating_sub(numbers.below(4));
        let pick = if step % 50 == 0 {
            numbers.below(count * 10)
        } else {
            near
        };
        pair.update(pick, start, start + 1 + numbers.below(9));
        if step % 4_000 == 0 {
            pair.check_whole();
            pair.check_gaps(1 + numbers.below(60), numbers.below(near + 1), near);
        }
    }
    pair.check_whole();
    for wanted in 1..80 {
        pair.check_gaps(wanted, 0, count * 10);
        pair.check_gaps(
            wanted,
            numbers.below(99_000),
            100_000 + numbers.below(99_000),
        );
    }
}

#[test]
fn runs_in_one_direction_leave_full_leaves() {
    let up = filled((0..50_000).map(|n| n * 2));
    let down = filled((0..50_000).rev().map(|n| n * 2));
    // The ranges of a process: a program at the bottom, and `mmap` downwards from the top.
    let between = filled((0..100).chain((200..50_000).rev().map(|n| n * 2)));
    for tree in [up, down, between] {
        tree.check();
        let least = tree.len() / LEAF * 10 / 8;
        assert!(
            tree.leaves.used() <= least,
            "{} leaves, wanted {least}",
            tree.leaves.used()
        );
    }
}

#[test]
fn a_range_of_a_hundred_bytes_takes_less_than_two_hundred() {
    /// 104 bytes.
    struct Large(
        u64,
        #[expect(dead_code)] [u64; 11],
        #[expect(dead_code)] Box<u8>,
    );
    impl Span for Large {
        fn start(&self) -> Vpn {
            Vpn(self.0)
        }
        fn end(&self) -> Vpn {
            Vpn(self.0 + 1)
        }
        fn tag(&self) -> u64 {
            0
        }
    }
    for count in [1_000, 10_000, 65_530, 100_000] {
        let up = (0..count).collect();
        let down = (0..count).rev().collect();
        for starts in [shuffled(count), up, down] {
            let mut tree = VmaTree::new();
            for start in starts {
                tree.insert(Large(start * 2, [0; 11], Box::new(0)));
            }
            let each = tree.bytes() / count as usize;
            assert!(each < 200, "{each} bytes for each of {count}");
        }
    }
}

#[test]
fn the_only_wide_hole_is_found_at_either_end_of_many() {
    let count = 65_530;
    for wide in [0, 1, 40, 32_000, count - 2] {
        let shift = |n: u64| 100 + n * 2 + u64::from(n > wide);
        let tree = filled((0..count).map(shift));
        let (low, high) = (Vpn(shift(0)), Vpn(shift(count - 1)));
        let hole = Vpn(shift(wide) + 1);
        assert_eq!(tree.highest_gap(2, low, high), Some(hole));
        assert_eq!(tree.lowest_gap(2, low, high), Some(hole));
        assert_eq!(tree.highest_gap(3, low, high), None);
        assert_eq!(tree.highest_gap(3, Vpn(0), high), Some(Vpn(97)));
        assert_eq!(tree.lowest_gap(3, low, Vpn(u64::MAX)), Some(high.plus(1)));
        assert_eq!(tree.highest_gap(2, hole.plus(1), high), None);
        assert_eq!(tree.lowest_gap(2, low, hole.plus(1)), None);
    }
}

#[test]
fn an_empty_tree_is_one_hole() {
    let tree = VmaTree::<Area>::new();
    tree.check();
    assert_eq!(tree.lowest_gap(5, Vpn(3), Vpn(8)), Some(Vpn(3)));
    assert_eq!(tree.highest_gap(4, Vpn(3), Vpn(8)), Some(Vpn(4)));
    assert_eq!(tree.highest_gap(6, Vpn(3), Vpn(8)), None);
    assert_eq!(tree.highest_gap(1, Vpn(8), Vpn(3)), None);
    assert_eq!(
        tree.highest_gap(1, Vpn(0), Vpn(u64::MAX)),
        Some(Vpn(u64::MAX - 1))
    );
    assert!(tree.find(Vpn(0)).is_none() && tree.before(Vpn(u64::MAX)).is_none());
    assert!(tree.first().is_none() && tree.last().is_none() && tree.iter().next().is_none());
    assert!(tree.next_after(Vpn(0)).is_none() && tree.get(Vpn(u64::MAX)).is_none());
    assert!(drained(&mut VmaTree::<Area>::new(), VpnRange::ALL).is_empty());
}

#[test]
fn one_range_may_span_every_page() {
    let mut tree = filled([7]);
    tree.update(Vpn(7), |area| (area.start, area.end) = (0, u64::MAX));
    tree.check();
    assert_eq!(tree.find(Vpn(u64::MAX)), None);
    assert_eq!(tree.get(Vpn(u64::MAX - 1)), Some(&area(0, u64::MAX)));
    assert_eq!(tree.highest_gap(1, Vpn(0), Vpn(u64::MAX)), None);
    assert_eq!(drained(&mut tree, VpnRange::ALL), [area(0, u64::MAX)]);
    tree.check();
}

#[test]
fn draining_most_of_a_large_tree_keeps_the_rest() {
    for (from, to) in [
        (0, 60_000),
        (17, 59_801),
        (29_999, 30_050),
        (0, 1),
        (59_990, 60_000),
    ] {
        let mut tree = filled((0..60_000).map(|n| n * 2));
        let gone = drained(&mut tree, pages(from * 2, to * 2));
        tree.check();
        assert!(
            gone.iter()
                .map(|area| area.start)
                .eq((from..to).map(|n| n * 2))
        );
        assert_eq!(tree.len() as u64, 60_000 - (to - from));
    }
}

/// The message of the panic that `act` on a copy ends in.
fn panic_of<T>(tree: &VmaTree<Area>, act: impl FnOnce(&mut VmaTree<Area>) -> T) -> String {
    let mut copy = tree.clone();
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        act(&mut copy);
    }));
    let cause = caught.expect_err("the caller's error is noticed");
    cause.downcast_ref::<String>().cloned().unwrap_or_default()
}

#[test]
fn errors_of_the_caller_panic() {
    let mut tree = filled((0..500).map(|n| n * 10));
    tree.update(Vpn(70), |area| area.end = 75);
    for (start, end) in [(70, 71), (69, 71), (74, 80), (60, 90), (72, 73)] {
        let message = panic_of(&tree, |tree| tree.insert(area(start, end)));
        assert!(message.contains("overlaps"), "{start}..{end}: {message}");
    }
    assert!(panic_of(&tree, |tree| tree.insert(area(5, 5))).contains("empty range"));
    assert!(panic_of(&tree, |tree| tree.remove(Vpn(71))).contains("no range starts"));
    assert!(panic_of(&VmaTree::new(), |tree| tree.remove(Vpn(0))).contains("no range starts"));
    assert!(
        panic_of(&tree, |tree| tree.update(Vpn(60), |area| area.end = 71)).contains("overlaps")
    );
    assert!(
        panic_of(&tree, |tree| tree.update(Vpn(60), |area| area.end = 60)).contains("empty range")
    );
    for (start, end) in [(71, 90), (60, 74), (71, 74)] {
        let message = panic_of(&tree, |tree| drained(tree, pages(start, end)));
        assert!(message.contains("sticks out"), "{start}..{end}: {message}");
    }
}

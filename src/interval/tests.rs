//! Comparison with a plain list, in random order and in the orders that are hardest.

use super::{IntervalTree, Key};
use proptest::prelude::*;

fn hits(tree: &IntervalTree<u32>, from: u64, to: u64) -> Vec<(Key, u64, u32)> {
    tree.overlapping(from, to)
        .map(|(key, end, &value)| (key, end, value))
        .collect()
}

fn compare(tree: &IntervalTree<u32>, model: &[(Key, u64, u32)], from: u64, to: u64) {
    let wanted: Vec<_> = model
        .iter()
        .copied()
        .filter(|(key, end, _)| key.start < to && from < *end)
        .collect();
    assert_eq!(hits(tree, from, to), wanted, "[{from}, {to})");
    assert_eq!(tree.len(), model.len());
}

proptest! {
    #![proptest_config(crate::drawn::config(256))]
    #[test]
    fn it_is_an_ordered_list(steps in prop::collection::vec((0..200_u64, 1..80_u64, 0..4_u8), 1..600)) {
        let mut tree = IntervalTree::new();
        let mut model: Vec<(Key, u64, u32)> = Vec::new();
        for (seq, &(start, len, kind)) in steps.iter().enumerate() {
            if kind == 0 && !model.is_empty() {
                let (key, end, value) = model.remove(usize::try_from(start).unwrap() % model.len());
                prop_assert_eq!(tree.remove(key), Some((end, value)));
                prop_assert_eq!(tree.remove(key), None);
            } else if kind == 1 && !model.is_empty() {
                let (key, end, value) = model.remove(usize::try_from(start).unwrap() % model.len());
                let seq = seq as u64;
                let new = (Key { seq, ..key }, end, value);
                model.insert(model.partition_point(|m| m.0 < new.0), new);
                prop_assert_eq!(tree.renumber(key, seq).copied(), Some(value));
                prop_assert_eq!(tree.renumber(key, seq), None);
            } else {
                let seq = seq as u64;
                let item = (Key { start, seq }, start + len, u32::try_from(seq).unwrap());
                let at = model.partition_point(|m| m.0 < item.0);
                model.insert(at, item);
                tree.insert(item.0, item.1, item.2);
            }
            compare(&tree, &model, start, start + len / 3 + 1);
        }
        compare(&tree, &model, 0, u64::MAX);
        for (key, end, value) in model {
            prop_assert_eq!(tree.get(key), Some((end, &value)));
            prop_assert_eq!(tree.get_mut(key).copied(), Some(value));
            prop_assert_eq!(tree.remove(key), Some((end, value)));
        }
        prop_assert!(tree.is_empty());
    }
}

#[test]
fn orders_that_hurt() {
    let n = 5000_u64;
    let nested = |i: u64| (i, 2 * n - i);
    let equal = |_: u64| (7, 8);
    let down = |i: u64| (n - i, n - i + 1);
    for shape in [&nested as &dyn Fn(u64) -> (u64, u64), &equal, &down] {
        let mut tree = IntervalTree::new();
        let mut model: Vec<(Key, u64, u32)> = Vec::new();
        for seq in 0..n {
            let (start, end) = shape(seq);
            tree.insert(Key { start, seq }, end, 0);
            model.push((Key { start, seq }, end, 0));
        }
        model.sort_by_key(|m| m.0);
        for at in [0, 6, 7, 8, n / 2, n, 2 * n] {
            compare(&tree, &model, at, at + 1);
        }
        for (key, end, _) in model {
            assert_eq!(tree.remove(key), Some((end, 0)));
        }
        assert!(tree.is_empty());
    }
}

#[test]
fn the_whole_space() {
    let mut tree = IntervalTree::new();
    let key = Key { start: 0, seq: 1 };
    tree.insert(key, u64::MAX, 5);
    assert_eq!(hits(&tree, u64::MAX - 1, u64::MAX), [(key, u64::MAX, 5)]);
    assert_eq!(hits(&tree, 0, 1).len(), 1);
}

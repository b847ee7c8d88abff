//! Each seeded mistake of each model is caught by the property that should. The properties play the
//! races, so it is in each run.

use emmu::testkit::{
    Property::{self, *},
    seeded,
};
use std::{collections::BTreeSet, time::Duration};

/// The mistakes of each model, and the property that catches each.
const CAUGHT: &[(&str, &[(&str, Property)])] = &[
    (
        "kvm",
        &[
            ("NoFlush", DropsRange),
            ("LateFlush", DropsRange),
            ("ShortFlush", DropsRange),
            ("NoRetry", Retry),
            ("LostDirty", Dirty),
            ("EarlyValid", Retry),
            ("DeafCache", DropsRange),
            ("LostEnd", Auditable),
        ],
    ),
    (
        "gru",
        &[
            ("NoPurge", DropsRange),
            ("NoDisarm", Retry),
            ("NoLazyPurge", Displaced),
            ("LatePurge", DropsRange),
            ("BlindPreload", Retry),
            ("ShortPurge", DropsRange),
            ("LateActive", Retry),
            ("EarlyEnd", HoldsOff),
            ("LostEnd", Auditable),
            ("LostDirty", Dirty),
        ],
    ),
    (
        "xpmem",
        &[
            ("NoRecall", DropsRange),
            ("ShortRecall", DropsRange),
            ("LateRecall", DropsRange),
            ("NoWait", DropsRange),
            ("EarlyUnpin", DropsRange),
            ("NoRetry", Retry),
            ("LostDirty", Dirty),
        ],
    ),
    (
        "pinned",
        &[
            ("NoFlush", Mappings),
            ("TakesLaterAreas", Mappings),
            ("UnpinsInUse", Mappings),
            ("KeepsPins", Mappings),
            ("DirtyNotFlushed", DirtyLog),
            ("DirtyRoundsInward", DirtyLog),
            ("ReadsShared", Mappings),
        ],
    ),
    (
        "gpu",
        &[
            ("NoFlush", DropsRange),
            ("FirstEngineOnly", DropsRange),
            ("FirstPageOnly", DropsRange),
            ("LateFlush", DropsRange),
            ("SmallFlush", HugePages),
            ("FiltersOwn", Rights),
            ("BatchVouched", Retry),
            ("ReplacesDirty", Forks),
            ("LostDirty", Dirty),
            ("AgesSmallOnly", Aging),
            ("KeepsRefusals", Rights),
            ("SharedAtomics", Atomics),
            ("KeepsAlone", Atomics),
        ],
    ),
    (
        "regcache",
        &[
            ("DeafMonitor", DropsRange),
            ("LateMonitor", HoldsOff),
            ("StartsOnly", DropsRange),
            ("InvalidatesTwice", Pins),
            ("UncheckedPins", Pins),
            ("LeaksOnFailure", Pins),
            ("DoublePin", Pins),
            ("LeaksOnEviction", Pins),
            ("EvictsPinsOnly", Pins),
            ("EvictsInUse", Pins),
            ("KeyByPage", Pins),
            ("KeepsRefusals", Rights),
        ],
    ),
    (
        "odp",
        &[
            ("NoZap", Auditable),
            ("NoWait", Auditable),
            ("ShortZap", Pairing),
            ("PartKeepsHuge", HugePages),
            ("FillsLate", Reuse),
            ("UsesUnlocked", Reuse),
            ("NeverUpgrades", Pairing),
            ("LostDirty", Pairing),
            ("KeepsRefusals", Retry),
            ("AnswersTwice", PageFaults),
            ("EndsLinked", DropsRange),
            ("NeverReaps", Subscriptions),
        ],
    ),
    (
        "sva",
        &[
            ("NoAtcFlush", Auditable),
            ("AtcFirst", Retry),
            ("ShortFlush", Pairing),
            ("WholeMissed", Auditable),
            ("FirstDeviceOnly", Pairing),
            ("NoWait", Auditable),
            ("UsesUnlocked", Reuse),
            ("KeepsRefusals", Rights),
            ("AnswersTwice", PageFaults),
            ("LosesOverflow", PageFaults),
            ("UnbindKeepsAtc", Unregister),
            ("NoDrain", PageFaults),
        ],
    ),
];

fn caught(model: &str) {
    let (_, caught) = CAUGHT.iter().find(|(of, _)| *of == model).unwrap();
    for seeded in seeded() {
        let of_it = |(name, _): &&(&str, Property)| *name == seeded.mistake;
        if seeded.model == model
            && let Some((name, by)) = caught.iter().find(of_it)
        {
            // A device that hangs needs no longer.
            let kit = seeded.kit.clone().deadline(Duration::from_secs(1));
            let verdict = kit.check(*by);
            assert!(verdict.is_failed(), "{model}, {name}: {verdict}");
            println!("{verdict}");
        }
    }
}

#[test]
fn each_mistake_has_a_property() {
    let named = CAUGHT.iter().flat_map(|(model, all)| {
        let of_model = |(name, _): &(&str, Property)| (*model, (*name).to_owned());
        all.iter().map(of_model)
    });
    let named: BTreeSet<_> = named.collect();
    let all = seeded().into_iter().map(|s| (s.model, s.mistake));
    assert_eq!(named, all.collect());
}

#[test]
fn kvm() {
    caught("kvm");
}
#[test]
fn gru() {
    caught("gru");
}
#[test]
fn xpmem() {
    caught("xpmem");
}
#[test]
fn pinned() {
    caught("pinned");
}
#[test]
fn gpu() {
    caught("gpu");
}
#[test]
fn regcache() {
    caught("regcache");
}
#[test]
fn odp() {
    caught("odp");
}
#[test]
fn sva() {
    caught("sva");
}

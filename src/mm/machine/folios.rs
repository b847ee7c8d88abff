//! The private memory in which faults bring in folios, for each of their sizes
//! (`/sys/kernel/mm/transparent_hugepage/hugepages-*kB/enabled`).

#[cfg(any(feature = "serde", feature = "replay"))]
use std::collections::BTreeMap;

/// The size of a folio of private memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum FolioSize {
    /// 16 KiB: 4 pages.
    Kib16 = 2,
    /// 32 KiB.
    Kib32,
    /// 64 KiB.
    Kib64,
    /// 128 KiB.
    Kib128,
    /// 256 KiB.
    Kib256,
    /// 512 KiB.
    Kib512,
    /// 1 MiB: 256 pages.
    Mib1,
}

impl FolioSize {
    /// All sizes, in ascending order.
    pub const ALL: [Self; 7] = [
        Self::Kib16,
        Self::Kib32,
        Self::Kib64,
        Self::Kib128,
        Self::Kib256,
        Self::Kib512,
        Self::Mib1,
    ];

    /// Returns the number of pages in a folio.
    pub const fn pages(self) -> u32 {
        1 << self as u32
    }
    const fn bit(self) -> u16 {
        1 << self as u32
    }
}

/// The private memory in which a fault brings in a folio of some size: pages in a row, of which
/// none is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(
    any(feature = "serde", feature = "replay"),
    derive(serde::Serialize, serde::Deserialize)
)]
#[cfg_attr(
    any(feature = "serde", feature = "replay"),
    serde(rename_all = "lowercase")
)]
pub enum FolioPolicy {
    /// None.
    #[default]
    Never,
    /// Memory for which `MADV_HUGEPAGE` was called (`madvise`, and `inherit` where huge pages are
    /// so).
    Advise,
    /// All that is not advised against.
    Always,
}

/// A [`FolioPolicy`] for each size of folios. `Default` is `Never` for all, as in Linux.
///
/// A fault takes the largest size whose aligned pages lie in the mapping and are all absent, of the
/// sizes that are allowed; a smaller one if there is no memory for it.
///
/// # Examples
///
/// ```
/// use emmu::{Machine, MachineConfig, mm::{FolioPolicies, FolioPolicy, FolioSize}};
///
/// let folios = FolioPolicies::default()
///     .with(FolioSize::Kib16, FolioPolicy::Always)
///     .with(FolioSize::Mib1, FolioPolicy::Advise);
/// let machine = Machine::new(MachineConfig { folios, ..MachineConfig::default() });
/// assert_eq!(machine.config().folios.of(FolioSize::Kib64), FolioPolicy::Never);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(
    any(feature = "serde", feature = "replay"),
    derive(serde::Serialize, serde::Deserialize)
)]
#[cfg_attr(
    any(feature = "serde", feature = "replay"),
    serde(try_from = "Words", into = "Words")
)]
pub struct FolioPolicies {
    /// The sizes for all memory, a bit for each.
    always: u16,
    /// The sizes for advised memory.
    advised: u16,
}

impl FolioPolicies {
    /// Returns the policy for a size.
    pub const fn of(self, size: FolioSize) -> FolioPolicy {
        match (self.always & size.bit(), self.advised & size.bit()) {
            (0, 0) => FolioPolicy::Never,
            (0, _) => FolioPolicy::Advise,
            _ => FolioPolicy::Always,
        }
    }
    /// Returns these policies with another one for a size.
    #[must_use]
    pub const fn with(mut self, size: FolioSize, policy: FolioPolicy) -> Self {
        self.always &= !size.bit();
        self.advised &= !size.bit();
        match policy {
            FolioPolicy::Never => {}
            FolioPolicy::Advise => self.advised |= size.bit(),
            FolioPolicy::Always => self.always |= size.bit(),
        }
        self
    }
    /// Returns the sizes that private memory may have.
    #[inline]
    pub(in crate::mm) const fn sizes(self, is_advised: bool) -> FolioSizes {
        match is_advised {
            true => FolioSizes(self.always | self.advised),
            false => FolioSizes(self.always),
        }
    }
}

/// Some sizes of folios.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::mm) struct FolioSizes(u16);

impl FolioSizes {
    /// No size.
    pub(in crate::mm) const NONE: Self = Self(0);

    #[inline]
    pub(in crate::mm) const fn is_empty(self) -> bool {
        self.0 == 0
    }
    /// Returns the sizes, the largest first.
    pub(in crate::mm) fn iter(self) -> impl Iterator<Item = FolioSize> {
        let sizes = FolioSize::ALL.into_iter().rev();
        sizes.filter(move |size| self.0 & size.bit() != 0)
    }
}

/// Policies as settings and recordings have them: by size, or one alone, that of 64 KiB.
#[cfg(any(feature = "serde", feature = "replay"))]
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(untagged)]
enum Words {
    Only(FolioPolicy),
    Sizes(BTreeMap<String, FolioPolicy>),
}

#[cfg(any(feature = "serde", feature = "replay"))]
/// Returns the word for a size, as in the name of its folder in Linux.
fn word(size: FolioSize) -> String {
    format!("{}kB", size.pages() * 4)
}

#[cfg(any(feature = "serde", feature = "replay"))]
impl TryFrom<Words> for FolioPolicies {
    type Error = String;

    fn try_from(words: Words) -> Result<Self, String> {
        let sizes = match words {
            Words::Only(policy) => return Ok(Self::default().with(FolioSize::Kib64, policy)),
            Words::Sizes(sizes) => sizes,
        };
        sizes
            .into_iter()
            .try_fold(Self::default(), |all, (name, policy)| {
                let size = FolioSize::ALL.into_iter().find(|&size| word(size) == name);
                let size = size.ok_or_else(|| format!("no folio has a size of {name:?}"))?;
                Ok(all.with(size, policy))
            })
    }
}

#[cfg(any(feature = "serde", feature = "replay"))]
impl From<FolioPolicies> for Words {
    fn from(all: FolioPolicies) -> Self {
        let kib64 = all.of(FolioSize::Kib64);
        if all == FolioPolicies::default().with(FolioSize::Kib64, kib64) {
            return Self::Only(kib64);
        }
        let sizes = FolioSize::ALL.map(|size| (word(size), all.of(size)));
        let named = sizes
            .into_iter()
            .filter(|(_, policy)| *policy != FolioPolicy::Never);
        Self::Sizes(named.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_policy_of_a_size_counts() {
        use FolioPolicy::{Advise, Always, Never};
        for size in FolioSize::ALL {
            let mut policies = FolioPolicies::default().with(FolioSize::Kib64, Always);
            for policy in [Always, Never, Advise, Always, Advise] {
                policies = policies.with(size, policy);
                assert_eq!(policies.of(size), policy);
                let has = |advised| policies.sizes(advised).iter().any(|s| s == size);
                assert_eq!((has(false), has(true)), (policy == Always, policy != Never));
            }
        }
        let all = FolioSize::ALL.map(FolioSize::pages);
        assert_eq!(all, [4, 8, 16, 32, 64, 128, 256]);
    }

    #[test]
    fn the_largest_size_comes_first() {
        let policies = FolioPolicies::default()
            .with(FolioSize::Kib16, FolioPolicy::Always)
            .with(FolioSize::Kib512, FolioPolicy::Advise);
        let sizes: Vec<_> = policies.sizes(true).iter().collect();
        assert_eq!(sizes, [FolioSize::Kib512, FolioSize::Kib16]);
        assert!(FolioPolicies::default().sizes(true).is_empty());
    }

    #[cfg(feature = "replay")]
    #[test]
    fn words_say_the_policies() {
        let of_64 = FolioPolicies::default().with(FolioSize::Kib64, FolioPolicy::Advise);
        let two = of_64.with(FolioSize::Mib1, FolioPolicy::Always);
        let cases = [
            (FolioPolicies::default(), r#""never""#),
            (of_64, r#""advise""#),
            (two, r#"{"1024kB":"always","64kB":"advise"}"#),
        ];
        for (policies, words) in cases {
            assert_eq!(serde_json::to_string(&policies).unwrap(), words);
            let read: FolioPolicies = serde_json::from_str(words).unwrap();
            assert_eq!(read, policies);
        }
        let bad = serde_json::from_str::<FolioPolicies>(r#"{"8kB":"always"}"#);
        assert!(bad.unwrap_err().to_string().contains("8kB"));
    }
}

//! Names in findings that are read from elsewhere (feature `serde`).
//!
//! A finding has the names of MMUs of this program. A name that was read is kept for the life of
//! the process, once however often it is read. [`MOST`] different ones are taken, of at most
//! [`LONGEST`] bytes: input of any length takes no more memory than that.

use crate::sync::Mutex;
use serde::{Deserialize, Deserializer, de::Error};
use std::{borrow::Cow, collections::BTreeSet, time::Duration};

/// The most names that are kept.
const MOST: usize = 1024;
/// The bytes of the longest name.
const LONGEST: usize = 256;

static KEPT: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());

fn keep<E: Error>(name: &str) -> Result<&'static str, E> {
    let mut kept = KEPT.lock();
    if let Some(known) = kept.get(name) {
        return Ok(known);
    }
    if kept.len() >= MOST || name.len() > LONGEST {
        return Err(E::custom(
            "more names of MMUs than are kept, or a longer one",
        ));
    }
    let name: &'static str = Box::leak(name.into());
    kept.insert(name);
    Ok(name)
}

pub(super) fn name<'de, D: Deserializer<'de>>(from: D) -> Result<&'static str, D::Error> {
    keep(&Cow::<str>::deserialize(from)?)
}

pub(super) fn some_name<'de, D>(from: D) -> Result<Option<&'static str>, D::Error>
where
    D: Deserializer<'de>,
{
    let name = Option::<Cow<'_, str>>::deserialize(from)?;
    name.map(|name| keep(&name)).transpose()
}

pub(super) fn timed_name<'de, D>(from: D) -> Result<Option<(&'static str, Duration)>, D::Error>
where
    D: Deserializer<'de>,
{
    let name = Option::<(Cow<'_, str>, Duration)>::deserialize(from)?;
    name.map(|(name, time)| Ok((keep(&name)?, time)))
        .transpose()
}

#[cfg(test)]
mod tests {
    use super::{LONGEST, MOST, keep};
    use serde::de::value::Error;

    #[test]
    fn no_input_keeps_more_than_the_limits() {
        let keep = keep::<Error>;
        let first = keep("KVM").expect("room");
        assert!(keep(&"x".repeat(LONGEST + 1)).is_err());
        let taken = (0..2 * MOST).filter(|n| keep(&n.to_string()).is_ok());
        assert!(taken.count() < MOST);
        assert!(keep("one more").is_err());
        assert!(std::ptr::eq(first, keep("KVM").expect("known")));
    }
}

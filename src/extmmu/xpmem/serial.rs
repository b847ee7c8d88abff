//! Numbers that owners, segments and attachments are told apart by.

use crate::sync::IdSource;

static NEXT: IdSource = IdSource::starting_at(1);

pub(super) fn fresh() -> u64 {
    NEXT.next()
}

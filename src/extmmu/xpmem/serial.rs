//! Serial numbers, unique in the process, of owners, segments and attachments.

use crate::sync::IdSource;

static NEXT: IdSource = IdSource::starting_at(1);

pub(super) fn fresh() -> u64 {
    NEXT.next()
}

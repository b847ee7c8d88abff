//! `process_madvise`: advice about several ranges, also of another process.

use crate::mm::{entry::flags::Advice, space::Mm};
use crate::{
    addr::TASK_SIZE,
    ctx::CallCx,
    error::{ByteRange, MadviseError},
};

/// The most ranges of a call (`UIO_MAXIOV`).
const MOST_RANGES: usize = 1024;
/// The most bytes that one call advises (`MAX_RW_COUNT`).
const MOST_BYTES: u64 = 0x7fff_f000;

/// Checks the ranges of a call, and cuts off what lies behind [`MOST_BYTES`] in all
/// (`import_iovec`).
fn checked(ranges: &[(u64, u64)]) -> Result<Vec<(u64, u64)>, MadviseError> {
    if ranges.len() > MOST_RANGES {
        return Err(MadviseError::TooManyRanges(ranges.len()));
    }
    if let Some(&(_, len)) = ranges.iter().find(|(_, len)| i64::try_from(*len).is_err()) {
        return Err(MadviseError::TooLong(len));
    }
    let mut left = MOST_BYTES;
    let one = |&(addr, len): &(u64, u64)| {
        let part = len.min(left);
        left -= part;
        // One range alone is cut before it is checked (`import_ubuf`).
        let end = addr.checked_add(if ranges.len() == 1 { part } else { len });
        match end.is_some_and(|end| end <= TASK_SIZE) {
            true => Ok((addr, part)),
            false => Err(MadviseError::BeyondTask(ByteRange { addr, len })),
        }
    };
    ranges.iter().map(one).collect()
}

impl Mm {
    /// Gives advice on ranges of `other`, each an address and a length in bytes, one after the
    /// other, for the process with this address space. Returns the number of bytes advised: at most
    /// 2 GiB less a page, and fewer than all if a range after the first fails.
    ///
    /// # Errors
    ///
    /// [`MadviseError::TooManyRanges`], [`MadviseError::TooLong`], [`MadviseError::BeyondTask`].
    /// That of [`madvise`](Self::madvise) for the first range;
    /// [`MadviseError::OfAnother`]: another process's memory takes only the advice `Cold`,
    /// `PageOut`, `WillNeed` and `Collapse`.
    ///
    /// # Examples
    ///
    /// ```
    /// use emmu::{Mm, PAGE_SIZE, mm::{Advice, MmapArgs}};
    /// # let machine = emmu::Machine::new(Default::default());
    /// # let mut thread = machine.enter()?;
    /// # let mut cx = thread.cx();
    /// # let mm = emmu::Mm::new(&machine);
    ///
    /// let at = mm.mmap(&mut cx, &MmapArgs::anonymous(PAGE_SIZE))?;
    /// mm.store(&mut cx, at, 1)?;
    /// let manager = Mm::new(&machine);
    /// let ranges = [(at, PAGE_SIZE)];
    /// let done = manager.process_madvise(&mut cx, &mm, &ranges, Advice::Cold)?;
    /// assert_eq!(done, PAGE_SIZE);
    /// assert!(manager.process_madvise(&mut cx, &mm, &ranges, Advice::DontNeed).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn process_madvise(
        &self,
        cx: &mut CallCx<'_>,
        other: &Self,
        ranges: &[(u64, u64)],
        advice: Advice,
    ) -> Result<u64, MadviseError> {
        let ranges = checked(ranges)?;
        // `process_madvise_remote_valid`: it changes no data.
        let harmless = matches!(
            advice,
            Advice::Cold | Advice::PageOut | Advice::WillNeed | Advice::Collapse
        );
        if !harmless && !std::ptr::eq(self, other) {
            return Err(MadviseError::OfAnother(advice as i32));
        }
        let mut advised = 0;
        for (addr, len) in ranges {
            match other.madvise(cx, addr, len, advice) {
                Ok(()) => advised += len,
                Err(e) if advised == 0 => return Err(e),
                Err(_) => break,
            }
        }
        Ok(advised)
    }
}

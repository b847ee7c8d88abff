//! Names of anonymous memory (`prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME)`).

use super::vma_walk::{Visit, each_vma, part_at};
use crate::mm::{guard::MmapWriteGuard, space::Mm};
use crate::{
    addr::{PAGE_SIZE, Vpn, VpnRange},
    ctx::CallCx,
    error::{ByteRange, MadviseError},
};
use std::sync::Arc;

/// The greatest length of a name in bytes (`ANON_VMA_NAME_MAX_LEN` less the final zero).
const LONGEST: usize = 79;

impl Mm {
    /// Names the anonymous memory in `[addr, addr + len)`, `len` rounded up to pages, or takes its
    /// name away. `maps` shows the name, and neighbours of different names do not merge.
    ///
    /// # Errors
    ///
    /// [`MadviseError`]: a bad range, a name that is too long or has other than plain characters
    /// (both [`Range`](MadviseError::Range)), files ([`NotAnonymous`](MadviseError::NotAnonymous)).
    /// A hole is reported at the end, after all mapped memory was named.
    pub fn name_memory(
        &self,
        cx: &mut CallCx<'_>,
        addr: u64,
        len: u64,
        name: Option<&str>,
    ) -> Result<(), MadviseError> {
        let bad = MadviseError::Range(ByteRange { addr, len });
        let rounded = len.checked_next_multiple_of(PAGE_SIZE).ok_or(bad)?;
        let end = addr.checked_add(rounded).ok_or(bad)?;
        if !addr.is_multiple_of(PAGE_SIZE) || !name.is_none_or(is_name) {
            return Err(bad);
        }
        let Some(range) = VpnRange::new(Vpn::containing(addr), Vpn::containing(end)) else {
            return Ok(());
        };
        let mut g = self.lock_exclusive_some(cx);
        g.claim_range(range);
        g.name_range(range, name.map(Arc::from))
    }
}

/// Returns true for a short name of printable characters, without those that a shell or a reader of
/// `maps` would take for something else.
fn is_name(name: &str) -> bool {
    let plain = |b: u8| matches!(b, b' '..=b'~') && !b"\\`$[]".contains(&b);
    name.len() <= LONGEST && name.bytes().all(plain)
}

impl MmapWriteGuard<'_> {
    fn name_range(&mut self, range: VpnRange, label: Option<Arc<str>>) -> Result<(), MadviseError> {
        each_vma(range, MadviseError::Hole, |at| {
            let (vma, part) = match part_at(self.layout.vmas.find(at), at, range) {
                Ok(found) => found,
                Err(visit) => return Ok(visit),
            };
            let shared = vma.object().is_some_and(|o| o.is_nameless());
            if vma.device().is_some() || !(vma.is_anonymous() || shared) {
                return Err(MadviseError::NotAnonymous(vma.start().addr()));
            }
            let start = vma.start();
            let start = match vma.extras.label() == label.as_ref() {
                true => start,
                false => {
                    let label = label.clone();
                    let mut wanted = self.wanted(start);
                    wanted.extras.change(|rare| rare.label = label);
                    self.modify_as(start, part, wanted)?
                }
            };
            // The VMA may have merged with the next.
            Ok(Visit::Done(self.vma(start).end()))
        })
    }
}

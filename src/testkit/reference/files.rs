//! Operations on files themselves.

use super::{
    Reference,
    outcome::{Came, DONE, Step, errno, must},
    page::{Kind, PAGE, Pages},
};
use crate::replay::{FileKind, Op, Outcome};

impl Reference {
    pub(super) fn on_file(&mut self, op: &Op, came: Came<'_>) -> Step {
        let name = op.file().expect("the caller matched");
        let nth = self.files[name];
        let file = &mut self.objects[nth];
        if file.refuses(op) {
            return must(&errno("EPERM"), came);
        }
        match *op {
            Op::Ftruncate { len, .. } => {
                must(&DONE, came)?;
                let ends = [file.size, len];
                file.resize(len);
                // Private copies of cut pages go with the cut.
                let end = len.div_ceil(PAGE);
                for page in self.processes.values_mut().flat_map(Pages::values_mut) {
                    if page
                        .object
                        .is_some_and(|(o, index)| o == nth && index >= end)
                    {
                        page.clear();
                    }
                }
                self.edges(ends, nth);
                Ok(())
            }
            Op::PunchHole { off, len, .. } if len > 0 && len < 1 << 40 => {
                must(&DONE, came)?;
                file.punch(off, off + len);
                self.edges([off, off + len], nth);
                Ok(())
            }
            Op::Pwrite { off, byte, .. } => {
                must(&Outcome::Ret(1), came)?;
                let end = file.size;
                file.write(off, byte);
                if off > end {
                    self.edges([end, off], nth);
                }
                Ok(())
            }
            Op::Fsync { .. } => {
                file.drop_tail();
                must(&DONE, came)
            }
            _ => self.odd(came),
        }
    }
    /// Notes that partly zeroed blocks are in memory, if the file has data there.
    fn edges(&mut self, at: [u64; 2], nth: usize) {
        let even = at.iter().all(|edge| edge.is_multiple_of(PAGE));
        self.resident &= even || self.objects[nth].kind != Kind::File(FileKind::Disk);
    }
}

//! Pages that go to the memory of a device and come home: no byte changes on the way.

use super::{
    Reference,
    outcome::{Came, Step, errno, must, refusing},
    page::pages,
};
use crate::replay::{Bytes, Op, Outcome};

impl Reference {
    /// The model knows neither whether there is a device nor how many frames it has, so it knows
    /// which calls must fail, and what those that succeed leave.
    pub(super) fn on_device(&mut self, actor: u32, op: &Op, came: Came<'_>) -> Step {
        if *came == errno("ENODEV") {
            return Ok(());
        }
        match *op {
            Op::ToDevice(Bytes { addr, len }) | Op::FromDevice(Bytes { addr, len }) => {
                let all = &self.processes[&actor];
                // Bytes in parts of pages count as those of the pages where they begin.
                let Some(range) = pages(addr, len).filter(|_| len.is_multiple_of(4096)) else {
                    return Ok(());
                };
                let n = range.end - range.start;
                match *came {
                    _ if range.clone().any(|page| !all.contains_key(&page)) => {
                        must(&errno("EINVAL"), came)
                    }
                    Outcome::Ret(moved) if moved > n => Err(format!("{moved} of {n} pages moved")),
                    _ => Ok(()),
                }
            }
            Op::Exclusive { addr } if self.refusal(actor, addr, true).is_some() => refusing(came),
            Op::Exclusive { addr } => {
                self.make_present(actor, addr, true);
                match came {
                    Outcome::Err(why) if why == "EOPNOTSUPP" => Ok(()),
                    came => must(&Outcome::Ret(0), came),
                }
            }
            _ => Ok(()),
        }
    }
}

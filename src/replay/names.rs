//! The numbers by which page tables are compared: frames in order of first sight. A replay looks up
//! all pages of all processes after every step.

use crate::addr::Pfn;

/// Frames whose numbers lie together, beyond those of memory.
const BLOCK: u32 = 512;

/// The numbers of frames, in order of first sight.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// The frames, by their numbers.
    seen: Vec<Pfn>,
    /// By frame, one more than its number; 0 for a frame that was not seen. Memory is used from the
    /// lowest frame on.
    low: Vec<u32>,
    /// The numbers of frames beyond those, such as the huge zero page: 512 in a row, of few pages.
    high: Vec<(u32, Box<[u32; BLOCK as usize]>)>,
}

impl Names {
    /// The end of the frames that `low` has.
    const LOW: u32 = 1 << 20;

    #[inline]
    pub(super) fn number(&mut self, frame: Pfn) -> u32 {
        let next = u32::try_from(self.seen.len() + 1).unwrap_or(u32::MAX);
        let known = match self.low.get_mut(frame.0 as usize) {
            Some(known) => known,
            None => self.grow(frame),
        };
        if *known == 0 {
            *known = next;
            self.seen.push(frame);
            return next - 1;
        }
        *known - 1
    }
    #[inline(never)]
    fn grow(&mut self, frame: Pfn) -> &mut u32 {
        if frame.0 >= Self::LOW {
            let (block, nth) = (frame.0 / BLOCK, (frame.0 % BLOCK) as usize);
            let known = self.high.iter().position(|(b, _)| *b == block);
            let at = known.unwrap_or_else(|| {
                self.high.push((block, Box::new([0; BLOCK as usize])));
                self.high.len() - 1
            });
            return &mut self.high[at].1[nth];
        }
        let end = (frame.0 + 1).next_power_of_two();
        self.low.resize(end as usize, 0);
        &mut self.low[frame.0 as usize]
    }
    pub(super) fn forget(&mut self) {
        for frame in self.seen.drain(..) {
            if let Some(known) = self.low.get_mut(frame.0 as usize) {
                *known = 0;
            }
        }
        self.high.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::{Names, Pfn};

    #[test]
    fn frames_are_numbered_as_they_are_seen() {
        let mut names = Names::default();
        for _ in 0..2 {
            for (frame, number) in [(7, 0), (Names::LOW, 1), (3000, 2), (u32::MAX, 3), (0, 4)] {
                assert_eq!(names.number(Pfn(frame)), number);
            }
            assert_eq!(
                (names.number(Pfn(3000)), names.number(Pfn(Names::LOW))),
                (2, 1)
            );
            names.forget();
        }
    }
}

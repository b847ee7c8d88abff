//! Frames that lie on devices: their numbers, and the free ones of each device.
//!
//! Guarantee: a number is free, or in use by one device. Numbers of a device that went are given to
//! another only when none of its frames is in use.

use crate::{
    addr::Pfn,
    sync::{AtomicBool, IdSource, Mutex, Ordering, RwLock},
};
use std::{num::NonZero, ops::Range, sync::Arc};

/// The identity of a device's memory, never used twice (`pgmap->owner`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DeviceId(NonZero<u64>);

/// The access that processors have to the memory of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeviceKind {
    /// None: a page comes home when a processor wants it (`MEMORY_DEVICE_PRIVATE`).
    Private,
    /// As to their own memory, through a coherent bus: a page there is mapped like any other
    /// (`MEMORY_DEVICE_COHERENT`).
    Coherent,
}

/// The frame numbers that are set aside for devices, and the memories that have them.
#[derive(Debug)]
pub(super) struct DeviceFrames {
    numbers: Range<u32>,
    /// In ascending order of their numbers.
    areas: RwLock<Vec<Arc<DeviceArea>>>,
}

/// Identities of all machines: a driver may show its memory to the window of another.
static IDS: IdSource = IdSource::starting_at(1);

/// The frames of one device.
#[derive(Debug)]
pub(super) struct DeviceArea {
    pub(super) id: DeviceId,
    pub(super) kind: DeviceKind,
    frames: Range<u32>,
    free: Mutex<Free>,
    /// Set when the memory is gone: its numbers may be given away when all are free.
    gone: AtomicBool,
}

/// The free frames of a device.
#[derive(Debug)]
struct Free {
    /// Frames that came back; the last is allocated first.
    stack: Vec<u32>,
    /// The first frame that was never used.
    next: u32,
    /// Set if no frame may be taken: the device is being removed.
    closed: bool,
}

impl DeviceFrames {
    pub(super) fn new(numbers: Range<u32>) -> Self {
        Self {
            numbers,
            areas: RwLock::default(),
        }
    }
    /// Returns true if the number is set aside for devices.
    #[inline]
    pub(super) fn has(&self, pfn: Pfn) -> bool {
        self.numbers.contains(&pfn.0)
    }
    /// Returns the number above all of these.
    pub(super) fn end(&self) -> u32 {
        self.numbers.end
    }
    /// Returns the memory that has the frame.
    pub(super) fn area_of(&self, pfn: Pfn) -> Option<Arc<DeviceArea>> {
        let areas = self.areas.read();
        let after = areas.partition_point(|area| area.frames.start <= pfn.0);
        let area = areas[..after].last()?;
        area.has(pfn).then(|| Arc::clone(area))
    }
    /// Returns the memory of this identity.
    pub(super) fn area(&self, id: DeviceId) -> Option<Arc<DeviceArea>> {
        let areas = self.areas.read();
        areas.iter().find(|area| area.id == id).map(Arc::clone)
    }
    /// Gives numbers to a memory of so many frames, closed at first: the lowest that are free in a
    /// row. `None`: there are not so many.
    pub(super) fn add(&self, kind: DeviceKind, frames: u32) -> Option<Arc<DeviceArea>> {
        let mut areas = self.areas.write();
        areas.retain(|area| !area.is_gone());
        let starts = areas.iter().map(|area| area.frames.start);
        let ends = starts.chain([self.numbers.end]);
        let mut first = self.numbers.start;
        let mut at = 0;
        for (nth, end) in ends.enumerate() {
            if end - first >= frames {
                break;
            }
            first = areas.get(nth)?.frames.end;
            at = nth + 1;
        }
        let area = Arc::new(DeviceArea {
            id: DeviceId(NonZero::new(IDS.next()).expect("they start at 1")),
            kind,
            frames: first..first + frames,
            free: Mutex::new(Free {
                stack: Vec::new(),
                next: first,
                closed: true,
            }),
            gone: AtomicBool::new(false),
        });
        areas.insert(at, Arc::clone(&area));
        Some(area)
    }
}

impl DeviceArea {
    /// Returns true if the frame is one of these.
    pub(super) fn has(&self, pfn: Pfn) -> bool {
        self.frames.contains(&pfn.0)
    }
    /// Returns the number of frames.
    #[allow(clippy::cast_possible_truncation)]
    pub(super) fn len(&self) -> u32 {
        self.frames.len() as u32
    }
    /// Returns the frames that were ever used, ascending.
    pub(super) fn touched(&self) -> Range<u32> {
        self.frames.start..self.free.lock().next
    }
    /// Takes a free frame; `None`: all are in use, or the device is closed.
    pub(super) fn take(&self) -> Option<Pfn> {
        let mut free = self.free.lock();
        if free.closed {
            return None;
        }
        if let Some(pfn) = free.stack.pop() {
            return Some(Pfn(pfn));
        }
        let fresh = Pfn(free.next);
        self.has(fresh).then(|| {
            free.next += 1;
            fresh
        })
    }
    /// Puts a frame back.
    pub(super) fn put(&self, pfn: Pfn) {
        self.free.lock().stack.push(pfn.0);
    }
    /// Returns the number of frames in use.
    #[allow(clippy::cast_possible_truncation)]
    pub(super) fn in_use(&self) -> u32 {
        let free = self.free.lock();
        free.next - self.frames.start - free.stack.len() as u32
    }
    /// Lets no frame be taken from now on, or again.
    pub(super) fn close(&self, closed: bool) {
        self.free.lock().closed = closed;
    }
    /// Notes that the memory is gone.
    pub(super) fn leave(&self) {
        self.close(true);
        self.gone.store(true, Ordering::Release);
    }
    fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire) && self.in_use() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::{DeviceFrames, DeviceKind::Private, Pfn};

    #[test]
    fn numbers_are_used_again_when_their_device_is_gone_and_all_are_free() {
        let devices = DeviceFrames::new(100..110);
        let (a, b) = (
            devices.add(Private, 4).unwrap(),
            devices.add(Private, 4).unwrap(),
        );
        assert!(devices.add(Private, 4).is_none() && a.id != b.id);
        assert_eq!(a.take(), None, "closed at first");
        a.close(false);
        let frame = a.take().unwrap();
        assert_eq!((frame, a.in_use(), a.len()), (Pfn(100), 1, 4));
        a.leave();
        assert!(devices.add(Private, 4).is_none(), "a frame is in use");
        assert_eq!(devices.area_of(frame).map(|area| area.id), Some(a.id));
        a.put(frame);
        let c = devices.add(Private, 3).unwrap();
        assert_eq!(devices.area_of(Pfn(100)).map(|area| area.id), Some(c.id));
        assert!(devices.area_of(Pfn(103)).is_none());
        let d = devices.add(Private, 2).unwrap();
        d.close(false);
        assert_eq!(d.take(), Some(Pfn(108)));
    }

    #[test]
    fn the_frame_that_came_back_last_is_taken_first() {
        let area = DeviceFrames::new(100..102).add(Private, 2).unwrap();
        area.close(false);
        assert_eq!((area.take(), area.take()), (Some(Pfn(100)), Some(Pfn(101))));
        assert_eq!(area.take(), None);
        area.put(Pfn(100));
        assert_eq!((area.take(), area.touched()), (Some(Pfn(100)), 100..102));
        area.put(Pfn(101));
        area.close(true);
        assert_eq!(area.take(), None);
        area.close(false);
        assert_eq!(area.take(), Some(Pfn(101)));
    }
}

//! What the disk and its front-end agree on.

/// How a disk reaches the memory of its guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// By the table of memory alone (`VHOST_USER_SET_MEM_TABLE`).
    Table,
    /// Through an IOTLB, behind which the table has the frames of the machine.
    Iotlb,
    /// The same, but its IOTLB is told of no invalidation: a mistake.
    Deaf,
}

impl Reach {
    pub const ALL: [(Self, &str); 3] = [
        (Self::Table, "table"),
        (Self::Iotlb, "iotlb"),
        (Self::Deaf, "deaf"),
    ];

    pub fn name(self) -> &'static str {
        let found = Self::ALL.into_iter().find(|(reach, _)| *reach == self);
        found.expect("all are there").1
    }
    pub fn of(name: &str) -> Option<Self> {
        let found = Self::ALL.into_iter().find(|(_, its)| *its == name);
        Some(found?.0)
    }
}

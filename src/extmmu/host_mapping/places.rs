//! The page of a file that each page of an area is a mapping of, and how many mappings that takes.

use std::collections::BTreeMap;

/// Pages of an area, and the pages of the file that they map. Neighbours that map neighbours are
/// one mapping of the host.
#[derive(Debug, Default)]
pub(super) struct Places {
    by_page: BTreeMap<usize, u64>,
    joined: usize,
}

impl Places {
    /// Returns the page of the file at a page of the area.
    pub(super) fn get(&self, page: usize) -> Option<u64> {
        self.by_page.get(&page).copied()
    }
    /// Returns the number of neighbours that the host joins with a page into one mapping, once the
    /// page maps page `of` of the file.
    fn neighbours(&self, page: usize, of: u64) -> usize {
        let before = page.checked_sub(1).and_then(|page| self.get(page));
        let after = self.get(page + 1);
        let joins = [(before, of.checked_sub(1)), (after, of.checked_add(1))];
        let joins = joins
            .iter()
            .filter(|(is, wants)| is.is_some() && is == wants);
        joins.count()
    }
    /// Notes that a page maps `of` from now on.
    pub(super) fn put(&mut self, page: usize, of: u64) {
        if let Some(was) = self.by_page.remove(&page) {
            self.joined -= self.neighbours(page, was);
        }
        self.joined += self.neighbours(page, of);
        self.by_page.insert(page, of);
    }
    /// Returns the number of mappings of the file.
    pub(super) fn mappings(&self) -> usize {
        self.by_page.len() - self.joined
    }
}

#[cfg(test)]
mod tests {
    use super::Places;

    #[test]
    fn neighbours_that_map_neighbours_are_one_mapping() {
        let mut places = Places::default();
        let mut put = |page, of| {
            places.put(page, of);
            places.mappings()
        };
        assert_eq!([put(4, 9), put(6, 11), put(5, 10)], [1, 2, 1]);
        assert_eq!([put(5, 10), put(3, 3), put(5, 9)], [1, 2, 4]);
        assert_eq!([put(0, 0), put(1, 0), put(5, 10)], [5, 6, 4]);
        assert_eq!(places.get(5), Some(10));
        assert_eq!(places.get(2), None);
    }
}

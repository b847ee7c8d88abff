//! Types of a program, by its debug information.

use addr2line::gimli::{
    AttributeValue, DW_AT_abstract_origin, DW_AT_byte_size, DW_AT_count,
    DW_AT_data_member_location, DW_AT_name, DW_AT_type, DW_TAG_array_type, DW_TAG_member,
    DW_TAG_namespace, DW_TAG_structure_type, DW_TAG_subrange_type, DW_TAG_template_type_parameter,
    DW_TAG_union_type, DebugInfoOffset, DebuggingInformationEntry, DwAt, Dwarf, EndianSlice, Error,
    NativeEndian, Unit, UnitOffset, UnitRef,
};
use std::{cell::RefCell, collections::HashMap};

pub(crate) type Slice<'p> = EndianSlice<'p, NativeEndian>;
type Die<'a, 'u, 'p> = DebuggingInformationEntry<'a, 'u, Slice<'p>>;

/// The units of a program, in the order of their places.
pub(crate) struct Units<'p> {
    dwarf: &'p Dwarf<Slice<'p>>,
    units: Vec<Unit<Slice<'p>>>,
    /// The namespaces of the types of a unit.
    spaces: RefCell<HashMap<usize, HashMap<UnitOffset, String>>>,
}

/// An entry of the debug information: a type, or a function.
#[derive(Clone, Copy)]
pub(crate) struct Entry<'u, 'p> {
    units: &'u Units<'p>,
    unit: usize,
    at: UnitOffset,
}

impl<'p> Units<'p> {
    pub(crate) fn new(dwarf: &'p Dwarf<Slice<'p>>) -> Result<Self, Error> {
        let mut headers = dwarf.units();
        let mut units = Vec::new();
        while let Some(header) = headers.next()? {
            units.push(dwarf.unit(header)?);
        }
        Ok(Self {
            dwarf,
            units,
            spaces: RefCell::default(),
        })
    }
    /// Returns the entry at a place of a unit, which begins at `unit`.
    pub(crate) fn entry(&self, unit: DebugInfoOffset, at: UnitOffset) -> Option<Entry<'_, 'p>> {
        let unit = self.units.binary_search_by_key(&unit, |u| place(u));
        let (units, unit) = (self, unit.ok()?);
        Some(Entry { units, unit, at })
    }
    fn anywhere(&self, at: DebugInfoOffset) -> Option<Entry<'_, 'p>> {
        let after = self.units.partition_point(|u| place(u) <= at);
        let unit = after.checked_sub(1)?;
        Some(Entry {
            units: self,
            unit,
            at: at.to_unit_offset(&self.units[unit].header)?,
        })
    }
    fn unit(&self, n: usize) -> UnitRef<'_, Slice<'p>> {
        self.units[n].unit_ref(self.dwarf)
    }
    /// The namespaces of all types of a unit.
    fn namespaces(&self, unit: usize) -> Result<HashMap<UnitOffset, String>, Error> {
        let (unit, mut out) = (self.unit(unit), HashMap::new());
        let mut entries = unit.entries();
        let (mut depth, mut path) = (0, Vec::<(isize, String)>::new());
        while let Some((deeper, entry)) = entries.next_dfs()? {
            depth += deeper;
            path.retain(|(of, _)| *of < depth);
            let tag = entry.tag();
            if tag == DW_TAG_namespace {
                path.push((depth, name(unit, entry).unwrap_or_default()));
            } else if tag == DW_TAG_structure_type || tag == DW_TAG_union_type {
                let names: Vec<&str> = path.iter().map(|(_, name)| &**name).collect();
                out.insert(entry.offset(), names.join("::"));
            }
        }
        Ok(out)
    }
}

fn place(unit: &Unit<Slice<'_>>) -> DebugInfoOffset {
    let none = DebugInfoOffset(usize::MAX);
    unit.header.offset().as_debug_info_offset().unwrap_or(none)
}
fn name<'p>(unit: UnitRef<'_, Slice<'p>>, entry: &Die<'_, '_, 'p>) -> Option<String> {
    let value = entry.attr_value(DW_AT_name).ok()??;
    let text = unit.attr_string(value).ok()?;
    Some(text.to_string_lossy().into_owned())
}
fn number(entry: &Die<'_, '_, '_>, name: DwAt) -> Option<u64> {
    entry.attr_value(name).ok()??.udata_value()
}

impl<'u, 'p> Entry<'u, 'p> {
    fn unit(&self) -> UnitRef<'u, Slice<'p>> {
        self.units.unit(self.unit)
    }
    fn die(&self) -> Option<Die<'u, 'u, 'p>> {
        let unit = &self.units.units[self.unit];
        unit.entry(self.at).ok()
    }
    /// Returns the entry that an attribute refers to.
    fn target(&self, die: &Die<'_, '_, 'p>, attribute: DwAt) -> Option<Self> {
        match die.attr_value(attribute).ok()?? {
            AttributeValue::UnitRef(at) => Some(Self { at, ..*self }),
            AttributeValue::DebugInfoRef(at) => self.units.anywhere(at),
            _ => None,
        }
    }
    /// Returns what `f` makes of the children.
    fn children<T>(&self, mut f: impl FnMut(&Die<'_, '_, 'p>) -> Option<T>) -> Vec<T> {
        let mut out = Vec::new();
        if let Ok(mut tree) = self.unit().entries_tree(Some(self.at))
            && let Ok(root) = tree.root()
        {
            let mut children = root.children();
            while let Ok(Some(child)) = children.next() {
                out.extend(f(child.entry()));
            }
        }
        out
    }
    /// Returns the types that a function is generic over.
    pub(crate) fn generics(&self) -> Vec<Self> {
        let origin = self
            .die()
            .and_then(|d| self.target(&d, DW_AT_abstract_origin));
        if let Some(origin) = origin {
            return origin.generics();
        }
        self.children(|die| {
            let is_one = die.tag() == DW_TAG_template_type_parameter;
            is_one.then(|| self.target(die, DW_AT_type)).flatten()
        })
    }
    /// Returns the name of a type, without its namespace.
    pub(crate) fn name(&self) -> Option<String> {
        name(self.unit(), &self.die()?)
    }
    /// Returns the namespace of a type.
    pub(crate) fn space(&self) -> String {
        let mut spaces = self.units.spaces.borrow_mut();
        let of_unit = || self.units.namespaces(self.unit).unwrap_or_default();
        let of_unit = spaces.entry(self.unit).or_insert_with(of_unit);
        of_unit.get(&self.at).cloned().unwrap_or_default()
    }
    /// Returns the bytes of a type.
    pub(crate) fn size(&self) -> Option<u64> {
        let die = self.die()?;
        if die.tag() != DW_TAG_array_type {
            return number(&die, DW_AT_byte_size);
        }
        let count = self.children(|die| {
            let is_one = die.tag() == DW_TAG_subrange_type;
            is_one.then(|| number(die, DW_AT_count)).flatten()
        });
        Some(self.target(&die, DW_AT_type)?.size()? * count.first()?)
    }
    /// Returns the field or the element that a byte lies in, its name if it is a field, and the
    /// byte's place in it. An enum has no fields: which are there is not known.
    pub(crate) fn member(&self, offset: u64) -> Option<(Option<String>, Self, u64)> {
        let die = self.die()?;
        if die.tag() == DW_TAG_array_type {
            let element = self.target(&die, DW_AT_type)?;
            let size = element.size().filter(|size| *size > 0)?;
            return Some((None, element, offset % size));
        }
        // The last of them: of a `MaybeUninit` the value, not its absence.
        let mut members = self.children(|die| {
            let start = number(die, DW_AT_data_member_location).unwrap_or(0);
            let of = self
                .target(die, DW_AT_type)
                .filter(|_| die.tag() == DW_TAG_member)?;
            let inside = (start..start + of.size()?).contains(&offset);
            inside.then(|| (name(self.unit(), die), of, offset - start))
        });
        members.pop()
    }
}

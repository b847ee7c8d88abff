//! What the reader needs of a program file: sections by name, and symbols by address.

use std::collections::BTreeMap;

/// The bytes of a program file: 64 bits, of this machine's byte order.
pub(crate) struct Elf {
    bytes: Vec<u8>,
    /// Offset, length and address.
    sections: BTreeMap<String, (usize, usize, u64)>,
}

/// Of a symbol's kinds, that of a variable.
const OBJECT: u8 = 1;

impl Elf {
    /// Takes a program apart; `None` if it is none of that kind.
    pub(crate) fn parse(bytes: Vec<u8>) -> Option<Self> {
        if bytes.get(..5)? != b"\x7fELF\x02" {
            return None;
        }
        let table = usize::try_from(word(&bytes, 0x28)?).ok()?;
        let (each, count) = (half(&bytes, 0x3a)?, half(&bytes, 0x3c)?);
        let names = half(&bytes, 0x3e)?;
        let header = |n: usize| {
            let at = table + n * each;
            let name = u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?);
            let place = |field| usize::try_from(word(&bytes, at + field)?).ok();
            Some((
                name as usize,
                place(0x18)?,
                place(0x20)?,
                word(&bytes, at + 0x10)?,
            ))
        };
        let (_, strings, ..) = header(names)?;
        let mut sections = BTreeMap::new();
        for n in 0..count {
            let (name, offset, len, address) = header(n)?;
            sections.insert(text(&bytes, strings + name)?, (offset, len, address));
        }
        Some(Self { bytes, sections })
    }
    /// Returns the bytes of a section; none if there is no such section.
    pub(crate) fn section(&self, name: &str) -> &[u8] {
        let place = self.sections.get(name);
        let bytes = place.and_then(|&(offset, len, _)| self.bytes.get(offset..offset + len));
        bytes.unwrap_or_default()
    }
    /// Returns the variables of the program: address, size and name.
    pub(crate) fn variables(&self) -> Vec<(u64, u64, String)> {
        let names = self.section(".strtab");
        let symbol = |entry: &[u8]| {
            let name = u32::from_ne_bytes(entry[..4].try_into().ok()?) as usize;
            let named = entry[4] & 0xf == OBJECT;
            Some((word(entry, 8)?, word(entry, 16)?, text(names, name)?)).filter(|_| named)
        };
        let entries = self.section(".symtab").chunks_exact(24);
        entries.filter_map(symbol).collect()
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}
fn half(bytes: &[u8], at: usize) -> Option<usize> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?).into())
}
fn text(bytes: &[u8], at: usize) -> Option<String> {
    let rest = bytes.get(at..)?;
    let end = rest.iter().position(|b| *b == 0)?;
    Some(String::from_utf8_lossy(&rest[..end]).into_owned())
}

//! Names of memory, from the debug information of the traced program: the type of a block is among
//! those that the functions which allocate it are generic over, and fits its size.

use crate::{
    elf::Elf,
    trace::{Block, Stack, Trace},
    types::{Entry, Slice, Units},
};
use addr2line::{Context, demangle_auto, gimli};
use std::borrow::Cow;

/// Fields of fields that a name has, at most.
const DEPTH: usize = 3;

/// A function that an address lies in, also one that was inlined there.
struct Function<'u, 'p> {
    name: String,
    types: Vec<Entry<'u, 'p>>,
}

/// Names of the memory of a program.
pub(crate) struct Names<'p> {
    context: Context<Slice<'p>>,
    units: Units<'p>,
    variables: Vec<(u64, u64, String)>,
    /// Where the program was loaded.
    bias: u64,
}

/// A guess at the type of a block.
struct Guess<'u, 'p> {
    fit: Fit,
    of: Entry<'u, 'p>,
    /// The fields that lead to the byte, and whether each is of a type of this crate.
    path: Vec<(String, bool)>,
}

/// How a type fits the size of a block, the better the greater.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    Array,
    /// Behind the counts of an `Arc`.
    Counted,
    Whole,
}

/// Returns the debug information of a program.
pub(crate) fn dwarf(elf: &Elf) -> Result<gimli::Dwarf<Slice<'_>>, gimli::Error> {
    gimli::Dwarf::load(|id| Ok(Slice::new(elf.section(id.name()), gimli::NativeEndian)))
}

impl<'p> Names<'p> {
    /// Returns the names of a program that was loaded at `bias`.
    pub(crate) fn new(
        elf: &'p Elf,
        dwarf: &'p gimli::Dwarf<Slice<'p>>,
        bias: u64,
    ) -> Result<Self, gimli::Error> {
        Ok(Self {
            context: Context::from_dwarf(self::dwarf(elf)?)?,
            units: Units::new(dwarf)?,
            variables: elf.variables(),
            bias,
        })
    }
    /// Returns the functions of this crate that a stack leads through, innermost first.
    pub(crate) fn path(&self, stack: &Stack) -> Vec<String> {
        let functions = self.functions(stack).into_iter().map(|f| f.name);
        functions.filter(|name| is_ours(name)).collect()
    }
    /// Names the byte at an address.
    pub(crate) fn byte(&self, trace: &Trace, at: u64) -> String {
        if let Some((first, block)) = trace.blocks.range(..=at).next_back()
            && at < first + block.size
        {
            return self.in_block(block, at - first);
        }
        let place = at.wrapping_sub(self.bias);
        let holds =
            |(first, size, _): &&(u64, u64, String)| (*first..first + size).contains(&place);
        match self.variables.iter().find(holds) {
            Some((.., name)) => {
                let name = demangle_auto(Cow::Borrowed(name), Some(gimli::DW_LANG_Rust));
                let hash = name.rfind("::h").filter(|n| name.len() - n == 19);
                let name = &name[..hash.unwrap_or(name.len())];
                name.trim_start_matches("emmu::").to_owned()
            }
            None => format!("unknown memory at {at:#x}"),
        }
    }

    /// Returns the functions of a stack, with those that were inlined, innermost first.
    fn functions(&self, stack: &Stack) -> Vec<Function<'_, 'p>> {
        let mut out = Vec::new();
        for (n, at) in stack.iter().enumerate() {
            // A return address is that of the next instruction, which may be of another function.
            let at = at.wrapping_sub(self.bias).wrapping_sub(u64::from(n > 0));
            let unit = self.context.find_dwarf_and_unit(at).skip_all_loads();
            let unit = unit.and_then(|u| u.header.offset().as_debug_info_offset());
            let frames = self.context.find_frames(at).skip_all_loads();
            let (Some(unit), Ok(mut frames)) = (unit, frames) else {
                continue;
            };
            while let Ok(Some(frame)) = frames.next() {
                let name = frame.function.as_ref().and_then(|f| f.demangle().ok());
                let entry = frame
                    .dw_die_offset
                    .and_then(|at| self.units.entry(unit, at));
                out.push(Function {
                    name: name.map_or_else(String::new, Cow::into_owned),
                    types: entry.map_or_else(Vec::new, |entry| entry.generics()),
                });
            }
        }
        out
    }
    fn in_block(&self, block: &Block, offset: u64) -> String {
        let functions = self.functions(&block.stack);
        let ours = functions.iter().position(|f| is_ours(&f.name));
        let maker = functions
            .iter()
            .find(|f| makes(&f.name))
            .map_or("", |f| &f.name);
        // Only what allocates is generic over what is allocated. Of equal guesses the outermost is
        // right: the compiler merges functions whose code is the same.
        let inner = functions[..ours.unwrap_or(functions.len())].iter();
        let types = inner.filter(|f| is_of_allocation(&f.name));
        let firsts = types.rev().flat_map(|f| &f.types);
        let mut best: Option<Guess<'_, 'p>> = None;
        for guess in firsts.filter_map(|of| guess(*of, block, offset)) {
            if best.as_ref().is_none_or(|best| best.fit < guess.fit) {
                best = Some(guess);
            }
        }
        let Some(best) = best else {
            return format!("{} bytes of {}", block.size, last(maker));
        };
        let mut path = short(&best.of.name().unwrap_or_default());
        path.push_str(if best.fit == Fit::Array { "[]" } else { "" });
        // Fields of wrappers say nothing, nor do places in a tuple.
        let ours = best
            .path
            .iter()
            .filter(|(name, ours)| *ours && !name.starts_with("__"));
        let shown: Vec<_> = ours.take(DEPTH).map(|(name, _)| &**name).collect();
        for field in &shown {
            path.extend([".", field]);
        }
        if shown.is_empty() && best.fit != Fit::Array {
            let first = best.path.first().map_or("", |(name, _)| &**name);
            path.extend([".", first]);
        }
        if shown.is_empty() {
            path.extend([" of ", &last(maker)]);
        }
        path
    }
}

/// Takes a type for that of a block, or `None` if it does not fit.
fn guess<'u, 'p>(of: Entry<'u, 'p>, block: &Block, offset: u64) -> Option<Guess<'u, 'p>> {
    let size = of.size().filter(|size| *size > 0)?;
    let (fit, offset) = match block.size.checked_sub(size)? {
        0 => (Fit::Whole, Some(offset)),
        header @ (16 | 64 | 128) if size > header => (Fit::Counted, offset.checked_sub(header)),
        _ if block.size.is_multiple_of(size) => (Fit::Array, Some(offset % size)),
        _ => return None,
    };
    let mut path = Vec::new();
    match offset {
        Some(offset) => fields(of, offset, &mut path),
        None => path.push(("counts".to_owned(), true)),
    }
    Some(Guess { fit, of, path })
}

/// Lists the fields that lead to a byte of a type, and whether each is of a type of this crate.
fn fields(of: Entry<'_, '_>, offset: u64, path: &mut Vec<(String, bool)>) {
    if let Some((name, inner, rest)) = of.member(offset) {
        let ours = is_ours(&of.space()) || of.space().starts_with("conflicts");
        path.extend(name.map(|name| (name, ours)));
        fields(inner, rest, path);
    }
}

/// Whether a path is one of this library, also as the type of `<T as Trait>::f`.
fn is_ours(path: &str) -> bool {
    path.trim_start_matches('<').starts_with("emmu")
}
/// Whether a function is one that blocks are named after.
fn makes(path: &str) -> bool {
    is_ours(path) || path.trim_start_matches('<').starts_with("crossbeam_epoch")
}
/// Whether a function is one of the standard library that allocates for a type.
fn is_of_allocation(path: &str) -> bool {
    path.trim_start_matches('<').starts_with("alloc::")
}

/// The name of a type without the paths in it, and without wrappers.
fn short(path: &str) -> String {
    let mut out = String::new();
    let mut start = 0;
    for c in path.chars() {
        out.push(c);
        if out.ends_with("::") {
            out.truncate(start);
        } else if !c.is_alphanumeric() && !"_:{}#".contains(c) {
            start = out.len();
        }
    }
    for wrapper in ["ArcInner<", "MaybeUninit<", "CachePadded<"] {
        if let Some(inner) = out.strip_prefix(wrapper) {
            out = inner.strip_suffix('>').unwrap_or(inner).to_owned();
        }
    }
    out
}

/// The last two parts of the path of a function: its type, or its module, and its name.
fn last(path: &str) -> String {
    let mut plain = String::new();
    let mut depth = 0;
    for c in path.replace("->", "").trim_start_matches('<').chars() {
        match c {
            '<' => depth += 1,
            '>' => depth = 0.max(depth - 1),
            c if depth == 0 => plain.push(c),
            _ => {}
        }
    }
    let parts = plain
        .split("::")
        .filter(|part| !part.is_empty() && !part.starts_with('{'));
    let parts: Vec<&str> = parts.collect();
    parts[parts.len().saturating_sub(2)..].join("::")
}

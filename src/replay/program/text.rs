//! The parts of a recording's text: words, times, numbers, quoted strings, arguments.

/// The rest of a line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Text<'t>(pub(super) &'t str);

impl<'t> Text<'t> {
    /// Returns the next word; the rest begins with the one after it.
    pub(super) fn word(&mut self) -> Option<&'t str> {
        let text = self.0.trim_start();
        let end = text.find(char::is_whitespace).unwrap_or(text.len());
        let (word, rest) = text.split_at(end);
        self.0 = rest.trim_start();
        (!word.is_empty()).then_some(word)
    }
}

/// Parses digits alone, without a sign.
pub(super) fn decimal(word: &str) -> Option<u64> {
    let digits = !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| word.parse().ok()).flatten()
}

/// Parses hexadecimal digits alone, without a sign or `0x`.
pub(super) fn hexadecimal(word: &str) -> Option<u64> {
    let digits = !word.is_empty() && word.bytes().all(|b| b.is_ascii_hexdigit());
    digits.then(|| u64::from_str_radix(word, 16).ok()).flatten()
}

/// Parses seconds and nine digits after the point, as ns.
pub(super) fn time(word: &str) -> Option<u64> {
    let (seconds, rest) = word.split_once('.')?;
    if rest.len() != 9 {
        return None;
    }
    decimal(seconds)?
        .checked_mul(1_000_000_000)?
        .checked_add(decimal(rest)?)
}

/// Returns the offset of the parenthesis that closes one before `text`.
pub(super) fn close_of(text: &str) -> Option<usize> {
    let mut scan = Scan::new(text);
    while let Some((at, byte)) = scan.next() {
        if byte == b')' && scan.depth < 0 {
            return Some(at);
        }
    }
    None
}

/// Splits arguments at commas outside of brackets, strings and comments.
pub(super) fn arguments(text: &str) -> Vec<&str> {
    let mut out = Vec::new();
    let mut from = 0;
    let mut scan = Scan::new(text);
    while let Some((at, byte)) = scan.next() {
        if byte == b',' && scan.depth == 0 {
            out.extend(text.get(from..at).map(str::trim));
            from = at + 1;
        }
    }
    let last = text.get(from..).unwrap_or_default().trim();
    if !last.is_empty() || !out.is_empty() {
        out.push(last);
    }
    out
}

/// A scan over the bytes of a call outside of strings, comments and paths of descriptors.
struct Scan<'t> {
    bytes: &'t [u8],
    at: usize,
    /// Number of open brackets; -1 after the bracket before the text closed.
    depth: i32,
}

impl<'t> Scan<'t> {
    fn new(text: &'t str) -> Self {
        Self {
            bytes: text.as_bytes(),
            at: 0,
            depth: 0,
        }
    }
    fn peek(&self, ahead: usize) -> Option<u8> {
        self.bytes.get(self.at + ahead).copied()
    }
    /// Returns the next such byte and counts brackets.
    fn next(&mut self) -> Option<(usize, u8)> {
        loop {
            let at = self.at;
            let byte = self.peek(0)?;
            self.at += 1;
            match byte {
                b'"' => self.skip_string(),
                b'/' if self.peek(0) == Some(b'*') => self.skip_comment(),
                b'<' if self.peek(0) == Some(b'<') => self.at += 1,
                // Strace escapes angle brackets in paths; sockets have them nested.
                b'<' => self.skip_angles(),
                b'(' | b'[' | b'{' => self.depth += 1,
                b')' | b']' | b'}' => {
                    self.depth -= 1;
                    return Some((at, byte));
                }
                _ => return Some((at, byte)),
            }
        }
    }
    fn skip_string(&mut self) {
        while let Some(byte) = self.peek(0) {
            self.at += if byte == b'\\' { 2 } else { 1 };
            if byte == b'"' {
                break;
            }
        }
    }
    fn skip_comment(&mut self) {
        self.at += 1;
        while self.peek(0).is_some() {
            self.at += 1;
            if self.peek(0) == Some(b'/') && self.bytes.get(self.at - 1) == Some(&b'*') {
                self.at += 1;
                break;
            }
        }
    }
    fn skip_angles(&mut self) {
        let mut depth = 1;
        while let (Some(byte), 1..) = (self.peek(0), depth) {
            let arrow = byte == b'>' && matches!(self.bytes.get(self.at - 1), Some(b'-' | b'='));
            match byte {
                b'<' => depth += 1,
                b'>' if !arrow => depth -= 1,
                _ => {}
            }
            self.at += 1;
        }
    }
}

/// Undoes C's escapes: `\n`, `\"`, `\303`, `\x41`. Bytes that are not UTF-8 afterwards are
/// replaced.
pub(super) fn unescape(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        let Some(&code) = bytes.get(at) else { break };
        at += 1;
        let (base, digits) = match code {
            b'0'..=b'7' => (8, at - 1..at + 2),
            b'x' => (16, at..at + 2),
            _ => {
                out.push(plain_escape(code));
                continue;
            }
        };
        at = digits.start;
        let mut value = 0_u32;
        while at < digits.end {
            let digit = bytes.get(at).and_then(|&b| char::from(b).to_digit(base));
            let Some(digit) = digit else { break };
            value = value * base + digit;
            at += 1;
        }
        out.push(u8::try_from(value & 0xff).unwrap_or_default());
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn plain_escape(code: u8) -> u8 {
    match code {
        b'n' => b'\n',
        b't' => b'\t',
        b'r' => b'\r',
        b'v' => 0x0b,
        b'f' => 0x0c,
        b'a' => 0x07,
        b'b' => 0x08,
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::{arguments, close_of, time, unescape};

    #[test]
    fn arguments_are_cut_where_strace_means_it() {
        let text = r#"3</a,b>, "x, \"y", [1, 2], {a=1, b=2} => {c=3}, 0x30 /* A, B */, 1<<2, NULL"#;
        let cut = arguments(text);
        let want = [
            "3</a,b>",
            r#""x, \"y""#,
            "[1, 2]",
            "{a=1, b=2} => {c=3}",
            "0x30 /* A, B */",
            "1<<2",
            "NULL",
        ];
        assert_eq!(cut, want);
        assert!(arguments("").is_empty());
        assert_eq!(close_of("a(b)c)d"), Some(5));
        assert_eq!(close_of("a(b)c"), None);
        assert_eq!(close_of("5<TCP:[1->2)]>) = 0"), Some(14));
    }

    #[test]
    fn escapes_and_times() {
        assert_eq!(unescape(r"a\303\251\n\x41\\\7"), "aé\nA\\\u{7}");
        assert_eq!(unescape("a\\"), "a");
        assert_eq!(time("1.000000002"), Some(1_000_000_002));
        for bad in [
            "1",
            "1.2",
            "-1.000000000",
            "x.000000000",
            "99999999999.000000000",
        ] {
            assert_eq!(time(bad), None, "{bad}");
        }
    }
}

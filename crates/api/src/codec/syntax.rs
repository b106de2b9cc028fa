//! Whether bytes are one JSON document, with the complaints of Go's scanner: clients and tests know them by heart.
//!
//! Input: bytes. Output: nothing, or the first complaint. One pass, no recursion; nesting is bounded. Strings are not looked into
//! beyond their escapes, so invalid UTF-8 passes here.

/// Go's bound on nesting.
const DEPTH_MAX: usize = 10_000;

/// Checks one whole document.
pub fn check_json(bytes: &[u8]) -> Result<(), String> {
    let mut scanner = Scanner { bytes, at: 0, open: Vec::new() };
    scanner.document()
}

struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
    /// The brackets that are open: `{` or `[`.
    open: Vec<u8>,
}

type Checked<T = ()> = Result<T, String>;

impl Scanner<'_> {
    fn document(&mut self) -> Checked {
        loop {
            self.blanks();
            if self.value_begins()? {
                continue;
            }
            if !self.after_value()? {
                break;
            }
        }
        self.blanks();
        if self.at < self.bytes.len() { self.wrong("after top-level value") } else { Ok(()) }
    }

    fn peek(&self) -> Checked<u8> {
        self.bytes.get(self.at).copied().ok_or_else(|| "unexpected end of JSON input".to_owned())
    }

    fn wrong<T>(&self, place: &str) -> Checked<T> {
        let found = self.peek()?;
        let shown = match found {
            b'\'' => "\\'".to_owned(),
            b'"' => "\"".to_owned(),
            b'\\' => "\\\\".to_owned(),
            b'\n' => "\\n".to_owned(),
            b'\r' => "\\r".to_owned(),
            b'\t' => "\\t".to_owned(),
            0..0x20 | 0x7f => format!("\\x{found:02x}"),
            0x80..0xa0 => format!("\\u{found:04x}"),
            other => char::from(other).to_string(),
        };
        Err(format!("invalid character '{shown}' {place}"))
    }

    fn blanks(&mut self) {
        while self.bytes.get(self.at).is_some_and(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    /// Reads a scalar or an opening bracket with what must follow it; true if another value has to begin now.
    fn value_begins(&mut self) -> Checked<bool> {
        match self.peek()? {
            bracket @ (b'{' | b'[') => self.opens(bracket),
            b'"' => self.string().map(|()| false),
            b'-' | b'0'..=b'9' => self.number().map(|()| false),
            b't' => self.literal("true").map(|()| false),
            b'f' => self.literal("false").map(|()| false),
            b'n' => self.literal("null").map(|()| false),
            _ => self.wrong("looking for beginning of value"),
        }
    }

    fn opens(&mut self, bracket: u8) -> Checked<bool> {
        if self.open.len() >= DEPTH_MAX {
            return self.wrong("exceeded max depth");
        }
        self.open.push(bracket);
        self.at += 1;
        self.blanks();
        match (bracket, self.peek()?) {
            (b'{', b'}') | (b'[', b']') => {
                self.at += 1;
                self.open.pop();
                Ok(false)
            }
            (b'{', _) => self.key().map(|()| true),
            _ => Ok(true),
        }
    }

    fn key(&mut self) -> Checked {
        self.blanks();
        if self.peek()? != b'"' {
            return self.wrong("looking for beginning of object key string");
        }
        self.string()?;
        self.blanks();
        if self.peek()? != b':' {
            return self.wrong("after object key");
        }
        self.at += 1;
        Ok(())
    }

    /// Closes what ends here; true if another value has to begin now, false at the end of the document.
    fn after_value(&mut self) -> Checked<bool> {
        while let Some(bracket) = self.open.last().copied() {
            self.blanks();
            match (bracket, self.peek()?) {
                (b'{', b',') => {
                    self.at += 1;
                    return self.key().map(|()| true);
                }
                (_, b',') => {
                    self.at += 1;
                    return Ok(true);
                }
                (b'{', b'}') | (b'[', b']') => {
                    self.at += 1;
                    self.open.pop();
                }
                (b'{', _) => return self.wrong("after object key:value pair"),
                _ => return self.wrong("after array element"),
            }
        }
        Ok(false)
    }

    fn string(&mut self) -> Checked {
        self.at += 1;
        loop {
            match self.peek()? {
                b'"' => {
                    self.at += 1;
                    return Ok(());
                }
                b'\\' => self.escape()?,
                0..0x20 => return self.wrong("in string literal"),
                _ => self.at += 1,
            }
        }
    }

    fn escape(&mut self) -> Checked {
        self.at += 1;
        match self.peek()? {
            b'u' => {
                self.at += 1;
                for _ in 0..4 {
                    if !self.peek()?.is_ascii_hexdigit() {
                        return self.wrong("in \\u hexadecimal character escape");
                    }
                    self.at += 1;
                }
                Ok(())
            }
            b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"' => {
                self.at += 1;
                Ok(())
            }
            _ => self.wrong("in string escape code"),
        }
    }

    fn number(&mut self) -> Checked {
        if self.peek()? == b'-' {
            self.at += 1;
        }
        match self.peek()? {
            b'0' => self.at += 1,
            b'1'..=b'9' => self.digits(),
            _ => return self.wrong("in numeric literal"),
        }
        if self.bytes.get(self.at) == Some(&b'.') {
            self.at += 1;
            if !self.peek()?.is_ascii_digit() {
                return self.wrong("after decimal point in numeric literal");
            }
            self.digits();
        }
        if matches!(self.bytes.get(self.at), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek()?, b'+' | b'-') {
                self.at += 1;
            }
            if !self.peek()?.is_ascii_digit() {
                return self.wrong("in exponent of numeric literal");
            }
            self.digits();
        }
        Ok(())
    }

    fn digits(&mut self) {
        while self.bytes.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
    }

    fn literal(&mut self, word: &str) -> Checked {
        for expected in word.bytes() {
            if self.peek()? != expected {
                return self.wrong(&format!("in literal {word} (expecting '{}')", char::from(expected)));
            }
            self.at += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expect: &str) {
        assert_eq!(check_json(text.as_bytes()).err().unwrap_or_default(), expect, "{text}");
    }

    #[test]
    fn documents() {
        for good in
            ["null", " {} ", "[]", "[[], {}]", "{\"a\": [1, -0.5e+3, \"\\u00e9\\n\"], \"b\": {\"c\": true}}", "0"]
        {
            check(good, "");
        }
    }

    #[test]
    fn complaints_are_gos() {
        check("", "unexpected end of JSON input");
        check("{\"a\":", "unexpected end of JSON input");
        check("garbage", "invalid character 'g' looking for beginning of value");
        check("\u{feff}{}", "invalid character 'ï' looking for beginning of value");
        check("{a:1}", "invalid character 'a' looking for beginning of object key string");
        check("{\"a\":1,}", "invalid character '}' looking for beginning of object key string");
        check("{\"a\" 1}", "invalid character '1' after object key");
        check("{\"a\":1 \"b\"}", "invalid character '\"' after object key:value pair");
        check("[1 2]", "invalid character '2' after array element");
        check("[1,]", "invalid character ']' looking for beginning of value");
        check("{}x", "invalid character 'x' after top-level value");
        check("tru!", "invalid character '!' in literal true (expecting 'e')");
        check("-a", "invalid character 'a' in numeric literal");
        check("1.a", "invalid character 'a' after decimal point in numeric literal");
        check("1ea", "invalid character 'a' in exponent of numeric literal");
        check("01", "invalid character '1' after top-level value");
        check("\"\n\"", "invalid character '\\n' in string literal");
        check("\"\\x\"", "invalid character 'x' in string escape code");
        check("\"\\uzz\"", "invalid character 'z' in \\u hexadecimal character escape");
        check(&"[".repeat(DEPTH_MAX + 1), "invalid character '[' exceeded max depth");
    }
}

//! One line of a CRI log file.
//!
//! In: `2026-11-25T00:00:00.123456789Z stdout F text`. Out: its parts. Pure.
//!
//! The tag is `F` for a whole line and `P` for a piece of one, which goes on in the next entry of the same stream; further tags follow after
//! colons.

/// The parts of an entry, without the newline at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// RFC 3339 with nanoseconds, as written.
    pub time: &'a [u8],
    pub stderr: bool,
    /// A piece: no newline follows.
    pub partial: bool,
    pub text: &'a [u8],
}

/// `None` for what no runtime writes; readers skip it.
pub fn parse(line: &[u8]) -> Option<Entry<'_>> {
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let (time, stream, tags) = (parts.next()?, parts.next()?, parts.next()?);
    let text = parts.next().unwrap_or_default();
    let stderr = match stream {
        b"stdout" => false,
        b"stderr" => true,
        _ => return None,
    };
    let partial = match tags.split(|byte| *byte == b':').next()? {
        b"F" => false,
        b"P" => true,
        _ => return None,
    };
    Some(Entry { time, stderr, partial, text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries() {
        let check = |line: &str, expect: Option<(&str, bool, bool, &str)>| {
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            let got =
                parse(line.as_bytes()).map(|entry| (text(entry.time), entry.stderr, entry.partial, text(entry.text)));
            let expect =
                expect.map(|(time, stderr, partial, line)| (time.to_owned(), stderr, partial, line.to_owned()));
            assert_eq!(got, expect, "{line:?}");
        };
        check("T stdout F hello world", Some(("T", false, false, "hello world")));
        check("T stderr P half", Some(("T", true, true, "half")));
        check("T stdout F:x:y  two", Some(("T", false, false, " two")));
        check("T stdout F ", Some(("T", false, false, "")));
        check("T stdout F", Some(("T", false, false, "")));
        check("T stdin F x", None);
        check("T stdout Q x", None);
        check("T stdout", None);
        check("", None);
    }
}

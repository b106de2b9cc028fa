//! Rewrites URLs in the tags of a page that comes in pieces.
//!
//! Input: bytes of HTML, cut anywhere. Output: the same bytes, but for the URLs in attributes that upstream's proxy knows.
//! Comments, scripts and the like pass as they are. Bounded: a tag of more than [`TAG_BYTES_MAX`] passes as it is.
//!
//! This is the part of the HTML standard's tokenizer (13.2.5) that finds the ends of tags. Left out: scripts that hold a
//! commented `<script>` of their own, and URLs that spell their first characters as character references.

use std::ops::Range;

use super::Links;

pub const TAG_BYTES_MAX: usize = 64 << 10;

/// Where the next byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Text,
    /// After `<`.
    Opened,
    /// After `</`.
    Closing,
    /// In a start or end tag.
    Tag(Place),
    /// After `<!`, or `<!-`.
    Markup {
        dash: bool,
    },
    Comment(Comment),
    /// To the next `>`: a doctype, or what the standard calls a bogus comment.
    Bogus,
    /// In an element without tags of its own: to `</name`, of which `matched` bytes were seen last.
    Raw {
        name: &'static str,
        matched: usize,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In a name, or between attributes.
    Between,
    /// After `=` and blanks.
    AfterEquals,
    Unquoted,
    Quoted(u8),
}

/// What of `-->` and `--!>` was seen last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comment {
    /// Right after `<!--`.
    Start,
    Inside,
    Dash,
    Dashes,
    Bang,
}

/// See the module.
pub struct Rewriter {
    links: Links,
    state: State,
    /// The tag so far.
    tag: Vec<u8>,
    /// The tag is too long, or an end tag that needs no second look: its bytes have been passed on.
    passing: bool,
    /// The element that the tag opens, if it holds no tags.
    raw: Option<&'static str>,
}

impl Rewriter {
    pub fn new(links: Links) -> Self {
        Self { links, state: State::Text, tag: Vec::new(), passing: false, raw: None }
    }

    /// Takes in a piece of the page and appends what is ready to `out`.
    pub fn push(&mut self, mut page: &[u8], out: &mut Vec<u8>) {
        while !page.is_empty() {
            let (plain, rest) = page.split_at(self.plain_bytes(page));
            out.extend_from_slice(plain);
            let Some((byte, rest)) = rest.split_first() else { return };
            self.state = self.step(*byte, out);
            page = rest;
        }
    }

    /// The page has ended: appends what was held back.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.tag);
    }

    /// How many bytes at the beginning of `page` change nothing but the output.
    fn plain_bytes(&self, page: &[u8]) -> usize {
        match self.state {
            State::Text | State::Raw { matched: 0, .. } => {
                page.iter().position(|byte| *byte == b'<').unwrap_or(page.len())
            }
            _ => 0,
        }
    }

    fn step(&mut self, byte: u8, out: &mut Vec<u8>) -> State {
        match self.state {
            // Only `<` comes here, see `plain_bytes`.
            State::Text => self.open(out),
            State::Opened => self.step_opened(byte, out),
            State::Closing => match byte {
                b'a'..=b'z' | b'A'..=b'Z' => self.hold(byte, State::Tag(Place::Between), out),
                b'>' => self.release(byte, State::Text, out),
                _ => self.release(byte, State::Bogus, out),
            },
            State::Tag(place) => match step_tag(place, byte) {
                Some(place) => self.hold(byte, State::Tag(place), out),
                None => self.close(out),
            },
            State::Markup { dash } => {
                let next = match (byte, dash) {
                    (b'-', false) => State::Markup { dash: true },
                    (b'-', true) => State::Comment(Comment::Start),
                    (b'>', _) => State::Text,
                    _ => State::Bogus,
                };
                self.release(byte, next, out)
            }
            State::Comment(seen) => self.release(byte, step_comment(seen, byte), out),
            State::Bogus => self.release(byte, if byte == b'>' { State::Text } else { State::Bogus }, out),
            State::Raw { name, matched } => self.step_raw(name, matched, byte, out),
        }
    }

    fn step_opened(&mut self, byte: u8, out: &mut Vec<u8>) -> State {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' => self.hold(byte, State::Tag(Place::Between), out),
            b'/' => self.hold(byte, State::Closing, out),
            b'!' => self.release(byte, State::Markup { dash: false }, out),
            b'?' => self.release(byte, State::Bogus, out),
            b'<' => {
                out.append(&mut self.tag);
                self.open(out)
            }
            _ => self.release(byte, State::Text, out),
        }
    }

    fn step_raw(&mut self, name: &'static str, matched: usize, byte: u8, out: &mut Vec<u8>) -> State {
        out.push(byte);
        let end = [b"</", name.as_bytes()].concat();
        match end.get(matched) {
            Some(expected) if *expected == byte.to_ascii_lowercase() => {
                return State::Raw { name, matched: matched + 1 };
            }
            None if byte == b'>' => return State::Text,
            None if is_blank(byte) || byte == b'/' => {
                self.passing = true;
                return State::Tag(Place::Between);
            }
            _ => {}
        }
        State::Raw { name, matched: usize::from(byte == b'<') }
    }

    fn open(&mut self, out: &mut Vec<u8>) -> State {
        self.passing = false;
        self.hold(b'<', State::Opened, out)
    }

    /// The byte belongs to what may become a tag.
    fn hold(&mut self, byte: u8, next: State, out: &mut Vec<u8>) -> State {
        if self.passing {
            out.push(byte);
            return next;
        }
        self.tag.push(byte);
        if self.tag.len() > TAG_BYTES_MAX {
            self.raw = raw_element(&self.tag);
            out.append(&mut self.tag);
            self.passing = true;
        }
        next
    }

    /// The byte, and what was held before it, belong to no tag.
    fn release(&mut self, byte: u8, next: State, out: &mut Vec<u8>) -> State {
        out.append(&mut self.tag);
        out.push(byte);
        next
    }

    /// `>` has ended the tag.
    fn close(&mut self, out: &mut Vec<u8>) -> State {
        if self.passing {
            out.push(b'>');
        } else {
            self.tag.push(b'>');
            self.raw = raw_element(&self.tag);
            rewrite_tag(&self.tag, &self.links, out);
            self.tag.clear();
        }
        match self.raw.take() {
            Some(name) => State::Raw { name, matched: 0 },
            None => State::Text,
        }
    }
}

/// `None`: the byte ends the tag.
fn step_tag(place: Place, byte: u8) -> Option<Place> {
    Some(match (place, byte) {
        (Place::Quoted(quote), _) if byte == quote => Place::Between,
        (Place::Quoted(_), _) => place,
        (_, b'>') => return None,
        (Place::Between, b'=') => Place::AfterEquals,
        (Place::AfterEquals, b'"' | b'\'') => Place::Quoted(byte),
        (Place::AfterEquals, _) if is_blank(byte) => place,
        (Place::AfterEquals, _) => Place::Unquoted,
        (Place::Unquoted, _) if is_blank(byte) => Place::Between,
        (Place::Between | Place::Unquoted, _) => place,
    })
}

fn step_comment(seen: Comment, byte: u8) -> State {
    State::Comment(match (seen, byte) {
        (Comment::Start | Comment::Dashes | Comment::Bang, b'>') => return State::Text,
        (Comment::Start | Comment::Dash | Comment::Dashes, b'-') => Comment::Dashes,
        (Comment::Inside | Comment::Bang, b'-') => Comment::Dash,
        (Comment::Dashes, b'!') => Comment::Bang,
        _ => Comment::Inside,
    })
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\x0c' | b'\r')
}

/// The name of a tag, in small letters: `<A href>` -> `a`; that of an end tag is empty.
fn tag_name(tag: &[u8]) -> String {
    let name = tag.iter().skip(1).take_while(|byte| !is_blank(**byte) && !matches!(byte, b'/' | b'>'));
    name.map(|byte| char::from(byte.to_ascii_lowercase())).collect()
}

/// The element that a tag opens, if what follows is not HTML.
fn raw_element(tag: &[u8]) -> Option<&'static str> {
    const RAW: [&str; 9] =
        ["iframe", "noembed", "noframes", "plaintext", "script", "style", "textarea", "title", "xmp"];
    let name = tag_name(tag);
    RAW.into_iter().find(|raw| *raw == name)
}

/// The attributes of an element that are URLs.
fn url_attributes(element: &str) -> &'static [&'static str] {
    match element {
        "a" | "area" | "base" | "link" => &["href"],
        "audio" | "embed" | "script" | "source" => &["src"],
        "blockquote" | "del" | "ins" | "q" => &["cite"],
        "applet" => &["codebase"],
        "body" => &["background"],
        "button" => &["formaction"],
        "command" => &["icon"],
        "form" => &["action"],
        "frame" | "iframe" => &["longdesc", "src"],
        "head" => &["profile"],
        "html" => &["manifest"],
        "img" => &["longdesc", "src", "usemap"],
        "input" => &["formaction", "src", "usemap"],
        "object" => &["classid", "codebase", "data", "usemap"],
        "video" => &["poster", "src"],
        _ => &[],
    }
}

/// Appends a whole tag to `out`, its URLs rewritten.
fn rewrite_tag(tag: &[u8], links: &Links, out: &mut Vec<u8>) {
    let element = tag_name(tag);
    let wanted = url_attributes(&element);
    let mut done = 0;
    let mut at = 1 + element.len();
    while let Some((name, value)) = next_attribute(tag, &mut at).filter(|_| !wanted.is_empty()) {
        if !wanted.iter().any(|wanted| wanted.as_bytes().eq_ignore_ascii_case(&tag[name.clone()])) {
            continue;
        }
        if let Some(url) = links.rewrite(&tag[value.clone()]) {
            out.extend_from_slice(&tag[done..value.start]);
            out.extend_from_slice(&url);
            done = value.end;
        }
    }
    out.extend_from_slice(&tag[done..]);
}

/// Name and value (without quotes) of the attribute at or after `at`, which moves behind it.
fn next_attribute(tag: &[u8], at: &mut usize) -> Option<(Range<usize>, Range<usize>)> {
    let skip = |from: usize, ends: &dyn Fn(u8) -> bool| {
        tag[from.min(tag.len())..].iter().position(|byte| ends(*byte)).map_or(tag.len(), |length| from + length)
    };
    let start = skip(*at, &|byte| !is_blank(byte) && byte != b'/');
    if tag.get(start).is_none_or(|byte| *byte == b'>') {
        return None;
    }
    let end = skip(start + 1, &|byte| is_blank(byte) || matches!(byte, b'/' | b'>' | b'='));
    let name = start..end;
    let equals = skip(end, &|byte| !is_blank(byte));
    if tag.get(equals) != Some(&b'=') {
        *at = end;
        return Some((name, end..end));
    }
    let first = skip(equals + 1, &|byte| !is_blank(byte));
    let value = match tag.get(first) {
        Some(quote @ (b'"' | b'\'')) => first + 1..skip(first + 1, &|byte| byte == *quote),
        _ => first..skip(first, &|byte| is_blank(byte) || byte == b'>'),
    };
    // Behind the quote, if there is one.
    *at = value.end + usize::from(value.start > first).min(tag.len() - value.end);
    Some((name, value))
}

//! Field selectors: `metadata.name=a,spec.nodeName!=b` as text -> terms over labels of fields.

use std::fmt;

use super::labels::SelectorError;

/// One term; `label` is a name of the kinds table, not checked here.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FieldRequirement {
    pub label: String,
    /// `true` for `=` and `==`, `false` for `!=`.
    pub equal: bool,
    pub value: String,
}

/// All terms must hold; none matches everything.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct FieldSelector {
    pub requirements: Vec<FieldRequirement>,
}

impl FieldSelector {
    /// Parses `?fieldSelector=`; `\` escapes `,`, `=` and itself in values.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut terms = split_terms(text);
        terms.sort_unstable();
        let mut requirements = Vec::new();
        for term in terms.into_iter().filter(|term| !term.is_empty()) {
            let Some((label, equal, value)) = split_term(term) else {
                return Err(SelectorError(format!("invalid selector: '{text}'; can't understand '{term}'")));
            };
            requirements.push(FieldRequirement { label: label.to_owned(), equal, value: unescape(value)? });
        }
        Ok(FieldSelector { requirements })
    }

    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty()
    }

    /// The value that the label must have, if the selector pins it (as `metadata.name=x` does).
    pub fn exact(&self, label: &str) -> Option<&str> {
        self.requirements.iter().find(|r| r.label == label && r.equal).map(|r| r.value.as_str())
    }

    /// Whether every term holds; `lookup` gives the value of a label (absent fields are `""`).
    pub fn matches<S: AsRef<str>>(&self, lookup: impl Fn(&str) -> S) -> bool {
        self.requirements.iter().all(|r| (lookup(&r.label).as_ref() == r.value) == r.equal)
    }
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, requirement) in self.requirements.iter().enumerate() {
            let separator = if at > 0 { "," } else { "" };
            let operator = if requirement.equal { "=" } else { "!=" };
            let value = requirement.value.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=");
            write!(f, "{separator}{}{operator}{value}", requirement.label)?;
        }
        Ok(())
    }
}

fn split_terms(text: &str) -> Vec<&str> {
    let mut terms = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                terms.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    terms
}

fn split_term(term: &str) -> Option<(&str, bool, &str)> {
    let at = term
        .char_indices()
        .map(|(at, _)| at)
        .find(|&at| term[at..].starts_with("!=") || term[at..].starts_with('='))?;
    let (label, rest) = term.split_at(at);
    if let Some(value) = rest.strip_prefix("!=") {
        return Some((label, false, value));
    }
    let value = rest.strip_prefix("==").or_else(|| rest.strip_prefix('='))?;
    Some((label, true, value))
}

fn unescape(value: &str) -> Result<String, SelectorError> {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ ('\\' | ',' | '=')) => out.push(c),
                other => {
                    let sequence: String = ['\\'].into_iter().chain(other).collect();
                    return Err(SelectorError(format!("invalid field selector: invalid escape sequence: {sequence}")));
                }
            },
            // Upstream prints the character's number.
            ',' | '=' => {
                let number = u32::from(c);
                return Err(SelectorError(format!("invalid field selector: unescaped character in value: {number}")));
            }
            c => out.push(c),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: &str) {
        let shown = FieldSelector::parse(text).map_or_else(|e| format!("error: {e}"), |s| s.to_string());
        assert_eq!(shown, expect, "{text}");
    }

    #[test]
    fn grammar_and_errors() {
        check("", "");
        check("metadata.name=a", "metadata.name=a");
        check("b==1,a!=2", "a!=2,b=1");
        check("a=x\\,y", "a=x\\,y");
        check("a", "error: invalid selector: 'a'; can't understand 'a'");
        check("a=b=c", "error: invalid field selector: unescaped character in value: 61");
        check("a=\\x", "error: invalid field selector: invalid escape sequence: \\x");
    }

    #[test]
    fn matching() {
        let selector = FieldSelector::parse("metadata.name=a,status.phase!=Failed").unwrap();
        assert_eq!(selector.exact("metadata.name"), Some("a"));
        assert!(selector.matches(|label| if label == "metadata.name" { "a" } else { "Running" }));
        assert!(!selector.matches(|label| if label == "metadata.name" { "a" } else { "Failed" }));
    }
}

//! `$(NAME)` references in commands, arguments, environment values and sub-paths.
//!
//! Invariant: `$$` is a literal `$`; a reference without a value stays as written; one pass, never recursive.

/// Replaces references by `lookup`.
pub fn expand(text: &str, lookup: impl Fn(&str) -> Option<String>) -> String {
    expand_with(text, |name| lookup(name).unwrap_or_else(|| format!("$({name})")))
}

/// As [`expand`], but the first name without a value is an error.
pub fn expand_strict(text: &str, lookup: impl Fn(&str) -> Option<String>) -> Result<String, String> {
    let missing = std::cell::RefCell::new(None);
    let expanded = expand_with(text, |name| {
        lookup(name).unwrap_or_else(|| {
            missing.borrow_mut().get_or_insert_with(|| name.to_owned());
            String::new()
        })
    });
    missing.into_inner().map_or(Ok(expanded), Err)
}

fn expand_with(text: &str, value_of: impl Fn(&str) -> String) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(tail) = after.strip_prefix('$') {
            out.push('$');
            rest = tail;
        } else if let Some((name, tail)) = after.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            out.push_str(&value_of(name));
            rest = tail;
        } else {
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: &str) {
        let lookup = |name: &str| (name == "VAR").then(|| "value".to_owned());
        assert_eq!(expand(text, lookup), expect, "{text}");
    }

    #[test]
    fn references() {
        check("$(VAR)", "value");
        check("a-$(VAR)-b$(VAR)", "a-value-bvalue");
        check("$$(VAR)", "$(VAR)");
        check("$(NONE)", "$(NONE)");
        check("$VAR $ $(", "$VAR $ $(");
        check("$$$$", "$$");
        check("$$$(VAR)", "$value");
    }

    #[test]
    fn strict_names_the_first_missing() {
        assert_eq!(expand_strict("$(A)/$(B)", |_| None), Err("A".to_owned()));
    }
}

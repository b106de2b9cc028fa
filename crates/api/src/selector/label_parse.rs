//! Parses the text of a label selector: tokens, then requirements, with upstream's grammar and error texts.

use std::collections::BTreeSet;

use super::label_key::label_key_problems;
use super::labels::{Operator, Requirement, SelectorError};

pub(super) fn parse(text: &str) -> Result<Vec<Requirement>, SelectorError> {
    let mut parser = Parser { tokens: scan(text), at: 0 };
    let mut requirements = Vec::new();
    loop {
        match parser.peek() {
            Token::Word(_) | Token::Symbol("!") => {}
            Token::End => return Ok(requirements),
            token => return fail(format!("found '{token}', expected: !, identifier, or 'end of string'")),
        }
        let requirement = parser.requirement();
        requirements.push(requirement.map_err(|e| SelectorError(format!("unable to parse requirement: {e}")))?);
        match parser.next() {
            Token::End => return Ok(requirements),
            Token::Symbol(",") => match parser.peek() {
                Token::Word(_) | Token::Symbol("!") => {}
                token => return fail(format!("found '{token}', expected: identifier after ','")),
            },
            token => return fail(format!("found '{token}', expected: ',' or 'end of string'")),
        }
    }
}

fn fail<T>(message: String) -> Result<T, SelectorError> {
    Err(SelectorError(message))
}

#[derive(Clone, PartialEq)]
enum Token {
    /// An identifier; `in` and `notin` are words whose meaning depends on the place.
    Word(String),
    Symbol(&'static str),
    /// Symbols that form no operator.
    Bad(String),
    End,
}

impl std::fmt::Display for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Token::Word(word) => f.write_str(word),
            Token::Symbol(symbol) => f.write_str(symbol),
            Token::Bad(found) => write!(f, "error expected: keyword found '{found}'"),
            Token::End => Ok(()),
        }
    }
}

const SPECIAL: &[char] = &['=', '!', '(', ')', ',', '>', '<'];
/// Longer ones first: the scanner takes the longest match.
const SYMBOLS: &[&str] = &["==", "!=", "=", "!", "(", ")", ",", ">", "<"];

fn scan(text: &str) -> Vec<Token> {
    let blank = |c: char| matches!(c, ' ' | '\t' | '\r' | '\n');
    let mut tokens = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches(blank);
        if rest.is_empty() {
            tokens.push(Token::End);
            return tokens;
        }
        if let Some(symbol) = SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol)) {
            tokens.push(Token::Symbol(symbol));
            rest = &rest[symbol.len()..];
            continue;
        }
        let end = rest.find(|c: char| SPECIAL.contains(&c) || blank(c)).unwrap_or(rest.len());
        if end == 0 {
            tokens.push(Token::Bad(rest.to_owned()));
            rest = "";
            continue;
        }
        tokens.push(Token::Word(rest[..end].to_owned()));
        rest = &rest[end..];
    }
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
}

impl Parser {
    fn peek(&self) -> Token {
        self.tokens.get(self.at).cloned().unwrap_or(Token::End)
    }

    fn next(&mut self) -> Token {
        let token = self.peek();
        self.at += 1;
        token
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        let mut absent = false;
        let mut token = self.next();
        if token == Token::Symbol("!") {
            absent = true;
            token = self.next();
        }
        let Token::Word(key) = token else { return fail(format!("found '{token}', expected: identifier")) };
        let problems = label_key_problems(&key);
        if !problems.is_empty() {
            return fail(format!("<nil>: Invalid value: {key:?}: {}", problems.join("; ")));
        }
        let ended = matches!(self.peek(), Token::End | Token::Symbol(","));
        if absent {
            return Requirement::new(&key, Operator::DoesNotExist, Vec::new());
        }
        if ended {
            return Requirement::new(&key, Operator::Exists, Vec::new());
        }
        let operator = self.operator()?;
        let values = match operator {
            Operator::In | Operator::NotIn => self.values()?,
            _ => self.exact_value()?,
        };
        Requirement::new(&key, operator, values.into_iter().collect())
    }

    fn operator(&mut self) -> Result<Operator, SelectorError> {
        let token = self.next();
        Ok(match &token {
            Token::Word(word) if word == "in" => Operator::In,
            Token::Word(word) if word == "notin" => Operator::NotIn,
            Token::Symbol("=") => Operator::Equals,
            Token::Symbol("==") => Operator::DoubleEquals,
            Token::Symbol("!=") => Operator::NotEquals,
            Token::Symbol(">") => Operator::GreaterThan,
            Token::Symbol("<") => Operator::LessThan,
            _ => return fail(format!("found '{token}', expected: in, notin, =, ==, !=, gt, lt")),
        })
    }

    fn exact_value(&mut self) -> Result<BTreeSet<String>, SelectorError> {
        if matches!(self.peek(), Token::End | Token::Symbol(",")) {
            return Ok(BTreeSet::from([String::new()]));
        }
        match self.next() {
            Token::Word(word) => Ok(BTreeSet::from([word])),
            token => fail(format!("found '{token}', expected: identifier")),
        }
    }

    /// `(a,b)`; an empty place between commas or parentheses is the empty value.
    fn values(&mut self) -> Result<BTreeSet<String>, SelectorError> {
        let open = self.next();
        if open != Token::Symbol("(") {
            return fail(format!("found '{open}' expected: '('"));
        }
        let mut values = BTreeSet::new();
        match self.peek() {
            Token::Symbol(")") => {
                self.next();
                return Ok(BTreeSet::from([String::new()]));
            }
            Token::Word(_) | Token::Symbol(",") => {}
            token => return fail(format!("found '{token}', expected: ',', ')' or identifier")),
        }
        loop {
            match self.next() {
                Token::Word(word) => {
                    values.insert(word);
                    match self.peek() {
                        Token::Symbol(",") => {}
                        Token::Symbol(")") => break,
                        token => return fail(format!("found '{token}', expected: ',' or ')'")),
                    }
                }
                Token::Symbol(",") => {
                    let next = self.peek();
                    if values.is_empty() || matches!(next, Token::Symbol(")" | ",")) {
                        values.insert(String::new());
                    }
                    if next == Token::Symbol(")") {
                        break;
                    }
                }
                token => return fail(format!("found '{token}', expected: ',', or identifier")),
            }
        }
        self.next();
        Ok(values)
    }
}

#[cfg(test)]
mod tests {
    use crate::selector::LabelSelector;

    fn check(text: &str, expect: &str) {
        let shown = LabelSelector::parse(text).map_or_else(|e| format!("error: {e}"), |s| s.to_string());
        assert_eq!(shown, expect, "{text}");
    }

    #[test]
    fn grammar() {
        check("", "");
        check("x=a,y=b", "x=a,y=b");
        check(" y != b , x == a ", "x==a,y!=b");
        check("x in (c,a,b)", "x in (a,b,c)");
        check("x in (in,notin)", "x in (in,notin)");
        check("!x,y", "!x,y");
        check("x=", "x=");
        check("x in ()", "x in ()");
        check("x in (a,,b)", "x in (,a,b)");
        check("x>1", "x>1");
        check("example.com/x", "example.com/x");
    }

    #[test]
    fn errors() {
        check(
            "x=a||y=b",
            "error: unable to parse requirement: values[0][x]: Invalid value: \"a||y\": a valid label must \
               be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
               alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is \
               '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
        );
        check("x==a==b", "error: found '==', expected: ',' or 'end of string'");
        check("x in", "error: unable to parse requirement: found '' expected: '('");
        check("x in (a", "error: unable to parse requirement: found '', expected: ',' or ')'");
        check("x,", "error: found '', expected: identifier after ','");
        check(",x", "error: found ',', expected: !, identifier, or 'end of string'");
        check("x y", "error: unable to parse requirement: found 'y', expected: in, notin, =, ==, !=, gt, lt");
    }
}

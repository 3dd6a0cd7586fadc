//! A line split into words as a POSIX shell splits it, by something that is no shell.
//!
//! Quotes and backslashes mean what they mean to a shell, and are taken off. Nothing is ever expanded or run: `$NAME`,
//! `*` and `#` are characters like any other, and what a shell would act upon (`|`, `&`, `;`, `<`, `>`, `(`, `)`,
//! backquotes, `$(`) is refused outside of quotes. Within quotes it is passed on, for a program such as `sh -c` to read.
//! A line end is a blank.
//!
//! Two things are not as in a shell. A template in double braces outside of quotes is passed on whole, blanks and quotes
//! included, for authors write `{{ json . }}` with quotes around it and without. And `~` is replaced only where it begins
//! a word and stands alone or before `/`; `~user` is not.

use std::fmt;

/// What a shell would act upon, longest first.
const OPERATORS: &[&str] = &["$(", "&&", "||", ">>", "<<", "|", "&", ";", "<", ">", "(", ")", "`"];

/// Why a line is not split.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Something that only a shell could do, outside of quotes.
    Operator {
        /// The operator.
        operator: &'static str,
        /// Characters before it in the line.
        at: usize,
    },
    /// A quote that is opened and not closed.
    OpenQuote {
        /// The quote.
        quote: char,
        /// Characters before it in the line.
        at: usize,
    },
    /// There is no word.
    Empty,
}

/// Splits a line. `home` takes the place of `~`; without it, `~` is a character like any other.
///
/// # Errors
/// [`Refusal`], where a shell would do more than split.
pub fn split(line: &str, home: Option<&str>) -> Result<Vec<String>, Refusal> {
    let mut splitter = Splitter { line, rest: line, home, word: None, words: Vec::new() };
    splitter.run()?;
    splitter.end_word();
    Ok(splitter.words)
}

struct Splitter<'a> {
    line: &'a str,
    /// What is not read yet: an end of `line`.
    rest: &'a str,
    home: Option<&'a str>,
    /// The word that is being read; quotes begin one even where they hold nothing.
    word: Option<String>,
    words: Vec<String>,
}

impl<'a> Splitter<'a> {
    fn run(&mut self) -> Result<(), Refusal> {
        while let Some(next) = self.rest.chars().next() {
            match next {
                ' ' | '\t' | '\r' | '\n' => {
                    self.rest = &self.rest[1..];
                    self.end_word();
                }
                '\'' => self.single_quoted()?,
                '"' => self.double_quoted()?,
                '\\' => self.escaped(),
                '~' if self.begins_home() => {
                    self.rest = &self.rest[1..];
                    self.word = self.home.map(str::to_owned);
                }
                '{' => match self.template_length() {
                    Some(length) => self.keep(length),
                    None => self.keep(1),
                },
                _ => match OPERATORS.iter().find(|operator| self.rest.starts_with(**operator)) {
                    Some(operator) => return Err(Refusal::Operator { operator, at: self.position() }),
                    None => self.keep(next.len_utf8()),
                },
            }
        }
        Ok(())
    }

    fn single_quoted(&mut self) -> Result<(), Refusal> {
        let at = self.position();
        let Some((inside, rest)) = self.rest[1..].split_once('\'') else {
            return Err(Refusal::OpenQuote { quote: '\'', at });
        };
        self.word().push_str(inside);
        self.rest = rest;
        Ok(())
    }

    /// In double quotes a backslash takes the meaning from `$`, backquote, `"`, `\` and a line end, and from nothing else.
    fn double_quoted(&mut self) -> Result<(), Refusal> {
        let at = self.position();
        self.rest = &self.rest[1..];
        self.word();
        loop {
            let Some(plain) = self.rest.find(['"', '\\']) else {
                return Err(Refusal::OpenQuote { quote: '"', at });
            };
            self.keep(plain);
            if let Some(rest) = self.rest.strip_prefix('"') {
                self.rest = rest;
                return Ok(());
            }
            match self.rest[1..].chars().next() {
                Some('\n') => self.rest = &self.rest[2..],
                Some('$' | '`' | '"' | '\\') => {
                    self.rest = &self.rest[1..];
                    self.keep(1);
                }
                _ => self.keep(1),
            }
        }
    }

    /// Outside of quotes a backslash takes the meaning from whatever follows. At the end of the line it is a character.
    fn escaped(&mut self) {
        match self.rest[1..].chars().next() {
            Some('\n') => self.rest = &self.rest[2..],
            Some(next) => {
                self.rest = &self.rest[1..];
                self.keep(next.len_utf8());
            }
            None => self.keep(1),
        }
    }

    /// Whether `~` is next, and stands for the home directory.
    fn begins_home(&self) -> bool {
        let after = self.rest[1..].chars().next();
        self.home.is_some() && self.word.is_none() && matches!(after, None | Some('/' | ' ' | '\t' | '\r' | '\n'))
    }

    /// The length in bytes of the template that begins here, if one does.
    fn template_length(&self) -> Option<usize> {
        let inside = self.rest.strip_prefix("{{")?;
        inside.find("}}").map(|length| length + 4)
    }

    /// Takes that many bytes into the word, as they are.
    fn keep(&mut self, bytes: usize) {
        let (kept, rest) = self.rest.split_at(bytes);
        self.rest = rest;
        self.word().push_str(kept);
    }

    fn word(&mut self) -> &mut String {
        self.word.get_or_insert_default()
    }

    fn end_word(&mut self) {
        self.words.extend(self.word.take());
    }

    fn position(&self) -> usize {
        self.line[..self.line.len() - self.rest.len()].chars().count()
    }
}

impl Refusal {
    /// The refusal as one word, for programs.
    pub fn reason(&self) -> &'static str {
        match self {
            Refusal::Operator { .. } => "SHELL_OPERATOR",
            Refusal::OpenQuote { .. } => "OPEN_QUOTE",
            Refusal::Empty => "NO_PROGRAM",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Operator { operator, at } => write!(
                f,
                "{operator} at character {} needs a shell, and none runs this; put it in quotes to pass it on as it is",
                at + 1
            ),
            Refusal::OpenQuote { quote, at } => {
                write!(f, "the quote {quote} at character {} is not closed", at + 1)
            }
            Refusal::Empty => f.write_str("there is no program to run"),
        }
    }
}

impl std::error::Error for Refusal {}

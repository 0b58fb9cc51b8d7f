//! JSON watched while it is written, in pieces of any size: is this still the beginning of an object? Knows nothing
//! of what the object says, keeps nothing but where it is.
//!
//! The grammar is RFC 8259's, less what the usual reader cannot take: nesting over [`super::DEPTH_MAX`], and one name
//! that the parser we use keeps for itself. A byte is refused exactly when no text that begins so can be accepted.

mod number;
mod string;

use super::{DEPTH_MAX, DOCUMENT_MAX_BYTES, invalid};
use crate::store::{InvalidDocument, PrefixCheck};
use number::Number;
use string::Text;

/// What may come next.
#[derive(Debug, Clone, Default)]
enum Next {
    /// White space, then `{`.
    #[default]
    Start,
    /// After `{`: a name or `}`.
    NameOrEnd,
    /// After `,` in an object: a name.
    Name,
    /// After a name: `:`.
    Colon,
    /// After `:`, or `,` in an array: a value.
    Value,
    /// After `[`: a value or `]`.
    ValueOrEnd,
    /// After a value: `,` or the end of what it is in.
    CommaOrEnd,
    /// Inside the string of a name.
    InName(Text),
    /// Inside the string of a value.
    InText(Text),
    /// Inside a number.
    InNumber(Number),
    /// Inside `true`, `false` or `null`: what is left of it.
    InLiteral(&'static [u8]),
    /// After the object: white space.
    Done,
}

impl Next {
    /// What is missing here, for people.
    fn expected(&self) -> &'static str {
        match self {
            Self::Start => "'{'",
            Self::NameOrEnd => "a name in double quotes or '}'",
            Self::Name => "a name in double quotes",
            Self::Colon => "':'",
            Self::Value => "a value",
            Self::ValueOrEnd => "a value or ']'",
            Self::CommaOrEnd => "',' or the end of the object or array",
            Self::InName(text) | Self::InText(text) => text.expected(),
            Self::InNumber(_) => "a digit",
            Self::InLiteral(_) => "the rest of true, false or null",
            Self::Done => "nothing more",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Container {
    Object,
    Array,
}

/// Where in the text a check is.
#[derive(Debug, Default)]
pub(super) struct Check {
    next: Next,
    /// What is open, outermost first; never longer than [`DEPTH_MAX`].
    open: Vec<Container>,
    offset: u64,
    line: u64,
    line_start: u64,
    refused: Option<InvalidDocument>,
}

/// A byte cannot come here; the words, where the expected thing does not say it all.
struct Refused(Option<String>);

impl PrefixCheck for Check {
    fn push(&mut self, bytes: &[u8]) -> Result<(), InvalidDocument> {
        let mut rest = bytes;
        while let (None, Some((byte, after))) = (&self.refused, rest.split_first()) {
            if let Next::InText(text) | Next::InName(text) = &self.next
                && let plain @ 1.. = text.plain_bytes(rest)
            {
                self.offset += plain as u64;
                rest = rest.get(plain..).unwrap_or_default();
                continue;
            }
            match self.take(*byte) {
                Ok(()) => self.offset += 1,
                Err(Refused(words)) => self.refused = Some(self.refusal(*byte, words)),
            }
            rest = after;
        }
        if self.offset > DOCUMENT_MAX_BYTES && self.refused.is_none() {
            let most = DOCUMENT_MAX_BYTES >> 20;
            self.refused = Some(invalid(format_args!("more than {most} MiB were written: put large things into keys")));
        }
        self.refused.clone().map_or(Ok(()), Err)
    }
}

impl Check {
    /// Is what was pushed a whole object?
    ///
    /// # Errors
    /// [`InvalidDocument`]: it was refused already, or it ends too early; with where, and what was missing.
    pub(super) fn finish(&self) -> Result<(), InvalidDocument> {
        match (&self.refused, &self.next) {
            (Some(refused), _) => Err(refused.clone()),
            (None, Next::Done) => Ok(()),
            (None, Next::Start) if self.offset == 0 => Err(invalid("nothing was written")),
            (None, Next::Start) => Err(invalid("there is only white space")),
            (None, next) => {
                Err(invalid(format_args!("the text ends at {}, where {} is missing", self.place(), next.expected())))
            }
        }
    }

    fn take(&mut self, byte: u8) -> Result<(), Refused> {
        match &mut self.next {
            Next::InName(text) => {
                if text.take(byte)? {
                    self.next = Next::Colon;
                }
            }
            Next::InText(text) => {
                if text.take(byte)? {
                    self.after_value();
                }
            }
            Next::InLiteral(rest) => match rest.split_first() {
                Some((expected, [])) if *expected == byte => self.after_value(),
                Some((expected, left)) if *expected == byte => *rest = left,
                _ => return Err(Refused(None)),
            },
            Next::InNumber(number) => match number.then(byte) {
                Some(number) => self.next = Next::InNumber(number),
                // A number has no end of its own: the byte behind it is the next thing's.
                None if number.may_end() => {
                    self.after_value();
                    return self.take_between(byte);
                }
                None => return Err(Refused(None)),
            },
            _ => return self.take_between(byte),
        }
        Ok(())
    }

    /// Takes a byte that is not inside a string, number or literal.
    fn take_between(&mut self, byte: u8) -> Result<(), Refused> {
        match (&self.next, byte) {
            (_, b' ' | b'\t' | b'\r') => {}
            (_, b'\n') => {
                self.line += 1;
                self.line_start = self.offset + 1;
            }
            (Next::Start, b'{') => self.enter(Container::Object)?,
            (Next::NameOrEnd | Next::Name, b'"') => self.next = Next::InName(Text::name()),
            (Next::NameOrEnd, b'}') => self.leave(Container::Object)?,
            (Next::Colon, b':') => self.next = Next::Value,
            (Next::ValueOrEnd, b']') => self.leave(Container::Array)?,
            (Next::Value | Next::ValueOrEnd, byte) => self.begin_value(byte)?,
            (Next::CommaOrEnd, b'}') => self.leave(Container::Object)?,
            (Next::CommaOrEnd, b']') => self.leave(Container::Array)?,
            (Next::CommaOrEnd, b',') => {
                let inside = self.open.last();
                self.next = if inside == Some(&Container::Object) { Next::Name } else { Next::Value };
            }
            _ => return Err(Refused(None)),
        }
        Ok(())
    }

    fn begin_value(&mut self, byte: u8) -> Result<(), Refused> {
        self.next = match byte {
            b'{' => return self.enter(Container::Object),
            b'[' => return self.enter(Container::Array),
            b'"' => Next::InText(Text::value()),
            b't' => Next::InLiteral(b"rue"),
            b'f' => Next::InLiteral(b"alse"),
            b'n' => Next::InLiteral(b"ull"),
            byte => Next::InNumber(Number::first(byte).ok_or(Refused(None))?),
        };
        Ok(())
    }

    fn enter(&mut self, container: Container) -> Result<(), Refused> {
        if self.open.len() == DEPTH_MAX {
            return Err(Refused(Some(format!("it nests deeper than {DEPTH_MAX} levels"))));
        }
        self.open.push(container);
        self.next = if container == Container::Object { Next::NameOrEnd } else { Next::ValueOrEnd };
        Ok(())
    }

    fn leave(&mut self, container: Container) -> Result<(), Refused> {
        if self.open.last() != Some(&container) {
            return Err(Refused(None));
        }
        self.open.pop();
        self.after_value();
        Ok(())
    }

    fn after_value(&mut self) {
        self.next = if self.open.is_empty() { Next::Done } else { Next::CommaOrEnd };
    }

    fn refusal(&self, byte: u8, words: Option<String>) -> InvalidDocument {
        let place = self.place();
        match (words, &self.next) {
            (Some(words), _) => invalid(format_args!("{words}, at {place}")),
            (None, Next::Start) => invalid(format_args!("found {} at {place}", beginning(byte))),
            (None, next) => {
                invalid(format_args!("found {} at {place}, where {} was expected", shown(byte), next.expected()))
            }
        }
    }

    /// Where the next byte stands, counted from 1, columns in bytes.
    fn place(&self) -> String {
        format!("line {} column {}", self.line + 1, self.offset - self.line_start + 1)
    }
}

/// What a text is that begins so and is no object.
fn beginning(byte: u8) -> String {
    match byte {
        b'[' => "an array".to_owned(),
        b'"' => "a string".to_owned(),
        b'-' | b'0'..=b'9' => "a number".to_owned(),
        0xef => "byte 0xef, with which a byte order mark begins,".to_owned(),
        byte => shown(byte),
    }
}

fn shown(byte: u8) -> String {
    if byte.is_ascii_graphic() || byte == b' ' {
        format!("'{}'", char::from(byte))
    } else {
        format!("byte {byte:#04x}")
    }
}

#[cfg(test)]
pub(super) mod testing;
#[cfg(test)]
mod tests;

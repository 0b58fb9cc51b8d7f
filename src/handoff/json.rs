//! A JSON value that keeps its numbers as they were written, `1e3` as `1e3`: read from checked text, printed pretty.
//! Knows nothing of handoffs. The usual values keep a number's digits, but not how its exponent was spelled.

use std::collections::BTreeMap;

use serde_json::Number;

/// The members of an object, sorted by name.
pub(super) type Object = BTreeMap<String, Json>;

/// A value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Json {
    /// `null`.
    #[default]
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number, as it is written.
    Number(String),
    /// A string, without its escapes.
    Text(String),
    /// An array.
    Array(Vec<Json>),
    /// An object.
    Object(Object),
}

impl Json {
    /// Reads a text that [`super::check::Check`] found to be whole, which also bounds how deep this calls itself.
    /// `None` for other texts, as far as it is noticed. Of two members of one name the last counts.
    pub(super) fn read(checked: &str) -> Option<Self> {
        Reader { rest: checked }.value()
    }

    /// An object of these members.
    pub(super) fn object<const N: usize>(members: [(&str, Self); N]) -> Self {
        Self::Object(members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }

    /// A finite fraction, written with a point; `None` for another.
    pub(super) fn fraction(number: f64) -> Option<Self> {
        Number::from_f64(number).map(|number| Self::Number(number.to_string()))
    }

    /// The text of a string.
    pub(super) fn as_str(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// The items of an array.
    pub(super) fn as_array(&self) -> Option<&[Self]> {
        if let Self::Array(items) = self { Some(items) } else { None }
    }

    /// The members of an object.
    pub(super) fn as_object(&self) -> Option<&Object> {
        if let Self::Object(members) = self { Some(members) } else { None }
    }

    /// A number written as an integer, if it fits.
    pub(super) fn as_i64(&self) -> Option<i64> {
        if let Self::Number(number) = self { number.parse().ok() } else { None }
    }

    /// The nearest fraction to a number, if it is finite.
    pub(super) fn as_f64(&self) -> Option<f64> {
        let Self::Number(number) = self else { return None };
        number.parse().ok().filter(|number: &f64| number.is_finite())
    }

    /// How deep objects and arrays nest; 0 for anything else.
    pub(super) fn depth(&self) -> usize {
        match self {
            Self::Array(items) => 1 + items.iter().map(Self::depth).max().unwrap_or(0),
            Self::Object(members) => 1 + members.values().map(Self::depth).max().unwrap_or(0),
            _ => 0,
        }
    }

    /// The text, two spaces a level, no line end behind it; empty arrays and objects on one line.
    pub(super) fn pretty(&self) -> String {
        let mut text = String::new();
        self.print(&mut text, 0);
        text
    }

    fn print(&self, to: &mut String, level: usize) {
        match self {
            Self::Null => to.push_str("null"),
            Self::Bool(true) => to.push_str("true"),
            Self::Bool(false) => to.push_str("false"),
            Self::Number(number) => to.push_str(number),
            Self::Text(text) => print_text(text, to),
            Self::Array(items) => {
                to.push('[');
                for (at, item) in items.iter().enumerate() {
                    begin_line(to, at == 0, level + 1);
                    item.print(to, level + 1);
                }
                end(to, ']', items.is_empty(), level);
            }
            Self::Object(members) => {
                to.push('{');
                for (at, (name, value)) in members.iter().enumerate() {
                    begin_line(to, at == 0, level + 1);
                    print_text(name, to);
                    to.push_str(": ");
                    value.print(to, level + 1);
                }
                end(to, '}', members.is_empty(), level);
            }
        }
    }
}

fn begin_line(to: &mut String, first: bool, level: usize) {
    to.push_str(if first { "\n" } else { ",\n" });
    to.extend(std::iter::repeat_n("  ", level));
}

fn end(to: &mut String, bracket: char, empty: bool, level: usize) {
    if !empty {
        to.push('\n');
        to.extend(std::iter::repeat_n("  ", level));
    }
    to.push(bracket);
}

/// With the escapes that must be and no others, as the neighbour prints.
fn print_text(text: &str, to: &mut String) {
    // A string into memory cannot fail.
    to.push_str(&serde_json::to_string(text).unwrap_or_default());
}

impl From<&str> for Json {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Json {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<Option<&str>> for Json {
    fn from(text: Option<&str>) -> Self {
        text.map_or(Self::Null, Self::from)
    }
}

impl From<u64> for Json {
    fn from(number: u64) -> Self {
        Self::Number(number.to_string())
    }
}

impl From<i64> for Json {
    fn from(number: i64) -> Self {
        Self::Number(number.to_string())
    }
}

/// What is still to be read.
struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    fn value(&mut self) -> Option<Json> {
        match self.peek()? {
            b'{' => self.object(),
            b'[' => self.array(),
            b'"' => self.text().map(Json::Text),
            _ => match self.take(|byte| !matches!(byte, b',' | b']' | b'}' | b' ' | b'\t' | b'\n' | b'\r'))? {
                "null" => Some(Json::Null),
                "true" => Some(Json::Bool(true)),
                "false" => Some(Json::Bool(false)),
                number => Some(Json::Number(number.to_owned())),
            },
        }
    }

    fn object(&mut self) -> Option<Json> {
        self.skip(b'{')?;
        let mut members = Object::new();
        while self.peek()? != b'}' {
            let name = self.text()?;
            self.skip(b':')?;
            members.insert(name, self.value()?);
            self.comma_or(b'}')?;
        }
        self.skip(b'}')?;
        Some(Json::Object(members))
    }

    fn array(&mut self) -> Option<Json> {
        self.skip(b'[')?;
        let mut items = Vec::new();
        while self.peek()? != b']' {
            items.push(self.value()?);
            self.comma_or(b']')?;
        }
        self.skip(b']')?;
        Some(Json::Array(items))
    }

    fn text(&mut self) -> Option<String> {
        self.peek()?;
        let mut escaped = false;
        let closing = self.rest.bytes().skip(1).position(|byte| {
            let closes = byte == b'"' && !escaped;
            escaped = byte == b'\\' && !escaped;
            closes
        })?;
        let (quoted, rest) = self.rest.split_at_checked(closing + 2)?;
        self.rest = rest;
        if quoted.contains('\\') {
            return serde_json::from_str(quoted).ok();
        }
        Some(quoted.strip_prefix('"')?.strip_suffix('"')?.to_owned())
    }

    /// The next byte that is no white space.
    fn peek(&mut self) -> Option<u8> {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
        self.rest.bytes().next()
    }

    fn skip(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.rest = self.rest.get(1..).unwrap_or_default())
    }

    fn comma_or(&mut self, end: u8) -> Option<()> {
        if self.peek()? == end { Some(()) } else { self.skip(b',') }
    }

    fn take(&mut self, is_part: impl Fn(u8) -> bool) -> Option<&'a str> {
        let length = self.rest.bytes().position(|byte| !is_part(byte)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(taken)
    }
}

#[cfg(test)]
mod tests;

//! The grammar of a JSON string: UTF-8, escapes, pairs of surrogates. Knows not what is around it, keeps no text.

use super::Refused;

/// A name that the parser takes for the mark of a number when it is the first of an object. An object with it would
/// come out as something else, so it is refused.
const PRIVATE_NAME: &[u8] = b"$serde_json::private::Number";

/// Where in a string, behind its opening quote.
#[derive(Debug, Clone)]
pub(super) struct Text {
    state: State,
    /// How much of [`PRIVATE_NAME`] this string is so far; `None` once it is another one.
    private: Option<usize>,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// Between characters.
    Plain,
    /// Inside a character of several bytes: so many are missing, the next one in this range.
    Utf8 { missing: u8, from: u8, to: u8 },
    /// Behind `\`.
    Escape,
    /// Inside the four digits behind `\u`; `after` a high surrogate or not.
    Hex { digits: u8, value: u16, after: bool },
    /// Behind the digits of a high surrogate, which only `\u` and a low one can follow: `\`.
    PairEscape,
    /// The same, `u`.
    PairU,
}

impl Text {
    /// A string that names a member.
    pub(super) fn name() -> Self {
        Self { state: State::Plain, private: Some(0) }
    }

    /// A string that is a value.
    pub(super) fn value() -> Self {
        Self { state: State::Plain, private: None }
    }

    /// What is missing here, for people.
    pub(super) fn expected(&self) -> &'static str {
        match self.state {
            State::Plain => "the closing quote of a string",
            State::Utf8 { .. } => "the rest of a UTF-8 character",
            State::Escape => "one of \"\\/bfnrtu",
            State::Hex { .. } => "a hexadecimal digit",
            State::PairEscape | State::PairU => "\\u and the second half of a surrogate pair",
        }
    }

    /// How many of the bytes that come need no look one by one.
    pub(super) fn plain_bytes(&self, bytes: &[u8]) -> usize {
        if !matches!(self.state, State::Plain) || self.private.is_some() {
            return 0;
        }
        bytes.iter().position(|byte| !matches!(byte, b' ' | b'!' | b'#'..=b'[' | b']'..=0x7f)).unwrap_or(bytes.len())
    }

    /// Takes a byte; true when it was the closing quote.
    pub(super) fn take(&mut self, byte: u8) -> Result<bool, Refused> {
        match self.state {
            State::Plain => return self.take_plain(byte),
            State::Utf8 { missing, from, to } if (from..=to).contains(&byte) => {
                self.state = match missing {
                    1 => State::Plain,
                    _ => State::Utf8 { missing: missing - 1, from: 0x80, to: 0xbf },
                };
            }
            State::Utf8 { .. } => return Err(not_utf8()),
            State::Escape => self.take_escape(byte)?,
            State::Hex { digits, value, after } => self.take_hex(byte, digits, value, after)?,
            State::PairEscape if byte == b'\\' => self.state = State::PairU,
            State::PairU if byte == b'u' => self.state = State::Hex { digits: 0, value: 0, after: true },
            State::PairEscape | State::PairU => return Err(half_a_pair()),
        }
        Ok(false)
    }

    fn take_plain(&mut self, byte: u8) -> Result<bool, Refused> {
        // The first byte says how many follow, and where the second may lie: no overlong form, no surrogate, nothing
        // over U+10FFFF (Unicode 15, table 3-7).
        let (missing, from, to) = match byte {
            b'"' if self.private == Some(PRIVATE_NAME.len()) => {
                let name = String::from_utf8_lossy(PRIVATE_NAME);
                return Err(Refused(Some(format!("the name '{name}' cannot be kept"))));
            }
            b'"' => return Ok(true),
            b'\\' => {
                self.state = State::Escape;
                return Ok(false);
            }
            0..0x20 => {
                return Err(Refused(Some(format!("a string has byte {byte:#04x} in it, which must be escaped"))));
            }
            0x20..0x80 => {
                self.spell(u16::from(byte));
                return Ok(false);
            }
            0xc2..=0xdf => (1, 0x80, 0xbf),
            0xe0 => (2, 0xa0, 0xbf),
            0xed => (2, 0x80, 0x9f),
            0xe1..=0xef => (2, 0x80, 0xbf),
            0xf0 => (3, 0x90, 0xbf),
            0xf1..=0xf3 => (3, 0x80, 0xbf),
            0xf4 => (3, 0x80, 0x8f),
            0x80..=0xc1 | 0xf5..=0xff => return Err(not_utf8()),
        };
        self.private = None;
        self.state = State::Utf8 { missing, from, to };
        Ok(false)
    }

    fn take_escape(&mut self, byte: u8) -> Result<(), Refused> {
        self.state = match byte {
            b'u' => State::Hex { digits: 0, value: 0, after: false },
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {
                // None of these characters is in the private name.
                self.private = None;
                State::Plain
            }
            _ => return Err(Refused(None)),
        };
        Ok(())
    }

    fn take_hex(&mut self, byte: u8, digits: u8, value: u16, after: bool) -> Result<(), Refused> {
        let digit = char::from(byte).to_digit(16).and_then(|digit| u16::try_from(digit).ok()).ok_or(Refused(None))?;
        let value = value << 4 | digit;
        // Two digits tell a surrogate, so a byte that spoils a pair is refused where it stands.
        let half = (digits > 0).then(|| (value >> (4 * (digits - 1))) & 0xfc);
        let (high, low) = (half == Some(0xd8), half == Some(0xdc));
        let spoiled = match digits {
            0 => after && value != 0xd,
            _ => low != after,
        };
        if spoiled {
            return Err(half_a_pair());
        }
        self.state = match digits {
            0..3 => State::Hex { digits: digits + 1, value, after },
            _ if high => State::PairEscape,
            _ => {
                self.spell(if after { u16::MAX } else { value });
                State::Plain
            }
        };
        if high {
            self.private = None;
        }
        Ok(())
    }

    /// One character of the string is `unit`: is it still the private name?
    fn spell(&mut self, unit: u16) {
        let Some(at) = self.private else { return };
        self.private = PRIVATE_NAME.get(at).filter(|byte| u16::from(**byte) == unit).map(|_| at + 1);
    }
}

fn not_utf8() -> Refused {
    Refused(Some("it is not UTF-8".to_owned()))
}

fn half_a_pair() -> Refused {
    Refused(Some("half of a surrogate pair stands alone".to_owned()))
}

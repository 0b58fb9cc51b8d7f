//! The grammar of a JSON number. Knows not how large one may be: numbers are kept as they are written.

/// What of a number has been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Number {
    /// `-`.
    Minus,
    /// `0`, after which no digit may come.
    Zero,
    /// Digits before the point.
    Whole,
    /// The point.
    Point,
    /// Digits behind the point.
    Fraction,
    /// `e`.
    Exponent,
    /// `e` and its sign.
    ExponentSign,
    /// Digits of the exponent.
    ExponentDigits,
}

impl Number {
    /// The state after the first byte; `None` when no number begins so.
    pub(super) fn first(byte: u8) -> Option<Self> {
        match byte {
            b'-' => Some(Self::Minus),
            b'0' => Some(Self::Zero),
            b'1'..=b'9' => Some(Self::Whole),
            _ => None,
        }
    }

    /// The state after one byte more; `None` when it is not the number's.
    pub(super) fn then(self, byte: u8) -> Option<Self> {
        match (self, byte) {
            (Self::Minus, b'0') => Some(Self::Zero),
            (Self::Minus | Self::Whole, b'0'..=b'9') => Some(Self::Whole),
            (Self::Zero | Self::Whole, b'.') => Some(Self::Point),
            (Self::Point | Self::Fraction, b'0'..=b'9') => Some(Self::Fraction),
            (Self::Zero | Self::Whole | Self::Fraction, b'e' | b'E') => Some(Self::Exponent),
            (Self::Exponent, b'+' | b'-') => Some(Self::ExponentSign),
            (Self::Exponent | Self::ExponentSign | Self::ExponentDigits, b'0'..=b'9') => Some(Self::ExponentDigits),
            _ => None,
        }
    }

    /// Is it a whole number as it is?
    pub(super) fn may_end(self) -> bool {
        matches!(self, Self::Zero | Self::Whole | Self::Fraction | Self::ExponentDigits)
    }
}

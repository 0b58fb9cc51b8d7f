//! How operations and answers go over the socket: a frame is the length of its header (four bytes, little-endian), the
//! header (JSON: protocol, length of the body, message), then the body's raw bytes. The holder answers a question's header
//! at once, and its body follows only then: who holds a store and does not serve it is told from one that works for
//! long. Knows streams, not stores.

use std::io::{self, Read, Write};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Changes when an older peer would misread a frame.
const PROTOCOL: u32 = 2;
/// Longest header of a question: a session, a key and what is declared.
pub const QUESTION_MAX_BYTES: u32 = 64 * 1024;
/// Longest header of an answer: the list of a session's keys is one.
pub const ANSWER_MAX_BYTES: u32 = 1024 * 1024 * 1024;

#[derive(Serialize)]
struct Sent<'a, T> {
    protocol: u32,
    body_bytes: u64,
    message: &'a T,
}

#[derive(Deserialize)]
struct Received<T> {
    body_bytes: u64,
    message: T,
}

#[derive(Deserialize)]
struct Preamble {
    protocol: u32,
}

/// Sends a header that announces `body_bytes` more; the caller sends those.
///
/// # Errors
/// The stream's; InvalidInput for a message longer than a frame can say.
pub fn send<T: Serialize>(to: &mut dyn Write, message: &T, body_bytes: u64) -> io::Result<()> {
    let header = serde_json::to_vec(&Sent { protocol: PROTOCOL, body_bytes, message })?;
    let length = u32::try_from(header.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    to.write_all(&length.to_le_bytes())?;
    to.write_all(&header)
}

/// Receives a header and how many bytes of body follow it.
///
/// # Errors
/// The stream's; UnexpectedEof when it ended; InvalidData, with words, when it is no frame of this protocol or its header is
/// longer than `max_bytes`.
pub fn receive<T: DeserializeOwned>(from: &mut dyn Read, max_bytes: u32) -> io::Result<(T, u64)> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length);
    if length > max_bytes {
        return Err(invalid(format!("a header of {length} bytes: at most {max_bytes}")));
    }
    // Grows with what arrives, not with what was announced.
    let mut header = Vec::new();
    from.take(u64::from(length)).read_to_end(&mut header)?;
    if header.len() as u64 != u64::from(length) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let Preamble { protocol } = serde_json::from_slice(&header).map_err(|e| invalid(format!("not a frame: {e}")))?;
    if protocol != PROTOCOL {
        return Err(invalid(format!("the other side speaks protocol {protocol}, this one {PROTOCOL}")));
    }
    let frame: Received<T> = serde_json::from_slice(&header).map_err(|e| invalid(format!("not understood: {e}")))?;
    Ok((frame.message, frame.body_bytes))
}

fn invalid(words: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_is_received() {
        let mut wire = Vec::new();
        send(&mut wire, &"hello", 3).unwrap();
        wire.extend_from_slice(b"abc");
        let mut wire = wire.as_slice();
        assert_eq!(receive::<String>(&mut wire, QUESTION_MAX_BYTES).unwrap(), ("hello".to_owned(), 3));
        assert_eq!(wire, b"abc");
    }

    #[test]
    fn a_cut_frame_is_an_early_end() {
        let mut wire = Vec::new();
        send(&mut wire, &"hello", 0).unwrap();
        for cut in 0..wire.len() {
            let error = receive::<String>(&mut &wire[..cut], QUESTION_MAX_BYTES).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "cut at {cut}");
        }
    }

    #[test]
    fn an_announced_length_costs_no_memory_and_is_refused_over_the_limit() {
        let wire = (QUESTION_MAX_BYTES + 1).to_le_bytes();
        assert_eq!(
            receive::<String>(&mut &wire[..], QUESTION_MAX_BYTES).unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
        let wire = ANSWER_MAX_BYTES.to_le_bytes();
        assert_eq!(
            receive::<String>(&mut &wire[..], ANSWER_MAX_BYTES).unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );
    }

    #[test]
    fn another_protocol_is_named_whatever_else_it_says() {
        let header = br#"{"protocol":7,"something":"new"}"#;
        let mut wire = u32::try_from(header.len()).unwrap().to_le_bytes().to_vec();
        wire.extend_from_slice(header);
        let error = receive::<String>(&mut wire.as_slice(), QUESTION_MAX_BYTES).unwrap_err();
        assert!(error.to_string().contains("protocol 7"), "{error}");
    }
}

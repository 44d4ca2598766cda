//! What stands between HTTP/2 and protobuf, for whoever speaks gRPC on the h2 crate alone, and a look into a message
//! without its types.
//!
//! ```text
//! body = message*     message = compressed (1 byte, 0) length (4 bytes, big endian) protobuf (length bytes)
//! ```

use crate::load::Failed;
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue};

/// Bytes before a message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;
/// Room made at once for a message that comes in parts, however long it says it is.
const RESERVE_BYTES_MAX: usize = 16 << 20;

/// Puts a message with its prefix behind what stands in `out`.
///
/// # Errors
/// It is longer than a prefix can say.
pub(crate) fn put_message(out: &mut BytesMut, message: &impl prost::Message) -> Result<(), Failed> {
    let len = message.encoded_len();
    out.reserve(PREFIX_BYTES + len);
    out.put_u8(0);
    out.put_u32(u32::try_from(len)?);
    Ok(message.encode(out)?)
}

/// Says that the body is gRPC.
pub(crate) fn put_content_type(headers: &mut HeaderMap) {
    headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
}

/// What gRPC says of a call, in its trailers, or in its headers if there is nothing else.
///
/// # Errors
/// Any code but 0, with its text.
pub(crate) fn check(headers: &HeaderMap) -> Result<(), Failed> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
    match text("grpc-status") {
        "0" => Ok(()),
        code => Err(format!("code {code}: {}", text("grpc-message")).into()),
    }
}

/// The messages of a body that comes in parts. A message that lies within one part is not copied.
#[derive(Debug, Default)]
pub(crate) struct Messages {
    /// What is left of the last part, if no message began before it.
    part: Bytes,
    /// A message begun in an earlier part, and what came behind it.
    begun: BytesMut,
}

impl Messages {
    /// Takes the next part of the body.
    pub(crate) fn push(&mut self, part: Bytes) {
        if self.begun.is_empty() && self.part.is_empty() {
            self.part = part;
            return;
        }
        self.begun.extend_from_slice(&std::mem::take(&mut self.part));
        self.begun.extend_from_slice(&part);
    }

    /// The next message, if it is there as a whole.
    ///
    /// # Errors
    /// It is compressed.
    pub(crate) fn next(&mut self) -> Result<Option<Bytes>, Failed> {
        if self.begun.is_empty() {
            let whole = framed_bytes(&self.part)?;
            if let Some(bytes) = whole.filter(|bytes| *bytes <= self.part.len()) {
                let mut message = self.part.split_to(bytes);
                message.advance(PREFIX_BYTES);
                return Ok(Some(message));
            }
            self.begun.extend_from_slice(&std::mem::take(&mut self.part));
        }
        let Some(bytes) = framed_bytes(&self.begun)? else { return Ok(None) };
        if bytes > self.begun.len() {
            self.begun.reserve((bytes - self.begun.len()).min(RESERVE_BYTES_MAX));
            return Ok(None);
        }
        let mut message = self.begun.split_to(bytes);
        message.advance(PREFIX_BYTES);
        Ok(Some(message.freeze()))
    }
}

/// Bytes of the message at the beginning, prefix included.
fn framed_bytes(body: &[u8]) -> Result<Option<usize>, Failed> {
    match body {
        [0, a, b, c, d, ..] => Ok(Some(PREFIX_BYTES + u32::from_be_bytes([*a, *b, *c, *d]) as usize)),
        [0, ..] | [] => Ok(None),
        _ => Err("a compressed message, which was not asked for".into()),
    }
}

/// What a field of a message holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Held<'a> {
    /// A number.
    Number(u64),
    /// Bytes, a text or a message.
    Bytes(&'a [u8]),
}

/// The fields of a message one by one, as number and what it holds; etcd's messages know numbers of variable length and
/// bytes only.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    /// The next field.
    ///
    /// # Errors
    /// This is no message.
    pub(crate) fn next(&mut self) -> Result<Option<(u64, Held<'a>)>, Failed> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = self.number()?;
        let held = match tag & 7 {
            0 => Held::Number(self.number()?),
            2 => {
                let len = usize::try_from(self.number()?)?;
                let (bytes, rest) = self.0.split_at_checked(len).ok_or("a field is cut off")?;
                self.0 = rest;
                Held::Bytes(bytes)
            }
            kind => return Err(format!("a field of kind {kind}").into()),
        };
        Ok(Some((tag >> 3, held)))
    }

    fn number(&mut self) -> Result<u64, Failed> {
        let mut number = 0;
        for (place, byte) in self.0.iter().take(10).enumerate() {
            number |= u64::from(byte & 0x7f) << (7 * place);
            if byte & 0x80 == 0 {
                self.0 = &self.0[place + 1..];
                return Ok(number);
            }
        }
        Err("a number is cut off".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coffer_server::proto::etcdserverpb as pb;
    use prost::Message as _;

    fn response(key_bytes: usize) -> pb::LeaseGrantResponse {
        pb::LeaseGrantResponse { error: "e".repeat(key_bytes), id: -7, ttl: 60, header: None }
    }

    #[test]
    fn messages_come_out_whole_however_the_body_is_cut() {
        let mut body = BytesMut::new();
        let sent: Vec<_> = [0, 1, 300, 0, 70_000, 5].map(response).into();
        sent.iter().for_each(|message| put_message(&mut body, message).unwrap());
        let body = body.freeze();
        for part_bytes in [1, 2, 7, 64, 1_000, 16_384, body.len()] {
            let (mut messages, mut received) = (Messages::default(), Vec::new());
            for part in body.chunks(part_bytes) {
                messages.push(Bytes::copy_from_slice(part));
                while let Some(message) = messages.next().unwrap() {
                    received.push(pb::LeaseGrantResponse::decode(message).unwrap());
                }
            }
            assert_eq!(received, sent, "in parts of {part_bytes} bytes");
        }
    }

    #[test]
    fn a_compressed_message_is_refused() {
        let mut messages = Messages::default();
        messages.push(Bytes::from_static(&[1, 0, 0, 0, 0]));
        assert!(messages.next().is_err());
    }

    #[test]
    fn fields_are_those_that_were_encoded() {
        let bytes = response(3).encode_to_vec();
        let mut fields = Fields(&bytes);
        let mut seen = Vec::new();
        while let Some(field) = fields.next().unwrap() {
            seen.push(field);
        }
        let id = -7i64 as u64;
        assert_eq!(seen, [(2, Held::Number(id)), (3, Held::Number(60)), (4, Held::Bytes(b"eee"))]);
        let mut cut = Fields(&bytes[..bytes.len() - 1]);
        assert!((0..3).any(|_| cut.next().is_err()), "a message cut off is not taken for whole");
    }

    #[test]
    fn the_status_of_a_call_is_told() {
        let mut headers = HeaderMap::new();
        assert!(check(&headers).is_err(), "no status is no success");
        headers.insert("grpc-status", HeaderValue::from_static("14"));
        headers.insert("grpc-message", HeaderValue::from_static("etcdserver: no leader"));
        assert_eq!(check(&headers).unwrap_err().to_string(), "code 14: etcdserver: no leader");
        headers.insert("grpc-status", HeaderValue::from_static("0"));
        assert!(check(&headers).is_ok());
    }
}

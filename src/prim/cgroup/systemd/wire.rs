//! The D-Bus wire format, as much of it as talking to systemd takes (D-Bus Specification, "Message Protocol").

use std::fmt;

/// A value with its D-Bus type.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "the types of the specification, by their names")]
pub enum Value {
    Byte(u8),
    Bool(bool),
    I16(i16),
    U16(u16),
    I32(i32),
    U32(u32),
    I64(i64),
    U64(u64),
    F64(f64),
    Str(String),
    Path(String),
    Signature(String),
    /// The elements, after their signature.
    Array(String, Vec<Value>),
    Struct(Vec<Value>),
    Variant(Box<Value>),
}

impl Value {
    /// A string.
    pub fn str(text: impl Into<String>) -> Value {
        Value::Str(text.into())
    }

    /// Its type code.
    pub fn signature(&self) -> String {
        match self {
            Value::Byte(_) => "y".into(),
            Value::Bool(_) => "b".into(),
            Value::I16(_) => "n".into(),
            Value::U16(_) => "q".into(),
            Value::I32(_) => "i".into(),
            Value::U32(_) => "u".into(),
            Value::I64(_) => "x".into(),
            Value::U64(_) => "t".into(),
            Value::F64(_) => "d".into(),
            Value::Str(_) => "s".into(),
            Value::Path(_) => "o".into(),
            Value::Signature(_) => "g".into(),
            Value::Array(element, _) => format!("a{element}"),
            Value::Struct(fields) => format!("({})", fields.iter().map(Value::signature).collect::<String>()),
            Value::Variant(_) => "v".into(),
        }
    }
}

/// As `systemctl show` would, more or less; for `brig plan`.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, values: &[Value], between: &str| {
            let words: Vec<String> = values.iter().map(ToString::to_string).collect();
            f.write_str(&words.join(between))
        };
        match self {
            Value::Byte(n) => write!(f, "{n}"),
            Value::Bool(yes) => f.write_str(if *yes { "yes" } else { "no" }),
            Value::I16(n) => write!(f, "{n}"),
            Value::U16(n) => write!(f, "{n}"),
            Value::I32(n) => write!(f, "{n}"),
            Value::U32(n) => write!(f, "{n}"),
            Value::I64(n) => write!(f, "{n}"),
            Value::U64(u64::MAX) => f.write_str("infinity"),
            Value::U64(n) => write!(f, "{n}"),
            Value::F64(n) => write!(f, "{n}"),
            Value::Str(text) | Value::Path(text) | Value::Signature(text) => write!(f, "{}", text.escape_debug()),
            Value::Array(element, bytes) if element == "y" => {
                bytes.iter().try_for_each(|byte| if let Value::Byte(b) = byte { write!(f, "{b:02x}") } else { Ok(()) })
            }
            Value::Array(_, values) => list(f, values, ", "),
            Value::Struct(values) => list(f, values, " "),
            Value::Variant(value) => write!(f, "{value}"),
        }
    }
}

/// Bytes in the making; alignment counts from their start.
#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn pad(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn number(&mut self, bytes: &[u8]) {
        self.pad(bytes.len());
        self.0.extend_from_slice(bytes);
    }

    fn text(&mut self, text: &str) {
        self.number(&(text.len() as u32).to_le_bytes());
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(0);
    }

    fn signature(&mut self, text: &str) {
        self.0.push(text.len() as u8);
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(0);
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Byte(n) => self.0.push(*n),
            Value::Bool(yes) => self.number(&u32::from(*yes).to_le_bytes()),
            Value::I16(n) => self.number(&n.to_le_bytes()),
            Value::U16(n) => self.number(&n.to_le_bytes()),
            Value::I32(n) => self.number(&n.to_le_bytes()),
            Value::U32(n) => self.number(&n.to_le_bytes()),
            Value::I64(n) => self.number(&n.to_le_bytes()),
            Value::U64(n) => self.number(&n.to_le_bytes()),
            Value::F64(n) => self.number(&n.to_le_bytes()),
            Value::Str(text) | Value::Path(text) => self.text(text),
            Value::Signature(text) => self.signature(text),
            Value::Array(element, values) => self.array(element, |w| values.iter().for_each(|v| w.value(v))),
            Value::Struct(fields) => {
                self.pad(8);
                fields.iter().for_each(|field| self.value(field));
            }
            Value::Variant(value) => {
                self.signature(&value.signature());
                self.value(value);
            }
        }
    }

    fn array(&mut self, element: &str, fill: impl FnOnce(&mut Writer)) {
        self.number(&[0; 4]);
        let length_at = self.0.len() - 4;
        // The padding before the first element does not count.
        self.pad(alignment(element));
        let start = self.0.len();
        fill(self);
        let length = (self.0.len() - start) as u32;
        self.0[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
    }
}

fn alignment(signature: &str) -> usize {
    match signature.as_bytes().first() {
        Some(b'n' | b'q') => 2,
        Some(b'b' | b'i' | b'u' | b's' | b'o' | b'a') => 4,
        Some(b'x' | b't' | b'd' | b'(' | b'{') => 8,
        _ => 1,
    }
}

/// Where a method is.
#[derive(Debug, Clone, Copy)]
pub struct Method<'a> {
    /// The service.
    pub destination: &'a str,
    /// The object.
    pub path: &'a str,
    /// The interface.
    pub interface: &'a str,
    /// The method.
    pub member: &'a str,
}

/// A method call as bytes.
pub fn call(serial: u32, method: &Method, args: &[Value]) -> Vec<u8> {
    let mut body = Writer::default();
    args.iter().for_each(|arg| body.value(arg));
    let fields = [
        (1, Value::Path(method.path.into())),
        (6, Value::str(method.destination)),
        (2, Value::str(method.interface)),
        (3, Value::str(method.member)),
        (8, Value::Signature(args.iter().map(Value::signature).collect())),
    ];
    let mut head = Writer::default();
    // Little-endian, a method call, no flags, protocol version 1.
    head.0.extend_from_slice(&[b'l', 1, 0, 1]);
    head.number(&(body.0.len() as u32).to_le_bytes());
    head.number(&serial.to_le_bytes());
    head.array("(yv)", |w| {
        for (code, value) in fields {
            w.value(&Value::Struct(vec![Value::Byte(code), Value::Variant(Box::new(value))]));
        }
    });
    head.pad(8);
    head.0.extend_from_slice(&body.0);
    head.0
}

/// What kind of message it is, with what tells it apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// The answer to the call with this serial.
    Return(u32),
    /// The refusal of the call with this serial: the error's name.
    Error(u32, String),
    /// A signal: its interface and name.
    Signal(String, String),
    /// Something that is not for a client.
    Other,
}

/// A message that came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its kind.
    pub kind: Kind,
    signature: String,
    big: bool,
    body: Vec<u8>,
}

/// The longest message that is taken; systemd's are a few hundred bytes.
const LONGEST: usize = 16 << 20;

/// What is wrong with bytes that are no message.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed;

impl Message {
    /// Takes the first message off a buffer; `None` until it is whole.
    ///
    /// # Errors
    /// Bytes that break the protocol, and messages over 16 MiB.
    pub fn take(buffer: &mut Vec<u8>) -> Result<Option<Message>, Malformed> {
        if buffer.len() < 16 {
            return Ok(None);
        }
        let big = match buffer[0] {
            b'l' => false,
            b'B' => true,
            _ => return Err(Malformed),
        };
        let mut reader = Reader { bytes: buffer, at: 4, big };
        let (body, _serial, fields) = (reader.u32()? as usize, reader.u32()?, reader.u32()? as usize);
        let start = 16_usize.saturating_add(fields).next_multiple_of(8);
        let end = start.saturating_add(body);
        if end > LONGEST {
            return Err(Malformed);
        }
        if buffer.len() < end {
            return Ok(None);
        }
        let message = Message::parse(&buffer[..16 + fields], buffer[start..end].to_vec(), big)?;
        buffer.drain(..end);
        Ok(Some(message))
    }

    fn parse(head: &[u8], body: Vec<u8>, big: bool) -> Result<Message, Malformed> {
        let mut reader = Reader { bytes: head, at: 16, big };
        let (mut interface, mut member, mut error, mut signature, mut reply) = Default::default();
        while reader.at < head.len() {
            reader.align(8)?;
            let code = reader.byte()?;
            let kind = reader.signature()?;
            match (code, kind.as_str()) {
                (2, "s") => interface = reader.text()?,
                (3, "s") => member = reader.text()?,
                (4, "s") => error = reader.text()?,
                (5, "u") => reply = reader.u32()?,
                (8, "g") => signature = reader.signature()?,
                (_, "s" | "o") => drop(reader.text()?),
                (_, "g") => drop(reader.signature()?),
                (_, "u") => drop(reader.u32()?),
                _ => return Err(Malformed),
            }
        }
        let kind = match head[1] {
            2 => Kind::Return(reply),
            3 => Kind::Error(reply, error),
            4 => Kind::Signal(interface, member),
            _ => Kind::Other,
        };
        Ok(Message { kind, signature, big, body })
    }

    /// The arguments, where all of them are strings, paths and 32-bit numbers (which come as text), alone or in a variant.
    ///
    /// # Errors
    /// Other types, and a body that is too short for its types.
    pub fn words(&self) -> Result<Vec<String>, Malformed> {
        let mut reader = Reader { bytes: &self.body, at: 0, big: self.big };
        self.signature.chars().map(|kind| reader.word(kind)).collect()
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    big: bool,
}

impl Reader<'_> {
    fn align(&mut self, to: usize) -> Result<(), Malformed> {
        self.at = self.at.next_multiple_of(to);
        if self.at > self.bytes.len() { Err(Malformed) } else { Ok(()) }
    }

    fn some(&mut self, length: usize) -> Result<&[u8], Malformed> {
        let end = self.at.checked_add(length).ok_or(Malformed)?;
        let found = self.bytes.get(self.at..end).ok_or(Malformed)?;
        self.at = end;
        Ok(found)
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        self.some(1).map(|b| b[0])
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        self.align(4)?;
        let big = self.big;
        let bytes: [u8; 4] = self.some(4)?.try_into().map_err(|_| Malformed)?;
        Ok(if big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }

    fn terminated(&mut self, length: usize) -> Result<String, Malformed> {
        let text = self.some(length)?.to_vec();
        if self.byte()? != 0 {
            return Err(Malformed);
        }
        String::from_utf8(text).map_err(|_| Malformed)
    }

    fn text(&mut self) -> Result<String, Malformed> {
        let length = self.u32()? as usize;
        self.terminated(length)
    }

    fn signature(&mut self) -> Result<String, Malformed> {
        let length = usize::from(self.byte()?);
        self.terminated(length)
    }

    fn word(&mut self, kind: char) -> Result<String, Malformed> {
        match kind {
            's' | 'o' => self.text(),
            'u' => self.u32().map(|n| n.to_string()),
            'v' => {
                let inner = self.signature()?;
                let mut kinds = inner.chars();
                match (kinds.next(), kinds.next()) {
                    (Some(kind @ ('s' | 'o' | 'u')), None) => self.word(kind),
                    _ => Err(Malformed),
                }
            }
            _ => Err(Malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const METHOD: Method = Method { destination: "a.b", path: "/c", interface: "d.e", member: "F" };

    #[test]
    fn a_call_is_laid_out_as_the_specification_says() {
        let bytes = call(7, &METHOD, &[Value::str("hi"), Value::Array("u".into(), vec![Value::U32(9)])]);
        assert_eq!(bytes[..4], [b'l', 1, 0, 1]);
        // Body: length 2, "hi", its end, one byte up to a multiple of four, length 4, the number.
        let body = [2, 0, 0, 0, b'h', b'i', 0, 0, 4, 0, 0, 0, 9, 0, 0, 0];
        assert_eq!(bytes[4..8], 16_u32.to_le_bytes());
        assert_eq!(bytes[8..12], 7_u32.to_le_bytes());
        assert_eq!(bytes[bytes.len() - 16..], body);
        assert_eq!((bytes.len() - 16) % 8, 0, "the head ends on a multiple of eight");
        let mut buffer = bytes.clone();
        let message = Message::take(&mut buffer).unwrap().unwrap();
        assert_eq!((message.signature.as_str(), message.kind), ("sau", Kind::Other));
        assert!(buffer.is_empty());
    }

    #[test]
    fn the_padding_before_an_arrays_first_element_does_not_count() {
        let pair = Value::Struct(vec![Value::str("k"), Value::Variant(Box::new(Value::U64(5)))]);
        let mut w = Writer::default();
        w.value(&Value::Array("(sv)".into(), vec![pair]));
        let wanted = [
            24, 0, 0, 0, 0, 0, 0, 0, // length, padding
            1, 0, 0, 0, b'k', 0, // the name
            1, b't', 0, // the variant's type
            0, 0, 0, 0, 0, 0, 0, // up to a multiple of eight
            5, 0, 0, 0, 0, 0, 0, 0,
        ];
        assert_eq!(w.0, wanted);
    }

    /// What a bus would say, in either byte order.
    fn answer(big: bool) -> Vec<u8> {
        let n = |n: u32| if big { n.to_be_bytes() } else { n.to_le_bytes() };
        let mut bytes = vec![if big { b'B' } else { b'l' }, 2, 1, 1];
        bytes.extend([n(8), n(3), n(15)].concat());
        bytes.extend([5, 1, b'u', 0]);
        bytes.extend(n(42));
        bytes.extend([8, 1, b'g', 0, 1, b's', 0, 0]);
        bytes.extend([n(3), *b"abc\0"].concat());
        bytes
    }

    #[test]
    fn messages_come_in_pieces_and_in_both_byte_orders() {
        for big in [false, true] {
            let whole = answer(big);
            for cut in 0..whole.len() {
                assert_eq!(Message::take(&mut whole[..cut].to_vec()), Ok(None), "{cut}");
            }
            let mut two = [whole.clone(), whole].concat();
            let message = Message::take(&mut two).unwrap().unwrap();
            assert_eq!(message.kind, Kind::Return(42));
            assert_eq!(message.words().unwrap(), ["abc"]);
            assert!(Message::take(&mut two).unwrap().is_some() && two.is_empty());
        }
    }

    #[test]
    fn bytes_that_are_no_message_are_refused() {
        assert_eq!(Message::take(&mut vec![b'x'; 16]), Err(Malformed));
        let mut long = answer(false);
        long[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(Message::take(&mut long), Err(Malformed));
        // Whatever byte is wrong, it must not panic, nor read beyond the end.
        for at in 0..answer(false).len() {
            for value in [0, 1, 7, 0x7f, 0xff] {
                let mut bytes = answer(false);
                bytes[at] = value;
                let _ = Message::take(&mut bytes).map(|m| m.map(|m| m.words()));
            }
        }
    }
}

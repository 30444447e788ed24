//! Netlink messages and attributes as bytes, both ways (netlink(7)).

use std::borrow::Cow;

/// The size of `struct nlmsghdr`.
pub(super) const HEADER: usize = 16;
/// `NLM_F_REQUEST`.
const REQUEST: u16 = 0x1;
/// `NLM_F_EXCL`.
pub(super) const EXCLUSIVE: u16 = 0x200;
/// `NLM_F_CREATE`.
pub(super) const CREATE: u16 = 0x400;
/// `NLM_F_APPEND`.
pub(super) const APPEND: u16 = 0x800;
/// `NLM_F_REPLACE`.
pub(super) const REPLACE: u16 = 0x100;

/// A list of attributes, each a length, a kind and a padded value.
#[derive(Debug, Clone, Default)]
pub(super) struct Attributes(Vec<u8>);

impl Attributes {
    /// The list as the kernel reads it.
    #[cfg(test)]
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// An empty list.
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Adds raw bytes.
    pub(super) fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        // A length beyond u16 is made invalid rather than wrapped: the kernel refuses it.
        let length = u16::try_from(value.len().saturating_add(4)).unwrap_or(u16::MAX);
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// Adds one byte.
    pub(super) fn u8(self, kind: u16, value: u8) -> Self {
        self.bytes(kind, &[value])
    }

    /// Adds a number in the machine's order.
    pub(super) fn u32(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    /// Adds a number in network order, as nf_tables wants all its numbers.
    pub(super) fn be32(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// Adds a NUL-terminated string.
    pub(super) fn string(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(kind, &bytes)
    }

    /// Adds a list below this one.
    pub(super) fn nest(self, kind: u16, inner: &Self) -> Self {
        self.bytes(kind | 0x8000, &inner.0)
    }

    /// Adds a structure in front of the attributes of a nest that has one.
    pub(super) fn prefixed(header: &[u8]) -> Self {
        let mut bytes = header.to_vec();
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        Self(bytes)
    }
}

/// One request, with a label that says what it does.
#[derive(Debug, Clone)]
pub(super) struct Message {
    kind: u16,
    flags: u16,
    label: Cow<'static, str>,
    body: Vec<u8>,
}

impl Message {
    /// A request of this kind; `header` is the family's own structure.
    pub(super) fn new(
        label: impl Into<Cow<'static, str>>,
        (kind, flags): (u16, u16),
        header: &[u8],
        attributes: &Attributes,
    ) -> Self {
        let mut body = header.to_vec();
        body.resize(body.len().next_multiple_of(4), 0);
        body.extend_from_slice(&attributes.0);
        Self { kind, flags, label: label.into(), body }
    }

    /// The label: its effect in words, for error messages.
    pub(super) fn label(&self) -> &str {
        &self.label
    }

    /// The attributes behind the family's own structure.
    pub(super) fn attributes(&self, header: usize) -> Parsed<'_> {
        Parsed(self.body.get(header.next_multiple_of(4)..).unwrap_or_default())
    }

    /// Writes it out.
    pub(super) fn encode(&self, out: &mut Vec<u8>, sequence: u32, flags: u16) {
        let length = u32::try_from(self.body.len().saturating_add(HEADER)).unwrap_or(u32::MAX);
        out.extend_from_slice(&length.to_ne_bytes());
        out.extend_from_slice(&self.kind.to_ne_bytes());
        out.extend_from_slice(&(self.flags | flags | REQUEST).to_ne_bytes());
        out.extend_from_slice(&sequence.to_ne_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.body);
    }
}

/// One message of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    payload: Vec<u8>,
}

impl Answer {
    /// Keeps what arrived.
    pub(super) fn new(payload: &[u8]) -> Self {
        Self { payload: payload.to_vec() }
    }

    /// The bytes of the family's own structure, if there are that many.
    pub(super) fn header(&self, length: usize) -> Option<&[u8]> {
        self.payload.get(..length)
    }

    /// The attributes behind the family's own structure.
    pub(super) fn attributes(&self, header: usize) -> Parsed<'_> {
        Parsed(self.payload.get(header.next_multiple_of(4)..).unwrap_or_default())
    }

    /// Whether these bytes occur anywhere in the answer.
    pub(super) fn mentions(&self, needle: &[u8]) -> bool {
        !needle.is_empty() && self.payload.windows(needle.len()).any(|window| window == needle)
    }
}

/// Attributes as they arrived.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parsed<'a>(&'a [u8]);

impl<'a> Parsed<'a> {
    /// Attributes in these bytes.
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The value of the first attribute of this kind.
    pub(super) fn find(self, kind: u16) -> Option<&'a [u8]> {
        self.all().find(|(found, _)| *found == kind).map(|(_, value)| value)
    }

    /// The attributes within the first attribute of this kind.
    pub(super) fn nested(self, kind: u16) -> Option<Self> {
        self.find(kind).map(Parsed)
    }

    /// A string without its end mark.
    pub(super) fn string(self, kind: u16) -> Option<String> {
        let bytes = self.find(kind)?;
        let text = bytes.split(|byte| *byte == 0).next()?;
        Some(String::from_utf8_lossy(text).into_owned())
    }

    /// A number in the machine's order.
    pub(super) fn u32(self, kind: u16) -> Option<u32> {
        self.find(kind)?.try_into().ok().map(u32::from_ne_bytes)
    }

    /// A number in network order.
    pub(super) fn be32(self, kind: u16) -> Option<u32> {
        self.find(kind)?.try_into().ok().map(u32::from_be_bytes)
    }

    /// Whether these bytes are a list of attributes, to the last.
    pub(super) fn is_whole(self) -> bool {
        let length =
            self.all().map(|(_, value)| value.len().saturating_add(4).next_multiple_of(4)).sum::<usize>();
        length == self.0.len() && length > 0
    }

    /// Every attribute, a kind and its value.
    pub(super) fn all(self) -> impl Iterator<Item = (u16, &'a [u8])> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let (length, kind) = u16_at(rest, 0).zip(u16_at(rest, 2))?;
            let length = usize::from(length);
            let value = rest.get(4..length)?;
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            Some((kind & 0x3fff, value))
        })
    }
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at.checked_add(2)?)?.try_into().ok().map(u16::from_ne_bytes)
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at.checked_add(4)?)?.try_into().ok().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_found_again() {
        let inner = Attributes::new().string(3, "eth0").u32(4, 1500);
        let list = Attributes::new().u8(1, 7).nest(2, &inner);
        assert_eq!(list.0.len() % 4, 0);
        let parsed = Parsed(&list.0);
        assert_eq!(parsed.find(1), Some(&[7][..]));
        let nested = parsed.nested(2).unwrap();
        assert_eq!(nested.string(3).as_deref(), Some("eth0"));
        assert_eq!(nested.u32(4), Some(1500));
        assert_eq!(parsed.find(9), None);
    }

    #[test]
    fn cut_or_lying_attributes_end_the_search() {
        for bytes in [&[][..], &[1], &[0, 0, 1, 0], &[255, 255, 1, 0, 9], &[3, 0, 1, 0, 0, 0]] {
            assert_eq!(Parsed(bytes).find(1), None);
        }
    }
}

//! The encoding of plans and messages: little-endian integers, length-prefixed bytes, no padding, no pointers.
//!
//! Decoding never trusts a length: each is checked against what is left, so that a torn or hostile buffer gives
//! [`Malformed`] and nothing else.

use std::ffi::CString;

/// The buffer does not hold what its reader expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed(
    /// The value that was being read.
    pub &'static str,
);

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "malformed {}", self.0)
    }
}

impl std::error::Error for Malformed {}

/// A value with an encoding.
pub trait Wire: Sized {
    /// Appends the value's encoding.
    fn put(&self, out: &mut Vec<u8>);
    /// Reads a value from the front of `input` and moves `input` past it.
    ///
    /// # Errors
    /// [`Malformed`] when `input` is too short or holds a value that does not exist.
    fn take(input: &mut &[u8]) -> Result<Self, Malformed>;

    /// The whole encoding of one value.
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.put(&mut out);
        out
    }

    /// Reads a value that fills `input` exactly.
    ///
    /// # Errors
    /// As [`Wire::take`], and when bytes are left over.
    fn decode(mut input: &[u8]) -> Result<Self, Malformed> {
        let value = Self::take(&mut input)?;
        if input.is_empty() { Ok(value) } else { Err(Malformed("message: bytes are left over")) }
    }
}

macro_rules! integers {
    ($($kind:ty),*) => {$(
        impl Wire for $kind {
            fn put(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
            fn take(input: &mut &[u8]) -> Result<Self, Malformed> {
                let (head, rest) = input.split_first_chunk().ok_or(Malformed(stringify!($kind)))?;
                *input = rest;
                Ok(Self::from_le_bytes(*head))
            }
        }
    )*};
}
integers!(u8, u16, u32, u64, i32, i64);

impl Wire for bool {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }
    fn take(input: &mut &[u8]) -> Result<Self, Malformed> {
        match u8::take(input)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed("bool")),
        }
    }
}

impl Wire for Vec<u8> {
    fn put(&self, out: &mut Vec<u8>) {
        let length = u32::try_from(self.len()).unwrap_or(u32::MAX);
        length.put(out);
        out.extend_from_slice(self);
    }
    fn take(input: &mut &[u8]) -> Result<Self, Malformed> {
        let length = u32::take(input)? as usize;
        let (head, rest) = input.split_at_checked(length).ok_or(Malformed("bytes"))?;
        *input = rest;
        Ok(head.to_vec())
    }
}

impl Wire for String {
    fn put(&self, out: &mut Vec<u8>) {
        self.as_bytes().to_vec().put(out);
    }
    fn take(input: &mut &[u8]) -> Result<Self, Malformed> {
        Self::from_utf8(Vec::take(input)?).map_err(|_| Malformed("text"))
    }
}

impl Wire for CString {
    fn put(&self, out: &mut Vec<u8>) {
        self.as_bytes().to_vec().put(out);
    }
    fn take(input: &mut &[u8]) -> Result<Self, Malformed> {
        Self::new(Vec::<u8>::take(input)?).map_err(|_| Malformed("path or argument: a NUL byte"))
    }
}

impl<T: Wire> Wire for Option<T> {
    fn put(&self, out: &mut Vec<u8>) {
        self.is_some().put(out);
        if let Some(value) = self {
            value.put(out);
        }
    }
    fn take(input: &mut &[u8]) -> Result<Self, Malformed> {
        Ok(if bool::take(input)? { Some(T::take(input)?) } else { None })
    }
}

/// A list of values, kept apart from `Vec<u8>`'s denser form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List<T>(
    /// The values, in order.
    pub Vec<T>,
);

impl<T> Default for List<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Wire> Wire for List<T> {
    fn put(&self, out: &mut Vec<u8>) {
        u32::try_from(self.0.len()).unwrap_or(u32::MAX).put(out);
        for item in &self.0 {
            item.put(out);
        }
    }
    fn take(input: &mut &[u8]) -> Result<Self, Malformed> {
        let count = u32::take(input)?;
        // Each item takes a byte at least, so a count beyond what is left is a lie and reserves nothing.
        if count as usize > input.len() {
            return Err(Malformed("list"));
        }
        (0..count).map(|_| T::take(input)).collect::<Result<Vec<_>, _>>().map(Self)
    }
}

/// Declares a struct or an enum whose encoding follows its declaration: fields in order, variants by number.
#[macro_export]
macro_rules! wire {
    ($(#[$meta:meta])* pub struct $name:ident { $($(#[$fmeta:meta])* pub $field:ident : $kind:ty),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $name { $($(#[$fmeta])* pub $field: $kind),* }
        impl $crate::wire::Wire for $name {
            fn put(&self, _out: &mut Vec<u8>) { $(self.$field.put(_out);)* }
            fn take(_input: &mut &[u8]) -> Result<Self, $crate::wire::Malformed> {
                Ok(Self { $($field: <$kind as $crate::wire::Wire>::take(_input)?),* })
            }
        }
    };
    ($(#[$meta:meta])* pub enum $name:ident {
        $($(#[$vmeta:meta])* $variant:ident = $number:literal { $($(#[$fmeta:meta])* $field:ident : $kind:ty),* $(,)? }),* $(,)?
    }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum $name { $($(#[$vmeta])* $variant { $($(#[$fmeta])* $field: $kind),* }),* }
        impl $crate::wire::Wire for $name {
            fn put(&self, out: &mut Vec<u8>) {
                match self { $(Self::$variant { $($field),* } => { out.push($number); $($field.put(out);)* }),* }
            }
            fn take(input: &mut &[u8]) -> Result<Self, $crate::wire::Malformed> {
                match <u8 as $crate::wire::Wire>::take(input)? {
                    $($number => Ok(Self::$variant { $($field: <$kind as $crate::wire::Wire>::take(input)?),* }),)*
                    _ => Err($crate::wire::Malformed(stringify!($name))),
                }
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_beyond_the_buffer_is_malformed() {
        assert_eq!(Vec::<u8>::decode(&[9, 0, 0, 0, 1]), Err(Malformed("bytes")));
        assert_eq!(List::<u8>::decode(&[255, 255, 255, 255]), Err(Malformed("list")));
    }

    #[test]
    fn what_was_put_is_taken() {
        let value = List(vec![Some(String::from("a")), None]);
        assert_eq!(List::decode(&value.encode()), Ok(value));
    }
}

//! Requests and replies as bytes, in the form of each version of the protocol.
//!
//! From version 3 on every field carries its length. A peer of another release may have more fields at the end of a message
//! or fewer: those that are not known are skipped, those that are absent are empty.
//! ```text
//! message   number of the variant (1 byte), fields
//! field     length in bytes (u32), value
//! value     integer, bool: little-endian, as in a plan      text, bytes: themselves
//!           struct: its fields      list: each item as a field      optional value: nothing, or 1 and the value
//! ```
//! Version 2 has the form of plans ([`crate::wire`]): no lengths of fields, nothing is skipped. `Hello`, by which the version
//! is agreed on, has that form in every version, with room for more fields at its end.

use crate::wire::{List, Malformed, Wire};

/// The first version whose fields carry their lengths.
const LENGTHS: u16 = 3;
/// The number of `Hello`, as a request and as a reply.
const HELLO: u8 = 1;

/// A value in a field of a message.
pub trait Field: Sized {
    /// Appends the value, without its length.
    fn write(&self, out: &mut Vec<u8>);

    /// Reads a value that the whole input holds.
    ///
    /// # Errors
    /// [`Malformed`] for a value that does not exist.
    fn read(input: &[u8]) -> Result<Self, Malformed>;

    /// The value of a field that the peer does not know.
    ///
    /// # Errors
    /// [`Malformed`] where there is no value to take for it.
    fn absent() -> Result<Self, Malformed> {
        Self::read(&[])
    }
}

/// A request or a reply.
pub trait Message: Wire + Field {
    /// The message for a peer of this version.
    fn to_bytes(&self, version: u16) -> Vec<u8> {
        let plain = self.encode();
        if version < LENGTHS || plain.first() == Some(&HELLO) {
            return plain;
        }
        let mut out = Vec::with_capacity(plain.len() * 2);
        self.write(&mut out);
        out
    }

    /// Reads a message of a peer of this version.
    ///
    /// # Errors
    /// [`Malformed`] for a torn message, an unknown number, and a value that does not exist.
    fn of_bytes(mut bytes: &[u8], version: u16) -> Result<Self, Malformed> {
        if bytes.first() == Some(&HELLO) {
            return Self::take(&mut bytes);
        }
        if version < LENGTHS { Self::decode(bytes) } else { Self::read(bytes) }
    }
}

/// Appends a field: its length and its value.
pub fn put<T: Field>(value: &T, out: &mut Vec<u8>) {
    let at = out.len();
    0_u32.put(out);
    value.write(out);
    let length = u32::try_from(out.len() - at - size_of::<u32>()).unwrap_or(u32::MAX);
    if let Some(place) = out.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
        *place = length.to_le_bytes();
    }
}

/// Reads the next field, and moves `input` past it; at the end of the input it is absent.
///
/// # Errors
/// As [`Field::read`] and [`Field::absent`].
pub fn take<T: Field>(input: &mut &[u8]) -> Result<T, Malformed> {
    if input.is_empty() { T::absent() } else { T::read(next(input)?) }
}

fn next<'a>(input: &mut &'a [u8]) -> Result<&'a [u8], Malformed> {
    let length = u32::take(input)? as usize;
    let (head, rest) = input.split_at_checked(length).ok_or(Malformed("field"))?;
    *input = rest;
    Ok(head)
}

macro_rules! plain {
    ($($kind:ty),*) => {$(
        impl Field for $kind {
            fn write(&self, out: &mut Vec<u8>) {
                self.put(out);
            }
            fn read(input: &[u8]) -> Result<Self, Malformed> {
                Self::decode(input)
            }
            fn absent() -> Result<Self, Malformed> {
                Ok(Self::default())
            }
        }
    )*};
}
plain!(u8, u16, u32, u64, i32, i64, bool);

impl Field for Vec<u8> {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }
    fn read(input: &[u8]) -> Result<Self, Malformed> {
        Ok(input.to_vec())
    }
}

impl Field for String {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes());
    }
    fn read(input: &[u8]) -> Result<Self, Malformed> {
        Self::from_utf8(input.to_vec()).map_err(|_| Malformed("text"))
    }
}

impl<T: Field> Field for Option<T> {
    fn write(&self, out: &mut Vec<u8>) {
        if let Some(value) = self {
            true.put(out);
            value.write(out);
        }
    }
    fn read(mut input: &[u8]) -> Result<Self, Malformed> {
        if input.is_empty() || !bool::take(&mut input)? { Ok(None) } else { T::read(input).map(Some) }
    }
}

impl<T: Field> Field for List<T> {
    fn write(&self, out: &mut Vec<u8>) {
        self.0.iter().for_each(|item| put(item, out));
    }
    fn read(mut input: &[u8]) -> Result<Self, Malformed> {
        let mut items = Vec::new();
        while !input.is_empty() {
            items.push(T::read(next(&mut input)?)?);
        }
        Ok(Self(items))
    }
}

/// Declares a struct or an enum of messages: [`crate::wire!`], and each field with its length.
#[macro_export]
macro_rules! message {
    ($(#[$meta:meta])* pub struct $name:ident { $($(#[$fmeta:meta])* pub $field:ident : $kind:ty),* $(,)? }) => {
        $crate::wire! { $(#[$meta])* pub struct $name { $($(#[$fmeta])* pub $field : $kind),* } }
        impl $crate::message::Field for $name {
            fn write(&self, out: &mut Vec<u8>) {
                $($crate::message::put(&self.$field, out);)*
            }
            fn read(mut input: &[u8]) -> Result<Self, $crate::wire::Malformed> {
                Ok(Self { $($field: $crate::message::take(&mut input)?),* })
            }
        }
    };
    ($(#[$meta:meta])* pub enum $name:ident {
        $($(#[$vmeta:meta])* $variant:ident = $number:literal { $($(#[$fmeta:meta])* $field:ident : $kind:ty),* $(,)? }),* $(,)?
    }) => {
        $crate::wire! { $(#[$meta])* pub enum $name {
            $($(#[$vmeta])* $variant = $number { $($(#[$fmeta])* $field : $kind),* }),*
        } }
        impl $crate::message::Field for $name {
            fn write(&self, out: &mut Vec<u8>) {
                match self { $(Self::$variant { $($field),* } => {
                    out.push($number);
                    $($crate::message::put($field, out);)*
                }),* }
            }
            fn read(mut input: &[u8]) -> Result<Self, $crate::wire::Malformed> {
                match <u8 as $crate::wire::Wire>::take(&mut input)? {
                    $($number => Ok(Self::$variant { $($field: $crate::message::take(&mut input)?),* }),)*
                    _ => Err($crate::wire::Malformed(stringify!($name))),
                }
            }
        }
    };
}

#[cfg(test)]
#[expect(unreachable_pub, reason = "the macro declares what other crates use")]
mod tests {
    use super::*;

    message! {
        /// As an earlier release has it.
        pub struct Early {
            /// A name.
            pub name: String,
        }
    }

    message! {
        /// As a later release has it.
        pub struct Late {
            /// A name.
            pub name: String,
            /// More.
            pub more: List<Option<u32>>,
            /// And more.
            pub last: bool,
        }
    }

    message! {
        /// A message, whose number is not that of a greeting.
        pub enum Told {
            /// One.
            Late = 7 {
                /// The value.
                value: Late,
                /// A value after it.
                count: u16
            },
        }
    }

    impl Message for Told {}

    fn written<T: Field>(value: &T) -> Vec<u8> {
        let mut out = Vec::new();
        value.write(&mut out);
        out
    }

    #[test]
    fn fields_of_a_later_release_are_skipped_and_those_of_an_earlier_one_are_empty() {
        let late = Late { name: "web".into(), more: List(vec![Some(7), None]), last: true };
        assert_eq!(Late::read(&written(&late)), Ok(late.clone()));
        assert_eq!(Early::read(&written(&late)), Ok(Early { name: "web".into() }));
        let early = Early { name: "web".into() };
        let filled = Late { name: "web".into(), more: List::default(), last: false };
        assert_eq!(Late::read(&written(&early)), Ok(filled));
    }

    #[test]
    fn what_follows_a_longer_value_is_found() {
        let value = Late { name: "web".into(), more: List::default(), last: true };
        let told = Told::Late { value, count: 513 };
        for version in [2, 3] {
            assert_eq!(Told::of_bytes(&told.to_bytes(version), version), Ok(told.clone()));
        }
        assert_ne!(told.to_bytes(2), told.to_bytes(3));
        // A field more within the value, and one more after all.
        let mut value = written(&Late { name: "web".into(), more: List::default(), last: true });
        put(&String::from("new"), &mut value);
        let mut bytes = vec![7];
        put(&value, &mut bytes);
        put(&513_u16, &mut bytes);
        put(&9_u64, &mut bytes);
        assert_eq!(Told::of_bytes(&bytes, 3), Ok(told));
    }

    #[test]
    fn a_length_beyond_the_message_is_malformed() {
        assert!(Early::read(&[9, 0, 0, 0, b'a']).is_err());
        assert!(Early::read(&[9, 0]).is_err());
        assert!(List::<u8>::read(&[0, 0, 0, 0]).is_err(), "an integer of no bytes");
        assert!(Told::of_bytes(&[8], 3).is_err());
    }
}

//! One 512-byte header block: checksum, numbers (octal and base-256), names.

use super::block::{BLOCK, broken};
use crate::layer::Failure;

/// The fields of a header, names not yet overridden by PAX.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) path: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) kind: u8,
    pub(super) mode: u32,
    pub(super) uid: u64,
    pub(super) gid: u64,
    pub(super) mtime: i64,
    pub(super) size: u64,
    pub(super) device: (u32, u32),
}

impl Header {
    pub(super) fn parse(block: &[u8; BLOCK]) -> Result<Self, Failure> {
        check_sum(block)?;
        let ustar = field(block, 257, 6) == b"ustar\0";
        let mut path = text(field(block, 0, 100)).to_vec();
        let prefix = text(field(block, 345, 155));
        if ustar && !prefix.is_empty() {
            path = [prefix, b"/", &path].concat();
        }
        let unsigned = |at, length, what| {
            u64::try_from(number(field(block, at, length), what)?)
                .map_err(|_| broken(&format!("a negative {what}")))
        };
        let device = |at| -> Result<u32, Failure> {
            if !matches!(field(block, 156, 1), b"3" | b"4") {
                return Ok(0);
            }
            u32::try_from(unsigned(at, 8, "device number")?)
                .map_err(|_| broken("a device number out of range"))
        };
        Ok(Self {
            link: text(field(block, 157, 100)).to_vec(),
            kind: field(block, 156, 1).first().copied().unwrap_or(0),
            mode: u32::try_from(unsigned(100, 8, "mode")? & 0o7777).unwrap_or(0),
            uid: unsigned(108, 8, "owner")?,
            gid: unsigned(116, 8, "group")?,
            size: unsigned(124, 12, "size")?,
            mtime: number(field(block, 136, 12), "time")?,
            device: (device(329)?, device(337)?),
            path,
        })
    }
}

pub(super) fn field(block: &[u8; BLOCK], at: usize, length: usize) -> &[u8] {
    block.get(at..at + length).unwrap_or_default()
}

fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// The sum of all bytes with the checksum's own as spaces; old writers summed signed ones.
fn check_sum(block: &[u8; BLOCK]) -> Result<(), Failure> {
    let stored = number(field(block, 148, 8), "checksum")?;
    let (mut unsigned, mut signed) = (0_i64, 0_i64);
    for (at, byte) in block.iter().enumerate() {
        let byte = if (148..156).contains(&at) { b' ' } else { *byte };
        unsigned += i64::from(byte);
        signed += i64::from(byte.cast_signed());
    }
    if stored == unsigned || stored == signed { Ok(()) } else { Err(broken("a header's checksum is wrong")) }
}

/// A number in octal digits or base-256 (GNU).
pub(super) fn number(field: &[u8], what: &str) -> Result<i64, Failure> {
    let invalid = || broken(&format!("a header's {what} is no number"));
    if field.first().is_some_and(|byte| byte & 0x80 != 0) {
        return base256(field).ok_or_else(invalid);
    }
    let digits = field.split(|byte| *byte == 0).next().unwrap_or_default().trim_ascii();
    let mut value = 0_i64;
    for digit in digits {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit < 8).ok_or_else(invalid)?;
        value =
            value.checked_mul(8).and_then(|value| value.checked_add(i64::from(digit))).ok_or_else(invalid)?;
    }
    Ok(value)
}

/// Big-endian two's complement, its first bit (0x80) being the mark and 0x40 the sign.
fn base256(field: &[u8]) -> Option<i64> {
    let negative = field.first()? & 0x40 != 0;
    let mut value: i128 = if negative { -1 } else { 0 };
    for (at, byte) in field.iter().enumerate() {
        let byte = match (at, negative) {
            (0, false) => byte & 0x7f,
            _ => *byte,
        };
        value = value.checked_mul(256)? + i128::from(byte);
        i64::try_from(value).ok()?;
    }
    i64::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_base_256() {
        assert_eq!(number(b"0000644\0", "mode").ok(), Some(0o644));
        assert_eq!(number(b"   17 \0\0", "mode").ok(), Some(0o17));
        assert_eq!(number(&[0x80, 0, 0, 0, 0, 0, 1, 0], "size").ok(), Some(256));
        assert_eq!(number(&[0xff; 12], "time").ok(), Some(-1));
        assert!(number(b"9", "mode").is_err());
        assert!(number(&[0xbf; 12], "size").is_err());
    }
}

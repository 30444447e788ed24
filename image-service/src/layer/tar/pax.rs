//! The metadata before an entry that changes it: PAX records and GNU long names.

use super::block::{broken, decimal};
use super::entry::{Entry, Kind};
use super::header::Header;
use super::sparse::{SparseFile, SparseRecords};
use crate::layer::Failure;

const XATTR: &[u8] = b"SCHILY.xattr.";
const SPARSE: &[u8] = b"GNU.sparse.";

/// PAX records in their order; of two of one key the last wins.
pub(super) type Records = Vec<(Vec<u8>, Vec<u8>)>;

/// The metadata since the last entry.
#[derive(Debug, Default)]
pub(super) struct Meta {
    pub(super) local: Records,
    pub(super) long_path: Option<Vec<u8>>,
    pub(super) long_link: Option<Vec<u8>>,
}

impl Meta {
    pub(super) fn is_empty(&self) -> bool {
        self.local.is_empty() && self.long_path.is_none() && self.long_link.is_none()
    }

    /// The entry that this header begins, with what was read before it.
    pub(super) fn complete(self, header: Header) -> Result<Entry, Failure> {
        let kind = kind(header.kind, &header.path)?;
        let mut entry = Entry {
            path: self.long_path.unwrap_or(header.path),
            link: self.long_link.unwrap_or(header.link),
            kind,
            mode: header.mode,
            uid: narrow(header.uid)?,
            gid: narrow(header.gid)?,
            mtime: (header.mtime, 0),
            device: header.device,
            size: header.size,
            sparse: None,
            xattrs: Vec::new(),
        };
        let mut sparse = SparseRecords::default();
        for (key, value) in self.local {
            match key.strip_prefix(SPARSE) {
                Some(key) => sparse.take(key, &value)?,
                None => override_field(&mut entry, &key, value)?,
            }
        }
        if let Some(SparseFile { name, map }) = sparse.finish()? {
            entry.path = name.unwrap_or(entry.path);
            entry.sparse = Some(map);
        }
        if kind != Kind::File {
            if entry.sparse.is_some() {
                return Err(broken("what is no file has the map of a sparse file"));
            }
            entry.size = 0;
        }
        if entry.path.contains(&0) || entry.link.contains(&0) {
            return Err(broken("a name has a NUL byte"));
        }
        Ok(entry)
    }
}

fn override_field(entry: &mut Entry, key: &[u8], value: Vec<u8>) -> Result<(), Failure> {
    if let Some(name) = key.strip_prefix(XATTR) {
        entry.xattrs.retain(|(other, _)| other != name);
        entry.xattrs.push((name.to_vec(), value));
        return Ok(());
    }
    if value.is_empty() {
        return Ok(());
    }
    match key {
        b"path" => entry.path = value,
        b"linkpath" => entry.link = value,
        b"size" => entry.size = decimal(&value)?,
        b"uid" => entry.uid = narrow(decimal(&value)?)?,
        b"gid" => entry.gid = narrow(decimal(&value)?)?,
        b"mtime" => entry.mtime = time(&value).ok_or_else(|| broken("a PAX time is no number"))?,
        _ => {}
    }
    Ok(())
}

fn kind(flag: u8, path: &[u8]) -> Result<Kind, Failure> {
    Ok(match flag {
        0 if path.ends_with(b"/") => Kind::Directory,
        0 | b'0' | b'7' | b'S' => Kind::File,
        b'1' => Kind::HardLink,
        b'2' => Kind::Symlink,
        b'3' => Kind::Character,
        b'4' => Kind::Block,
        b'5' => Kind::Directory,
        b'6' => Kind::Fifo,
        other => return Err(broken(&format!("an entry of the unknown type {:?}", char::from(other)))),
    })
}

/// `length key=value\n`, the length counting itself.
pub(super) fn parse(mut data: &[u8]) -> Result<Records, Failure> {
    let malformed = || broken("a PAX record is malformed");
    let mut records = Records::new();
    while !data.is_empty() {
        let space = data.iter().take(20).position(|byte| *byte == b' ').ok_or_else(malformed)?;
        let length =
            usize::try_from(decimal(data.get(..space).ok_or_else(malformed)?)?).map_err(|_| malformed())?;
        let record = data.get(space + 1..length).ok_or_else(malformed)?;
        let record = record.strip_suffix(b"\n").ok_or_else(malformed)?;
        let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(malformed)?;
        let (key, value) = record.split_at(equals);
        if key.is_empty() || key.contains(&0) {
            return Err(malformed());
        }
        records.push((key.to_vec(), value.get(1..).unwrap_or_default().to_vec()));
        data = data.get(length..).unwrap_or_default();
    }
    Ok(records)
}

/// Readers disagree on whether a global record changes an entry; so one that would is refused.
pub(super) fn check_global(records: &Records) -> Result<(), Failure> {
    let changes = |key: &[u8]| {
        matches!(key, b"path" | b"linkpath" | b"size") || key.starts_with(XATTR) || key.starts_with(SPARSE)
    };
    if records.iter().any(|(key, _)| changes(key)) {
        return Err(broken("a global PAX header changes names, sizes or attributes"));
    }
    Ok(())
}

/// A GNU long name ends at its NUL.
pub(super) fn long_name(mut data: Vec<u8>) -> Vec<u8> {
    if let Some(end) = data.iter().position(|byte| *byte == 0) {
        data.truncate(end);
    }
    data
}

fn narrow(id: u64) -> Result<u32, Failure> {
    u32::try_from(id)
        .ok()
        .filter(|id| *id != u32::MAX)
        .ok_or_else(|| broken(&format!("owner {id} is out of range")))
}

fn time(text: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let nanoseconds: u32 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    match (whole.starts_with('-'), nanoseconds) {
        (true, 1..) => Some((seconds.checked_sub(1)?, 1_000_000_000 - nanoseconds)),
        _ => Some((seconds, nanoseconds)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_round_towards_the_past() {
        assert_eq!(time(b"12.5"), Some((12, 500_000_000)));
        assert_eq!(time(b"-1.25"), Some((-2, 750_000_000)));
        assert_eq!(time(b"1.x"), None);
    }

    #[test]
    fn malformed_records_are_refused() {
        for data in [&b"x"[..], b"5 a=b", b"99 a=b\n", b"3 a\n", b"0 ", b"6 =bc\n"] {
            assert!(parse(data).is_err(), "{data:?}");
        }
        assert_eq!(parse(b"6 a=b\n").ok(), Some(vec![(b"a".to_vec(), b"b".to_vec())]));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(data in proptest::collection::vec(any::<u8>(), 0..200)) {
            drop(parse(&data));
        }
    }
}

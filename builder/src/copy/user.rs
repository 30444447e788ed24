//! Users and groups by name, from the passwd and group files of a tree.

use std::path::Path;

use crate::error::{Error, Result};
use crate::tree::Tree;

const MAX_FILE: u64 = 1 << 22;

/// An owner as `--chown` and USER name it: `user`, `user:group` or `:group`, ids or names. An id alone is its own group;
/// `root` needs no passwd file; what stands empty at the colon is root.
pub(crate) fn owner(tree: &Tree, text: &str) -> Result<(u32, u32)> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let (uid, primary) = match known(user)? {
        Some(uid) => (uid, uid),
        None => find(&file(tree, "etc/passwd")?, user, "user")?,
    };
    let gid = match group {
        None => primary,
        Some(group) => match known(group)? {
            Some(gid) => gid,
            None => find(&file(tree, "etc/group")?, group, "group")?.0,
        },
    };
    Ok((uid, gid))
}

/// The id of a name that no file has to tell. 4294967295 is none: to chown(2) it means that nothing changes.
fn known(name: &str) -> Result<Option<u32>> {
    if name.is_empty() || name == "root" {
        return Ok(Some(0));
    }
    match name.parse::<i64>() {
        Ok(id) => match u32::try_from(id) {
            Ok(id) if id < u32::MAX => Ok(Some(id)),
            _ => Err(Error::Invalid(format!("{name} is no id of a user or group: write 0 to 4294967294"))),
        },
        Err(_) => Ok(None),
    }
}

fn file(tree: &Tree, path: &str) -> Result<String> {
    let bytes = tree.read(Path::new(path), MAX_FILE)?.unwrap_or_default();
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The ids in fields 2 and 3 of the line that begins with the name.
fn find(text: &str, name: &str, what: &str) -> Result<(u32, u32)> {
    let found = text.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then_some(())?;
        let id = fields.nth(1)?.parse().ok()?;
        Some((id, fields.next().and_then(|field| field.parse().ok()).unwrap_or(id)))
    });
    found.filter(|(id, group)| *id < u32::MAX && *group < u32::MAX).ok_or_else(|| {
        Error::Invalid(format!("{what} {name:?} is not in the image's /etc: add it first, or use a number"))
    })
}

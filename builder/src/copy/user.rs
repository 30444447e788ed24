//! Users and groups by name, from the passwd and group files of a tree.

use std::path::Path;

use crate::error::{Error, Result};
use crate::tree::Tree;

const MAX_FILE: u64 = 1 << 22;

/// `user`, `user:group`, ids or names. A bare id is its own group when passwd does not know it and `same_group` says so.
pub(crate) fn owner(tree: &Tree, text: &str) -> Result<(u32, u32)> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let passwd = file(tree, "etc/passwd")?;
    let (uid, primary) = match user.parse::<u32>() {
        Ok(uid) => (uid, uid),
        Err(_) => find(&passwd, user, "user")?,
    };
    let gid = match group {
        None => primary,
        Some(group) => match group.parse::<u32>() {
            Ok(gid) => gid,
            Err(_) => find(&file(tree, "etc/group")?, group, "group")?.0,
        },
    };
    Ok((uid, gid))
}

/// The home directory of a user by name or id.
pub(crate) fn home(tree: &Tree, text: &str) -> Option<String> {
    let user = text.split(':').next().filter(|user| !user.is_empty()).unwrap_or("0");
    let passwd = file(tree, "etc/passwd").ok()?;
    passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let known = fields.first() == Some(&user) || fields.get(2) == Some(&user);
        fields.get(5).filter(|home| known && !home.is_empty()).map(|home| (*home).to_owned())
    })
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
    found.ok_or_else(|| {
        Error::Invalid(format!("{what} {name:?} is not in the image's /etc: add it first, or use a number"))
    })
}

//! Who a container's user is, by the container's own /etc/passwd and /etc/group, which may be hostile.

use crate::{Error, GroupsPolicy, Result, User};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, openat2};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, BorrowedFd};

/// A passwd or group file beyond this is refused.
const LARGEST: u64 = 4 * 1024 * 1024;
/// Ids beyond are not ids (`runc` and the kernel's signed interfaces agree).
const GREATEST: u64 = i32::MAX as u64;

/// Who a container runs as, once its names have been looked up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// Supplementary groups in order, `gid` among them.
    pub groups: Vec<u32>,
    /// The user's directory, when /etc/passwd has a plausible one.
    pub home: Option<String>,
}

/// Finds a user in the root file system whose directory is open at `root`.
pub(crate) fn resolve(root: BorrowedFd<'_>, user: &User) -> Result<Identity> {
    let passwd = read_inside(root, "etc/passwd")?;
    let group = read_inside(root, "etc/group")?;
    resolve_in(&passwd, &group, user)
}

fn resolve_in(passwd: &str, group: &str, user: &User) -> Result<Identity> {
    let (name, group_name) = match user.name.split_once(':') {
        Some((name, group_name)) => (name, Some(group_name)),
        None => (user.name.as_str(), None),
    };
    let lines = || passwd.lines().filter_map(Account::parse);
    let wanted = numeric(name, &user.name)?;
    let account = match (name, wanted) {
        ("", None) if group_name.is_none() => lines().find(|account| account.uid == 0),
        ("", None) => return Err(invalid(&user.name, "it names no user")),
        (_, Some(uid)) => lines().find(|account| account.uid == uid),
        (name, None) => Some(
            lines()
                .find(|account| account.name == name)
                .ok_or_else(|| invalid(&user.name, "no such user in /etc/passwd"))?,
        ),
    };
    let uid = account.as_ref().map_or(wanted.unwrap_or(0), |account| account.uid);
    let mut gid = account.as_ref().map_or(0, |account| account.gid);
    if let Some(group_name) = group_name {
        gid = find_group(group, group_name, &user.name)?;
    }
    if let Some(given) = user.group {
        gid = given;
    }
    let mut groups = vec![gid];
    groups.extend(&user.supplementary);
    if let (GroupsPolicy::Merge, Some(account)) = (user.groups, &account) {
        groups.extend(memberships(group, account.name));
    }
    groups.sort_unstable();
    groups.dedup();
    let home = account.map(|account| account.home).filter(|home| is_plain(home)).map(String::from);
    Ok(Identity { uid, gid, groups, home })
}

struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

impl<'a> Account<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some(Self { name, uid, gid, home: fields.nth(1).unwrap_or_default() })
    }
}

/// A number that is an id; text that only looks like one is refused, so that no line of that name can stand for it.
fn numeric(text: &str, whole: &str) -> Result<Option<u32>> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    match text.parse::<u64>() {
        Ok(id) if id <= GREATEST => Ok(u32::try_from(id).ok()),
        _ => Err(invalid(whole, "ids go from 0 to 2147483647")),
    }
}

fn find_group(file: &str, name: &str, whole: &str) -> Result<u32> {
    if name.is_empty() {
        return Err(invalid(whole, "it names no group after the colon"));
    }
    if let Some(gid) = numeric(name, whole)? {
        return Ok(gid);
    }
    file.lines()
        .filter_map(|line| {
            let mut fields = line.split(':');
            (fields.next()? == name).then(|| fields.nth(1)?.parse().ok())?
        })
        .next()
        .ok_or_else(|| invalid(whole, "no such group in /etc/group"))
}

fn memberships<'a>(file: &'a str, user: &'a str) -> impl Iterator<Item = u32> + 'a {
    file.lines().filter_map(move |line| {
        let mut fields = line.split(':').skip(2);
        let gid = fields.next()?.parse().ok()?;
        fields.next()?.split(',').any(|member| member == user).then_some(gid)
    })
}

fn is_plain(home: &str) -> bool {
    home.starts_with('/') && !home.contains(|c: char| c.is_control())
}

fn invalid(user: &str, why: &str) -> Error {
    Error::Invalid(format!("user {user:?}: {why}"))
}

/// Reads a regular file inside a root; an absent one is empty.
fn read_inside(root: BorrowedFd<'_>, path: &'static str) -> Result<String> {
    let failed =
        |source| Error::Io { action: "read the container's", path: format!("/{path}").into(), source };
    let found =
        match openat2(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::IN_ROOT) {
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(String::new()),
            found => found.map_err(|errno| failed(errno.into()))?,
        };
    let stat = fstat(&found).map_err(|errno| failed(errno.into()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Error::Invalid(format!("the container's /{path} is not a regular file")));
    }
    if u64::try_from(stat.st_size).unwrap_or(u64::MAX) > LARGEST {
        return Err(Error::Invalid(format!("the container's /{path} is larger than {LARGEST} bytes")));
    }
    let file = File::open(format!("/proc/self/fd/{}", found.as_raw_fd())).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(LARGEST).read_to_end(&mut bytes).map_err(failed)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\nweb:x:101:102::/srv:/bin/false\n4294967296:x:0:0::/:\n";
    const GROUP: &str = "root:x:0:\nwww:x:102:\nlogs:x:7:web,root\n";

    fn named(name: &str) -> User {
        User { name: name.into(), ..User::default() }
    }

    #[test]
    fn a_name_brings_its_groups_and_home() {
        let found = resolve_in(PASSWD, GROUP, &named("web")).unwrap();
        assert_eq!(found, Identity { uid: 101, gid: 102, groups: vec![7, 102], home: Some("/srv".into()) });
    }

    #[test]
    fn strict_policy_ignores_the_group_file() {
        let user = User { groups: GroupsPolicy::Strict, supplementary: vec![9], ..named("web") };
        assert_eq!(resolve_in(PASSWD, GROUP, &user).unwrap().groups, [9, 102]);
    }

    #[test]
    fn an_unknown_number_is_taken_as_it_is() {
        let found = resolve_in("", "", &named("1000:logs"));
        assert!(found.is_err());
        assert_eq!(resolve_in("", "", &named("1000:5")).unwrap().gid, 5);
    }

    #[test]
    fn numbers_beyond_ids_and_empty_groups_are_refused() {
        for bad in ["2147483648", "4294967296", "99999999999", "1000:", ":5", "nobody", "0:4294967296"] {
            assert!(resolve_in(PASSWD, GROUP, &named(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn no_user_is_root() {
        assert_eq!(resolve_in(PASSWD, GROUP, &named("")).unwrap().home.as_deref(), Some("/root"));
        assert_eq!(resolve_in("", "", &named("")).unwrap().uid, 0);
    }
}

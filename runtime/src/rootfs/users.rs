//! Resolves a container's user by the container's own /etc/passwd and /etc/group, which may be hostile.

mod files;

use crate::{Error, GroupsPolicy, Result, User};
pub(crate) use files::Root;
use serde::{Deserialize, Serialize};

/// Ids beyond are not ids (`runc` and the kernel's signed interfaces agree). The greatest 32-bit number means "unchanged"
/// to `setresuid(2)`.
const GREATEST: u64 = i32::MAX as u64;
/// The range of ids as error messages state it.
const RANGE: &str = "ids go from 0 to 2147483647";

/// The ids that a container runs with, resolved from a [`User`].
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

/// Finds a user by the files of a root.
///
/// # Errors
/// An unknown name, an id that is none, files that are not regular ones of the root's own, or that do not answer.
pub(crate) fn resolve(root: Root, user: &User) -> Result<Identity> {
    let files = files::read(root)?;
    resolve_in(&files.passwd, &files.group, user)
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
    let gid = match (user.group, group_name) {
        (Some(given), _) => given,
        (None, Some(name)) => find_group(group, name, &user.name)?,
        (None, None) => account.as_ref().map_or(0, |account| account.gid),
    };
    let mut groups = vec![gid];
    groups.extend(&user.supplementary);
    if let (GroupsPolicy::Merge, Some(account)) = (user.groups, &account) {
        groups.extend(memberships(group, account.name));
    }
    if let Some(bad) = groups.iter().chain([&uid]).find(|id| u64::from(**id) > GREATEST) {
        return Err(invalid(&user.name, &format!("it has the id {bad}, and {RANGE}")));
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
        _ => Err(invalid(whole, RANGE)),
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

    /// To setresuid(2) the greatest number means that the caller's own id stays, which is root's.
    #[test]
    fn an_id_of_a_file_or_a_request_that_is_none_is_refused() {
        let ghost = "ghost:x:4294967295:1::/:\nshade:x:1:4294967295::/:\nfar:x:2147483648:1::/:\n";
        for name in ["ghost", "shade", "far"] {
            assert!(resolve_in(ghost, "", &named(name)).is_err(), "{name}");
        }
        assert!(resolve_in(PASSWD, "deep:x:4294967295:web\n", &named("web")).is_err());
        assert!(resolve_in(PASSWD, "deep:x:4294967295:\n", &named("web:deep")).is_err());
        let group = User { group: Some(u32::MAX), ..named("web") };
        assert!(resolve_in(PASSWD, "", &group).is_err());
        let supplementary = User { supplementary: vec![u32::MAX], ..named("web") };
        assert!(resolve_in(PASSWD, "", &supplementary).is_err());
    }

    #[test]
    fn no_user_is_root() {
        assert_eq!(resolve_in(PASSWD, GROUP, &named("")).unwrap().home.as_deref(), Some("/root"));
        assert_eq!(resolve_in("", "", &named("")).unwrap().uid, 0);
    }
}

//! Names in a tar, made lexically safe before any file system sees them.

use super::Failure;

const PATH_MAX: usize = 4095;
const NAME_MAX: usize = 255;

/// Drops empty and `.` components and resolves `..` against the name before it, as the other runtimes do. An absolute
/// path begins at the layer's root, whose parent is itself; a relative path that leaves the root is refused.
pub(crate) fn normalise(path: &[u8]) -> Result<Vec<u8>, Failure> {
    if path.len() > PATH_MAX {
        return Err(Failure::Rejected(format!(
            "an entry's path has {} bytes, more than {PATH_MAX}",
            path.len()
        )));
    }
    let mut normal = Vec::with_capacity(path.len());
    for component in path.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => continue,
            b".." => match split(&normal).map(|(parent, _)| parent.len()) {
                Some(parent) => {
                    normal.truncate(parent);
                    continue;
                }
                None if path.starts_with(b"/") => continue,
                None => return Err(Failure::entry(path, "its path leaves the root")),
            },
            long if long.len() > NAME_MAX => {
                return Err(Failure::Rejected(format!(
                    "an entry's name has {} bytes, more than {NAME_MAX}",
                    long.len()
                )));
            }
            _ => {}
        }
        if !normal.is_empty() {
            normal.push(b'/');
        }
        normal.extend_from_slice(component);
    }
    Ok(normal)
}

/// Parent and last name; none for the root.
pub(super) fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if path.is_empty() {
        return None;
    }
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => Some((path.get(..slash)?, path.get(slash + 1..)?)),
        None => Some((b"", path)),
    }
}

/// A name in a directory.
pub(super) fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    let parent = parent.strip_suffix(b"/").unwrap_or(parent);
    if parent.is_empty() { name.to_vec() } else { [parent, b"/", name].concat() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_leaves_the_root_is_refused() {
        for path in [&b"../x"[..], b"a/../../x", b"..", b"./../x", b"a/b/../../.."] {
            assert!(normalise(path).is_err(), "{path:?}");
        }
    }

    #[test]
    fn what_stays_within_the_root_is_taken_from_it() {
        for (path, normal) in [
            (&b"./a//b/./c/"[..], &b"a/b/c"[..]),
            (b"./", b""),
            (b"a/..", b""),
            (b"a/../b", b"b"),
            (b"a/b/../c", b"a/c"),
            (b"/etc/passwd", b"etc/passwd"),
            (b"//x", b"x"),
            (b"/../x", b"x"),
        ] {
            assert_eq!(normalise(path).ok().as_deref(), Some(normal), "{path:?}");
        }
    }

    proptest! {
        #[test]
        fn a_normal_path_never_leaves(path in proptest::collection::vec(prop_oneof![Just(b'/'), Just(b'.'), any::<u8>()], 0..40)) {
            if let Ok(normal) = normalise(&path) {
                prop_assert!(!normal.starts_with(b"/"));
                prop_assert!(normal.split(|byte| *byte == b'/').all(|part| part != b".." && part != b"."));
            }
        }
    }
}

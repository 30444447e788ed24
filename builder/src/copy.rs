//! COPY and ADD: sources to the files and directories that they name, a walk over those to a content hash, and another to
//! files in a draft layer.

pub(crate) mod archive;
mod draft;
mod entry;
mod hash;
mod mode;
mod origin;
mod paths;
mod request;
mod select;
pub(crate) mod user;
mod walk;

pub(crate) use draft::Draft;
pub(crate) use hash::hash;
pub(crate) use mode::Chmod;
pub(crate) use origin::{Origin, Sockets};
pub(crate) use paths::{absolute, normal};
pub(crate) use request::Request;
pub(crate) use select::{named, select, take_sockets};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cancel::Cancellation;
    use crate::ignore::Ignore;
    use crate::tree::Tree;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::path::Path;

    fn copy(
        context: &Path,
        lower: &Path,
        sources: &[&str],
        destination: &str,
    ) -> crate::Result<tempfile::TempDir> {
        let upper = tempfile::tempdir().unwrap();
        let tree = Tree::open(&[context.to_owned()])?;
        let ignore = Ignore::parse(".dockerignore", b"out\n")?;
        let cancel = &Cancellation::default();
        let origin = Origin { tree: &tree, ignore: Some(&ignore), place: "the build context".into(), cancel };
        let own = fs::metadata(context).unwrap();
        let sources: Vec<String> = sources.iter().map(|source| (*source).to_owned()).collect();
        let found = select(&origin, &sources)?;
        let owner = Some((own.uid(), own.gid()));
        let request = Request { sources, destination: destination.into(), owner, chmod: None, archive: None };
        let mut draft = Draft::new(upper.path().to_owned(), &[lower.to_owned()])?;
        draft.copy(&origin, &found, &request)?;
        draft.finish()?;
        Ok(upper)
    }

    fn context() -> tempfile::TempDir {
        let context = tempfile::tempdir().unwrap();
        fs::create_dir_all(context.path().join("d/e")).unwrap();
        fs::create_dir(context.path().join("out")).unwrap();
        fs::write(context.path().join("d/e/f"), "f").unwrap();
        fs::write(context.path().join("g"), "g").unwrap();
        fs::set_permissions(context.path().join("g"), PermissionsExt::from_mode(0o640)).unwrap();
        context
    }

    #[test]
    fn a_directory_gives_its_contents_and_a_link_on_the_way_stays_inside_the_root() {
        let (context, lower) = (context(), tempfile::tempdir().unwrap());
        fs::create_dir(lower.path().join("real")).unwrap();
        symlink("/real", lower.path().join("link")).unwrap();
        let upper = copy(context.path(), lower.path(), &["d", "g"], "/link/").unwrap();
        assert_eq!(fs::read_to_string(upper.path().join("real/e/f")).unwrap(), "f");
        let copied = fs::metadata(upper.path().join("real/g")).unwrap();
        let source = fs::metadata(context.path().join("g")).unwrap();
        assert_eq!((copied.mode() & 0o777, copied.mtime()), (0o640, source.mtime()));
        assert!(!upper.path().join("link").exists());
    }

    #[test]
    fn what_is_not_there_or_ignored_is_named_as_written() {
        let (context, lower) = (context(), tempfile::tempdir().unwrap());
        for source in ["./none", "out", "../../etc/passwd"] {
            let error = copy(context.path(), lower.path(), &[source], "/x").unwrap_err().to_string();
            let expected = format!("{source} is not in the build context: check the name, and .dockerignore");
            assert_eq!(error, expected);
        }
        assert!(copy(context.path(), lower.path(), &["g", "d"], "/x").is_err());
    }

    #[test]
    fn touching_a_file_changes_no_hash_and_writing_it_does() {
        let context = context();
        let tree = Tree::open(&[context.path().to_owned()]).unwrap();
        let cancel = &Cancellation::default();
        let origin = Origin { tree: &tree, ignore: None, place: "the build context".into(), cancel };
        let now = || {
            let found = select(&origin, &["d".into(), "*".into()]).unwrap();
            hash(&origin, &found, false, &mut Sockets::default()).unwrap()
        };
        let before = now();
        let file = fs::File::options().write(true).open(context.path().join("g")).unwrap();
        file.set_modified(std::time::UNIX_EPOCH).unwrap();
        assert_eq!(now(), before);
        fs::write(context.path().join("g"), "other").unwrap();
        assert_ne!(now(), before);
    }
}

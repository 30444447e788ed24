use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;

use super::*;

/// Makes a chain of directories of one name by descriptors, for its path is longer than any path may be.
fn chain(top: &Path, name: &str, levels: usize) -> OwnedFd {
    let mut here = rustix::fs::open(top, FLAGS, Mode::empty()).unwrap();
    for _ in 0..levels {
        rustix::fs::mkdirat(&here, name, Mode::RWXU).unwrap();
        here = rustix::fs::openat(&here, name, FLAGS, Mode::empty()).unwrap();
    }
    here
}

fn touch(directory: &OwnedFd, name: &str) {
    let flags = OFlags::CREATE | OFlags::WRONLY;
    drop(rustix::fs::openat(directory, name, flags, Mode::RUSR | Mode::WUSR).unwrap());
}

fn open_files() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

/// The paths that a walk finds, and what it reports.
fn walk(walker: &mut Walker<'_>, mut at: impl FnMut(&Walker<'_>)) -> (Vec<String>, Vec<String>) {
    let (mut found, mut errors) = (Vec::new(), Vec::new());
    loop {
        match walker.next() {
            Ok(None) => return (found, errors),
            Ok(Some(Step::Left)) => {}
            Ok(Some(Step::Found)) => {
                found.push(String::from_utf8_lossy(walker.path()).into_owned());
                at(walker);
                if walker.is_directory().unwrap_or(false)
                    && let Err(error) = walker.enter()
                {
                    errors.push(error.to_string());
                }
            }
            Err(error) => errors.push(error.to_string()),
        }
    }
}

#[test]
fn a_tree_that_is_deeper_than_the_stack_is_counted_and_removed_with_few_descriptors() {
    let folder = tempfile::tempdir().unwrap();
    let top = folder.path().join("tree");
    fs::create_dir(&top).unwrap();
    let name = "n".repeat(255);
    let last = chain(&top, &name, 20_000);
    touch(&last, "file");
    drop(last);
    fs::create_dir(top.join("beside")).unwrap();
    let most = std::sync::atomic::AtomicUsize::new(0);
    let watch = || {
        most.fetch_max(open_files(), std::sync::atomic::Ordering::Relaxed);
        false
    };
    let usage = usage(&top, &watch).unwrap();
    assert_eq!((usage.inodes, usage.uncounted.map(|error| error.to_string())), (20_002, None));
    remove(&top, &watch).unwrap();
    assert!(!top.exists());
    // Other tests run beside this one.
    assert!(most.into_inner() < 2 * DESCRIPTORS + 200);
}

#[test]
fn levels_that_were_closed_are_visited_to_their_end() {
    let folder = tempfile::tempdir().unwrap();
    let mut expected = BTreeSet::new();
    let mut path = String::new();
    let mut here = folder.path().to_owned();
    for level in 0..200 {
        for name in ["a", "m", "z"] {
            if name == "m" {
                fs::create_dir(here.join("m")).unwrap();
            } else {
                fs::write(here.join(name), "").unwrap();
            }
            expected.insert(format!("{path}{name}"));
        }
        path.push_str("m/");
        here.push("m");
        assert!(level < 200);
    }
    for options in [Options::default(), Options::default().sorted()] {
        let (found, errors) = walk(&mut Walker::open(folder.path(), options).unwrap(), |_| {});
        assert_eq!(errors, Vec::<String>::new());
        assert_eq!(found.len(), expected.len());
        assert_eq!(found.iter().cloned().collect::<BTreeSet<_>>(), expected);
        if options.sorted {
            // A directory comes right before what is below it, and names in between are in order.
            assert_eq!(found[..3], ["a", "m", "m/a"]);
            assert_eq!(found.last().map(String::as_str), Some("z"));
        }
    }
}

#[test]
fn a_directory_that_is_too_large_to_sort_at_once_is_visited_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let directory = rustix::fs::open(folder.path(), FLAGS, Mode::empty()).unwrap();
    let name = |number: usize| format!("{:0>255}", number * 7919 % 60_000);
    for number in 0..60_000 {
        touch(&directory, &name(number));
    }
    let (found, errors) =
        walk(&mut Walker::open(folder.path(), Options::default().sorted()).unwrap(), |_| {});
    assert_eq!(errors, Vec::<String>::new());
    assert_eq!(found.len(), 60_000);
    assert!(found.is_sorted());
}

#[test]
fn a_directory_that_becomes_a_link_is_not_entered() {
    let (folder, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(outside.path().join("canary"), "").unwrap();
    fs::create_dir(folder.path().join("d")).unwrap();
    let mut walker = Walker::open(folder.path(), Options::default()).unwrap();
    let (found, errors) = walk(&mut walker, |_| {
        fs::remove_dir(folder.path().join("d")).unwrap();
        symlink(outside.path(), folder.path().join("d")).unwrap();
    });
    assert_eq!(found, ["d"]);
    assert_eq!(errors.len(), 1, "{errors:?}");
    remove(folder.path(), &never).unwrap();
    assert!(outside.path().join("canary").exists(), "a link is removed, not followed");
}

#[test]
fn a_walk_whose_directory_is_moved_away_goes_on_above_and_never_leaves_its_tree() {
    let (folder, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(outside.path().join("canary"), "").unwrap();
    let last = chain(folder.path(), "d", 150);
    touch(&last, "file");
    fs::write(folder.path().join("z"), "").unwrap();
    let mut walker = Walker::open(folder.path(), Options::default().sorted()).unwrap();
    let (found, errors) = walk(&mut walker, |walker| {
        if walker.name() == "file" {
            // Level 60 is closed by now; it takes all that is below it along.
            let moved = folder.path().join(["d"; 60].join("/"));
            fs::rename(moved, outside.path().join("moved")).unwrap();
        }
    });
    assert!(errors.len() == 1 && errors[0].contains("was moved"), "{errors:?}");
    assert!(found.iter().all(|path| !path.contains("canary")), "{found:?}");
    assert_eq!(found.last().map(String::as_str), Some("z"));
    assert_eq!(found.len(), 152);
}

#[test]
fn a_walk_and_a_removal_stop_when_they_are_told_to() {
    let folder = tempfile::tempdir().unwrap();
    for number in 0..100 {
        fs::create_dir(folder.path().join(number.to_string())).unwrap();
    }
    let calls = std::sync::atomic::AtomicUsize::new(0);
    let stop = || calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed) >= 10;
    assert!(matches!(usage(folder.path(), &stop), Err(Error::Stopped)));
    calls.store(0, std::sync::atomic::Ordering::Relaxed);
    assert!(matches!(remove(folder.path(), &stop), Err(Error::Stopped)));
    assert!(fs::read_dir(folder.path()).unwrap().count() >= 90);
}

#[test]
fn removal_takes_files_and_links_and_what_is_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("file"), "").unwrap();
    symlink(folder.path(), at("link")).unwrap();
    for name in ["file", "link", "none", "none/below"] {
        remove(&at(name), &never).unwrap();
        assert!(at(name).symlink_metadata().is_err(), "{name}");
    }
    assert!(folder.path().exists());
}

#[test]
fn what_can_not_be_removed_is_named_and_the_rest_goes() {
    let folder = tempfile::tempdir().unwrap();
    let locked = folder.path().join("tree/a/locked");
    fs::create_dir_all(&locked).unwrap();
    fs::write(locked.join("kept"), "").unwrap();
    fs::create_dir_all(folder.path().join("tree/b/c")).unwrap();
    fs::write(folder.path().join("tree/b/c/gone"), "").unwrap();
    lock(&locked, true);
    let error = remove(&folder.path().join("tree"), &never).unwrap_err().to_string();
    assert!(error.ends_with("tree/a/locked/kept"), "{error}");
    assert!(!folder.path().join("tree/b").exists());
    lock(&locked, false);
    remove(&folder.path().join("tree"), &never).unwrap();
}

/// Keeps everybody from changing a directory: root may write what modes forbid, but not what is immutable.
fn lock(directory: &Path, locked: bool) {
    if rustix::process::geteuid().is_root() {
        let directory = fs::File::open(directory).unwrap();
        let flags = if locked { rustix::fs::IFlags::IMMUTABLE } else { rustix::fs::IFlags::empty() };
        rustix::fs::ioctl_setflags(directory, flags).unwrap();
    } else {
        let mode = if locked { Mode::RUSR | Mode::XUSR } else { Mode::RWXU };
        rustix::fs::chmod(directory, mode).unwrap();
    }
}

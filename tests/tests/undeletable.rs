//! Files that can't be deleted: they stay where they are and are reported, and everything else goes on.

use rustix::fs::IFlags;
use serde_json::json;
use slipway_tests::{Node, Pod};
use std::fs;
use std::path::{Path, PathBuf};

/// A file that nobody can delete, not even root, while the value lives.
struct Fixed(PathBuf);

impl Fixed {
    fn new(path: PathBuf) -> Self {
        fs::create_dir_all(path.parent().expect("a directory")).expect("its directory");
        fs::write(&path, "fixed").expect("a file");
        let file = fs::File::open(&path).expect("it opens");
        rustix::fs::ioctl_setflags(file, IFlags::IMMUTABLE).expect("the file system has immutable files");
        Self(path)
    }
}

impl Drop for Fixed {
    fn drop(&mut self) {
        // A deletion by the daemon moves what is above it.
        if let Ok(file) = fs::File::open(&self.0) {
            let _ = rustix::fs::ioctl_setflags(file, IFlags::empty());
        }
    }
}

/// Finds the immutable file again, wherever a removal has moved it, and lets it go.
fn release(top: &Path) {
    let mut folders = vec![top.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(entry.path());
            } else if entry.file_type().is_ok_and(|kind| kind.is_file())
                && let Ok(file) = fs::File::open(entry.path())
            {
                let _ = rustix::fs::ioctl_setflags(file, IFlags::empty());
            }
        }
    }
}

/// An immutable file in any of the directories that a start empties kept the daemon from starting, for good.
#[test]
fn what_can_not_be_deleted_in_any_place_is_told_of_and_the_rest_is_served() {
    let mut node = Node::start();
    node.build("busybox:1", "");
    node.kill();
    let places = [
        "lib/drafts/.tmp-1-1/fs/a/b",
        "lib/trash/.tmp-1-2/fs/a/b",
        "lib/build/0123456789abcdef/1/b",
        "lib/refs/.tmp-1-3",
        "lib/images/.tmp-1-4",
        "lib/layers/.tmp-1-5",
        "lib/blobs/sha256/.tmp-1-6",
        "lib/blobs/partial/.tmp-1-7",
        "lib/build-cache/.tmp-1-8",
        "lib/addresses/.tmp",
        "lib/containers/garbage/upper/a/b",
        "lib/pods/garbage/b",
    ];
    let fixed: Vec<_> = places.iter().map(|place| Fixed::new(node.path(place))).collect();
    for name in ["first", "second"] {
        node.launch();
        // The socket is there before the records are read: an answer comes after.
        let _ = node.crictl(&["version"]).ok();
        let log = node.log();
        for place in places {
            // The name of what is moved to the trash is another one.
            let told = place.strip_prefix("lib/drafts/.tmp-1-1/").unwrap_or(place);
            assert!(log.contains(told), "{place}:\n{log}");
        }
        let checked = node.slipway(&["check"]);
        let text = format!("{}{}", checked.stdout, checked.stderr);
        // The check is the store's and the builder's; a draft has another name in the trash.
        let folders = ["trash", "build", "refs", "images", "layers", "blobs", "build-cache"];
        let is_checked = |place: &&&str| place.split('/').nth(1).is_some_and(|top| folders.contains(&top));
        for place in places.iter().filter(is_checked) {
            let top: PathBuf =
                Path::new(place).components().take(if place.contains("blobs") { 4 } else { 3 }).collect();
            assert!(text.contains(&top.display().to_string()), "{place}:\n{text}");
        }
        let pod = Pod::start(&node, name, json!({}));
        assert_eq!(pod.says("main", "echo afloat", json!({})), "afloat\n");
        let _ = node.crictl(&["rmp", "-f", &pod.id]).ok();
        node.build("busybox:2", "RUN echo made >/made\n");
        let _ = node.slipway(&["rmi", "busybox:2"]).ok();
        let _ = node.slipway(&["prune"]).ok();
        node.kill();
    }
    drop(fixed);
    release(&node.path("lib"));
    node.launch();
    for place in places {
        slipway_tests::wait(&format!("the end of {place}"), || !node.path(place).exists());
    }
    for folder in ["lib/drafts", "lib/trash", "lib/build"] {
        slipway_tests::wait(folder, || fs::read_dir(node.path(folder)).expect("a folder").count() == 0);
    }
    let checked = node.slipway(&["check"]);
    assert_eq!(checked.status, 0, "{checked:#?}");
}

/// A container whose files can't all be deleted could not be removed, and with it its pod.
#[test]
fn a_container_with_a_file_that_can_not_be_deleted_names_it_and_is_removed_once_it_can_be() {
    let mut node = Node::start();
    node.build("busybox:1", "");
    let pod = Pod::start(&node, "web", json!({}));
    assert_eq!(pod.says("main", "mkdir -p /a/b /a/c; echo x >/a/b/fixed; echo x >/a/c/gone", json!({})), "");
    let id = node.crictl(&["ps", "-a", "-q"]).ok().to_owned();
    let directory = node.path("lib/containers").join(&id);
    let fixed = Fixed::new(directory.join("upper/a/b/late"));
    let refused = node.crictl(&["rm", &id]);
    assert!(refused.error().contains("upper/a/b/late"), "{refused:#?}");
    assert!(!directory.join("upper/a/c").exists(), "the rest is removed");
    assert_eq!(pod.says("other", "echo afloat", json!({})), "afloat\n");
    let pod = pod.id;
    node.kill();
    node.launch();
    assert_eq!(node.crictl(&["pods", "-q"]).ok(), pod);
    drop(fixed);
    let _ = node.crictl(&["rmp", "-f", &pod]).ok();
    node.kill();
    node.launch();
    slipway_tests::wait("the end of the container", || !directory.exists());
}

//! A disk whose file system can be frozen: whoever writes to it then waits in the kernel, deaf to SIGKILL.

use crate::Node;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file system on a loop device, mounted.
#[derive(Debug)]
pub struct Disk {
    mount: PathBuf,
}

/// A frozen file system; dropping it thaws it. Let it go before its node.
#[derive(Debug)]
pub struct Frozen<'a>(&'a Disk);

impl Disk {
    /// Makes one and mounts it below the node's directory.
    ///
    /// # Panics
    /// When it can't be made.
    #[must_use]
    pub fn mount(node: &Node, name: &str) -> Self {
        let (image, mount) = (node.path(format!("{name}.img")), node.path(name));
        let file = std::fs::File::create(&image).expect("the disk's image");
        file.set_len(64 << 20).expect("the disk's size");
        std::fs::create_dir_all(&mount).expect("a mount point");
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image));
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&mount));
        Self { mount }
    }

    /// Freezes it.
    ///
    /// # Panics
    /// When it can't be frozen.
    #[must_use]
    pub fn freeze(&self) -> Frozen<'_> {
        run(Command::new("fsfreeze").arg("--freeze").arg(&self.mount));
        Frozen(self)
    }
}

impl Frozen<'_> {
    /// Lets it go on.
    pub fn thaw(self) {
        drop(self);
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        let _ = Command::new("fsfreeze").arg("--unfreeze").arg(&self.0.mount).status();
    }
}

fn run(command: &mut Command) {
    let status = command.status();
    assert!(status.is_ok_and(|status| status.success()), "{command:?}");
}

/// Whether loop devices can be had.
pub(crate) fn has_loop_devices() -> bool {
    let found = Command::new("losetup").arg("--find").output();
    Path::new("/dev/loop-control").exists() && found.is_ok_and(|found| found.status.success())
}

/// Whether the kernel holds a process in a system call, deaf to SIGKILL.
#[must_use]
pub fn is_held(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('D'))
}

//! The overlay mount of a container, detached: by `fsconfig(2)` with one lower directory a call, or, where the kernel
//! is older, by `mount(2)` with short relative names in a mount namespace of a thread's own. Such a name is a link to the
//! layer, or, for a pod with a user namespace, a directory on which the layer is mounted through the pod's id map.

use crate::sys::mount::{MountChange, change_mount, unshare_mounts};
use crate::{Error, Features, Result, RootFs, namespace, state};
use rustix::fs::{CWD, Mode, OFlags, StatVfsMountFlags, fstatvfs, openat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, OpenTreeFlags,
    fsconfig_create, fsconfig_set_fd, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount,
    mount_change, open_tree,
};
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::{fs, io};

/// Features that would let a layer change what another layer's names mean, or that cost without use.
const OFF: [&str; 4] = ["redirect_dir", "metacopy", "index", "xino"];
/// The longest value that is passed to `fsconfig(2)` as a string, in bytes with its NUL; the kernel takes 256.
const LONGEST_VALUE: usize = 255;

/// The user namespace of a pod, and the ids outside of it that are root's inside.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Owner<'a> {
    pub(crate) namespace: BorrowedFd<'a>,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// Mounts a container's root. `directory` holds `upper` and gets a fresh work directory: a volatile upper can't be
/// mounted a second time with its first.
///
/// With a user namespace the lowers are idmapped and the upper is plain, its root owned by the pod's root: an overlay
/// can't be idmapped itself, and over an idmapped upper it is silently read-only.
pub(crate) fn mount_detached(
    rootfs: &RootFs,
    directory: &Path,
    features: &Features,
    owner: Option<Owner<'_>>,
) -> Result<OwnedFd> {
    let layout = Layout::prepare(rootfs, directory, owner)?;
    let mounted = if features.lowerdir_append && (owner.is_none() || features.lowerdir_descriptor) {
        layout.mount_by_fsconfig(rootfs.volatile, owner)?
    } else {
        layout.mount_by_names(rootfs.volatile, owner)?
    };
    let status = fstatvfs(&mounted).map_err(|errno| layout.failed("stat", errno.into()))?;
    if status.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Err(layout.failed("write to", slipway_disk::why_read_only(&layout.upper)));
    }
    Ok(mounted)
}

struct Layout {
    lowers: Vec<PathBuf>,
    upper: PathBuf,
    work: PathBuf,
    directory: PathBuf,
}

impl Layout {
    fn prepare(rootfs: &RootFs, directory: &Path, mapped: Option<Owner<'_>>) -> Result<Self> {
        for name in state::names(directory)? {
            match name.as_str() {
                "links" => slipway_disk::remove_tree(&directory.join(name))?,
                name if name.starts_with("work-") => {
                    // The next one has another name: one that can't be removed is not in the way.
                    if let Err(error) = slipway_disk::remove_tree(&directory.join(name)) {
                        tracing::warn!(%error, "an old work directory stays");
                    }
                }
                _ => {}
            }
        }
        let mut unique = [0_u8; 8];
        let _ = rustix::rand::getrandom(&mut unique, rustix::rand::GetRandomFlags::empty());
        let work = directory.join(format!("work-{:016x}", u64::from_le_bytes(unique)));
        let upper = directory.join("upper");
        let mut lowers = rootfs.lowers.clone();
        if lowers.is_empty() {
            lowers.push(directory.join("empty"));
            state::make_directory(&directory.join("empty"))?;
        }
        let fresh = !upper.exists();
        state::make_directory(&upper)?;
        state::make_directory(&work)?;
        let layout = Self { lowers, upper, work, directory: directory.into() };
        if fresh {
            layout.copy_root_attributes(rootfs.lowers.is_empty(), mapped)?;
        }
        Ok(layout)
    }

    /// The merged root has the upper directory's attributes, so the upper takes those of the topmost lower.
    fn copy_root_attributes(&self, from_nothing: bool, mapped: Option<Owner<'_>>) -> Result<()> {
        let (mut mode, mut owner) = (0o755, (0, 0));
        if let (false, Some(top)) = (from_nothing, self.lowers.first()) {
            let metadata = fs::metadata(top).map_err(|source| Error::Io {
                action: "stat",
                path: top.clone(),
                source,
            })?;
            mode = metadata.mode() & 0o7777;
            owner = (metadata.uid(), metadata.gid());
        }
        if let Some(mapped) = mapped {
            owner = (mapped.uid, mapped.gid);
        }
        chown(&self.upper, Some(owner.0), Some(owner.1))
            .and_then(|()| fs::set_permissions(&self.upper, fs::Permissions::from_mode(mode)))
            .map_err(|source| self.failed("set attributes of", source))
    }

    fn failed(&self, action: &'static str, source: io::Error) -> Error {
        let source = slipway_disk::explained(&self.upper, source);
        Error::Io { action, path: self.upper.clone(), source }
    }

    fn mount_by_fsconfig(&self, volatile: bool, owner: Option<Owner<'_>>) -> Result<OwnedFd> {
        let mut opened = Vec::new();
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)
            .map_err(|errno| Error::Kernel { call: "fsopen overlay".into(), source: errno.into() })?;
        for lower in &self.lowers {
            match owner {
                None => set_path(&context, "lowerdir+", lower, &mut opened)?,
                Some(owner) => {
                    let mount = idmapped(lower, owner)?;
                    fsconfig_set_fd(&context, "lowerdir+", &mount).map_err(|errno| Error::Io {
                        action: "overlay",
                        path: lower.clone(),
                        source: with_log(&context, errno),
                    })?;
                    // A detached mount is dissolved with its descriptor: it must outlive the overlay's creation.
                    opened.push(mount);
                }
            }
        }
        set_path(&context, "upperdir", &self.upper, &mut opened)?;
        set_path(&context, "workdir", &self.work, &mut opened)?;
        let configured = OFF
            .iter()
            .try_for_each(|key| fsconfig_set_string(&context, *key, "off"))
            .and_then(|()| if volatile { fsconfig_set_flag(&context, "volatile") } else { Ok(()) })
            .and_then(|()| fsconfig_create(&context))
            .and_then(|()| fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()));
        configured.map_err(|errno| self.unmounted(with_log(&context, errno), owner))
    }

    /// Before Linux 5.19 overlayfs refuses layers that are seen through an id map.
    fn unmounted(&self, source: io::Error, owner: Option<Owner<'_>>) -> Error {
        if owner.is_some() && source.kind() == io::ErrorKind::InvalidInput {
            return Error::Unsupported(format!(
                "a user namespace over the layers of {} ({source}); Linux 5.19 or newer can",
                self.directory.display()
            ));
        }
        self.failed("mount an overlay over", source)
    }

    /// Mounts by `mount(2)`, whose options must fit one page: `lowerdir=0:1:2…` names the layers by numbers.
    fn mount_by_names(&self, volatile: bool, owner: Option<Owner<'_>>) -> Result<OwnedFd> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| self.mount_on_this_thread(volatile, owner));
            thread.join().unwrap_or_else(|_| {
                Err(self.failed("mount an overlay over", io::Error::other("thread ended")))
            })
        })
    }

    fn mount_on_this_thread(&self, volatile: bool, owner: Option<Owner<'_>>) -> Result<OwnedFd> {
        let failed = |source| self.failed("mount an overlay over", source);
        let errno = |errno: Errno| failed(errno.into());
        unshare_mounts().map_err(failed)?;
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).map_err(errno)?;
        let links = self.directory.join("links");
        state::make_directory(&links)?;
        for (number, lower) in self.lowers.iter().enumerate() {
            name_layer(&links.join(number.to_string()), lower, owner)?;
        }
        let options = self.options(volatile).map_err(failed)?;
        rustix::process::chdir(&links).map_err(errno)?;
        mount("overlay", &links, "overlay", MountFlags::empty(), Some(options.as_c_str()))
            .map_err(|errno| self.unmounted(errno.into(), owner))?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        open_tree(CWD, &links, flags).map_err(errno)
    }

    /// The options of `mount(2)`, with paths relative to `links`.
    fn options(&self, volatile: bool) -> io::Result<CString> {
        let beside = |path: &Path| {
            path.file_name().map(|name| format!("../{}", name.to_string_lossy())).unwrap_or_default()
        };
        let lowers: Vec<String> = (0..self.lowers.len()).map(|number| number.to_string()).collect();
        let off: String = OFF.iter().map(|key| format!(",{key}=off")).collect();
        let options = format!(
            "lowerdir={},upperdir={},workdir={}{off}{}",
            lowers.join(":"),
            beside(&self.upper),
            beside(&self.work),
            if volatile { ",volatile" } else { "" }
        );
        CString::new(options).map_err(io::Error::from)
    }
}

/// Gives a layer a short name, under which it is seen through the pod's id map where there is one.
fn name_layer(name: &Path, lower: &Path, owner: Option<Owner<'_>>) -> Result<()> {
    if let Some(owner) = owner {
        state::make_directory(name)?;
        return namespace::attach(idmapped(lower, owner)?.as_fd(), name);
    }
    let failed = |source| Error::Io { action: "link to", path: lower.into(), source };
    fs::canonicalize(lower).and_then(|lower| symlink(lower, name)).map_err(failed)
}

/// A lower directory as a detached mount, seen through the pod's id map.
fn idmapped(lower: &Path, owner: Owner<'_>) -> Result<OwnedFd> {
    let failed = |source| Error::Io { action: "idmap", path: lower.into(), source };
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let mount = open_tree(CWD, lower, flags).map_err(|errno| failed(errno.into()))?;
    let change =
        MountChange { set: libc::MOUNT_ATTR_IDMAP, idmap: Some(owner.namespace), ..MountChange::default() };
    change_mount(mount.as_fd(), change).map_err(failed)?;
    Ok(mount)
}

/// Sets a path parameter, by a descriptor's name when it is too long for `fsconfig(2)`.
fn set_path(context: &OwnedFd, key: &str, path: &Path, opened: &mut Vec<OwnedFd>) -> Result<()> {
    let failed =
        |errno: Errno| Error::Io { action: "overlay", path: path.into(), source: with_log(context, errno) };
    if path.as_os_str().len() < LONGEST_VALUE {
        return fsconfig_set_string(context, key, path).map_err(failed);
    }
    let directory = openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(failed)?;
    let set =
        fsconfig_set_string(context, key, format!("/proc/self/fd/{}", directory.as_raw_fd())).map_err(failed);
    opened.push(directory);
    set
}

/// The kernel's own words about a mount that failed, which it keeps in the context.
fn with_log(context: &OwnedFd, errno: Errno) -> io::Error {
    let mut words = vec![0; 1024];
    match rustix::io::read(context, &mut words) {
        Ok(length) if length > 0 => {
            words.truncate(length);
            let error = io::Error::from(errno);
            io::Error::new(error.kind(), format!("{error}: {}", String::from_utf8_lossy(&words).trim()))
        }
        _ => errno.into(),
    }
}

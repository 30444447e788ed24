//! A build context whose image has a small Linux user land: Debian's busybox with the libraries it needs.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Fills `context` with busybox, its libraries and a few files of `/etc`, and a Dockerfile that makes them an image.
///
/// # Panics
/// When busybox is not installed or a file can't be copied.
pub fn context(context: &Path, more: &str) {
    let bin = context.join("root/bin");
    for directory in [&bin, &context.join("root/etc"), &context.join("root/tmp"), &context.join("root/root")]
    {
        std::fs::create_dir_all(directory).expect("a directory of the context");
    }
    std::fs::copy("/bin/busybox", bin.join("busybox")).expect("busybox is installed");
    for library in libraries(Path::new("/bin/busybox")) {
        let target = context.join("root").join(library.strip_prefix("/").expect("an absolute path"));
        std::fs::create_dir_all(target.parent().expect("a parent")).expect("a directory for libraries");
        std::fs::copy(&library, &target).expect("a library is copied");
    }
    let passwd = "root:x:0:0:root:/root:/bin/sh\nsailor:x:1000:1000:sailor:/home:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n";
    std::fs::write(context.join("root/etc/passwd"), passwd).expect("passwd is written");
    let group = "root:x:0:\nsailor:x:1000:\ncrew:x:1001:sailor\nnogroup:x:65534:\n";
    std::fs::write(context.join("root/etc/group"), group).expect("group is written");
    let dockerfile = format!(
        "FROM scratch\nCOPY root/ /\nRUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\nENV PATH=/bin\nCMD [\"sh\"]\n{more}"
    );
    std::fs::write(context.join("Dockerfile"), dockerfile).expect("the Dockerfile is written");
}

fn libraries(program: &Path) -> Vec<PathBuf> {
    let output = Command::new("ldd").arg(program).output().expect("ldd runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}

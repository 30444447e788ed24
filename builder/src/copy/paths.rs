//! Paths of sources and destinations, without `.`, `..` and doubled slashes.

/// Joins a path to the working directory; a `/` at the end stays, and `.` gets one.
pub(crate) fn absolute(workdir: &str, path: &str) -> String {
    let joined = if path.starts_with('/') { path.to_owned() } else { format!("{workdir}/{path}") };
    let directory = joined.ends_with('/') || joined.ends_with("/.") || joined.ends_with("/..");
    let mut clean = normal(&joined);
    if directory && !clean.ends_with('/') {
        clean.push('/');
    }
    clean
}

/// An absolute path without `.`, `..` and doubled slashes.
pub(crate) fn normal(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

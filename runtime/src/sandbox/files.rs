//! The files that a pod's containers share: resolv.conf, hosts, hostname.

use super::{Dns, Network, SandboxConfig};
use crate::{Error, Result, state};
use slipway_disk::atomic;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// The files and where containers see them.
pub(crate) const FILES: [(&str, &str); 3] =
    [("resolv.conf", "/etc/resolv.conf"), ("hosts", "/etc/hosts"), ("hostname", "/etc/hostname")];

/// The longest of the files, in bytes.
const LONGEST: u64 = 16 << 20;

/// The contents of one of the files.
enum Contents {
    /// They follow from the pod's configuration and addresses.
    OfPod(String),
    /// A copy of this file of the host, from when the pod was made.
    OfHost(&'static str),
}

/// Writes those of a pod's files that are absent or damaged: they are written once, and nothing else changes them. Gives the
/// contents of each by its name.
pub(crate) fn write(
    directory: &Path,
    config: &SandboxConfig,
    addresses: &[IpAddr],
) -> Result<BTreeMap<&'static str, Vec<u8>>> {
    let hosts = match config.network {
        Network::Host => Contents::OfHost("/etc/hosts"),
        Network::Pod { .. } => Contents::OfPod(hosts(&config.hostname, addresses)),
    };
    let resolv = match config.dns == Dns::default() {
        true => Contents::OfHost("/etc/resolv.conf"),
        false => Contents::OfPod(resolv_conf(&config.dns)?),
    };
    let hostname = match config.hostname.is_empty() {
        true => Contents::OfHost("/etc/hostname"),
        false => Contents::OfPod(format!("{}\n", config.hostname)),
    };
    [("hosts", hosts), ("resolv.conf", resolv), ("hostname", hostname)]
        .into_iter()
        .map(|(name, contents)| Ok((name, write_one(&directory.join(name), contents)?)))
        .collect()
}

fn write_one(path: &Path, contents: Contents) -> Result<Vec<u8>> {
    let found = atomic::read_regular(path, LONGEST).ok();
    let wanted = match contents {
        Contents::OfPod(text) => text.into_bytes(),
        Contents::OfHost(host) => match &found {
            Some(copy) if !copy.is_empty() => copy.clone(),
            _ => std::fs::read_to_string(host).unwrap_or_default().into_bytes(),
        },
    };
    if found.as_ref() == Some(&wanted) {
        return Ok(wanted);
    }
    state::replace(path, &wanted)?;
    let mode = PermissionsExt::from_mode(0o644);
    let set = std::fs::set_permissions(path, mode);
    set.map_err(|source| Error::Io { action: "set mode of", path: path.to_owned(), source })?;
    Ok(wanted)
}

fn hosts(hostname: &str, addresses: &[IpAddr]) -> String {
    let mut text = String::from("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    for address in addresses.iter().filter(|_| !hostname.is_empty()) {
        let _ = writeln!(text, "{address}\t{hostname}");
    }
    text
}

fn resolv_conf(dns: &Dns) -> Result<String> {
    let mut text = String::new();
    if !dns.searches.is_empty() {
        let _ = writeln!(text, "search {}", dns.searches.join(" "));
    }
    for server in &dns.servers {
        let _ = writeln!(text, "nameserver {server}");
    }
    if !dns.options.is_empty() {
        let _ = writeln!(text, "options {}", dns.options.join(" "));
    }
    let words = dns.servers.iter().chain(&dns.searches).chain(&dns.options);
    for word in words {
        if word.chars().any(char::is_control) {
            return Err(Error::Invalid(format!("dns setting {word:?} has a control character")));
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_finds_itself_by_name() {
        let text = hosts("web", &["10.88.0.2".parse().unwrap()]);
        assert!(text.ends_with("10.88.0.2\tweb\n"));
    }

    #[test]
    fn a_setting_can_t_smuggle_a_line() {
        let dns = Dns { searches: vec!["a\nnameserver 1.2.3.4".into()], ..Dns::default() };
        assert!(resolv_conf(&dns).is_err());
    }
}

//! The files that a pod's containers share: resolv.conf, hosts, hostname.

use super::{Dns, Network, SandboxConfig};
use crate::{Error, Result, state};
use std::fmt::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// The files and where containers see them.
pub(crate) const FILES: [(&str, &str); 3] =
    [("resolv.conf", "/etc/resolv.conf"), ("hosts", "/etc/hosts"), ("hostname", "/etc/hostname")];

/// Writes a pod's files.
pub(super) fn write(directory: &Path, config: &SandboxConfig, addresses: &[IpAddr]) -> Result<()> {
    let host = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let hosts = match config.network {
        Network::Host => host("/etc/hosts"),
        Network::Pod { .. } => hosts(&config.hostname, addresses),
    };
    let resolv =
        if config.dns == Dns::default() { host("/etc/resolv.conf") } else { resolv_conf(&config.dns)? };
    let hostname =
        if config.hostname.is_empty() { host("/etc/hostname") } else { format!("{}\n", config.hostname) };
    for (name, contents) in [("hosts", hosts), ("resolv.conf", resolv), ("hostname", hostname)] {
        let path = directory.join(name);
        state::replace(&path, contents.as_bytes())?;
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).map_err(|source| Error::Io {
            action: "set mode of",
            path,
            source,
        })?;
    }
    Ok(())
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

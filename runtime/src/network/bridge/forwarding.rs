//! IP forwarding of the node: switched on when a pod needs it, and what stands in its way. What else the kernel would do
//! with a link that forwards is set here too.

use std::io;
use std::path::{Path, PathBuf};

use crate::network::cidr::Cidr;

const V4: &str = "net.ipv4.ip_forward";
const V6: &str = "net.ipv6.conf.all.forwarding";

/// Switches forwarding on for the families of these subnets; returns what could not be done and how to mend it.
pub(in crate::network) fn ensure(subnets: &[Cidr], bridge: &str) -> Vec<String> {
    let forwarding = keys(subnets).filter_map(|key| switch_on(key).err());
    forwarding.chain(ignore_advertisements(bridge).err()).collect()
}

/// Says which forwarding is off, and how to mend it.
pub(in crate::network) fn missing(subnets: &[Cidr]) -> Vec<String> {
    keys(subnets)
        .filter(|key| !is_on(key))
        .map(|key| {
            format!("{key} is off, so that pods reach nothing beyond the node; run: sysctl -w {key}=1")
        })
        .collect()
}

fn keys(subnets: &[Cidr]) -> impl Iterator<Item = &'static str> {
    let v4 = subnets.iter().any(|subnet| subnet.address.is_ipv4()).then_some(V4);
    let v6 = subnets.iter().any(|subnet| !subnet.address.is_ipv4()).then_some(V6);
    v4.into_iter().chain(v6)
}

/// Whether forwarding of a family is on.
fn is_on(key: &str) -> bool {
    std::fs::read_to_string(path_of(key)).is_ok_and(|value| value.trim() == "1")
}

fn switch_on(key: &str) -> Result<(), String> {
    if is_on(key) {
        return Ok(());
    }
    if key == V6 {
        keep_advertised_routes();
    }
    std::fs::write(path_of(key), "1")
        .map_err(|error| format!("{key} is off and can't be set ({error}); run: sysctl -w {key}=1"))
}

/// A node that forwards no longer takes its own routes from router advertisements, unless its links say 2
/// (ip-sysctl, `accept_ra`).
fn keep_advertised_routes() {
    let Ok(links) = std::fs::read_dir("/proc/sys/net/ipv6/conf") else { return };
    for link in links.flatten() {
        let setting = link.path().join("accept_ra");
        let general = ["all", "default"].iter().any(|name| link.file_name() == *name);
        if !general && std::fs::read_to_string(&setting).is_ok_and(|value| value.trim() == "1") {
            // Refused, it is as it would be without.
            let _ = std::fs::write(&setting, "2");
        }
    }
}

/// A pod that may send raw packets could else give the node a route by advertising itself as a router
/// (CVE-2020-10749).
fn ignore_advertisements(link: &str) -> Result<(), String> {
    let setting = Path::new("/proc/sys/net/ipv6/conf").join(link).join("accept_ra");
    match std::fs::read_to_string(&setting) {
        Ok(value) if value.trim() != "0" => std::fs::write(&setting, "0").map_err(|error| {
            format!(
                "router advertisements of pods are not ignored ({error}); write 0 to {}",
                setting.display()
            )
        }),
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(format!("router advertisements of pods can't be ignored ({error})"))
        }
        _ => Ok(()),
    }
}

/// The same within a pod's network namespace, for the links that it will get. Without IPv6 there is nothing to ignore.
pub(in crate::network) fn ignore_advertisements_here() {
    let setting = "/proc/sys/net/ipv6/conf/default/accept_ra";
    if let Err(error) = std::fs::write(setting, "0")
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::debug!(%error, "a pod takes router advertisements");
    }
}

fn path_of(key: &str) -> PathBuf {
    Path::new("/proc/sys").join(key.replace('.', "/"))
}

//! IP forwarding of the node: switched on when a pod needs it, and what stands in its way.

use std::io;
use std::path::{Path, PathBuf};

use super::cidr::Cidr;

/// Switches forwarding on for the families of these subnets; returns what could not be done and how to mend it.
pub(super) fn ensure(subnets: &[Cidr]) -> Vec<String> {
    let v4 = subnets.iter().any(|subnet| subnet.address.is_ipv4()).then_some("net.ipv4.ip_forward");
    let v6 = subnets.iter().any(|subnet| !subnet.address.is_ipv4()).then_some("net.ipv6.conf.all.forwarding");
    v4.into_iter().chain(v6).filter_map(|key| switch_on(key).err()).collect()
}

fn switch_on(key: &str) -> Result<(), String> {
    let path = path_of(key);
    let advice =
        |error: io::Error| format!("{key} is off and can't be set ({error}); run: sysctl -w {key}=1");
    if std::fs::read_to_string(&path).map_err(advice)?.trim() == "1" {
        return Ok(());
    }
    std::fs::write(&path, "1").map_err(advice)
}

fn path_of(key: &str) -> PathBuf {
    Path::new("/proc/sys").join(key.replace('.', "/"))
}

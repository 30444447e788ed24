//! The privileges of a container: capabilities, masked and read-only paths, seccomp.

use std::str::FromStr as _;

use oci_spec::runtime::{Capabilities, Capability, Linux, LinuxCapabilities, LinuxSeccomp, Process, Spec};
use slipway_proto::runtime::v1 as cri;
use slipway_runtime::Seccomp;
use slipway_runtime::spec::{Privilege, default_spec};

use super::Sources;
use crate::config::UnsetSeccomp;
use crate::error::{Error, Result};
use crate::node::Node;

const CONTEXT: &str = "config.linux.security_context";
const PROFILE_MAX: u64 = 4 << 20;

pub(super) fn fill(spec: &mut Spec, sources: &Sources<'_>) -> Result<()> {
    let Some(context) = sources.context() else { return Ok(()) };
    let process = spec.process_mut().get_or_insert_with(Process::default);
    process.set_no_new_privileges(Some(context.no_new_privs));
    if context.privileged {
        return Ok(());
    }
    if let Some(wanted) = &context.capabilities {
        let of_default = process.capabilities().clone().unwrap_or_default();
        process.set_capabilities(Some(capabilities(of_default, wanted)?));
    }
    // Empty lists replace the default, too: kubelet sends them for an unmasked /proc.
    let linux = spec.linux_mut().get_or_insert_with(Linux::default);
    linux.set_masked_paths(Some(paths("masked_paths", &context.masked_paths)?));
    linux.set_readonly_paths(Some(paths("readonly_paths", &context.readonly_paths)?));
    Ok(())
}

fn paths(name: &str, paths: &[String]) -> Result<Vec<String>> {
    match paths.iter().find(|path| !path.starts_with('/') || path.contains('\0')) {
        Some(bad) => Err(Error::invalid(format!("{CONTEXT}.{name}"), format!("{bad:?} is no absolute path"))),
        None => Ok(paths.to_vec()),
    }
}

fn capabilities(of_default: LinuxCapabilities, wanted: &cri::Capability) -> Result<LinuxCapabilities> {
    let mut held = of_default.bounding().clone().unwrap_or_default();
    change(&mut held, wanted)?;
    let mut ambient = named(&wanted.add_ambient_capabilities)?;
    if wanted.add_ambient_capabilities.iter().any(|name| is_all(name)) {
        ambient.extend(every());
    }
    let mut all = of_default;
    // An ambient capability has to be permitted and inheritable.
    held.extend(ambient.iter().copied());
    all.set_bounding(Some(held.clone()));
    all.set_effective(Some(held.clone()));
    all.set_permitted(Some(held));
    all.set_inheritable(Some(ambient.clone()));
    all.set_ambient(Some(ambient));
    Ok(all)
}

/// Applies both lists. ALL of either list is applied before single names: drop ALL with add NET_ADMIN leaves
/// NET_ADMIN.
fn change(held: &mut Capabilities, wanted: &cri::Capability) -> Result<()> {
    let (add, drop) = (&wanted.add_capabilities, &wanted.drop_capabilities);
    if add.iter().any(|name| is_all(name)) {
        held.extend(every());
    }
    if drop.iter().any(|name| is_all(name)) {
        held.clear();
    }
    held.extend(named(add)?);
    for capability in named(drop)? {
        held.remove(&capability);
    }
    Ok(())
}

/// The capabilities that a list names one by one; ALL is skipped.
fn named(names: &[String]) -> Result<Capabilities> {
    let one = |name: &String| {
        let upper = name.to_ascii_uppercase();
        Capability::from_str(upper.strip_prefix("CAP_").unwrap_or(&upper)).map_err(|_| {
            Error::invalid(format!("{CONTEXT}.capabilities"), format!("there is no capability {name:?}"))
        })
    };
    names.iter().filter(|name| !is_all(name)).map(one).collect()
}

fn is_all(name: &str) -> bool {
    name.eq_ignore_ascii_case("ALL") || name.eq_ignore_ascii_case("CAP_ALL")
}

/// All capabilities of the kernel, as a privileged container has them.
fn every() -> Capabilities {
    let spec = default_spec(Privilege::Privileged);
    let process = spec.process().as_ref();
    let held = process.and_then(|process| process.capabilities().as_ref());
    held.and_then(|held| held.bounding().clone()).unwrap_or_default()
}

pub(super) fn seccomp(node: &Node, sources: &Sources<'_>) -> Result<Seccomp> {
    use cri::security_profile::ProfileType;
    let context = sources.context().cloned().unwrap_or_default();
    if context.privileged {
        return Ok(Seccomp::Unconfined);
    }
    if let Some(profile) = &context.seccomp {
        return match ProfileType::try_from(profile.profile_type) {
            Ok(ProfileType::RuntimeDefault) => Ok(Seccomp::RuntimeDefault),
            Ok(ProfileType::Unconfined) => Ok(Seccomp::Unconfined),
            Ok(ProfileType::Localhost) => local(node, &profile.localhost_ref, "seccomp.localhost_ref"),
            Err(_) => Err(Error::invalid(format!("{CONTEXT}.seccomp.profile_type"), "there is no such type")),
        };
    }
    match context.seccomp_profile_path.as_str() {
        "" => Ok(match node.config.runtime.unset_seccomp_profile {
            UnsetSeccomp::Unconfined => Seccomp::Unconfined,
            UnsetSeccomp::RuntimeDefault => Seccomp::RuntimeDefault,
        }),
        "runtime/default" | "docker/default" => Ok(Seccomp::RuntimeDefault),
        "unconfined" => Ok(Seccomp::Unconfined),
        path => local(node, path, "seccomp_profile_path"),
    }
}

fn local(node: &Node, reference: &str, name: &str) -> Result<Seccomp> {
    use std::io::Read as _;
    let bad = |reason: String| Error::invalid(format!("{CONTEXT}.{name}"), reason);
    let path = std::path::Path::new(reference.strip_prefix("localhost/").unwrap_or(reference));
    let path = match &node.config.runtime.seccomp_dir {
        _ if path.is_absolute() => path.to_owned(),
        Some(directory) if path.components().all(|part| matches!(part, std::path::Component::Normal(_))) => {
            directory.join(path)
        }
        Some(_) | None => return Err(bad(format!("{reference:?} is no absolute path"))),
    };
    let mut text = String::new();
    let read = std::fs::File::open(&path).and_then(|file| file.take(PROFILE_MAX).read_to_string(&mut text));
    read.map_err(|error| bad(format!("{}: {error}", path.display())))?;
    let profile: LinuxSeccomp = serde_json::from_str(&text)
        .map_err(|error| bad(format!("{} is no seccomp profile: {error}", path.display())))?;
    Ok(Seccomp::Profile(Box::new(profile)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(add: &[&str], drop: &[&str]) -> Capabilities {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let wanted = cri::Capability {
            add_capabilities: list(add),
            drop_capabilities: list(drop),
            add_ambient_capabilities: Vec::new(),
        };
        let start = Capabilities::from([Capability::Chown, Capability::Kill]);
        let mut of_default = LinuxCapabilities::default();
        of_default.set_bounding(Some(start));
        capabilities(of_default, &wanted).unwrap().effective().clone().unwrap()
    }

    #[test]
    fn names_are_added_and_dropped_with_and_without_their_prefix() {
        let expected = Capabilities::from([Capability::Chown, Capability::NetAdmin]);
        assert_eq!(held(&["NET_ADMIN"], &["CAP_KILL"]), expected);
        assert_eq!(held(&["cap_net_admin"], &["kill"]), expected);
    }

    #[test]
    fn a_drop_of_all_leaves_nothing() {
        assert_eq!(held(&[], &["ALL"]), Capabilities::default());
        assert_eq!(held(&["ALL"], &["ALL"]), Capabilities::default());
    }

    /// Nearly every hardened workload drops ALL and adds single capabilities.
    #[test]
    fn a_single_name_stands_against_all() {
        assert_eq!(held(&["NET_BIND_SERVICE"], &["ALL"]), Capabilities::from([Capability::NetBindService]));
        let most = held(&["ALL"], &["CHOWN"]);
        assert!(!most.contains(&Capability::Chown) && most.len() + 1 == every().len());
    }

    #[test]
    fn an_unknown_capability_is_refused() {
        let wanted = cri::Capability { add_capabilities: vec!["FLY".into()], ..Default::default() };
        let error = capabilities(LinuxCapabilities::default(), &wanted).unwrap_err();
        assert!(error.to_string().contains("FLY"), "{error}");
    }
}

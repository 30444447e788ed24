//! The fields of CreateContainer that nothing is made of: refused by their names, or harmless.

use slipway_proto::runtime::v1 as cri;
use slipway_runtime::{ContainerId, ContainerPid};

use crate::error::{Error, Result};
use crate::lsm;
use crate::sandbox::validate::{selinux, user_namespace};

/// Refuses a configuration with a wish that is not honoured yet.
pub(crate) fn check(config: &cri::ContainerConfig, pod: &cri::PodSandboxConfig) -> Result<()> {
    if config.windows.as_ref().is_some_and(|windows| *windows != cri::WindowsContainerConfig::default()) {
        return Err(Error::unsupported("config.windows"));
    }
    if !config.cdi_devices.is_empty() {
        return Err(Error::unsupported("config.CDI_devices"));
    }
    let context = config.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
    context.map_or(Ok(()), |context| security(context, pod))
}

const CONTEXT: &str = "config.linux.security_context";

fn security(context: &cri::LinuxContainerSecurityContext, pod: &cri::PodSandboxConfig) -> Result<()> {
    selinux(context.selinux_options.as_ref(), CONTEXT)?;
    apparmor(context, lsm::has_apparmor())?;
    match &context.namespace_options {
        Some(options) => namespaces(options, pod),
        None => Ok(()),
    }
}

/// The node's default is nothing where there is no AppArmor; a profile of the request's own can't be honoured then.
fn apparmor(context: &cri::LinuxContainerSecurityContext, enabled: bool) -> Result<()> {
    use cri::security_profile::ProfileType;
    let localhost = |field: &str, profile: &str| {
        let field = format!("{CONTEXT}.{field}");
        if enabled {
            return Err(Error::unsupported(field));
        }
        let reason = format!("profile {profile:?} can't be applied: this node has no AppArmor");
        Err(Error::invalid(field, reason))
    };
    if let Some(profile) = &context.apparmor {
        match ProfileType::try_from(profile.profile_type) {
            Ok(ProfileType::Unconfined) => {}
            Ok(ProfileType::RuntimeDefault) if !enabled => {}
            Ok(ProfileType::RuntimeDefault) => {
                return Err(Error::unsupported(format!("{CONTEXT}.apparmor")));
            }
            Ok(ProfileType::Localhost) => return localhost("apparmor", &profile.localhost_ref),
            Err(_) => {
                let reason = format!("there is no type {}", profile.profile_type);
                return Err(Error::invalid(format!("{CONTEXT}.apparmor.profile_type"), reason));
            }
        }
    }
    match context.apparmor_profile.as_str() {
        "" | "unconfined" => Ok(()),
        "runtime/default" if !enabled => Ok(()),
        "runtime/default" => Err(Error::unsupported(format!("{CONTEXT}.apparmor_profile"))),
        profile => localhost("apparmor_profile", profile),
    }
}

/// Namespaces are the pod's: what a container says of them has to say the same, but for process ids.
fn namespaces(options: &cri::NamespaceOption, pod: &cri::PodSandboxConfig) -> Result<()> {
    user_namespace(options, CONTEXT)?;
    let of_pod = said(pod).unwrap_or_default();
    let fields = [("network", options.network == of_pod.network), ("ipc", options.ipc == of_pod.ipc)];
    match fields.iter().find(|(_, fits)| !fits) {
        Some((name, _)) => Err(Error::unsupported(format!("{CONTEXT}.namespace_options.{name}"))),
        None => Ok(()),
    }
}

fn said(pod: &cri::PodSandboxConfig) -> Option<cri::NamespaceOption> {
    let context = pod.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
    context.and_then(|context| context.namespace_options.clone())
}

/// Whose processes a container sees: the pod's, its own in any pod, another container's in any pod.
pub(crate) fn process_ids(
    config: &cri::ContainerConfig,
    pod: &cri::PodSandboxConfig,
) -> Result<ContainerPid> {
    use cri::NamespaceMode::{Container, Node, Pod, Target};
    let context = config.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
    let Some(options) = context.and_then(|context| context.namespace_options.as_ref()) else {
        return Ok(ContainerPid::OfPod);
    };
    let field = |name: &str| format!("{CONTEXT}.namespace_options.{name}");
    let of_pod = said(pod).map_or(Pod, |said| said.pid());
    let wanted = cri::NamespaceMode::try_from(options.pid)
        .map_err(|_| Error::invalid(field("pid"), format!("there is no mode {}", options.pid)))?;
    match (wanted, of_pod) {
        (Target, _) if options.target_id.is_empty() => {
            Err(Error::invalid(field("target_id"), "it is empty, and pid is TARGET"))
        }
        (Target, _) => ContainerId::new(options.target_id.clone())
            .map(ContainerPid::Target)
            .map_err(|error| Error::invalid(field("target_id"), error.to_string())),
        _ if !options.target_id.is_empty() => {
            Err(Error::invalid(field("target_id"), "it is given, and pid is not TARGET"))
        }
        (Container, Pod | Node) => Ok(ContainerPid::Own),
        (Pod, Pod) | (Container, Container) | (Node, Node) => Ok(ContainerPid::OfPod),
        (Pod | Node, _) | (Container, Target) => Err(Error::unsupported(field("pid"))),
    }
}

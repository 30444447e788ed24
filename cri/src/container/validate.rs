//! The fields of CreateContainer that nothing is made of: refused by their names, or harmless.

use slipway_proto::runtime::v1 as cri;

use crate::error::{Error, Result};
use crate::sandbox::validate::user_namespace;

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
    if context.selinux_options.as_ref().is_some_and(|options| *options != cri::SeLinuxOption::default()) {
        return Err(Error::unsupported(format!("{CONTEXT}.selinux_options")));
    }
    apparmor(context)?;
    match &context.namespace_options {
        Some(options) => namespaces(options, pod),
        None => Ok(()),
    }
}

fn apparmor(context: &cri::LinuxContainerSecurityContext) -> Result<()> {
    let enabled = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled");
    let enabled = enabled.is_ok_and(|text| text.trim() == "Y");
    if let Some(profile) = &context.apparmor {
        match profile.profile_type() {
            cri::security_profile::ProfileType::Unconfined => {}
            cri::security_profile::ProfileType::RuntimeDefault if !enabled => {}
            cri::security_profile::ProfileType::RuntimeDefault
            | cri::security_profile::ProfileType::Localhost => {
                return Err(Error::unsupported(format!("{CONTEXT}.apparmor")));
            }
        }
    }
    match context.apparmor_profile.as_str() {
        "" | "unconfined" => Ok(()),
        "runtime/default" if !enabled => Ok(()),
        _ => Err(Error::unsupported(format!("{CONTEXT}.apparmor_profile"))),
    }
}

/// Namespaces are the pod's: what a container says of them has to say the same, where the pod has spoken.
fn namespaces(options: &cri::NamespaceOption, pod: &cri::PodSandboxConfig) -> Result<()> {
    user_namespace(options, CONTEXT)?;
    let context = pod.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
    let said = context.and_then(|context| context.namespace_options.as_ref());
    let of_pod = said.cloned().unwrap_or_default();
    let either = [cri::NamespaceMode::Pod.into(), cri::NamespaceMode::Container.into()];
    let pid_fits = match said {
        Some(said) => said.pid == options.pid,
        None => either.contains(&options.pid),
    };
    for (name, fits) in [
        ("target_id", options.target_id.is_empty()),
        ("network", options.network == of_pod.network),
        ("ipc", options.ipc == of_pod.ipc),
        ("pid", pid_fits),
    ] {
        if !fits {
            return Err(Error::unsupported(format!("{CONTEXT}.namespace_options.{name}")));
        }
    }
    Ok(())
}

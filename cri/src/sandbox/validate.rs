//! Validation of a RunPodSandbox request: each field is honoured, refused by its name, or ignored where it can
//! have no effect.

use std::collections::BTreeMap;
use std::net::IpAddr;

use slipway_proto::runtime::v1 as cri;
use slipway_runtime::{
    Dns, Document, IpcMode, Network, Owner, PidMode, PortMapping, Protocol, SandboxConfig, SandboxId,
};

use crate::error::{Error, Result};
use crate::lsm;

/// Returns the unique name `name_namespace_uid_attempt` of a pod's metadata.
pub(crate) fn name(metadata: Option<&cri::PodSandboxMetadata>) -> Result<String> {
    let metadata = metadata.ok_or_else(|| Error::invalid("config.metadata", "it is absent"))?;
    if metadata.name.is_empty() {
        return Err(Error::invalid("config.metadata.name", "it is empty"));
    }
    let cri::PodSandboxMetadata { name, uid, namespace, attempt } = metadata;
    Ok(format!("{name}_{namespace}_{uid}_{attempt}"))
}

/// Converts a request to the runtime's configuration, or refuses it.
pub(crate) fn config(
    id: SandboxId,
    owner: Owner,
    request: &cri::RunPodSandboxRequest,
) -> Result<SandboxConfig> {
    if !request.runtime_handler.is_empty() {
        let reason =
            format!("there is no handler {:?}: Status lists those that are", request.runtime_handler);
        return Err(Error::invalid("runtime_handler", reason));
    }
    let config = request.config.clone().unwrap_or_default();
    if config.windows.is_some_and(|windows| windows != cri::WindowsPodSandboxConfig::default()) {
        return Err(Error::unsupported("config.windows"));
    }
    let linux = config.linux.unwrap_or_default();
    let namespaces = linux.security_context.as_ref().and_then(|context| context.namespace_options.clone());
    security(linux.security_context.unwrap_or_default())?;
    let host_network = network(namespaces.as_ref())?;
    let ipc = ipc(namespaces.as_ref())?;
    log_directory(&config.log_directory)?;
    Ok(SandboxConfig {
        id,
        owner,
        document: Document::default(),
        network: if host_network {
            Network::Host
        } else {
            Network::Pod { ports: ports(&config.port_mappings)? }
        },
        hostname: hostname(config.hostname)?,
        cgroup_parent: Some(linux.cgroup_parent).filter(|parent| !parent.is_empty()),
        sysctls: sysctls(linux.sysctls, host_network, ipc)?,
        pid: pid(namespaces.as_ref())?,
        ipc,
        userns: None,
        dns: dns(config.dns_config.unwrap_or_default()),
        shm_size: 0,
        capabilities: None,
    })
}

fn security(context: cri::LinuxSandboxSecurityContext) -> Result<()> {
    // A sandbox has no process of its own: user, groups, profiles, read-only root and privilege have nothing to act on.
    let at = "config.linux.security_context";
    selinux(context.selinux_options.as_ref(), at)?;
    let namespaces = context.namespace_options.unwrap_or_default();
    user_namespace(&namespaces, at)?;
    if !namespaces.target_id.is_empty() {
        return Err(Error::unsupported(format!("{at}.namespace_options.target_id")));
    }
    Ok(())
}

/// Refuses SELinux options where SELinux is enabled. Elsewhere they have no effect and are ignored, for kubelet
/// sends some by itself.
pub(crate) fn selinux(options: Option<&cri::SeLinuxOption>, at: &str) -> Result<()> {
    if options.is_some_and(|options| *options != cri::SeLinuxOption::default()) && lsm::has_selinux() {
        return Err(Error::unsupported(format!("{at}.selinux_options")));
    }
    Ok(())
}

/// Refuses a user namespace; mode NODE asks for none and is accepted.
pub(crate) fn user_namespace(namespaces: &cri::NamespaceOption, at: &str) -> Result<()> {
    let Some(options) = &namespaces.userns_options else { return Ok(()) };
    if options.mode() != cri::NamespaceMode::Node {
        return Err(Error::unsupported(format!("{at}.namespace_options.userns_options")));
    }
    for (field, mappings) in [("uids", &options.uids), ("gids", &options.gids)] {
        if !mappings.is_empty() {
            return Err(Error::unsupported(format!("{at}.namespace_options.userns_options.{field}")));
        }
    }
    Ok(())
}

fn option(name: &str) -> String {
    format!("config.linux.security_context.namespace_options.{name}")
}

fn network(namespaces: Option<&cri::NamespaceOption>) -> Result<bool> {
    match namespaces.map_or(Ok(cri::NamespaceMode::Pod), |options| mode(options.network, "network"))? {
        cri::NamespaceMode::Pod => Ok(false),
        cri::NamespaceMode::Node => Ok(true),
        cri::NamespaceMode::Container | cri::NamespaceMode::Target => {
            Err(Error::invalid(option("network"), "it is POD or NODE"))
        }
    }
}

fn ipc(namespaces: Option<&cri::NamespaceOption>) -> Result<IpcMode> {
    match namespaces.map_or(Ok(cri::NamespaceMode::Pod), |options| mode(options.ipc, "ipc"))? {
        cri::NamespaceMode::Pod => Ok(IpcMode::Pod),
        cri::NamespaceMode::Node => Ok(IpcMode::Host),
        cri::NamespaceMode::Container | cri::NamespaceMode::Target => {
            Err(Error::invalid(option("ipc"), "it is POD or NODE"))
        }
    }
}

/// Returns the pid namespace mode. An absent one is POD, the enum's first value, as in every runtime: a program
/// without a handler of SIGTERM then ends by it, which it would not as the first process of a namespace.
fn pid(namespaces: Option<&cri::NamespaceOption>) -> Result<PidMode> {
    let Some(options) = namespaces else { return Ok(PidMode::Pod) };
    match mode(options.pid, "pid")? {
        cri::NamespaceMode::Pod => Ok(PidMode::Pod),
        cri::NamespaceMode::Container => Ok(PidMode::Container),
        cri::NamespaceMode::Node => Ok(PidMode::Host),
        cri::NamespaceMode::Target => Err(Error::unsupported(option("pid"))),
    }
}

fn mode(value: i32, name: &str) -> Result<cri::NamespaceMode> {
    cri::NamespaceMode::try_from(value)
        .map_err(|_| Error::invalid(option(name), format!("there is no mode {value}")))
}

fn ports(mappings: &[cri::PortMapping]) -> Result<Vec<PortMapping>> {
    let wanted = mappings.iter().enumerate().filter(|(_, mapping)| mapping.host_port != 0);
    wanted.map(|(index, mapping)| port(index, mapping)).collect()
}

fn port(index: usize, mapping: &cri::PortMapping) -> Result<PortMapping> {
    let number = |name: &str, value: i32| {
        u16::try_from(value).ok().filter(|port| *port != 0).ok_or_else(|| {
            let field = format!("config.port_mappings[{index}].{name}");
            Error::invalid(field, format!("{value} is no port"))
        })
    };
    let protocol = match cri::Protocol::try_from(mapping.protocol) {
        Ok(cri::Protocol::Tcp) => Protocol::Tcp,
        Ok(cri::Protocol::Udp) => Protocol::Udp,
        Ok(cri::Protocol::Sctp) => Protocol::Sctp,
        Err(_) => {
            let reason = format!("there is no protocol {}", mapping.protocol);
            return Err(Error::invalid(format!("config.port_mappings[{index}].protocol"), reason));
        }
    };
    Ok(PortMapping {
        protocol,
        container_port: number("container_port", mapping.container_port)?,
        host_port: number("host_port", mapping.host_port)?,
        host_ip: host_ip(index, &mapping.host_ip)?,
    })
}

fn host_ip(index: usize, text: &str) -> Result<Option<IpAddr>> {
    if text.is_empty() {
        return Ok(None);
    }
    let address: IpAddr = text.parse().map_err(|_| {
        let field = format!("config.port_mappings[{index}].host_ip");
        Error::invalid(field, format!("{text:?} is no IP address"))
    })?;
    Ok(Some(address))
}

fn hostname(name: String) -> Result<String> {
    if name.len() > 64
        || name.contains(|letter: char| letter == '/' || letter.is_whitespace() || letter == '\0')
    {
        return Err(Error::invalid("config.hostname", "it is no name of at most 64 characters"));
    }
    Ok(name)
}

fn log_directory(path: &str) -> Result<()> {
    if path.is_empty() || (path.starts_with('/') && !path.contains('\0')) {
        return Ok(());
    }
    Err(Error::invalid("config.log_directory", format!("{path:?} is no absolute path")))
}

fn dns(config: cri::DnsConfig) -> Dns {
    Dns { servers: config.servers, searches: config.searches, options: config.options }
}

fn sysctls(
    wanted: BTreeMap<String, String>,
    host_network: bool,
    ipc: IpcMode,
) -> Result<BTreeMap<String, String>> {
    for key in wanted.keys() {
        let field = || format!("config.linux.sysctls[{key}]");
        let name = key.replace('/', ".");
        if name.contains("..") || name.starts_with('.') {
            return Err(Error::invalid(field(), "it is no name of a kernel parameter"));
        }
        let of_ipc = ["kernel.shm", "kernel.msg", "fs.mqueue."].iter().any(|start| name.starts_with(start))
            || name == "kernel.sem";
        let reason = if name.starts_with("net.") {
            host_network.then_some("the pod is on the host's network")
        } else if of_ipc {
            (ipc == IpcMode::Host).then_some("the pod shares the host's ipc namespace")
        } else {
            Some("it belongs to no namespace and would change the node")
        };
        if let Some(reason) = reason {
            return Err(Error::invalid(field(), reason));
        }
    }
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> SandboxId {
        SandboxId::new("p").unwrap()
    }

    fn request(change: impl FnOnce(&mut cri::PodSandboxConfig)) -> cri::RunPodSandboxRequest {
        let mut config = cri::PodSandboxConfig {
            metadata: Some(cri::PodSandboxMetadata { name: "p".into(), ..Default::default() }),
            ..Default::default()
        };
        change(&mut config);
        cri::RunPodSandboxRequest { config: Some(config), runtime_handler: String::new() }
    }

    #[test]
    fn what_kubelet_sends_without_a_wish_is_accepted() {
        let request = request(|config| {
            config.port_mappings = vec![cri::PortMapping { container_port: 80, ..Default::default() }];
            config.linux = Some(cri::LinuxPodSandboxConfig {
                cgroup_parent: "/kubepods/burstable/podx".into(),
                security_context: Some(cri::LinuxSandboxSecurityContext {
                    seccomp: Some(cri::SecurityProfile::default()),
                    namespace_options: Some(cri::NamespaceOption {
                        pid: cri::NamespaceMode::Container.into(),
                        userns_options: Some(cri::UserNamespace {
                            mode: cri::NamespaceMode::Node.into(),
                            ..Default::default()
                        }),
                        ..Default::default()
                    }),
                    ..Default::default()
                }),
                ..Default::default()
            });
        });
        let config = config(id(), Owner::Cri, &request).unwrap();
        assert_eq!(config.network, Network::Pod { ports: Vec::new() });
        assert_eq!(config.pid, PidMode::Container);
        assert_eq!(config.cgroup_parent.as_deref(), Some("/kubepods/burstable/podx"));
    }

    #[test]
    fn a_parameter_of_the_whole_node_is_refused() {
        for (key, fine) in [
            ("net.ipv4.ip_forward", true),
            ("net/ipv4/ip_forward", true),
            ("kernel.shm_rmid_forced", true),
            ("kernel.panic", false),
            ("vm.overcommit_memory", false),
            ("net../../kernel.panic", false),
        ] {
            let request = request(|config| {
                let sysctls = BTreeMap::from([(key.to_owned(), "1".to_owned())]);
                config.linux = Some(cri::LinuxPodSandboxConfig { sysctls, ..Default::default() });
            });
            assert_eq!(config(id(), Owner::Cri, &request).is_ok(), fine, "{key}");
        }
    }

    #[test]
    fn a_port_that_is_none_is_named() {
        let request = request(|config| {
            let mapping = cri::PortMapping { container_port: 80, host_port: 70000, ..Default::default() };
            config.port_mappings = vec![mapping];
        });
        let error = config(id(), Owner::Cri, &request).unwrap_err().to_string();
        assert!(error.contains("config.port_mappings[0].host_port"), "{error}");
    }

    #[test]
    fn an_unknown_handler_is_refused() {
        let request = cri::RunPodSandboxRequest { runtime_handler: "kata".into(), ..request(|_| {}) };
        assert!(config(id(), Owner::Cri, &request).is_err());
    }
}

//! One pod from nothing to nothing, each call timed.

use crate::Failure;
use crate::subject::Subject;
use crate::table::Section;
use slipway_proto::runtime::v1::runtime_service_client::RuntimeServiceClient;
use slipway_proto::runtime::v1::{
    ContainerConfig, ContainerMetadata, CreateContainerRequest, ExecSyncRequest, ImageSpec,
    LinuxPodSandboxConfig, LinuxSandboxSecurityContext, NamespaceOption, PodSandboxConfig,
    PodSandboxMetadata, RemoveContainerRequest, RemovePodSandboxRequest, RunPodSandboxRequest,
    StartContainerRequest, StopContainerRequest, StopPodSandboxRequest,
};
use std::time::Instant;
use tonic::transport::Channel;

/// The workload's argument, by which its processes are found: no other process of the machine has it.
pub(crate) const WORKLOAD: &str = "864001";

/// A kind of network.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Network {
    pub(crate) name: &'static str,
    mode: i32,
}

/// The host's.
pub(crate) const HOST: Network = Network { name: "a pod on the host's network", mode: 2 };
/// The built-in bridge, or the CNI's.
pub(crate) const BRIDGE: Network = Network { name: "a pod on the bridge", mode: 0 };

/// The calls that bring a pod up, in milliseconds.
pub(crate) type Up = [(&'static str, f64); 4];

/// A pod that runs.
#[derive(Debug)]
pub(crate) struct Running {
    pod: String,
    container: String,
}

/// Lives as many lives as rounds, in turns.
pub(crate) async fn measure(subjects: &mut [Subject], rounds: u32, image: &str, network: Network) -> Section {
    let mut section = Section::new(subjects, network.name);
    let mut failed = vec![false; subjects.len()];
    // The first round fills caches on either side and does not count.
    for round in 0..=rounds {
        for (place, subject) in subjects.iter_mut().enumerate() {
            if failed.get(place) == Some(&true) {
                continue;
            }
            match life(&mut subject.runtime, image, (network, round)).await {
                Ok(times) if round > 0 => {
                    times.into_iter().for_each(|(what, value)| section.add(place, (what, "ms"), value));
                }
                Ok(_) => {}
                Err(error) => {
                    section.failed(place, &error);
                    if let Some(failed) = failed.get_mut(place) {
                        *failed = true;
                    }
                }
            }
        }
    }
    section
}

async fn life(
    client: &mut RuntimeServiceClient<Channel>,
    image: &str,
    (network, round): (Network, u32),
) -> Result<Vec<(&'static str, f64)>, Failure> {
    let name = format!("bench-{}-{round}-{}", network.mode, std::process::id());
    let (up, running) = up(client, image, (network, name)).await?;
    let mut times = up.to_vec();
    let since = Instant::now();
    let cmd = vec!["true".into()];
    let exec = ExecSyncRequest { container_id: running.container.clone(), cmd, timeout: 10 };
    client.exec_sync(exec).await?;
    times.push(("ExecSync", milliseconds(since)));
    times.push(("pod down", down(client, running).await?));
    Ok(times)
}

/// Brings a pod up.
pub(crate) async fn up(
    client: &mut RuntimeServiceClient<Channel>,
    image: &str,
    (network, name): (Network, String),
) -> Result<(Up, Running), Failure> {
    let config = pod_config(network, name);
    let begin = Instant::now();
    let run = RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: String::new() };
    let pod = client.run_pod_sandbox(run).await?.into_inner().pod_sandbox_id;
    let ran = milliseconds(begin);
    let since = Instant::now();
    let container = ContainerConfig {
        metadata: Some(ContainerMetadata { name: "main".into(), attempt: 0 }),
        image: Some(ImageSpec { image: image.into(), ..ImageSpec::default() }),
        command: vec!["sleep".into(), WORKLOAD.into()],
        ..ContainerConfig::default()
    };
    let create = CreateContainerRequest {
        pod_sandbox_id: pod.clone(),
        config: Some(container),
        sandbox_config: Some(config),
    };
    let container = client.create_container(create).await?.into_inner().container_id;
    let created = milliseconds(since);
    let since = Instant::now();
    client.start_container(StartContainerRequest { container_id: container.clone() }).await?;
    let started = milliseconds(since);
    let up = [
        ("RunPodSandbox", ran),
        ("CreateContainer", created),
        ("StartContainer", started),
        ("pod up", milliseconds(begin)),
    ];
    Ok((up, Running { pod, container }))
}

/// Takes a pod down.
pub(crate) async fn down(
    client: &mut RuntimeServiceClient<Channel>,
    Running { pod, container }: Running,
) -> Result<f64, Failure> {
    let begin = Instant::now();
    client.stop_container(StopContainerRequest { container_id: container.clone(), timeout: 0 }).await?;
    client.remove_container(RemoveContainerRequest { container_id: container }).await?;
    client.stop_pod_sandbox(StopPodSandboxRequest { pod_sandbox_id: pod.clone() }).await?;
    client.remove_pod_sandbox(RemovePodSandboxRequest { pod_sandbox_id: pod }).await?;
    Ok(milliseconds(begin))
}

fn pod_config(network: Network, name: String) -> PodSandboxConfig {
    let options = NamespaceOption { network: network.mode, pid: 1, ..NamespaceOption::default() };
    let security = LinuxSandboxSecurityContext {
        namespace_options: Some(options),
        ..LinuxSandboxSecurityContext::default()
    };
    PodSandboxConfig {
        metadata: Some(PodSandboxMetadata { uid: name.clone(), name, namespace: "bench".into(), attempt: 0 }),
        hostname: if network.mode == 0 { "bench".into() } else { String::new() },
        linux: Some(LinuxPodSandboxConfig {
            security_context: Some(security),
            ..LinuxPodSandboxConfig::default()
        }),
        ..PodSandboxConfig::default()
    }
}

/// Milliseconds since then.
pub(crate) fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}

//! Times the life of pods on two CRI sockets, in turns, and prints medians and their ratio:
//!
//! ```text
//! benchmark ROUNDS IMAGE NAME=SOCKET NAME=SOCKET
//! ```
//! Nothing is asserted: the figures are for people. Each round does the same on the one runtime, then on the other, so
//! that whatever else the machine does meets both.

use slipway_proto::runtime::v1::runtime_service_client::RuntimeServiceClient;
use slipway_proto::runtime::v1::{
    ContainerConfig, ContainerMetadata, CreateContainerRequest, ExecSyncRequest, ImageSpec,
    LinuxPodSandboxConfig, LinuxSandboxSecurityContext, NamespaceOption, PodSandboxConfig,
    PodSandboxMetadata, RemoveContainerRequest, RemovePodSandboxRequest, RunPodSandboxRequest,
    StartContainerRequest, StopContainerRequest, StopPodSandboxRequest,
};
use std::collections::BTreeMap;
use std::time::Instant;
use tonic::transport::{Channel, Endpoint, Uri};

type Failure = Box<dyn std::error::Error>;
/// Milliseconds by what was timed, in the order of a pod's life.
type Times = BTreeMap<&'static str, Vec<f64>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [rounds, image, runtimes @ ..] = arguments.as_slice() else {
        return Err("usage: benchmark ROUNDS IMAGE NAME=SOCKET NAME=SOCKET".into());
    };
    let rounds: u32 = rounds.parse()?;
    let mut subjects = Vec::new();
    for runtime in runtimes {
        let (name, socket) = runtime.split_once('=').ok_or("each runtime is NAME=SOCKET")?;
        subjects.push((name.to_owned(), connect(socket.to_owned()).await?));
    }
    let mut out = std::io::stdout().lock();
    for (network, mode) in [("host network", 2), ("bridge", 0)] {
        let mut times: Vec<Times> = vec![Times::new(); subjects.len()];
        for round in 0..rounds {
            for ((_, client), times) in subjects.iter_mut().zip(&mut times) {
                life(client, times, image, (mode, round)).await?;
            }
        }
        print(&mut out, network, &subjects, &times)?;
    }
    Ok(())
}

async fn connect(socket: String) -> Result<RuntimeServiceClient<Channel>, Failure> {
    let channel = Endpoint::from_static("http://localhost")
        .connect_with_connector(tower::service_fn(move |_: Uri| {
            let socket = socket.clone();
            async move {
                Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(
                    tokio::net::UnixStream::connect(socket).await?,
                ))
            }
        }))
        .await?;
    Ok(RuntimeServiceClient::new(channel))
}

fn pod(mode: i32, round: u32) -> PodSandboxConfig {
    let name = format!("bench-{mode}-{round}-{}", std::process::id());
    let options = NamespaceOption { network: mode, pid: 1, ..NamespaceOption::default() };
    let security = LinuxSandboxSecurityContext {
        namespace_options: Some(options),
        ..LinuxSandboxSecurityContext::default()
    };
    PodSandboxConfig {
        metadata: Some(PodSandboxMetadata { uid: name.clone(), name, namespace: "bench".into(), attempt: 0 }),
        hostname: if mode == 0 { "bench".into() } else { String::new() },
        linux: Some(LinuxPodSandboxConfig {
            security_context: Some(security),
            ..LinuxPodSandboxConfig::default()
        }),
        ..PodSandboxConfig::default()
    }
}

/// One pod from nothing to nothing, each call timed.
async fn life(
    client: &mut RuntimeServiceClient<Channel>,
    times: &mut Times,
    image: &str,
    (mode, round): (i32, u32),
) -> Result<(), Failure> {
    let config = pod(mode, round);
    let mut note = |what: &'static str, since: Instant| {
        times.entry(what).or_default().push(since.elapsed().as_secs_f64() * 1000.0);
    };
    let up = Instant::now();
    let run = RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: String::new() };
    let pod_sandbox_id = client.run_pod_sandbox(run).await?.into_inner().pod_sandbox_id;
    note("1 RunPodSandbox", up);
    let since = Instant::now();
    let container = ContainerConfig {
        metadata: Some(ContainerMetadata { name: "main".into(), attempt: 0 }),
        image: Some(ImageSpec { image: image.into(), ..ImageSpec::default() }),
        command: vec!["sleep".into(), "1000".into()],
        ..ContainerConfig::default()
    };
    let create = CreateContainerRequest {
        pod_sandbox_id: pod_sandbox_id.clone(),
        config: Some(container),
        sandbox_config: Some(config),
    };
    let container_id = client.create_container(create).await?.into_inner().container_id;
    note("2 CreateContainer", since);
    let since = Instant::now();
    client.start_container(StartContainerRequest { container_id: container_id.clone() }).await?;
    note("3 StartContainer", since);
    note("4 pod up", up);
    let since = Instant::now();
    let exec = ExecSyncRequest { container_id: container_id.clone(), cmd: vec!["true".into()], timeout: 10 };
    client.exec_sync(exec).await?;
    note("5 ExecSync", since);
    let down = Instant::now();
    client.stop_container(StopContainerRequest { container_id: container_id.clone(), timeout: 0 }).await?;
    client.remove_container(RemoveContainerRequest { container_id }).await?;
    client.stop_pod_sandbox(StopPodSandboxRequest { pod_sandbox_id: pod_sandbox_id.clone() }).await?;
    client.remove_pod_sandbox(RemovePodSandboxRequest { pod_sandbox_id }).await?;
    note("6 pod down", down);
    Ok(())
}

fn print(
    out: &mut impl std::io::Write,
    network: &str,
    subjects: &[(String, RuntimeServiceClient<Channel>)],
    times: &[Times],
) -> Result<(), Failure> {
    write!(out, "{network:<18}")?;
    for (name, _) in subjects {
        write!(out, "{name:>14}")?;
    }
    writeln!(out, "   last / first")?;
    let Some(first) = times.first() else { return Ok(()) };
    for what in first.keys() {
        let medians: Vec<f64> = times.iter().map(|times| median(times.get(what))).collect();
        write!(out, "{:<18}", what.get(2..).unwrap_or(what))?;
        for value in &medians {
            write!(out, "{value:>11.2} ms")?;
        }
        if let (Some(first), Some(last)) = (medians.first(), medians.last()) {
            write!(out, "{:>14.1}x", last / first)?;
        }
        writeln!(out)?;
    }
    out.flush()?;
    Ok(())
}

fn median(values: Option<&Vec<f64>>) -> f64 {
    let mut values = values.cloned().unwrap_or_default();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

//! A pod with a user namespace over many layers, mounted in each way that a kernel may need. The CRI surface refuses
//! such pods, so this speaks with the runtime's library.

use slipway_runtime::{
    ContainerId, ContainerPid, ContainerRequest, ContainerState, Dns, Document, IdMap, IdRange, IpcMode,
    Network, NetworkConfig, Opener, Owner, PidMode, RootFs, Runtime, RuntimeConfig, SandboxConfig, SandboxId,
    Seccomp, User, spec,
};
use slipway_tests::{busybox, node};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

const LAYERS: usize = 127;
const OUTSIDE: u32 = 300_000;

#[test]
fn the_root_is_writable_and_owned_by_the_pod_in_each_way_to_mount_it() {
    let directory = tempfile::tempdir_in("/var/tmp").expect("a directory");
    busybox::context(&directory.path().join("context"), "");
    let lowers = layers(directory.path());
    let fallbacks = [&[][..], &["lowerdir-descriptor"], &["lowerdir-append", "lowerdir-descriptor"]];
    for (number, denied) in fallbacks.iter().enumerate() {
        let home = directory.path().join(number.to_string());
        let runtime = Runtime::open(configuration(&home, 0, denied), Opener::default()).expect("a runtime");
        let pod = SandboxId::new("pod").expect("an id");
        let _ = runtime.create_sandbox(&sandbox(&pod)).expect("a sandbox");
        let id = ContainerId::new("main").expect("an id");
        let log = home.join("log");
        runtime.create_container(container(&id, &pod, &lowers, &log)).expect("a container");
        runtime.start_container(&id).unwrap_or_else(|error| panic!("without {denied:?}: {error:?}"));
        let end = runtime.wait(&id, Duration::from_secs(30)).expect("a known container");
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        assert!(matches!(end, Some(ContainerState::Exited { code: 0, .. })), "{denied:?} {end:?}\n{text}");
        let files = runtime.features().open_files.to_string();
        let said: Vec<&str> = text.lines().filter_map(|line| line.split(" F ").nth(1)).collect();
        assert_eq!(said, ["126", "0:0", "0:0", "0:0", "300000", &files], "without {denied:?}: {text}");
        let written = std::fs::metadata(runtime.upper_dir(&id).join("written")).expect("what was written");
        assert_eq!((written.uid(), written.gid()), (OUTSIDE, OUTSIDE));
        runtime.remove_sandbox(&pod).expect("the sandbox goes");
    }
    node::remove_cgroups(&cgroup_root(0));
}

/// The topmost first: files of a name each, over busybox.
fn layers(directory: &Path) -> Vec<PathBuf> {
    let small = (1..LAYERS).map(|number| {
        let layer = directory.join(format!("layer-{number}"));
        std::fs::create_dir_all(layer.join("layers")).expect("a layer");
        std::fs::write(layer.join("layers").join(number.to_string()), "x").expect("its file");
        layer
    });
    for applet in ["ls", "stat", "touch", "wc"] {
        let link = directory.join("context/root/bin").join(applet);
        std::os::unix::fs::symlink("busybox", link).expect("an applet");
    }
    small.chain([directory.join("context/root")]).collect()
}

/// Beside those of the nodes, whose numbers begin with one.
fn cgroup_root(test: u32) -> String {
    node::cgroup_root(test * 400)
}

fn configuration(home: &Path, test: u32, denied: &[&str]) -> RuntimeConfig {
    RuntimeConfig {
        state: home.join("run"),
        root: home.join("lib"),
        cgroup_root: Some(cgroup_root(test)),
        network: NetworkConfig { bridge: "sliptmapped".into(), ..NetworkConfig::default() },
        disable_features: denied.iter().map(ToString::to_string).collect(),
    }
}

fn sandbox(id: &SandboxId) -> SandboxConfig {
    let map = vec![IdRange { inside: 0, outside: OUTSIDE, count: 65_536 }];
    SandboxConfig {
        id: id.clone(),
        owner: Owner::Cri,
        document: Document::default(),
        hostname: "mapped".into(),
        network: Network::Host,
        cgroup_parent: None,
        sysctls: [].into(),
        pid: PidMode::Container,
        ipc: IpcMode::Pod,
        userns: Some(IdMap { uids: map.clone(), gids: map }),
        dns: Dns::default(),
        shm_size: 0,
        capabilities: None,
    }
}

fn container(id: &ContainerId, pod: &SandboxId, lowers: &[PathBuf], log: &Path) -> ContainerRequest {
    let script = "set -e; ls /layers | wc -l; stat -c %u:%g /; stat -c %u:%g /bin/busybox; touch /written; \
        stat -c %u:%g /written; read in out count </proc/self/uid_map; echo $out; ulimit -Hn";
    let mut request_spec = spec::default_spec(spec::Privilege::Confined);
    let mut process = request_spec.process().clone().expect("a process");
    let arguments = ["/bin/busybox", "sh", "-c", script].map(String::from);
    process.set_args(Some(arguments.to_vec()));
    request_spec.set_process(Some(process));
    ContainerRequest {
        id: id.clone(),
        sandbox: pod.clone(),
        owner: Owner::Cri,
        document: Document::default(),
        spec: request_spec,
        rootfs: RootFs { lowers: lowers.to_vec(), readonly: false, volatile: true },
        log_path: Some(log.into()),
        stdin: false,
        stdin_once: false,
        tty: false,
        volumes: Vec::new(),
        user: User::default(),
        seccomp: Seccomp::RuntimeDefault,
        raw_env: Vec::new(),
        pid: ContainerPid::default(),
    }
}

/// A container of a pod with a user namespace has capabilities there alone, so that the pod's monitor, which is outside of
/// it, needs none for them.
#[test]
fn the_monitor_of_a_pod_with_a_user_namespace_keeps_what_its_own_work_needs() {
    let directory = tempfile::tempdir_in("/var/tmp").expect("a directory");
    busybox::context(&directory.path().join("context"), "");
    let lowers = layers(directory.path());
    let home = directory.path().join("home");
    let runtime = Runtime::open(configuration(&home, 1, &[]), Opener::default()).expect("a runtime");
    let pod = SandboxId::new("kept").expect("an id");
    let _ = runtime.create_sandbox(&sandbox(&pod)).expect("a sandbox");
    let id = ContainerId::new("main").expect("an id");
    let mut request = container(&id, &pod, &lowers, &home.join("log"));
    request.spec = spec::default_spec(spec::Privilege::Privileged);
    let mut process = request.spec.process().clone().expect("a process");
    let script = "while read name set; do [ $name != CapBnd: ] || echo $set; done </proc/self/status";
    process.set_args(Some(["/bin/busybox", "sh", "-c", script].map(String::from).to_vec()));
    let capabilities = process.capabilities().clone();
    request.spec.set_process(Some(process));
    request.spec.linux_mut().as_mut().expect("a part for Linux").set_devices(None);
    runtime.create_container(request).expect("a container");
    let line = |pid: &str, name: &str| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a status");
        let found = status.lines().find_map(|line| line.strip_prefix(name).map(str::trim).map(str::to_owned));
        u64::from_str_radix(&found.expect("such a line"), 16).expect("a set")
    };
    let monitor = std::fs::read_dir("/proc").expect("/proc").flatten().find(|entry| {
        std::fs::read(entry.path().join("cmdline")).is_ok_and(|line| line == b"slipway-monitor\0kept\0")
    });
    let monitor = monitor.expect("a monitor").file_name().to_string_lossy().into_owned();
    // Of what the daemon has: no module, no raw memory, no clock, no reboot.
    let own = 0x892c_11fb & line("self", "CapPrm:");
    assert_eq!(["CapPrm:", "CapBnd:", "CapEff:"].map(|name| line(&monitor, name)), [own; 3]);
    runtime.start_container(&id).expect("it starts");
    let end = runtime.wait(&id, Duration::from_secs(30)).expect("a known container");
    let text = std::fs::read_to_string(home.join("log")).unwrap_or_default();
    assert!(matches!(end, Some(ContainerState::Exited { code: 0, .. })), "{end:?}\n{text}");
    let every = capabilities.and_then(|sets| sets.bounding().clone()).expect("a bounding set");
    let said = text.lines().find_map(|line| line.split(" F ").nth(1)).expect("a line");
    let held = u64::from_str_radix(said, 16).expect("a set").count_ones();
    assert_eq!(usize::try_from(held).expect("few"), every.len(), "{text}");
    runtime.remove_sandbox(&pod).expect("the sandbox goes");
    node::remove_cgroups(&cgroup_root(1));
}

//! Every field of RunPodSandbox and CreateContainer is honoured, refused by its name, or harmless: the list in
//! `data/request-fields.txt` says which, has each field of the descriptor, and each refusal is asked for here.

use prost::Message as _;
use prost_types::field_descriptor_proto::Type;
use prost_types::{DescriptorProto, FileDescriptorProto, FileDescriptorSet};
use slipway_proto::runtime::v1 as cri;
use slipway_proto::runtime::v1::runtime_service_client::RuntimeServiceClient;
use slipway_tests::{Node, grpc};
use std::collections::{BTreeMap, BTreeSet};

const LIST: &str = include_str!("../data/request-fields.txt");

fn listed() -> BTreeMap<&'static str, &'static str> {
    let lines = LIST.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines.map(|line| line.split_once(": ").expect("a line is FIELD: WORD")).collect()
}

fn cri_file() -> FileDescriptorProto {
    let set = FileDescriptorSet::decode(slipway_proto::DESCRIPTOR).expect("the descriptor decodes");
    set.file.into_iter().find(|file| file.package() == "runtime.v1").expect("runtime.v1 is compiled in")
}

/// The paths of a message's fields, those of its messages below them. A whole Windows message is one field, and so is the
/// pod's configuration that comes with a container's again.
fn walk(
    messages: &BTreeMap<String, DescriptorProto>,
    message: &str,
    prefix: &str,
    paths: &mut BTreeSet<String>,
) {
    for field in &messages[message].field {
        let path = format!("{prefix}{}", field.name());
        let inner = field.type_name().rsplit('.').next().unwrap_or_default();
        let is_message = field.r#type() == Type::Message && messages.contains_key(inner);
        let leaf = !is_message || path.ends_with("windows") || inner == "Int64Value";
        if leaf || message == "CreateContainerRequest" && inner == "PodSandboxConfig" {
            paths.insert(path);
        } else {
            walk(messages, inner, &format!("{path}."), paths);
        }
    }
}

fn described() -> BTreeSet<String> {
    let messages: BTreeMap<String, DescriptorProto> =
        cri_file().message_type.into_iter().map(|message| (message.name().to_owned(), message)).collect();
    let mut paths = BTreeSet::new();
    walk(&messages, "RunPodSandboxRequest", "pod.", &mut paths);
    walk(&messages, "CreateContainerRequest", "container.", &mut paths);
    paths
}

#[test]
fn the_list_has_each_field_of_the_descriptor_and_no_other() {
    let described = described();
    let listed: BTreeSet<String> = listed().keys().map(|&path| path.to_owned()).collect();
    let missing: Vec<_> = described.difference(&listed).collect();
    let gone: Vec<_> = listed.difference(&described).collect();
    assert!(missing.is_empty() && gone.is_empty(), "missing: {missing:#?}\ngone: {gone:#?}");
    let words: BTreeSet<&str> = self::listed().into_values().collect();
    assert!(words.is_subset(&BTreeSet::from(["honoured", "refused", "harmless"])), "{words:?}");
}

type PodWish = fn(&mut cri::PodSandboxConfig);

fn security(config: &mut cri::PodSandboxConfig) -> &mut cri::LinuxSandboxSecurityContext {
    config.linux.get_or_insert_default().security_context.get_or_insert_default()
}

fn mapping() -> cri::IdMapping {
    cri::IdMapping { host_id: 100_000, container_id: 0, length: 65_536 }
}

fn user_namespace(mode: cri::NamespaceMode) -> cri::UserNamespace {
    cri::UserNamespace { mode: mode.into(), uids: vec![mapping()], gids: vec![mapping()] }
}

fn pod_wishes() -> Vec<(&'static [&'static str], PodWish)> {
    const USERNS: &[&str] = &[
        "pod.config.linux.security_context.namespace_options.userns_options.mode",
        "pod.config.linux.security_context.namespace_options.userns_options.uids.host_id",
        "pod.config.linux.security_context.namespace_options.userns_options.uids.container_id",
        "pod.config.linux.security_context.namespace_options.userns_options.uids.length",
        "pod.config.linux.security_context.namespace_options.userns_options.gids.host_id",
        "pod.config.linux.security_context.namespace_options.userns_options.gids.container_id",
        "pod.config.linux.security_context.namespace_options.userns_options.gids.length",
    ];
    vec![
        (&["pod.config.windows"], |config| {
            config.windows =
                Some(cri::WindowsPodSandboxConfig { security_context: Some(Default::default()) });
        }),
        (USERNS, |config| {
            let options = security(config).namespace_options.get_or_insert_default();
            options.userns_options = Some(user_namespace(cri::NamespaceMode::Pod));
        }),
        (&["pod.config.linux.security_context.namespace_options.target_id"], |config| {
            security(config).namespace_options.get_or_insert_default().target_id = "x".into();
        }),
    ]
}

type ContainerWish = fn(&mut cri::ContainerConfig);

fn container_security(config: &mut cri::ContainerConfig) -> &mut cri::LinuxContainerSecurityContext {
    config.linux.get_or_insert_default().security_context.get_or_insert_default()
}

fn with_mount(config: &mut cri::ContainerConfig, change: fn(&mut cri::Mount)) {
    let mut mount =
        cri::Mount { container_path: "/x".into(), host_path: "/tmp".into(), ..Default::default() };
    change(&mut mount);
    config.mounts.push(mount);
}

fn mount_wishes() -> Vec<(&'static [&'static str], ContainerWish)> {
    const IMAGE: &[&str] = &[
        "container.config.mounts.image.image",
        "container.config.mounts.image.annotations",
        "container.config.mounts.image.user_specified_image",
        "container.config.mounts.image.runtime_handler",
        "container.config.mounts.image.image_ref",
    ];
    const UIDS: &[&str] = &[
        "container.config.mounts.uidMappings.host_id",
        "container.config.mounts.uidMappings.container_id",
        "container.config.mounts.uidMappings.length",
    ];
    const GIDS: &[&str] = &[
        "container.config.mounts.gidMappings.host_id",
        "container.config.mounts.gidMappings.container_id",
        "container.config.mounts.gidMappings.length",
    ];
    vec![
        (IMAGE, |config| {
            with_mount(config, |mount| {
                mount.image = Some(cri::ImageSpec { image: "busybox:1".into(), ..Default::default() });
            });
        }),
        (UIDS, |config| with_mount(config, |mount| mount.uid_mappings = vec![mapping()])),
        (GIDS, |config| with_mount(config, |mount| mount.gid_mappings = vec![mapping()])),
        (&["container.config.mounts.image_sub_path"], |config| {
            with_mount(config, |mount| mount.image_sub_path = "x".into());
        }),
        (&["container.config.mounts.recursive_read_only"], |config| {
            with_mount(config, |mount| {
                mount.readonly = true;
                mount.recursive_read_only = true;
            });
        }),
    ]
}

fn container_wishes() -> Vec<(&'static [&'static str], ContainerWish)> {
    const APPARMOR: &[&str] = &[
        "container.config.linux.security_context.apparmor.profile_type",
        "container.config.linux.security_context.apparmor.localhost_ref",
    ];
    const USERNS: &[&str] = &[
        "container.config.linux.security_context.namespace_options.userns_options.mode",
        "container.config.linux.security_context.namespace_options.userns_options.uids.host_id",
        "container.config.linux.security_context.namespace_options.userns_options.uids.container_id",
        "container.config.linux.security_context.namespace_options.userns_options.uids.length",
        "container.config.linux.security_context.namespace_options.userns_options.gids.host_id",
        "container.config.linux.security_context.namespace_options.userns_options.gids.container_id",
        "container.config.linux.security_context.namespace_options.userns_options.gids.length",
    ];
    let mut wishes = mount_wishes();
    let more: Vec<(&'static [&'static str], ContainerWish)> = vec![
        (&["container.config.windows"], |config| {
            config.windows = Some(cri::WindowsContainerConfig {
                resources: Some(Default::default()),
                ..Default::default()
            });
        }),
        (&["container.config.CDI_devices.name"], |config| {
            config.cdi_devices = vec![cri::CdiDevice { name: "vendor.example/device=0".into() }];
        }),
        (APPARMOR, |config| {
            let profile = cri::SecurityProfile { profile_type: 2, localhost_ref: "harbour".into() };
            container_security(config).apparmor = Some(profile);
        }),
        (&["container.config.linux.security_context.apparmor_profile"], |config| {
            container_security(config).apparmor_profile = "localhost/harbour".into();
        }),
        (USERNS, |config| {
            let options = cri::NamespaceOption {
                network: 2,
                pid: 1,
                userns_options: Some(user_namespace(cri::NamespaceMode::Pod)),
                ..Default::default()
            };
            container_security(config).namespace_options = Some(options);
        }),
    ];
    wishes.extend(more);
    wishes
}

/// Whether a refusal has the descriptor's name of the field, or of the message that it is in.
fn names(status: &tonic::Status, paths: &[&str]) -> bool {
    let refused = matches!(status.code(), tonic::Code::Unimplemented | tonic::Code::InvalidArgument);
    let path = paths[0];
    let said = status.message();
    refused && path.rsplit('.').take(3).any(|part| said.contains(part))
}

// With a thread of its own the client's connection answers the daemon's farewell; else the daemon waits for it to the end
// of its drain.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_is_listed_as_refused_is_refused_by_its_name() {
    let node = Node::start();
    node.build("busybox:1", "");
    let mut client = RuntimeServiceClient::new(grpc::channel(&node).await);
    let mut asked = BTreeSet::new();
    for (paths, wish) in pod_wishes() {
        let mut config = grpc::pod_config("walk");
        wish(&mut config);
        let request = cri::RunPodSandboxRequest { config: Some(config), runtime_handler: String::new() };
        let status = client.run_pod_sandbox(request).await.expect_err(paths[0]);
        assert!(names(&status, paths), "{paths:?}: {status:?}");
        asked.extend(paths.iter().copied());
    }
    let request =
        cri::RunPodSandboxRequest { config: Some(grpc::pod_config("walk")), runtime_handler: String::new() };
    let pod = client.run_pod_sandbox(request).await.expect("a pod").into_inner().pod_sandbox_id;
    for (paths, wish) in container_wishes() {
        let mut config = cri::ContainerConfig {
            metadata: Some(cri::ContainerMetadata { name: "walk".into(), attempt: 0 }),
            image: Some(cri::ImageSpec { image: "busybox:1".into(), ..Default::default() }),
            command: vec!["true".into()],
            ..Default::default()
        };
        wish(&mut config);
        let request = cri::CreateContainerRequest {
            pod_sandbox_id: pod.clone(),
            config: Some(config),
            sandbox_config: Some(grpc::pod_config("walk")),
        };
        let status = client.create_container(request).await.expect_err(paths[0]);
        assert!(names(&status, paths), "{paths:?}: {status:?}");
        asked.extend(paths.iter().copied());
    }
    let refused: BTreeSet<&str> =
        listed().into_iter().filter(|(_, word)| *word == "refused").map(|(path, _)| path).collect();
    assert_eq!(asked, refused);
    assert_eq!(node.crictl(&["ps", "-a", "-q"]).ok(), "");
}

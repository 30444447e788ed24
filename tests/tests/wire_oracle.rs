//! k8s-cri, an independent generation of the CRI's types, as the oracle of ours: each message that both know, with every
//! field set, is decoded and encoded by both. What k8s-cri drops is exactly what is newer than its proto file.

use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorSet};
use std::collections::{BTreeMap, BTreeSet};

/// Messages of the contract that k8s-cri's proto file does not have yet.
const NEWER_MESSAGES: &[&str] = &[
    "IoUsage",
    "PsiData",
    "PsiStats",
    "StreamContainerStatsRequest",
    "StreamContainerStatsResponse",
    "StreamContainersRequest",
    "StreamContainersResponse",
    "StreamImagesRequest",
    "StreamImagesResponse",
    "StreamPodSandboxMetricsRequest",
    "StreamPodSandboxMetricsResponse",
    "StreamPodSandboxStatsRequest",
    "StreamPodSandboxStatsResponse",
    "StreamPodSandboxesRequest",
    "StreamPodSandboxesResponse",
    "UpdatePodSandboxResourcesRequest",
    "UpdatePodSandboxResourcesResponse",
];

/// Fields of messages that both know, which k8s-cri's proto file does not have yet.
const NEWER_FIELDS: &[&str] = &[
    "ContainerConfig.stop_signal",
    "ContainerStats.io",
    "ContainerStatus.stop_signal",
    "CpuUsage.psi",
    "ImageSpec.image_ref",
    "LinuxPodSandboxStats.io",
    "MemoryUsage.psi",
    "Mount.image_sub_path",
    "RuntimeFeatures.user_namespaces_host_network",
];

/// A crate's codec: the bytes of a message are decoded, and encoded again.
type Through = fn(&[u8]) -> Vec<u8>;

fn through<M: Message + Default>(bytes: &[u8]) -> Vec<u8> {
    M::decode(bytes).expect("the message decodes").encode_to_vec()
}

macro_rules! known_to_both {
    ($($message:ident),* $(,)?) => {
        /// For each message that both know, the way through our types and through k8s-cri's. The names are in lower
        /// case, since prost writes `SELinuxOption` as `SeLinuxOption`.
        fn known_to_both() -> BTreeMap<String, (Through, Through)> {
            BTreeMap::from([$((
                stringify!($message).to_lowercase(),
                (through::<slipway_proto::runtime::v1::$message> as Through, through::<k8s_cri::v1::$message> as Through),
            )),*])
        }
    };
}

known_to_both! {
    AttachRequest, AttachResponse, AuthConfig, CdiDevice, Capability, CheckpointContainerRequest,
    CheckpointContainerResponse, Container, ContainerAttributes, ContainerConfig, ContainerEventResponse,
    ContainerFilter, ContainerMetadata, ContainerMetrics, ContainerResources, ContainerStateValue, ContainerStats,
    ContainerStatsFilter, ContainerStatsRequest, ContainerStatsResponse, ContainerStatus, ContainerStatusRequest,
    ContainerStatusResponse, ContainerUser, CpuUsage, CreateContainerRequest, CreateContainerResponse, DnsConfig,
    Device, ExecRequest, ExecResponse, ExecSyncRequest, ExecSyncResponse, FilesystemIdentifier, FilesystemUsage,
    GetEventsRequest, HugepageLimit, IdMapping, Image, ImageFilter, ImageFsInfoRequest, ImageFsInfoResponse,
    ImageSpec, ImageStatusRequest, ImageStatusResponse, Int64Value, KeyValue, LinuxContainerConfig,
    LinuxContainerResources, LinuxContainerSecurityContext, LinuxContainerUser, LinuxPodSandboxConfig,
    LinuxPodSandboxStats, LinuxPodSandboxStatus, LinuxRuntimeConfiguration, LinuxSandboxSecurityContext,
    ListContainerStatsRequest, ListContainerStatsResponse, ListContainersRequest, ListContainersResponse,
    ListImagesRequest, ListImagesResponse, ListMetricDescriptorsRequest, ListMetricDescriptorsResponse,
    ListPodSandboxMetricsRequest, ListPodSandboxMetricsResponse, ListPodSandboxRequest, ListPodSandboxResponse,
    ListPodSandboxStatsRequest, ListPodSandboxStatsResponse, MemoryUsage, Metric, MetricDescriptor, Mount,
    Namespace, NamespaceOption, NetworkConfig, NetworkInterfaceUsage, NetworkUsage, PodIp, PodSandbox,
    PodSandboxAttributes, PodSandboxConfig, PodSandboxFilter, PodSandboxMetadata, PodSandboxMetrics,
    PodSandboxNetworkStatus, PodSandboxStateValue, PodSandboxStats, PodSandboxStatsFilter, PodSandboxStatsRequest,
    PodSandboxStatsResponse, PodSandboxStatus, PodSandboxStatusRequest, PodSandboxStatusResponse,
    PortForwardRequest, PortForwardResponse, PortMapping, ProcessUsage, PullImageRequest, PullImageResponse,
    RemoveContainerRequest, RemoveContainerResponse, RemoveImageRequest, RemoveImageResponse,
    RemovePodSandboxRequest, RemovePodSandboxResponse, ReopenContainerLogRequest, ReopenContainerLogResponse,
    RunPodSandboxRequest, RunPodSandboxResponse, RuntimeCondition, RuntimeConfig, RuntimeConfigRequest,
    RuntimeConfigResponse, RuntimeFeatures, RuntimeHandler, RuntimeHandlerFeatures, RuntimeStatus, SeLinuxOption,
    SecurityProfile, StartContainerRequest, StartContainerResponse, StatusRequest, StatusResponse,
    StopContainerRequest, StopContainerResponse, StopPodSandboxRequest, StopPodSandboxResponse, SwapUsage,
    UInt64Value, UpdateContainerResourcesRequest, UpdateContainerResourcesResponse, UpdateRuntimeConfigRequest,
    UpdateRuntimeConfigResponse, UserNamespace, VersionRequest, VersionResponse, WindowsContainerConfig,
    WindowsContainerResources, WindowsContainerSecurityContext, WindowsContainerStats, WindowsCpuGroupAffinity,
    WindowsCpuUsage, WindowsFilesystemUsage, WindowsMemoryUsage, WindowsNamespaceOption,
    WindowsNetworkInterfaceUsage, WindowsNetworkUsage, WindowsPodSandboxConfig, WindowsPodSandboxStats,
    WindowsProcessUsage, WindowsSandboxSecurityContext,
}

fn messages() -> Vec<DescriptorProto> {
    let set = FileDescriptorSet::decode(slipway_proto::DESCRIPTOR).expect("the descriptor set decodes");
    let cri =
        set.file.into_iter().find(|file| file.package() == "runtime.v1").expect("runtime.v1 is compiled in");
    cri.message_type
}

/// The wire bytes of a message with all of its fields set but those of `without`. A message inside is empty: it has a
/// test of its own.
fn filled(message: &DescriptorProto, without: &BTreeSet<u32>) -> Vec<u8> {
    let mut fields: Vec<&FieldDescriptorProto> = message.field.iter().collect();
    fields.sort_by_key(|field| field.number());
    let mut bytes = Vec::new();
    for field in fields.into_iter().filter(|field| !without.contains(&number(field))) {
        encode_field(message, field, &mut bytes);
    }
    bytes
}

fn number(field: &FieldDescriptorProto) -> u32 {
    u32::try_from(field.number()).expect("field numbers are positive")
}

fn encode_field(message: &DescriptorProto, field: &FieldDescriptorProto, bytes: &mut Vec<u8>) {
    let repeated = field.label() == Label::Repeated;
    let entry =
        message.nested_type.iter().find(|nested| field.type_name().ends_with(&format!(".{}", nested.name())));
    match (field.r#type(), entry) {
        (Type::Message, Some(entry)) => {
            // An entry whose value is an empty message is written without it (protobuf's encoding of maps).
            let empty: BTreeSet<u32> =
                entry.field.iter().filter(|field| field.r#type() == Type::Message).map(number).collect();
            encode_bytes(field, &filled(entry, &empty), bytes);
        }
        (Type::Message, None) => (0..=usize::from(repeated)).for_each(|_| encode_bytes(field, &[], bytes)),
        (Type::String | Type::Bytes, _) => {
            for text in [field.name(), "another"].iter().take(1 + usize::from(repeated)) {
                encode_bytes(field, text.as_bytes(), bytes);
            }
        }
        (Type::Double, _) => {
            encode_key(number(field), WireType::SixtyFourBit, bytes);
            bytes.extend(1.5_f64.to_le_bytes());
        }
        (Type::Bool | Type::Enum | Type::Int32 | Type::Int64 | Type::Uint32 | Type::Uint64, _)
            if repeated =>
        {
            encode_bytes(field, &[1, 2], bytes);
        }
        (Type::Bool | Type::Enum | Type::Int32 | Type::Int64 | Type::Uint32 | Type::Uint64, _) => {
            encode_key(number(field), WireType::Varint, bytes);
            encode_varint(1, bytes);
        }
        (kind, _) => {
            panic!("{}.{} has the type {kind:?}, which the CRI does not use", message.name(), field.name())
        }
    }
}

fn encode_bytes(field: &FieldDescriptorProto, value: &[u8], bytes: &mut Vec<u8>) {
    encode_key(number(field), WireType::LengthDelimited, bytes);
    encode_varint(u64::try_from(value.len()).expect("a length fits 64 bits"), bytes);
    bytes.extend(value);
}

#[test]
fn each_message_of_the_contract_is_known_to_both_or_newer() {
    let described: BTreeSet<String> =
        messages().iter().map(|message| message.name().to_lowercase()).collect();
    let newer = NEWER_MESSAGES.iter().map(|name| name.to_lowercase());
    let named: BTreeSet<String> = known_to_both().into_keys().chain(newer).collect();
    assert_eq!(named, described);
}

#[test]
fn both_crates_read_and_write_the_same_bytes() {
    let both = known_to_both();
    let mut newer = BTreeSet::new();
    for message in messages() {
        let Some((ours, theirs)) = both.get(&message.name().to_lowercase()) else { continue };
        let all = filled(&message, &BTreeSet::new());
        assert_eq!(ours(&all), all, "{} through our types", message.name());
        let mut dropped = BTreeSet::new();
        for field in &message.field {
            let others =
                message.field.iter().filter(|other| other.number() != field.number()).map(number).collect();
            if theirs(&filled(&message, &others)).is_empty() {
                dropped.insert(number(field));
                newer.insert(format!("{}.{}", message.name(), field.name()));
            }
        }
        assert_eq!(theirs(&all), filled(&message, &dropped), "{} through k8s-cri's types", message.name());
    }
    let listed: BTreeSet<String> = NEWER_FIELDS.iter().map(|&field| field.to_owned()).collect();
    assert_eq!(newer, listed);
}

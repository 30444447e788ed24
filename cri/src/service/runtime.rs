//! `runtime.v1.RuntimeService`.

use std::sync::Arc;

use slipway_proto::runtime::v1 as cri;
use slipway_proto::runtime::v1::runtime_service_server::RuntimeService;
use tokio_stream::Empty;
use tonic::{Request, Response, Status};

use crate::error::Error;
use crate::node::Node;
use crate::{container, sandbox, status};

/// The service.
#[derive(Debug)]
pub(crate) struct Pods {
    node: Arc<Node>,
}

impl Pods {
    pub(crate) fn new(node: Arc<Node>) -> Self {
        Self { node }
    }
}

type Answer<T> = Result<Response<T>, Status>;

fn unserved<T>(call: &'static str, instead: &'static str) -> Answer<T> {
    Err(Error::Unserved { call, instead }.into())
}

fn runtime_config() -> cri::RuntimeConfigResponse {
    let cgroup_driver = cri::CgroupDriver::Cgroupfs.into();
    cri::RuntimeConfigResponse { linux: Some(cri::LinuxRuntimeConfiguration { cgroup_driver }) }
}

#[tonic::async_trait]
impl RuntimeService for Pods {
    type StreamPodSandboxesStream = Empty<Result<cri::StreamPodSandboxesResponse, Status>>;
    type StreamContainersStream = Empty<Result<cri::StreamContainersResponse, Status>>;
    type StreamContainerStatsStream = Empty<Result<cri::StreamContainerStatsResponse, Status>>;
    type StreamPodSandboxStatsStream = Empty<Result<cri::StreamPodSandboxStatsResponse, Status>>;
    type GetContainerEventsStream = Empty<Result<cri::ContainerEventResponse, Status>>;
    type StreamPodSandboxMetricsStream = Empty<Result<cri::StreamPodSandboxMetricsResponse, Status>>;

    async fn version(&self, _request: Request<cri::VersionRequest>) -> Answer<cri::VersionResponse> {
        Ok(Response::new(status::version()))
    }

    async fn run_pod_sandbox(
        &self,
        request: Request<cri::RunPodSandboxRequest>,
    ) -> Answer<cri::RunPodSandboxResponse> {
        Ok(Response::new(sandbox::run::run(&self.node, request.into_inner()).await?))
    }

    async fn stop_pod_sandbox(
        &self,
        request: Request<cri::StopPodSandboxRequest>,
    ) -> Answer<cri::StopPodSandboxResponse> {
        Ok(Response::new(sandbox::stop::stop(&self.node, &request.into_inner().pod_sandbox_id).await?))
    }

    async fn remove_pod_sandbox(
        &self,
        request: Request<cri::RemovePodSandboxRequest>,
    ) -> Answer<cri::RemovePodSandboxResponse> {
        Ok(Response::new(sandbox::remove::remove(&self.node, &request.into_inner().pod_sandbox_id).await?))
    }

    async fn pod_sandbox_status(
        &self,
        request: Request<cri::PodSandboxStatusRequest>,
    ) -> Answer<cri::PodSandboxStatusResponse> {
        Ok(Response::new(sandbox::view::status(&self.node, request.into_inner()).await?))
    }

    async fn list_pod_sandbox(
        &self,
        request: Request<cri::ListPodSandboxRequest>,
    ) -> Answer<cri::ListPodSandboxResponse> {
        Ok(Response::new(sandbox::view::list(&self.node, request.into_inner()).await?))
    }

    async fn stream_pod_sandboxes(
        &self,
        _request: Request<cri::StreamPodSandboxesRequest>,
    ) -> Answer<Self::StreamPodSandboxesStream> {
        unserved("StreamPodSandboxes", "call ListPodSandbox")
    }

    async fn create_container(
        &self,
        request: Request<cri::CreateContainerRequest>,
    ) -> Answer<cri::CreateContainerResponse> {
        Ok(Response::new(Box::pin(container::create::create(&self.node, request.into_inner())).await?))
    }

    async fn start_container(
        &self,
        request: Request<cri::StartContainerRequest>,
    ) -> Answer<cri::StartContainerResponse> {
        Ok(Response::new(container::start::start(&self.node, &request.into_inner().container_id).await?))
    }

    async fn stop_container(
        &self,
        request: Request<cri::StopContainerRequest>,
    ) -> Answer<cri::StopContainerResponse> {
        Ok(Response::new(container::stop::stop(&self.node, request.into_inner()).await?))
    }

    async fn remove_container(
        &self,
        request: Request<cri::RemoveContainerRequest>,
    ) -> Answer<cri::RemoveContainerResponse> {
        Ok(Response::new(container::remove::remove(&self.node, &request.into_inner().container_id).await?))
    }

    async fn list_containers(
        &self,
        request: Request<cri::ListContainersRequest>,
    ) -> Answer<cri::ListContainersResponse> {
        Ok(Response::new(container::view::list(&self.node, request.into_inner()).await?))
    }

    async fn stream_containers(
        &self,
        _request: Request<cri::StreamContainersRequest>,
    ) -> Answer<Self::StreamContainersStream> {
        unserved("StreamContainers", "call ListContainers")
    }

    async fn container_status(
        &self,
        request: Request<cri::ContainerStatusRequest>,
    ) -> Answer<cri::ContainerStatusResponse> {
        Ok(Response::new(container::view::status(&self.node, request.into_inner()).await?))
    }

    async fn update_container_resources(
        &self,
        _request: Request<cri::UpdateContainerResourcesRequest>,
    ) -> Answer<cri::UpdateContainerResourcesResponse> {
        unserved("UpdateContainerResources", "create the container anew with other resources")
    }

    async fn reopen_container_log(
        &self,
        request: Request<cri::ReopenContainerLogRequest>,
    ) -> Answer<cri::ReopenContainerLogResponse> {
        Ok(Response::new(container::exec::reopen_log(&self.node, &request.into_inner().container_id).await?))
    }

    async fn exec_sync(&self, request: Request<cri::ExecSyncRequest>) -> Answer<cri::ExecSyncResponse> {
        Ok(Response::new(container::exec::exec_sync(&self.node, request.into_inner()).await?))
    }

    async fn exec(&self, _request: Request<cri::ExecRequest>) -> Answer<cri::ExecResponse> {
        unserved("Exec", "call ExecSync")
    }

    async fn attach(&self, _request: Request<cri::AttachRequest>) -> Answer<cri::AttachResponse> {
        unserved("Attach", "read the container's log file")
    }

    async fn port_forward(
        &self,
        _request: Request<cri::PortForwardRequest>,
    ) -> Answer<cri::PortForwardResponse> {
        unserved("PortForward", "reach the pod by its address")
    }

    async fn container_stats(
        &self,
        _request: Request<cri::ContainerStatsRequest>,
    ) -> Answer<cri::ContainerStatsResponse> {
        unserved("ContainerStats", "read the figures from the cgroups")
    }

    async fn list_container_stats(
        &self,
        _request: Request<cri::ListContainerStatsRequest>,
    ) -> Answer<cri::ListContainerStatsResponse> {
        unserved("ListContainerStats", "read the figures from the cgroups")
    }

    async fn stream_container_stats(
        &self,
        _request: Request<cri::StreamContainerStatsRequest>,
    ) -> Answer<Self::StreamContainerStatsStream> {
        unserved("StreamContainerStats", "read the figures from the cgroups")
    }

    async fn pod_sandbox_stats(
        &self,
        _request: Request<cri::PodSandboxStatsRequest>,
    ) -> Answer<cri::PodSandboxStatsResponse> {
        unserved("PodSandboxStats", "read the figures from the cgroups")
    }

    async fn list_pod_sandbox_stats(
        &self,
        _request: Request<cri::ListPodSandboxStatsRequest>,
    ) -> Answer<cri::ListPodSandboxStatsResponse> {
        unserved("ListPodSandboxStats", "read the figures from the cgroups")
    }

    async fn stream_pod_sandbox_stats(
        &self,
        _request: Request<cri::StreamPodSandboxStatsRequest>,
    ) -> Answer<Self::StreamPodSandboxStatsStream> {
        unserved("StreamPodSandboxStats", "read the figures from the cgroups")
    }

    async fn update_runtime_config(
        &self,
        request: Request<cri::UpdateRuntimeConfigRequest>,
    ) -> Answer<cri::UpdateRuntimeConfigResponse> {
        status::update(&self.node, request.into_inner())?;
        Ok(Response::new(cri::UpdateRuntimeConfigResponse {}))
    }

    async fn status(&self, request: Request<cri::StatusRequest>) -> Answer<cri::StatusResponse> {
        Ok(Response::new(status::status(&self.node, request.into_inner().verbose).await?))
    }

    async fn checkpoint_container(
        &self,
        _request: Request<cri::CheckpointContainerRequest>,
    ) -> Answer<cri::CheckpointContainerResponse> {
        unserved("CheckpointContainer", "there is no other way yet")
    }

    async fn get_container_events(
        &self,
        _request: Request<cri::GetEventsRequest>,
    ) -> Answer<Self::GetContainerEventsStream> {
        unserved("GetContainerEvents", "call ListContainers")
    }

    async fn list_metric_descriptors(
        &self,
        _request: Request<cri::ListMetricDescriptorsRequest>,
    ) -> Answer<cri::ListMetricDescriptorsResponse> {
        unserved("ListMetricDescriptors", "read the figures from the cgroups")
    }

    async fn list_pod_sandbox_metrics(
        &self,
        _request: Request<cri::ListPodSandboxMetricsRequest>,
    ) -> Answer<cri::ListPodSandboxMetricsResponse> {
        unserved("ListPodSandboxMetrics", "read the figures from the cgroups")
    }

    async fn stream_pod_sandbox_metrics(
        &self,
        _request: Request<cri::StreamPodSandboxMetricsRequest>,
    ) -> Answer<Self::StreamPodSandboxMetricsStream> {
        unserved("StreamPodSandboxMetrics", "read the figures from the cgroups")
    }

    async fn runtime_config(
        &self,
        _request: Request<cri::RuntimeConfigRequest>,
    ) -> Answer<cri::RuntimeConfigResponse> {
        Ok(Response::new(runtime_config()))
    }

    async fn update_pod_sandbox_resources(
        &self,
        _request: Request<cri::UpdatePodSandboxResourcesRequest>,
    ) -> Answer<cri::UpdatePodSandboxResourcesResponse> {
        unserved("UpdatePodSandboxResources", "create the pod anew with other resources")
    }
}

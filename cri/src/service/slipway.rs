//! `slipway.v1`: what the CRI has no word for.

use std::sync::Arc;

use slipway_proto::slipway::v1 as own;
use slipway_proto::slipway::v1::slipway_server::Slipway;
use tonic::{Request, Response, Status, Streaming};

use crate::node::Node;
use crate::own::transfer::Events;
use crate::own::{attach, build, housekeeping, logs, run, streams, transfer, view};

/// The service.
#[derive(Debug)]
pub(crate) struct Verbs {
    node: Arc<Node>,
}

impl Verbs {
    pub(crate) fn new(node: Arc<Node>) -> Self {
        Self { node }
    }
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Slipway for Verbs {
    type BuildStream = Events<own::BuildEvent>;
    type PullImageStream = Events<own::TransferEvent>;
    type PushStream = Events<own::TransferEvent>;
    type AttachStream = Events<own::StreamOutput>;
    type ExecStream = Events<own::StreamOutput>;
    type LogsStream = Events<own::LogEntries>;

    async fn build(&self, request: Request<Streaming<own::BuildRequest>>) -> Answer<Self::BuildStream> {
        Ok(Response::new(build::build(&self.node, request.into_inner()).await?))
    }

    async fn pull_image(&self, request: Request<own::PullImageRequest>) -> Answer<Self::PullImageStream> {
        Ok(Response::new(transfer::pull(&self.node, request.into_inner())?))
    }

    async fn push(&self, request: Request<own::PushRequest>) -> Answer<Self::PushStream> {
        Ok(Response::new(transfer::push(&self.node, request.into_inner())?))
    }

    async fn attach(&self, request: Request<Streaming<own::AttachRequest>>) -> Answer<Self::AttachStream> {
        Ok(Response::new(attach::attach(&self.node, request.into_inner()).await?))
    }

    async fn exec(&self, request: Request<Streaming<own::ExecRequest>>) -> Answer<Self::ExecStream> {
        Ok(Response::new(streams::exec(&self.node, request.into_inner()).await?))
    }

    async fn logs(&self, request: Request<own::LogsRequest>) -> Answer<Self::LogsStream> {
        Ok(Response::new(logs::logs(&self.node, request.into_inner())?))
    }

    async fn version(&self, _request: Request<own::VersionRequest>) -> Answer<own::VersionResponse> {
        Ok(Response::new(housekeeping::version(&self.node)))
    }

    async fn tag(&self, request: Request<own::TagRequest>) -> Answer<own::TagResponse> {
        Ok(Response::new(housekeeping::tag(&self.node, request.into_inner()).await?))
    }

    async fn untag(&self, request: Request<own::UntagRequest>) -> Answer<own::UntagResponse> {
        Ok(Response::new(housekeeping::untag(&self.node, request.into_inner()).await?))
    }

    async fn prune(&self, request: Request<own::PruneRequest>) -> Answer<own::PruneResponse> {
        Ok(Response::new(housekeeping::prune(&self.node, request.into_inner()).await?))
    }

    async fn disk_usage(&self, _request: Request<own::DiskUsageRequest>) -> Answer<own::DiskUsageResponse> {
        Ok(Response::new(housekeeping::disk_usage(&self.node).await?))
    }

    async fn check(&self, request: Request<own::CheckRequest>) -> Answer<own::CheckResponse> {
        Ok(Response::new(housekeeping::check(&self.node, request.into_inner()).await?))
    }

    async fn run_container(
        &self,
        request: Request<own::RunContainerRequest>,
    ) -> Answer<own::RunContainerResponse> {
        Ok(Response::new(Box::pin(run::run(&self.node, request.into_inner())).await?))
    }

    async fn start_container(
        &self,
        request: Request<own::StartContainerRequest>,
    ) -> Answer<own::StartContainerResponse> {
        Ok(Response::new(run::start(&self.node, request.into_inner()).await?))
    }

    async fn list_containers(
        &self,
        request: Request<own::ListContainersRequest>,
    ) -> Answer<own::ListContainersResponse> {
        Ok(Response::new(view::list(&self.node, request.into_inner()).await?))
    }

    async fn container_status(
        &self,
        request: Request<own::ContainerStatusRequest>,
    ) -> Answer<own::ContainerStatusResponse> {
        Ok(Response::new(view::status(&self.node, request.into_inner()).await?))
    }

    async fn stop_container(
        &self,
        request: Request<own::StopContainerRequest>,
    ) -> Answer<own::StopContainerResponse> {
        Ok(Response::new(run::stop(&self.node, request.into_inner()).await?))
    }

    async fn remove_container(
        &self,
        request: Request<own::RemoveContainerRequest>,
    ) -> Answer<own::RemoveContainerResponse> {
        Ok(Response::new(run::remove(&self.node, request.into_inner()).await?))
    }
}

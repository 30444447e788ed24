//! `runtime.v1.ImageService`.

use std::sync::Arc;

use slipway_proto::runtime::v1 as cri;
use slipway_proto::runtime::v1::image_service_server::ImageService;
use tonic::{Request, Response, Status};

use crate::error::Error;
use crate::images;
use crate::node::Node;

/// The service.
#[derive(Debug)]
pub(crate) struct Images {
    node: Arc<Node>,
}

impl Images {
    pub(crate) fn new(node: Arc<Node>) -> Self {
        Self { node }
    }
}

#[tonic::async_trait]
impl ImageService for Images {
    type StreamImagesStream = tokio_stream::Empty<Result<cri::StreamImagesResponse, Status>>;

    async fn list_images(
        &self,
        request: Request<cri::ListImagesRequest>,
    ) -> Result<Response<cri::ListImagesResponse>, Status> {
        Ok(Response::new(images::list(&self.node, request.into_inner())?))
    }

    async fn stream_images(
        &self,
        _request: Request<cri::StreamImagesRequest>,
    ) -> Result<Response<Self::StreamImagesStream>, Status> {
        Err(Error::Unserved { call: "StreamImages", instead: "call ListImages" }.into())
    }

    async fn image_status(
        &self,
        request: Request<cri::ImageStatusRequest>,
    ) -> Result<Response<cri::ImageStatusResponse>, Status> {
        Ok(Response::new(images::status(&self.node, request.into_inner())?))
    }

    async fn pull_image(
        &self,
        request: Request<cri::PullImageRequest>,
    ) -> Result<Response<cri::PullImageResponse>, Status> {
        Ok(Response::new(Box::pin(images::pull(&self.node, request.into_inner())).await?))
    }

    async fn remove_image(
        &self,
        request: Request<cri::RemoveImageRequest>,
    ) -> Result<Response<cri::RemoveImageResponse>, Status> {
        Ok(Response::new(images::remove(&self.node, request.into_inner()).await?))
    }

    async fn image_fs_info(
        &self,
        _request: Request<cri::ImageFsInfoRequest>,
    ) -> Result<Response<cri::ImageFsInfoResponse>, Status> {
        Ok(Response::new(images::fs_info(&self.node).await?))
    }
}

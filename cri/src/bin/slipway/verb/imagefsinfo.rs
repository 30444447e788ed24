//! `imagefsinfo`: the room that images take.

use slipway_proto::runtime::v1::ImageFsInfoRequest;

use crate::connection::Session;
use crate::error::{Error, Result};
use crate::output;
use crate::protojson::Registry;

pub(crate) async fn perform(session: &Session) -> Result<()> {
    let answer = session.images().await?.image_fs_info(ImageFsInfoRequest {}).await;
    let answer = answer.map_err(Error::call("ask for the images' file system"))?.into_inner();
    let status = Registry::load()?.to_json("runtime.v1.ImageFsInfoResponse", &answer)?;
    output::json(&serde_json::json!({ "status": status }))
}

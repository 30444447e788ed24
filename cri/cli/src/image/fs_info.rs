//! `imagefsinfo`: the room that images take.

use slipway_proto::runtime::v1::{FilesystemUsage, ImageFsInfoRequest};

use crate::connection::Session;
use crate::error::{Error, Result};
use crate::format::Format;
use crate::protojson::Registry;
use crate::{output, units};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Output format: json, yaml or table
    #[arg(short, long, default_value = "json")]
    output: Format,
}

pub(crate) async fn perform(args: Args, session: &Session) -> Result<()> {
    let answer = session.images().await?.image_fs_info(ImageFsInfoRequest {}).await;
    let answer = answer.map_err(Error::call("ask for the images' file system"))?.into_inner();
    if args.output == Format::Table {
        print("Container", &answer.container_filesystems)?;
        return print("Image", &answer.image_filesystems);
    }
    let status = Registry::load()?.to_json(&answer)?;
    output::value(args.output, &serde_json::json!({ "status": status }))
}

fn print(kind: &str, filesystems: &[FilesystemUsage]) -> Result<()> {
    output::line(format_args!("{kind} Filesystem "))?;
    for (at, usage) in filesystems.iter().enumerate() {
        let bytes = usage.used_bytes.as_ref().map_or(0, |bytes| bytes.value);
        let inodes = usage.inodes_used.as_ref().map_or(0, |inodes| inodes.value);
        let mountpoint = usage.fs_id.as_ref().map_or("", |id| &id.mountpoint);
        output::line(format_args!("TimeStamp[{at}]: {}", usage.timestamp))?;
        output::line(format_args!("Disk[{at}]: {}", units::size_in_four(bytes)))?;
        output::line(format_args!("Inodes[{at}]: {inodes}"))?;
        output::line(format_args!("Mountpoint[{at}]: {mountpoint}"))?;
    }
    Ok(())
}

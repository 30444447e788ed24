//! `inspecti`: the whole state of images.

use slipway_proto::runtime::v1::{Image, ImageSpec, ImageStatusRequest};

use super::list;
use crate::connection::Session;
use crate::error::{Error, Result};
use crate::protojson::Registry;
use crate::status_view::{How, States};
use crate::{output, units};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    how: How,
    /// Those of these names, when no id is given
    #[arg(long)]
    name: Option<String>,
    /// Those that fit: dangling=true|false, reference=PATTERN, before=IMAGE, since=IMAGE
    #[arg(short, long)]
    filter: Vec<String>,
    /// Ids or names; without any, all that the flags leave
    images: Vec<String>,
}

pub(crate) async fn perform(args: Args, session: &Session) -> Result<()> {
    let names = if args.images.is_empty() { found(&args, session).await? } else { args.images };
    if names.is_empty() {
        return Err(Error::Refused("no image fits the filters".to_owned()));
    }
    let mut client = session.images().await?;
    let registry = Registry::load()?;
    let mut states = States::new(args.how);
    for name in names {
        let image = Some(ImageSpec { image: name.clone(), ..ImageSpec::default() });
        let request = ImageStatusRequest { image, verbose: states.verbose() };
        let answer = client.image_status(request).await;
        let answer = answer.map_err(Error::call(format!("inspect image {name}")))?.into_inner();
        let image = answer.image.ok_or_else(|| Error::Refused(format!("no such image {name:?} present")))?;
        let object = || registry.to_json(&image);
        states.show(&answer.info, || print_table(&image), object)?;
    }
    states.print()
}

async fn found(args: &Args, session: &Session) -> Result<Vec<String>> {
    let images = list::list(args.name.as_deref(), &args.filter, session).await?;
    Ok(images.into_iter().map(|image| image.id).collect())
}

fn print_table(image: &Image) -> Result<()> {
    output::line(format_args!("ID: {}", image.id))?;
    for tag in &image.repo_tags {
        output::line(format_args!("Tag: {tag}"))?;
    }
    for digest in &image.repo_digests {
        output::line(format_args!("Digest: {digest}"))?;
    }
    output::line(format_args!("Size: {}", units::size(image.size)))
}

//! `inspecti`: all that is known of images.

use slipway_proto::runtime::v1::{ImageSpec, ImageStatusRequest};

use crate::args::Format;
use crate::connection::Session;
use crate::error::{Error, Result};
use crate::protojson::Registry;
use crate::{output, status_view, units};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Output format: json or table
    #[arg(short, long, default_value = "json")]
    output: Format,
    /// Leave the runtime's verbose texts out
    #[arg(short, long)]
    quiet: bool,
    /// Ids or names
    #[arg(required = true)]
    images: Vec<String>,
}

pub(crate) async fn perform(args: Args, session: &Session) -> Result<()> {
    let mut client = session.images().await?;
    let registry = Registry::load()?;
    let mut views = Vec::new();
    for name in args.images {
        let image = Some(ImageSpec { image: name.clone(), ..ImageSpec::default() });
        let request = ImageStatusRequest { image, verbose: !args.quiet };
        let answer = client.image_status(request).await;
        let answer = answer.map_err(Error::call(format!("inspect image {name}")))?.into_inner();
        let image = answer.image.ok_or_else(|| Error::Refused(format!("no such image {name:?} present")))?;
        if args.output == Format::Json {
            let status = registry.to_json("runtime.v1.Image", &image)?;
            views.push(status_view::with_info(status, &answer.info));
            continue;
        }
        output::line(format_args!("ID: {}", image.id))?;
        for tag in &image.repo_tags {
            output::line(format_args!("Tag: {tag}"))?;
        }
        for digest in &image.repo_digests {
            output::line(format_args!("Digest: {digest}"))?;
        }
        output::line(format_args!("Size: {}", units::size(image.size)))?;
    }
    if views.is_empty() { Ok(()) } else { status_view::print(views) }
}

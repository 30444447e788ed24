//! `images`: the images of the node.

use slipway_proto::runtime::v1::{
    Image, ImageFilter, ImageSpec, ImageStatusRequest, ListImagesRequest, ListImagesResponse,
};

use super::filter;
use crate::connection::Session;
use crate::error::{Error, Result};
use crate::format::Format;
use crate::table::{self, Column};
use crate::units::Ids;
use crate::{output, units};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Show all that is known of each
    #[arg(short, long)]
    verbose: bool,
    /// Show ids only
    #[arg(short, long)]
    quiet: bool,
    /// Show digests too
    #[arg(long)]
    digests: bool,
    /// Show whether they are pinned
    #[arg(long)]
    pinned: bool,
    /// Show whole ids
    #[arg(long)]
    no_trunc: bool,
    /// Output format: json, yaml or table
    #[arg(short, long, default_value = "table")]
    output: Format,
    /// Only those that fit: dangling=true|false, reference=PATTERN, before=IMAGE, since=IMAGE
    #[arg(short, long)]
    filter: Vec<String>,
    /// Show this image only
    #[arg(value_name = "REPOSITORY[:TAG]")]
    image: Option<String>,
}

pub(crate) async fn perform(args: Args, session: &Session) -> Result<()> {
    let images = list(args.image.as_deref(), &args.filter, session).await?;
    if args.output != Format::Table {
        let answer = ListImagesResponse { images };
        return output::message(args.output, &answer);
    }
    if args.quiet {
        return images.iter().try_for_each(|image| output::line(&image.id));
    }
    if args.verbose {
        return images.iter().try_for_each(describe);
    }
    print_table(&args, &images, session)
}

/// The images of a name that pass the filters, in the order of their names.
pub(crate) async fn list(name: Option<&str>, filters: &[String], session: &Session) -> Result<Vec<Image>> {
    let spec = name.map(|name| ImageSpec { image: name.to_owned(), ..ImageSpec::default() });
    let filter = spec.map(|spec| ImageFilter { image: Some(spec) });
    let answer = session.images().await?.list_images(ListImagesRequest { filter }).await;
    let mut images = answer.map_err(Error::call("list images"))?.into_inner().images;
    images.sort_by(|a, b| (&a.repo_tags, &a.repo_digests).cmp(&(&b.repo_tags, &b.repo_digests)));
    filter::apply(images, filters)
}

/// The id of an image by any of its names, or a beginning of its id; none when it is not on the node.
pub(crate) async fn id(name: &str, session: &Session) -> Result<Option<String>> {
    let image = Some(ImageSpec { image: name.to_owned(), ..ImageSpec::default() });
    let request = ImageStatusRequest { image, verbose: false };
    let answer = session.images().await?.image_status(request).await;
    let answer = answer.map_err(Error::call(format!("find image {name}")))?.into_inner();
    Ok(answer.image.map(|image| image.id))
}

/// A line of the table: an image under one of its names.
struct Named {
    name: String,
    tag: String,
    digest: String,
    image: Image,
}

const IMAGE: Column<Named> = Column { head: "IMAGE", cell: |named, _| named.name.clone() };
const TAG: Column<Named> = Column { head: "TAG", cell: |named, _| named.tag.clone() };
const DIGEST: Column<Named> = Column { head: "DIGEST", cell: |named, ids| ids.show(&named.digest) };
const ID: Column<Named> = Column { head: "IMAGE ID", cell: |named, ids| ids.show(&named.image.id) };
const SIZE: Column<Named> = Column { head: "SIZE", cell: |named, _| units::size(named.image.size) };
const PINNED: Column<Named> = Column { head: "PINNED", cell: |named, _| named.image.pinned.to_string() };

fn print_table(args: &Args, images: &[Image], session: &Session) -> Result<()> {
    let mut columns = vec![&IMAGE, &TAG];
    columns.extend(args.digests.then_some(&DIGEST));
    columns.extend([&ID, &SIZE]);
    columns.extend(args.pinned.then_some(&PINNED));
    let lines: Vec<Named> = images.iter().flat_map(lines).collect();
    table::print(session.style, &columns, &lines, Ids::new(args.no_trunc))
}

fn lines(image: &Image) -> Vec<Named> {
    let digest = image.repo_digests.first().and_then(|digest| digest.split_once('@'));
    let (repository, digest) = digest.unwrap_or(("<none>", "<none>"));
    let line = |(name, tag): (&str, &str)| Named {
        name: name.to_owned(),
        tag: tag.to_owned(),
        digest: digest.to_owned(),
        image: image.clone(),
    };
    names(image, repository).into_iter().map(line).collect()
}

fn names<'a>(image: &'a Image, repository: &'a str) -> Vec<(&'a str, &'a str)> {
    if image.repo_tags.is_empty() {
        return vec![(repository, "<none>")];
    }
    image.repo_tags.iter().map(|name| name.rsplit_once(':').unwrap_or((name, "<none>"))).collect()
}

fn describe(image: &Image) -> Result<()> {
    output::line(format_args!("ID: {}", image.id))?;
    for tag in &image.repo_tags {
        output::line(format_args!("RepoTags: {tag}"))?;
    }
    for digest in &image.repo_digests {
        output::line(format_args!("RepoDigests: {digest}"))?;
    }
    if image.size != 0 {
        output::line(format_args!("Size: {}", image.size))?;
    }
    if let Some(uid) = &image.uid {
        output::line(format_args!("Uid: {}", uid.value))?;
    }
    if !image.username.is_empty() {
        output::line(format_args!("Username: {}", image.username))?;
    }
    if image.pinned {
        output::line("Pinned: true")?;
    }
    output::line("")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_no_tag() {
        let image = Image { repo_tags: vec!["localhost:5000/a:b".to_owned()], ..Image::default() };
        assert_eq!(names(&image, "x"), [("localhost:5000/a", "b")]);
        assert_eq!(names(&Image::default(), "x"), [("x", "<none>")]);
    }
}

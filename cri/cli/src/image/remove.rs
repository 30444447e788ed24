//! `rmi`: remove images with all their tags.

use std::collections::BTreeSet;

use slipway_proto::runtime::v1::{
    Image, ImageSpec, ImageStatusRequest, ListContainersRequest, ListImagesRequest, RemoveImageRequest,
};

use crate::connection::{ImageClient, Session};
use crate::each::each;
use crate::error::{Error, Result};
use crate::output;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Remove all images
    #[arg(short, long)]
    all: bool,
    /// Also what is left of damaged images; one that is not here is no error
    #[arg(short, long)]
    force: bool,
    /// Remove all images that no container uses
    #[arg(short = 'q', long)]
    prune: bool,
    /// Ids or names
    #[arg(required_unless_present_any = ["all", "prune"])]
    images: Vec<String>,
}

pub(crate) async fn perform(args: Args, session: &Session) -> Result<()> {
    let client = session.images().await?;
    let mut names: BTreeSet<String> = args.images.iter().cloned().collect();
    if args.all || args.prune {
        let listed = client.clone().list_images(ListImagesRequest { filter: None }).await;
        let listed = listed.map_err(Error::call("list images"))?.into_inner().images;
        names.extend(listed.into_iter().filter(|image| args.all || !image.pinned).map(|image| image.id));
    }
    if args.prune {
        for used in used_images(session).await? {
            names.remove(&used);
        }
    }
    if names.is_empty() {
        output::note("no images to remove");
        return Ok(());
    }
    let names: Vec<String> = names.into_iter().collect();
    if args.force {
        return each(&names, async |name| force(name, client.clone()).await, session).await;
    }
    each(&names, async |name| remove(name, client.clone(), args.prune).await, session).await
}

async fn used_images(session: &Session) -> Result<Vec<String>> {
    let listed = session.runtime().await?.list_containers(ListContainersRequest { filter: None }).await;
    let containers = listed.map_err(Error::call("list containers"))?.into_inner().containers;
    let mut used = Vec::new();
    let mut client = session.images().await?;
    for container in containers {
        let name = container.image.map(|image| image.image).unwrap_or_default();
        used.extend(status(&mut client, &name).await?.map(|image| image.id));
        used.push(container.image_id);
    }
    Ok(used)
}

async fn status(client: &mut ImageClient, name: &str) -> Result<Option<Image>> {
    let request = ImageStatusRequest { image: Some(spec(name)), verbose: false };
    let answer = client.image_status(request).await.map_err(Error::call(format!("find image {name}")))?;
    Ok(answer.into_inner().image)
}

async fn remove(name: &str, mut client: ImageClient, racing: bool) -> Result<()> {
    let found = status(&mut client, name).await?;
    let image = found.ok_or_else(|| Error::Refused(format!("no such image {name}")))?;
    let is_tag = !name.starts_with("sha256:") && name.contains([':', '/']);
    if is_tag && image.repo_tags.len() > 1 {
        output::note(format_args!(
            "warning: {name} is removed with all its tags: {}",
            image.repo_tags.join(", ")
        ));
    }
    let removed = client.remove_image(RemoveImageRequest { image: Some(spec(name)) }).await;
    match removed.map_err(Error::call(format!("remove image {name}"))) {
        Ok(_) => {}
        // It may have come into use meanwhile.
        Err(_) if racing => return Ok(()),
        Err(error) => return Err(error),
    }
    let names = if image.repo_tags.is_empty() { &image.repo_digests } else { &image.repo_tags };
    names.iter().try_for_each(|name| output::line(format_args!("Deleted: {name}")))
}

/// Removes an image without asking for its state first, which for a damaged one can't be told.
async fn force(name: &str, mut client: ImageClient) -> Result<()> {
    let removed = client.remove_image(RemoveImageRequest { image: Some(spec(name)) }).await;
    removed.map_err(Error::call(format!("remove image {name}")))?;
    output::line(format_args!("Deleted: {name}"))
}

fn spec(image: &str) -> ImageSpec {
    ImageSpec { image: image.to_owned(), ..ImageSpec::default() }
}

//! Pulls of a large image into a store that has nothing of it.

use crate::Failure;
use crate::life::milliseconds;
use crate::subject::Subject;
use crate::table::Section;
use slipway_proto::runtime::v1::image_service_client::ImageServiceClient;
use slipway_proto::runtime::v1::{ImageSpec, PullImageRequest, RemoveImageRequest};
use std::time::Instant;
use tonic::transport::Channel;

/// How often: their median counts.
const PULLS: usize = 3;

/// Pulls in turns.
pub(crate) async fn measure(subjects: &mut [Subject], image: &str) -> Section {
    let mut section = Section::new(subjects, "pull of a large image into an empty store");
    for _ in 0..PULLS {
        for (place, subject) in subjects.iter_mut().enumerate() {
            // All dirty pages are written first, so that no pull is charged with the writeback of another.
            rustix::fs::sync();
            match pull(&mut subject.images, image).await {
                Ok(time) => section.add(place, ("PullImage", "ms"), time),
                Err(error) => section.failed(place, &error),
            }
        }
    }
    section.note(
        "slipway syncs what it unpacked before it answers; containerd, as it is delivered, does not".into(),
    );
    section
}

async fn pull(client: &mut ImageServiceClient<Channel>, image: &str) -> Result<f64, Failure> {
    let image = ImageSpec { image: image.into(), ..ImageSpec::default() };
    client.remove_image(RemoveImageRequest { image: Some(image.clone()) }).await?;
    let since = Instant::now();
    client.pull_image(PullImageRequest { image: Some(image), ..PullImageRequest::default() }).await?;
    Ok(milliseconds(since))
}

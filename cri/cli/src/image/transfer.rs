//! The progress of a pull or a push: one line on standard error for each blob that is complete.

use slipway_proto::slipway::v1::{
    BlobPhase, BlobProgress, TransferDone, TransferEvent, transfer_event::Event,
};
use tonic::Streaming;

use crate::error::{Error, Result};
use crate::{output, units};

/// Follows a transfer to its end.
pub(crate) async fn follow(
    mut events: Streaming<TransferEvent>,
    action: &str,
    quiet: bool,
) -> Result<TransferDone> {
    while let Some(event) = events.message().await.map_err(Error::call(action))? {
        match event.event {
            Some(Event::Done(done)) => return Ok(done),
            Some(Event::Progress(progress)) if !quiet => {
                if let Some(line) = finished(&progress) {
                    output::note(line);
                }
            }
            Some(Event::Progress(_)) | None => {}
        }
    }
    Err(Error::Ended { action: action.to_owned() })
}

fn finished(progress: &BlobProgress) -> Option<String> {
    let blob = units::short(&progress.digest);
    match progress.phase() {
        BlobPhase::Exists => Some(format!("{blob}: exists")),
        BlobPhase::Complete if progress.total == 0 => Some(format!("{blob}: done")),
        BlobPhase::Complete => Some(format!("{blob}: done, {}", units::size(progress.total))),
        BlobPhase::Unspecified | BlobPhase::Transfer | BlobPhase::Unpack => None,
    }
}

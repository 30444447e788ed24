//! The `request` records of earlier releases: the caller kept its own record beside each of ours, with its own idea of how
//! far the life of the pod or container has gone.

use crate::document::Document;
use crate::life::PodEvent;
use crate::owner::Owner;
use crate::state::{Healed, Place, note};
use serde::Deserialize;
use serde_json::Value;
use slipway_disk::record::Damage;

/// The part of a `request` record that is the runtime's today.
#[derive(Debug, Deserialize)]
pub(crate) struct Request {
    pub(crate) owner: Owner,
    pub(crate) phase: Phase,
}

/// How far the life of a pod or container had gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Phase {
    /// It was there.
    Live,
    /// It was to be stopped.
    Stopping,
    /// It was to be removed.
    Removing,
}

impl Phase {
    pub(crate) fn event(self) -> Option<PodEvent> {
        match self {
            Self::Live => None,
            Self::Stopping => Some(PodEvent::Stop),
            Self::Removing => Some(PodEvent::Remove),
        }
    }
}

/// Reads the `request` record of a pod or container; none where it is absent, or was torn by a power cut.
///
/// # Errors
/// [`Damage`] of the record.
pub(crate) fn request(place: &Place, healed: &mut Healed) -> Result<Option<(Request, Document)>, Damage> {
    let slot = place.former_request();
    let loaded = match slot.take_up::<Value>() {
        Ok(Some(loaded)) => loaded,
        Ok(None) => return Ok(None),
        Err(damage) if damage.torn => return Ok(None),
        Err(damage) => return Err(damage),
    };
    note(healed, &slot, &loaded);
    let damage = |error: serde_json::Error| Damage {
        path: slot.path().to_owned(),
        reason: error.to_string(),
        torn: false,
    };
    let request = Request::deserialize(&loaded.value).map_err(damage)?;
    Ok(Some((request, Document::from(loaded.value))))
}

//! A pull: reference -> index -> manifest -> all missing layers at once -> one sync -> records -> the tag.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use slipway_disk::{Follow, SingleFlight};
use slipway_reference::Reference;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::credentials::Credentials;
use crate::digest::{ChainId, DiffId, Digest, ImageId};
use crate::error::{Error, Result};
use crate::image::{Leased, PullProgress};
use crate::index::Held;
use crate::layers::{self, Placed};
use crate::lease::Lease;
use crate::once;
use crate::records::{Compressed, ImageRecord, LayerKey, ManifestRecord, VERSION};
use crate::registry::{Access, Descriptor, Manifest, Session};
use crate::store::Shared;
use crate::{gc, images};

mod choose;
mod layer;

use choose::Chosen;

pub(crate) use layer::Outcome;

/// Pulls in flight.
#[derive(Debug)]
pub(crate) struct Pulls {
    images: SingleFlight<(String, Digest), Result<(ImageId, Lease)>, Meter>,
    layers: SingleFlight<LayerKey, Result<Outcome>>,
    parallel: Arc<Semaphore>,
}

impl Pulls {
    pub(crate) fn new(parallel: usize) -> Self {
        Self {
            images: SingleFlight::default(),
            layers: SingleFlight::default(),
            parallel: Arc::new(Semaphore::new(parallel.max(1))),
        }
    }
}

/// How far a pull is, for everyone who waits for it.
#[derive(Clone, Debug)]
pub(crate) struct Meter(Arc<watch::Sender<PullProgress>>);

impl Meter {
    fn new() -> Self {
        Self(Arc::new(watch::Sender::new(PullProgress::default())))
    }

    fn add(&self, change: impl FnOnce(&mut PullProgress)) {
        self.0.send_modify(change);
    }
}

/// The facts of an image that its pull needs.
struct Plan {
    target: Digest,
    digest: Digest,
    manifest: Manifest,
    /// The objects that go to `blobs/` beside the layers.
    objects: Vec<(Digest, Vec<u8>)>,
    diff_ids: Vec<DiffId>,
}

/// Pulls an image. Every error names the image first, then the layer where it is one layer's.
pub(crate) async fn pull(
    shared: &Arc<Shared>,
    reference: &Reference,
    credentials: &Credentials,
    progress: &(dyn Fn(PullProgress) + Sync),
) -> Result<Leased> {
    let pulled = join(shared, reference, credentials, progress).await;
    pulled.map_err(|error| error.of_image(reference))
}

async fn join(
    shared: &Arc<Shared>,
    reference: &Reference,
    credentials: &Credentials,
    progress: &(dyn Fn(PullProgress) + Sync),
) -> Result<Leased> {
    let session = Arc::new(Session::new(reference, credentials, Access::Pull, &shared.config)?);
    let fetched = session.manifest(&reference.selector(), "its manifest").await?;
    let key = (reference.name(), fetched.digest);
    let seat = once::join(&shared.pulls.images, &key, Meter::new(), |meter| {
        let work = Work {
            shared: Arc::clone(shared),
            session,
            name: reference.name(),
            meter,
            refused: Arc::default(),
        };
        async move { work.run(fetched).await }
    });
    let (id, lease) = wait(&seat, progress).await.ok_or(Error::Cancelled { what: "its pull".into() })??;
    let (shared, reference) = (Arc::clone(shared), reference.clone());
    blocking(move || {
        if reference.digest().is_none() {
            images::tag(&shared, &id, &reference)?;
        }
        let mut index = shared.index();
        // A pull that joined another has its image from now on, whatever prunes began since the other wrote it.
        index.touch(&id);
        let image = index.image(&id).ok_or_else(|| Error::ImageMissing { name: reference.to_string() })?;
        Ok(Leased { image, lease })
    })
    .await
}

type ImageSeat = Follow<(String, Digest), Result<(ImageId, Lease)>, Meter>;

async fn wait(
    seat: &ImageSeat,
    progress: &(dyn Fn(PullProgress) + Sync),
) -> Option<Result<(ImageId, Lease)>> {
    let mut changes = seat.shared().0.subscribe();
    loop {
        tokio::select! {
            biased;
            result = seat.value() => {
                let last = *changes.borrow();
                progress(last);
                return result;
            }
            Ok(()) = changes.changed() => {
                let now = *changes.borrow_and_update();
                progress(now);
            }
        }
    }
}

/// Runs what touches the disk off the async threads.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let joined = tokio::task::spawn_blocking(work).await;
    joined.unwrap_or_else(|_| Err(Error::Cancelled { what: "work on the image store".into() }))
}

/// One pull's work.
struct Work {
    shared: Arc<Shared>,
    session: Arc<Session>,
    /// The repository.
    name: String,
    meter: Meter,
    /// The image was refused: what its layers' fetches still hold is dropped.
    refused: Arc<AtomicBool>,
}

impl Work {
    async fn run(self, fetched: crate::registry::session::Fetched) -> Result<(ImageId, Lease)> {
        let plan = self.plan(fetched).await?;
        let (shared, refused) = (Arc::clone(&self.shared), Arc::clone(&self.refused));
        let (diff_ids, blobs) = (plan.diff_ids.clone(), plan.manifest.layers.clone());
        let outcome = self.fetch(plan).await;
        if outcome.as_ref().is_err_and(Error::is_final) {
            refused.store(true, Ordering::SeqCst);
            let blobs = blobs.iter().map(|blob| blob.digest).collect::<Vec<_>>();
            blocking(move || gc::discard(&shared, &diff_ids, &blobs)).await?;
        }
        outcome
    }

    async fn fetch(self, plan: Plan) -> Result<(ImageId, Lease)> {
        let mut held = layers::held(&plan.diff_ids);
        held.extend(plan.objects.iter().map(|(digest, _)| Held::Blob(*digest)));
        held.extend(plan.manifest.layers.iter().map(|layer| Held::Blob(layer.digest)));
        let id = ImageId(plan.manifest.config.digest);
        held.push(Held::Image(id));
        let lease = Lease::take(&self.shared, held);
        let placed = self.layers(&plan).await?;
        let (shared, name) = (self.shared, self.name);
        blocking(move || {
            for (digest, bytes) in &plan.objects {
                images::write_blob(&shared, digest, bytes)?;
            }
            shared.record_layers(&placed)?;
            let keys = shared.index().keys(&plan.diff_ids)?;
            for (key, layer) in keys.iter().zip(&plan.manifest.layers) {
                let Descriptor { media_type, digest, size, .. } = layer.clone();
                shared.remember(key, Compressed { media_type, digest, size })?;
            }
            let manifests = vec![ManifestRecord { name, target: plan.target, manifest: plan.digest }];
            let layers = plan.diff_ids;
            images::put(&shared, ImageRecord { version: VERSION, id, layers, manifests, built: false })
        })
        .await?;
        Ok((id, lease))
    }

    /// Finds the manifest and the configuration; nothing is written yet.
    async fn plan(&self, fetched: crate::registry::session::Fetched) -> Result<Plan> {
        let rejected = |reason: String| Error::ManifestRejected { object: "its manifest".into(), reason };
        let Chosen { target, digest, manifest, config, mut objects } =
            choose::choose(&self.session, fetched).await?;
        let diff_ids = diff_ids(&config.bytes).map_err(rejected)?;
        let most = self.shared.config.limits.max_bytes;
        if let Some(layer) = manifest.layers.iter().find(|layer| layer.size > most) {
            let Descriptor { digest, size, .. } = layer;
            return Err(rejected(format!(
                "its layer {digest} has {size} bytes, more than {most}, the configured limit"
            )));
        }
        if diff_ids.len() != manifest.layers.len() {
            let (layers, said) = (manifest.layers.len(), diff_ids.len());
            return Err(rejected(format!("it has {layers} layers, but its configuration names {said}")));
        }
        objects.push((config.digest, config.bytes));
        Ok(Plan { target, digest, manifest, objects, diff_ids })
    }

    /// Fetches every missing layer at once, then those that lean on what lies below, in order.
    async fn layers(&self, plan: &Plan) -> Result<Vec<Placed>> {
        let chain = ChainId::of(&plan.diff_ids);
        let sizes = plan.manifest.layers.iter().map(|layer| layer.size);
        let (layers, bytes) = (plan.diff_ids.len(), sizes.fold(0, u64::saturating_add));
        self.meter.add(|progress| (progress.layers, progress.bytes) = (layers, bytes));
        let mut tasks = JoinSet::new();
        let mut asked = std::collections::HashSet::new();
        for ((diff_id, chain_id), descriptor) in plan.diff_ids.iter().zip(&chain).zip(&plan.manifest.layers) {
            let keys = [LayerKey::Diff(*diff_id), LayerKey::Chain(*chain_id)];
            let here = keys.into_iter().find_map(|key| self.shared.placed(key));
            if here.is_some() || !asked.insert(*diff_id) {
                self.meter.add(|progress| {
                    progress.layers_done += 1;
                    progress.bytes_done += descriptor.size;
                });
            }
            match here {
                Some(placed) => drop(tasks.spawn(async move { Ok(Outcome::Placed(placed)) })),
                None => drop(tasks.spawn(self.ask(LayerKey::Diff(*diff_id), *diff_id, descriptor, None))),
            }
        }
        let (mut placed, mut failure) = (Vec::new(), None);
        while let Some(joined) = tasks.join_next().await {
            match joined {
                Ok(Ok(Outcome::Placed(one))) => placed.push(one),
                Ok(Ok(Outcome::NeedsBelow)) | Err(_) => {}
                Ok(Err(error)) => {
                    failure.get_or_insert(error);
                    tasks.abort_all();
                }
            }
        }
        placed = self.record(placed).await?;
        failure.map_or(Ok(()), Err)?;
        for (at, descriptor) in plan.manifest.layers.iter().enumerate() {
            let up_to = plan.diff_ids.get(..=at).unwrap_or_default();
            if self.shared.index().keys(up_to).is_err() {
                placed.push(self.leaning(up_to, descriptor).await?);
            }
        }
        Ok(placed)
    }

    /// A complete layer is recorded even if the pull fails: the next try has it.
    async fn record(&self, placed: Vec<Placed>) -> Result<Vec<Placed>> {
        let shared = Arc::clone(&self.shared);
        blocking(move || shared.record_layers(&placed).map(|()| placed)).await
    }

    /// A layer that leans on those below, which are recorded by now.
    async fn leaning(&self, up_to: &[DiffId], descriptor: &Descriptor) -> Result<Placed> {
        let diff_id = up_to.last().copied().unwrap_or(DiffId(descriptor.digest));
        let below = up_to.get(..up_to.len().saturating_sub(1)).unwrap_or_default().to_vec();
        let key = LayerKey::Chain(ChainId::of(up_to).last().copied().unwrap_or(ChainId(diff_id.0)));
        match self.ask(key, diff_id, descriptor, Some(below)).await? {
            Outcome::Placed(placed) => {
                self.record(vec![placed.clone()]).await?;
                Ok(placed)
            }
            Outcome::NeedsBelow => Err(Error::LayerMissing { layer: diff_id.to_string() }),
        }
    }

    /// Joins the work on a layer, or starts it.
    fn ask(
        &self,
        key: LayerKey,
        diff_id: DiffId,
        descriptor: &Descriptor,
        below: Option<Vec<DiffId>>,
    ) -> impl Future<Output = Result<Outcome>> + use<> {
        let seat = once::join(&self.shared.pulls.layers, &key, (), |()| {
            let fetch = layer::Fetch {
                shared: Arc::clone(&self.shared),
                session: Arc::clone(&self.session),
                key,
                diff_id,
                descriptor: descriptor.clone(),
                below,
                meter: self.meter.clone(),
                refused: Arc::clone(&self.refused),
            };
            async move { fetch.run().await }
        });
        let digest = descriptor.digest;
        async move {
            let cancelled = || Error::Cancelled { what: "its pull".into() };
            let outcome = seat.value().await.unwrap_or_else(|| Err(cancelled()));
            outcome.map_err(|error| error.of_layer(digest))
        }
    }
}

/// The diff ids that a configuration names; it has to be one that a container can run from.
fn diff_ids(config: &[u8]) -> Result<Vec<DiffId>, String> {
    let unusable =
        |error: &dyn std::fmt::Display| format!("its configuration is not one of a container image: {error}");
    let parsed: oci_spec::image::ImageConfiguration =
        serde_json::from_slice(config).map_err(|error| unusable(&error))?;
    parsed
        .rootfs()
        .diff_ids()
        .iter()
        .map(|text| text.parse().map_err(|error: Error| unusable(&error)))
        .collect()
}

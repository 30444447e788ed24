//! Flags that choose containers, and the choice among those that the CRI lists.

use slipway_proto::runtime::v1::{
    Container, ContainerFilter, ContainerState, ContainerStateValue, ListContainersRequest,
};
use slipway_proto::slipway::v1 as slipway;

use crate::connection::Session;
use crate::error::{Error, Result};
use crate::filter::{self, Pattern};
use crate::image;

/// The containers in question.
#[derive(Clone, Debug, Default, clap::Args)]
#[group(skip)]
pub(crate) struct Which {
    /// Also those that don't run
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Only the one of this id
    #[arg(long)]
    pub(crate) id: Option<String>,
    /// Only those whose names fit a regular expression
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Only those of this pod
    #[arg(short, long)]
    pub(crate) pod: Option<String>,
    /// Only those of this image
    #[arg(long)]
    pub(crate) image: Option<String>,
    /// Only those of pods whose namespaces fit a regular expression
    #[arg(long)]
    pub(crate) namespace: Option<String>,
    /// Only those created, running, exited or unknown
    #[arg(short, long)]
    pub(crate) state: Option<String>,
    /// Only those with this label
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) label: Vec<String>,
    /// Only the newest, whether it runs or not
    #[arg(short, long)]
    pub(crate) latest: bool,
    /// Only the newest so many, whether they run or not
    #[arg(short = 'n', long)]
    pub(crate) last: Option<usize>,
}

impl Which {
    /// Every container.
    pub(crate) fn all() -> Self {
        Self { all: true, ..Self::default() }
    }

    /// The state that is asked for; none for all.
    pub(crate) fn state(&self) -> Result<Option<ContainerState>> {
        match self.state.as_deref().map(str::to_ascii_lowercase).as_deref() {
            Some("created") => Ok(Some(ContainerState::ContainerCreated)),
            Some("running") => Ok(Some(ContainerState::ContainerRunning)),
            Some("exited") => Ok(Some(ContainerState::ContainerExited)),
            Some("unknown") => Ok(Some(ContainerState::ContainerUnknown)),
            Some(other) => Err(Error::Usage(format!(
                "state {other} is not known: use created, running, exited or unknown"
            ))),
            None if self.all || self.latest || self.last.is_some() => Ok(None),
            None => Ok(Some(ContainerState::ContainerRunning)),
        }
    }
}

/// The containers of pods that the flags choose, the newest first.
pub(crate) async fn list(which: &Which, session: &Session) -> Result<Vec<Container>> {
    let (name, namespace) = (Pattern::new(which.name.as_deref())?, Pattern::new(which.namespace.as_deref())?);
    let filter = ContainerFilter {
        id: which.id.clone().unwrap_or_default(),
        state: which.state()?.map(|state| ContainerStateValue { state: state.into() }),
        pod_sandbox_id: which.pod.clone().unwrap_or_default(),
        label_selector: filter::pairs(&which.label, "label")?,
    };
    let answer =
        session.runtime().await?.list_containers(ListContainersRequest { filter: Some(filter) }).await;
    let mut items = answer.map_err(Error::call("list containers"))?.into_inner().containers;
    let image = match &which.image {
        Some(image) => Some(image::list::id(image, session).await?),
        None => None,
    };
    items.retain(|container| {
        name.fits(name_of(container))
            && namespace.fits(label(container, "io.kubernetes.pod.namespace"))
            && image.as_ref().is_none_or(|id| id.as_ref() == Some(&container.image_id))
    });
    Ok(filter::newest(items, |container| container.created_at, filter::count(which.latest, which.last)))
}

/// The ids of the containers that `slipway run` has made; unless all are wanted, of those that run. Verbs with `--all` act on
/// these alone: other owners' containers are not touched in bulk.
pub(crate) async fn of_run(all: bool, session: &Session) -> Result<Vec<String>> {
    let owners = vec![slipway::ContainerOwner::Run.into()];
    let request = slipway::ListContainersRequest { all, owners, ..slipway::ListContainersRequest::default() };
    let answer = session.slipway().await?.list_containers(request).await;
    let listed = answer.map_err(Error::call("list containers"))?.into_inner().containers;
    Ok(listed.into_iter().map(|container| container.id).collect())
}

/// The name that the pod has for a container.
pub(crate) fn name_of(container: &Container) -> &str {
    container.metadata.as_ref().map_or("", |metadata| &metadata.name)
}

/// A label of a container, which containers that kubelet has not made may lack.
pub(crate) fn label<'a>(container: &'a Container, key: &str) -> &'a str {
    container.labels.get(key).map_or("unknown", String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_running_ones_unless_asked_otherwise() {
        assert_eq!(Which::default().state().unwrap(), Some(ContainerState::ContainerRunning));
        assert_eq!(Which { all: true, ..Which::default() }.state().unwrap(), None);
        assert_eq!(Which { latest: true, ..Which::default() }.state().unwrap(), None);
        let exited = Which { all: true, state: Some("Exited".to_owned()), ..Which::default() };
        assert_eq!(exited.state().unwrap(), Some(ContainerState::ContainerExited));
        assert!(Which { state: Some("gone".to_owned()), ..Which::default() }.state().is_err());
    }
}

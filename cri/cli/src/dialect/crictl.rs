//! crictl's dialect: the CRI alone, to any runtime that serves it.

use super::{Dialect, UnknownVerb};
use crate::config::Place;
use crate::connection::Sources;
use crate::style::{RefusedCall, Style};
use crate::verb::{NoArguments, Verb, verb};
use crate::{container, image, pod, system};

pub(crate) static CRICTL: Dialect = Dialect {
    style: Style { program: "crictl", column_width: 20, refused_call: RefusedCall::CodeAndMessage },
    about: "Speaks the Container Runtime Interface to a runtime",
    version: concat!("version v", env!("CARGO_PKG_VERSION")),
    sources: Sources {
        runtime_variables: &["CONTAINER_RUNTIME_ENDPOINT"],
        image_variables: &["IMAGE_SERVICE_ENDPOINT"],
        config: Some(Place { variable: "CRI_CONFIG_FILE", path: "/etc/crictl.yaml" }),
    },
    verbs: VERBS,
    unserved: &[
        "attach",
        "checkpoint",
        "completion",
        "config",
        "event",
        "events",
        "metricdescs",
        "metricsp",
        "port-forward",
        "runtime-config",
        "stats",
        "statsp",
        "update",
        "update-runtime-config",
        "pod-checkpoint",
        "pod-restore",
    ],
    unknown_verb: UnknownVerb::NoHelpTopic,
};

static VERBS: &[Verb] = &[
    verb!("version", "Show the versions", NoArguments => system::version::by_cri),
    verb!(
        "info", "Show whether the runtime is ready and what it can do",
        system::info::Args => system::info::perform,
    ),
    verb!("pull", "Pull an image from its registry", image::pull::Args => image::pull::by_cri),
    verb!("images", "List images", image::list::Args => image::list::perform, aliases: &["image", "img"]),
    verb!("inspecti", "Show the state of images", image::inspect::Args => image::inspect::perform),
    verb!(
        "rmi", "Remove images", image::remove::Args => image::remove::perform, helps_without_arguments: true,
    ),
    verb!("imagefsinfo", "Show the room that images take", image::fs_info::Args => image::fs_info::perform),
    verb!("runp", "Run a new pod", pod::run::Args => pod::run::perform, helps_without_arguments: true),
    verb!("pods", "List pods", pod::list::Args => pod::list::perform),
    verb!("inspectp", "Show the state of pods", pod::inspect::Args => pod::inspect::perform),
    verb!("stopp", "Stop pods", pod::stop::Args => pod::stop::perform, helps_without_arguments: true),
    verb!("rmp", "Remove pods", pod::remove::Args => pod::remove::perform, helps_without_arguments: true),
    verb!(
        "create", "Create a container in a pod",
        container::create::Args => container::create::perform,
        helps_without_arguments: true,
    ),
    verb!("start", "Start created containers", container::start::Args => container::start::by_cri),
    verb!("ps", "List containers", container::list::Args => container::list::by_cri),
    verb!("inspect", "Show the state of containers", container::inspect::Args => container::inspect::by_cri),
    verb!("logs", "Show what a container has written", container::logs::Args => container::logs::by_cri),
    verb!("stop", "Stop containers", container::stop::Args => container::stop::by_cri),
    verb!(
        "rm", "Remove containers",
        container::remove::Args => container::remove::by_cri,
        helps_without_arguments: true,
    ),
    verb!(
        "run", "Run a new container in a new pod",
        container::run_files::Args => container::run_files::perform,
        helps_without_arguments: true,
    ),
    verb!(
        "exec", "Run a command in containers",
        container::exec_sync::Args => container::exec_sync::perform,
        helps_without_arguments: true,
    ),
];

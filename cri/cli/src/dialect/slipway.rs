//! Slipway's dialect: slipway.v1, which has builds, pushes and the containers of every owner. Where a runtime does not serve
//! it, the verbs that the CRI has as well use the CRI.

use super::{Dialect, UnknownVerb};
use crate::connection::Sources;
use crate::error::Error;
use crate::style::{RefusedCall, Style};
use crate::verb::{NoArguments, Verb, verb};
use crate::{container, image, pod, system};

pub(crate) static SLIPWAY: Dialect = Dialect {
    style: Style { program: "slipway", column_width: 0, refused_call: RefusedCall::Message },
    about: "Builds, ships and runs containers with the Slipway daemon",
    version: env!("CARGO_PKG_VERSION"),
    sources: Sources {
        runtime_variables: &["SLIPWAY_ADDRESS", "CONTAINER_RUNTIME_ENDPOINT"],
        image_variables: &["IMAGE_SERVICE_ENDPOINT"],
        config: None,
    },
    verbs: VERBS,
    unserved: &[],
    unknown_verb: UnknownVerb::Usage,
};

const RUN_STATUS: &str = "\
Exit status:
  that of the command, or 128 and the signal that ended it
  125 when slipway fails: no such image, a name or port in use, the daemon lost
  126 when the program can't be executed
  127 when there is no such program";

static VERBS: &[Verb] = &[
    verb!("version", "Show the versions", NoArguments => system::version::by_slipway),
    verb!(
        "info", "Show whether the runtime is ready and what it can do",
        system::info::Args => system::info::perform,
    ),
    verb!("pull", "Pull an image from its registry", image::pull::Args => image::pull::by_slipway),
    verb!("images", "List images", image::list::Args => image::list::perform, aliases: &["image", "img"]),
    verb!("inspecti", "Show the state of images", image::inspect::Args => image::inspect::perform),
    verb!("rmi", "Remove images", image::remove::Args => image::remove::perform),
    verb!("imagefsinfo", "Show the room that images take", image::fs_info::Args => image::fs_info::perform),
    verb!("runp", "Run a new pod", pod::run::Args => pod::run::perform),
    verb!("pods", "List pods", pod::list::Args => pod::list::perform),
    verb!("inspectp", "Show the state of pods", pod::inspect::Args => pod::inspect::perform),
    verb!("stopp", "Stop pods", pod::stop::Args => pod::stop::perform),
    verb!("rmp", "Remove pods", pod::remove::Args => pod::remove::perform),
    verb!("create", "Create a container in a pod", container::create::Args => container::create::perform),
    verb!("start", "Start created containers", container::start::Args => container::start::by_slipway),
    verb!("ps", "List containers", container::list::Args => container::list_of_all::by_slipway),
    verb!(
        "inspect", "Show the state of containers", container::inspect::Args => container::inspect::by_slipway,
    ),
    verb!("logs", "Show what a container has written", container::logs::Args => container::logs::by_slipway),
    verb!("stop", "Stop containers", container::stop::Args => container::stop::by_slipway),
    verb!("rm", "Remove containers", container::remove::Args => container::remove::by_slipway),
    verb!(
        "run", "Run a command in a new container",
        container::run::Args => container::run::perform,
        after_help: RUN_STATUS,
        failed: Error::status_of_run,
    ),
    verb!("exec", "Run a command in a container", container::exec::Args => container::exec::perform),
    verb!(
        "attach", "Follow the streams of a container", container::attach::Args => container::attach::perform,
    ),
    verb!("build", "Build an image from a Dockerfile", image::build::Args => image::build::perform),
    verb!("push", "Push an image to its registry", image::push::Args => image::push::perform),
    verb!("tag", "Give an image one more name", image::tag::Args => image::tag::perform),
    verb!("untag", "Take names of images away", image::untag::Args => image::untag::perform),
    verb!("prune", "Remove what nothing uses", system::prune::Args => system::prune::perform),
    verb!("df", "Show where the room on the disk goes", system::df::Args => system::df::perform),
    verb!("check", "Verify the store", system::check::Args => system::check::perform),
];

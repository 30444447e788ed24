//! `version`: the versions of the runtime and of this program.

use slipway_proto::runtime::v1;
use slipway_proto::slipway::v1 as slipway;

use crate::connection::Session;
use crate::error::{Error, Result};
use crate::output;
use crate::verb::NoArguments;

/// Prints the answer of the CRI.
pub(crate) async fn by_cri(_: NoArguments, session: &Session) -> Result<()> {
    let request = v1::VersionRequest { version: "v1".to_owned() };
    let answer =
        session.runtime().await?.version(request).await.map_err(Error::call("ask for the version"))?;
    let answer = answer.into_inner();
    output::line(format_args!("Version:  {}", answer.version))?;
    output::line(format_args!("RuntimeName:  {}", answer.runtime_name))?;
    output::line(format_args!("RuntimeVersion:  {}", answer.runtime_version))?;
    output::line(format_args!("RuntimeApiVersion:  {}", answer.runtime_api_version))?;
    Ok(())
}

/// Prints also this program's version, and those of the kernel's features that Slipway uses, where slipway.v1 is served.
pub(crate) async fn by_slipway(arguments: NoArguments, session: &Session) -> Result<()> {
    by_cri(arguments, session).await?;
    output::line(format_args!("ClientVersion:  {}", env!("CARGO_PKG_VERSION")))?;
    let asked = session.slipway().await?.version(slipway::VersionRequest {}).await;
    match asked.map_err(Error::call("ask for the daemon's version")) {
        Ok(answer) => {
            let answer = answer.into_inner();
            output::line(format_args!("Kernel:  {}", answer.kernel))?;
            let mut features = answer.features.into_iter();
            features.try_for_each(|(name, value)| output::line(format_args!("Feature:  {name} = {value}")))
        }
        Err(error) if error.is_unimplemented() => Ok(()),
        Err(error) => Err(error),
    }
}

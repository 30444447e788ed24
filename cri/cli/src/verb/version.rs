//! `version`: who answers on the socket.

use slipway_proto::runtime::v1;
use slipway_proto::slipway::v1 as own;

use crate::connection::Session;
use crate::error::{Error, Result};
use crate::output;

pub(crate) async fn perform(session: &Session) -> Result<()> {
    let request = v1::VersionRequest { version: "v1".to_owned() };
    let answer =
        session.runtime().await?.version(request).await.map_err(Error::call("ask for the version"))?;
    let answer = answer.into_inner();
    output::line(format_args!("Version:  {}", answer.version))?;
    output::line(format_args!("RuntimeName:  {}", answer.runtime_name))?;
    output::line(format_args!("RuntimeVersion:  {}", answer.runtime_version))?;
    output::line(format_args!("RuntimeApiVersion:  {}", answer.runtime_api_version))?;
    if session.speaks_own() {
        output::line(format_args!("ClientVersion:  {}", env!("CARGO_PKG_VERSION")))?;
        let asked = session.own().await?.version(own::VersionRequest {}).await;
        match asked.map_err(Error::call("ask for the daemon's version")) {
            Ok(answer) => {
                let answer = answer.into_inner();
                output::line(format_args!("Kernel:  {}", answer.kernel))?;
                for (name, value) in answer.features {
                    output::line(format_args!("Feature:  {name} = {value}"))?;
                }
            }
            Err(error) if error.is_unimplemented() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

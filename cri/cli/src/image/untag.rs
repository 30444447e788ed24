//! `untag`: take names away. The images stay until they are pruned.

use slipway_proto::slipway::v1::UntagRequest;

use crate::connection::Session;
use crate::each::each;
use crate::error::{Error, Result};
use crate::output;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The names
    #[arg(required = true)]
    names: Vec<String>,
}

pub(crate) async fn perform(args: Args, session: &Session) -> Result<()> {
    let client = session.slipway().await?;
    let untag = async |name: &String| {
        let request = UntagRequest { name: name.clone() };
        client.clone().untag(request).await.map_err(Error::call(format!("untag {name}")))?;
        output::line(format_args!("Untagged: {name}"))
    };
    each(&args.names, untag, session).await
}

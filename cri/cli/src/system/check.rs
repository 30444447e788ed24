//! `check`: verify every object and layer of the store. The exit status is 1 when something stays wrong.

use slipway_proto::slipway::v1::CheckRequest;

use crate::connection::Session;
use crate::error::{Error, Result};
use crate::format::Format;
use crate::output;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Repair what can be repaired
    #[arg(long)]
    repair: bool,
    /// Output format: json, yaml or table
    #[arg(short, long, default_value = "table")]
    output: Format,
}

pub(crate) async fn perform(args: Args, session: &Session) -> Result<u8> {
    let answer = session.slipway().await?.check(CheckRequest { repair: args.repair }).await;
    let checked = answer.map_err(Error::call("check"))?.into_inner();
    let wrong = checked.findings.iter().filter(|finding| !finding.mended).count();
    if args.output != Format::Table {
        output::message(args.output, &checked)?;
    } else {
        for finding in &checked.findings {
            let mended = if finding.mended { " (mended)" } else { "" };
            output::line(format_args!("{}: {}{mended}", finding.object, finding.problem))?;
        }
        output::note(format_args!("{} objects checked, {wrong} wrong", checked.checked));
    }
    Ok(u8::from(wrong > 0))
}

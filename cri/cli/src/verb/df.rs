//! `df`: where the room on the disk goes.

use slipway_proto::slipway::v1::DiskUsageRequest;

use crate::args::Format;
use crate::connection::Session;
use crate::error::{Error, Result};
use crate::table::Table;
use crate::{output, units};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Output format: json, yaml or table
    #[arg(short, long, default_value = "table")]
    output: Format,
}

pub(crate) async fn perform(args: Args, session: &Session) -> Result<()> {
    let answer = session.own().await?.disk_usage(DiskUsageRequest {}).await;
    let usage = answer.map_err(Error::call("ask for the disk usage"))?.into_inner();
    if args.output != Format::Table {
        return output::message(args.output, "slipway.v1.DiskUsageResponse", &usage);
    }
    let mut table = Table::new(session.dialect, &["KIND", "COUNT", "SIZE", "RECLAIMABLE"]);
    for entry in usage.entries {
        let (size, reclaimable) = (units::size(entry.bytes), units::size(entry.reclaimable_bytes));
        table.row(vec![entry.kind, entry.count.to_string(), size, reclaimable]);
    }
    table.print()
}

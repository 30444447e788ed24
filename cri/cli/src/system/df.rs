//! `df`: the use of the disk by kind of data.

use slipway_proto::slipway::v1::{DiskUsageEntry, DiskUsageRequest};

use crate::connection::Session;
use crate::error::{Error, Result};
use crate::format::Format;
use crate::table::{self, Column};
use crate::units::Ids;
use crate::{output, units};

const COLUMNS: &[&Column<DiskUsageEntry>] = &[
    &Column { head: "KIND", cell: |entry, _| entry.kind.clone() },
    &Column { head: "COUNT", cell: |entry, _| entry.count.to_string() },
    &Column { head: "SIZE", cell: |entry, _| units::size(entry.bytes) },
    &Column { head: "RECLAIMABLE", cell: |entry, _| units::size(entry.reclaimable_bytes) },
];

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Output format: json, yaml or table
    #[arg(short, long, default_value = "table")]
    output: Format,
}

pub(crate) async fn perform(args: Args, session: &Session) -> Result<()> {
    let answer = session.slipway().await?.disk_usage(DiskUsageRequest {}).await;
    let usage = answer.map_err(Error::call("ask for the disk usage"))?.into_inner();
    if args.output != Format::Table {
        return output::message(args.output, &usage);
    }
    table::print(session.style, COLUMNS, &usage.entries, Ids::Whole)
}

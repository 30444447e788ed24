//! A verb that acts on several objects: one failure does not keep it from the others.

use std::fmt::Display;

use crate::connection::Session;
use crate::error::{Error, Result};
use crate::output;

/// Acts on each object in turn. Where there are several, the error of each is printed at once, and the result counts them.
pub(crate) async fn each<T: Display>(
    objects: &[T],
    mut act: impl AsyncFnMut(&T) -> Result<()>,
    session: &Session,
) -> Result<()> {
    let mut failed = 0;
    for object in objects {
        match act(object).await {
            Err(error) if objects.len() > 1 => {
                output::note(format_args!("{}: {}", session.style.program, error.describe(session.style)));
                failed += 1;
            }
            result => result?,
        }
    }
    if failed == 0 { Ok(()) } else { Err(Error::Several { failed, total: objects.len() }) }
}

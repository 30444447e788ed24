//! Signals: the CRI's numbers, an image's names, Linux's numbers.

use slipway_proto::runtime::v1 as cri;
use slipway_runtime::signal::{self, parse};

use super::Sources;
use crate::error::{Error, Result};

const TERM: i32 = 15;

/// The signal that asks a container to end: the request's, else the image's, else SIGTERM.
pub(crate) fn of(sources: &Sources<'_>) -> Result<i32> {
    let wanted = sources.config.stop_signal;
    let signal = cri::Signal::try_from(wanted)
        .map_err(|_| Error::invalid("config.stop_signal", format!("there is no signal {wanted}")))?;
    if signal != cri::Signal::RuntimeDefault {
        let name = signal.as_str_name().replace("PLUS", "+").replace("MINUS", "-");
        return parse(&name)
            .ok_or_else(|| Error::invalid("config.stop_signal", format!("{name} is unknown")));
    }
    let named = sources.image_config().stop_signal().clone().unwrap_or_default();
    if named.is_empty() {
        return Ok(TERM);
    }
    parse(&named).ok_or_else(|| {
        Error::invalid(
            "config.image",
            format!("its STOPSIGNAL {named:?} is no signal: build it with another"),
        )
    })
}

/// The CRI's name of a number.
pub(crate) fn to_cri(number: i32) -> cri::Signal {
    let name = signal::name(number).replace('+', "PLUS").replace('-', "MINUS");
    cri::Signal::from_str_name(&name).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_signal_of_the_cri_has_a_number_and_comes_back() {
        for value in 1..=65 {
            let signal = cri::Signal::try_from(value).unwrap();
            let name = signal.as_str_name().replace("PLUS", "+").replace("MINUS", "-");
            let number = parse(&name).unwrap();
            let again = to_cri(number);
            let name = again.as_str_name().replace("PLUS", "+").replace("MINUS", "-");
            assert_eq!(parse(&name), Some(number), "{signal:?} {again:?}");
        }
    }
}

//! Signals: the CRI's numbers, an image's names, Linux's numbers.

use slipway_proto::runtime::v1 as cri;

use super::Sources;
use crate::error::{Error, Result};

const TERM: i32 = 15;
const NAMES: [(&str, i32); 34] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("IOT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", TERM),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("POLL", 29),
    ("PWR", 30),
    ("SYS", 31),
];
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

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

/// `SIGTERM`, `TERM`, `15`, `SIGRTMIN+1`, …
fn parse(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return (1..=RTMAX).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = |rest: &str, sign: char| match rest {
        "" => Some(0),
        rest => rest.strip_prefix(sign)?.parse::<u8>().ok().map(i32::from),
    };
    let number = if let Some(rest) = name.strip_prefix("RTMIN") {
        RTMIN + offset(rest, '+')?
    } else if let Some(rest) = name.strip_prefix("RTMAX") {
        RTMAX - offset(rest, '-')?
    } else {
        return NAMES.iter().find(|(known, _)| *known == name).map(|(_, number)| *number);
    };
    (RTMIN..=RTMAX).contains(&number).then_some(number)
}

/// The CRI's name of a number.
pub(crate) fn to_cri(number: i32) -> cri::Signal {
    let name = if number >= RTMIN {
        match (number - RTMIN, RTMAX - number) {
            (0, _) => "SIGRTMIN".to_owned(),
            (_, 0) => "SIGRTMAX".to_owned(),
            (up, _) if up <= 15 => format!("SIGRTMINPLUS{up}"),
            (_, down) => format!("SIGRTMAXMINUS{down}"),
        }
    } else {
        let known = NAMES.iter().find(|(_, known)| *known == number);
        known.map(|(name, _)| format!("SIG{name}")).unwrap_or_default()
    };
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

    #[test]
    fn an_image_names_signals_in_many_ways() {
        assert_eq!([parse("SIGQUIT"), parse("quit"), parse("3")], [Some(3); 3]);
        assert_eq!(parse("SIGRTMIN+3"), Some(37));
        assert_eq!([parse("SIGRTMIN+99"), parse("0"), parse("65"), parse(""), parse("SIG")], [None; 5]);
    }
}

//! Signals by name, as images and users write them (signal(7)).

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
    ("TERM", 15),
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

/// The number of `SIGTERM`, `TERM`, `15`, `SIGRTMIN+1`, in any case; none when Linux has no such signal.
#[must_use]
pub fn parse(text: &str) -> Option<i32> {
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

/// A number's name, such as `SIGTERM`, `SIGRTMIN+3` or `SIGRTMAX-2`; empty when it is none.
#[must_use]
pub fn name(number: i32) -> String {
    if (RTMIN..=RTMAX).contains(&number) {
        return match (number - RTMIN, RTMAX - number) {
            (0, _) => "SIGRTMIN".to_owned(),
            (_, 0) => "SIGRTMAX".to_owned(),
            (up, _) if up <= 15 => format!("SIGRTMIN+{up}"),
            (_, down) => format!("SIGRTMAX-{down}"),
        };
    }
    let known = NAMES.iter().find(|(_, known)| *known == number);
    known.map(|(name, _)| format!("SIG{name}")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_names_signals_in_many_ways() {
        assert_eq!([parse("SIGQUIT"), parse("quit"), parse("3")], [Some(3); 3]);
        assert_eq!(parse("SIGRTMIN+3"), Some(37));
        assert_eq!([parse("SIGRTMIN+99"), parse("0"), parse("65"), parse(""), parse("SIG")], [None; 5]);
    }

    #[test]
    fn every_number_has_a_name_that_leads_back() {
        for number in (1..=31).chain(RTMIN..=RTMAX) {
            assert_eq!(parse(&name(number)), Some(number), "{number}");
        }
        assert_eq!([name(0), name(32), name(65)], ["", "", ""]);
    }
}

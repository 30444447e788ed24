//! `--chmod`: octal numbers and the symbolic form.

/// A change of modes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Chmod {
    /// These bits.
    Octal(u32),
    /// Clauses such as `u=rwx` and `go+rX`.
    Symbolic(Vec<Clause>),
}

/// One clause: whose bits, `+ - =`, which, and whether `X` is among them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Clause {
    who: u32,
    operator: char,
    bits: u32,
    conditional: bool,
}

impl Chmod {
    /// Parses; none when it is neither form.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text.chars().all(|c| c.is_digit(8)) {
            return u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777).map(Self::Octal);
        }
        text.split(',').map(clause).collect::<Option<Vec<_>>>().map(Self::Symbolic)
    }

    /// The mode that a file gets.
    pub(crate) fn apply(&self, mode: u32, directory: bool) -> u32 {
        match self {
            Self::Octal(bits) => *bits,
            Self::Symbolic(clauses) => clauses.iter().fold(mode & 0o7777, |mode, clause| {
                let execute = clause.conditional && (directory || mode & 0o111 != 0);
                let bits = (clause.bits | if execute { 0o111 } else { 0 }) & clause.who;
                match clause.operator {
                    '+' => mode | bits,
                    '-' => mode & !bits,
                    _ => (mode & !clause.who) | bits,
                }
            }),
        }
    }
}

fn clause(text: &str) -> Option<Clause> {
    let at = text.find(['+', '-', '='])?;
    let (who, rest) = text.split_at_checked(at)?;
    let mut mask = 0;
    for c in who.chars() {
        mask |= match c {
            'u' => 0o4700,
            'g' => 0o2070,
            'o' => 0o1007,
            'a' => 0o7777,
            _ => return None,
        };
    }
    let mut letters = rest.chars();
    let operator = letters.next()?;
    let (mut bits, mut conditional) = (0, false);
    for c in letters {
        match c {
            'r' => bits |= 0o444,
            'w' => bits |= 0o222,
            'x' => bits |= 0o111,
            's' => bits |= 0o6000,
            't' => bits |= 0o1000,
            'X' => conditional = true,
            _ => return None,
        }
    }
    Some(Clause { who: if mask == 0 { 0o7777 } else { mask }, operator, bits, conditional })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_understood() {
        for (text, mode, directory, expected) in [
            ("640", 0o777, false, 0o640),
            ("4755", 0, true, 0o4755),
            ("u=rwx,go=rX", 0o600, true, 0o755),
            ("go=rX", 0o600, false, 0o644),
            ("+x", 0o644, false, 0o755),
            ("a-w", 0o666, false, 0o444),
            ("u+s", 0o755, false, 0o4755),
        ] {
            assert_eq!(Chmod::parse(text).unwrap().apply(mode, directory), expected, "{text}");
        }
        for bad in ["888", "77777", "z+x", "u", "u+q", "u=rwx,"] {
            assert!(Chmod::parse(bad).is_none(), "{bad}");
        }
    }
}

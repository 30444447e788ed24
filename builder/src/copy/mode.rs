//! `--chmod`: octal numbers and the symbolic form.

/// A change of modes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Chmod {
    /// These bits.
    Octal(u32),
    /// Clauses such as `u=rwx` and `go+rX`.
    Symbolic(Vec<Clause>),
}

/// One action of a clause: whose bits, `+ - =`, which, whether `X` is among them, and whose bits it copies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Clause {
    who: u32,
    operator: char,
    bits: u32,
    conditional: bool,
    /// How far the copied bits lie from those of others.
    copies: Option<u32>,
}

impl Chmod {
    /// Parses; none when it is neither form.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text.chars().all(|c| c.is_digit(8)) {
            return u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777).map(Self::Octal);
        }
        let clauses = text.split(',').map(clause).collect::<Option<Vec<_>>>()?;
        Some(Self::Symbolic(clauses.concat()))
    }

    /// The number, when it is one.
    pub(crate) fn octal(&self) -> Option<u32> {
        match self {
            Self::Octal(bits) => Some(*bits),
            Self::Symbolic(_) => None,
        }
    }

    /// The mode that a file gets.
    pub(crate) fn apply(&self, mode: u32, directory: bool) -> u32 {
        match self {
            Self::Octal(bits) => *bits,
            Self::Symbolic(clauses) => clauses.iter().fold(mode & 0o7777, |mode, clause| {
                let execute = clause.conditional && (directory || mode & 0o111 != 0);
                let copied = clause.copies.map_or(0, |shift| ((mode >> shift) & 0o7) * 0o111);
                let bits = (clause.bits | copied | if execute { 0o111 } else { 0 }) & clause.who;
                match clause.operator {
                    '+' => mode | bits,
                    '-' => mode & !bits,
                    _ => (mode & !clause.who) | bits,
                }
            }),
        }
    }
}

/// `who` and one action after another, as in `u=r+w`.
fn clause(text: &str) -> Option<Vec<Clause>> {
    let is_operator = |c: char| matches!(c, '+' | '-' | '=');
    let (who, mut rest) = text.split_at_checked(text.find(is_operator)?)?;
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
    let who = if mask == 0 { 0o7777 } else { mask };
    let mut actions = Vec::new();
    while let Some(operator) = rest.chars().next() {
        let after = rest.get(1..)?;
        let (letters, tail) = after.split_at_checked(after.find(is_operator).unwrap_or(after.len()))?;
        actions.push(action(who, operator, letters)?);
        rest = tail;
    }
    Some(actions)
}

fn action(who: u32, operator: char, letters: &str) -> Option<Clause> {
    let mut action = Clause { who, operator, bits: 0, conditional: false, copies: None };
    for c in letters.chars() {
        match c {
            'r' => action.bits |= 0o444,
            'w' => action.bits |= 0o222,
            'x' => action.bits |= 0o111,
            's' => action.bits |= 0o6000,
            't' => action.bits |= 0o1000,
            'X' => action.conditional = true,
            'u' => action.copies = Some(6),
            'g' => action.copies = Some(3),
            'o' => action.copies = Some(0),
            _ => return None,
        }
    }
    Some(action)
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
            ("g=u,o=g", 0o640, false, 0o666),
            ("u=r+w", 0o755, false, 0o655),
            ("o=", 0o755, false, 0o750),
        ] {
            assert_eq!(Chmod::parse(text).unwrap().apply(mode, directory), expected, "{text}");
        }
        for bad in ["888", "77777", "z+x", "u", "u+q", "u=rwx,", "u=é"] {
            assert!(Chmod::parse(bad).is_none(), "{bad}");
        }
    }
}

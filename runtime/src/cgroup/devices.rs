//! Which devices a container may use: OCI rules in order, the last that speaks of an access decides.
//!
//! Version 1 takes the rules as they are, one a write. Version 2 takes an eBPF program, which goes through them from
//! the last to the first with the accesses that are still undecided:
//!
//! ```text
//! r2 type  r3 undecided accesses  r4 major  r5 minor
//! each rule: another device? next; allow: r3 &= !accesses, none left? yes; deny: r3 & accesses? no
//! end: no
//! ```

use super::files;
use super::hierarchy::Location;
use crate::sys::bpf::{self, Instruction};
use crate::{Error, Result};
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

const MKNOD: i32 = 1;
const READ: i32 = 2;
const WRITE: i32 = 4;
const EVERY: i32 = MKNOD | READ | WRITE;

/// The devices that OCI gives to every container, after all other rules: (type, major, minor, accesses).
const DEFAULT: [(Kind, Option<u32>, Option<u32>, i32); 12] = [
    (Kind::Character, None, None, MKNOD),
    (Kind::Block, None, None, MKNOD),
    (Kind::Character, Some(1), Some(3), EVERY),
    (Kind::Character, Some(1), Some(5), EVERY),
    (Kind::Character, Some(1), Some(7), EVERY),
    (Kind::Character, Some(1), Some(8), EVERY),
    (Kind::Character, Some(1), Some(9), EVERY),
    (Kind::Character, Some(5), Some(0), EVERY),
    (Kind::Character, Some(5), Some(1), EVERY),
    (Kind::Character, Some(5), Some(2), EVERY),
    (Kind::Character, Some(136), None, EVERY),
    (Kind::Character, Some(10), Some(200), EVERY),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    All,
    Block,
    Character,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rule {
    allow: bool,
    kind: Kind,
    major: Option<u32>,
    minor: Option<u32>,
    access: i32,
}

impl Rule {
    fn of(rule: &LinuxDeviceCgroup) -> Result<Self> {
        let kind = match rule.typ() {
            None | Some(LinuxDeviceType::A) => Kind::All,
            Some(LinuxDeviceType::B) => Kind::Block,
            Some(LinuxDeviceType::C | LinuxDeviceType::U) => Kind::Character,
            Some(LinuxDeviceType::P) => {
                return Err(Error::Invalid(format!("device rule {rule}: a pipe is no device")));
            }
        };
        let number = |number: Option<i64>| match number {
            None | Some(-1) => Ok(None),
            Some(number) => match u32::try_from(number) {
                Ok(number) => Ok(Some(number)),
                Err(_) => Err(Error::Invalid(format!("device rule {rule}: number {number} is out of range"))),
            },
        };
        let mut access = 0;
        for letter in rule.access().as_deref().unwrap_or("rwm").chars() {
            access |= match letter {
                'r' => READ,
                'w' => WRITE,
                'm' => MKNOD,
                _ => {
                    return Err(Error::Invalid(format!(
                        "device rule {rule}: access may have r, w and m only"
                    )));
                }
            };
        }
        Ok(Self {
            allow: rule.allow(),
            kind,
            major: number(rule.major())?,
            minor: number(rule.minor())?,
            access,
        })
    }

    fn is_for_all(&self) -> bool {
        self.kind == Kind::All && self.major.is_none() && self.minor.is_none() && self.access == EVERY
    }

    /// As `devices.allow` and `devices.deny` take it.
    fn lines(&self) -> Vec<String> {
        if self.is_for_all() {
            return vec!["a".to_owned()];
        }
        let number = |number: Option<u32>| number.map_or_else(|| "*".to_owned(), |number| number.to_string());
        let letters = [(READ, 'r'), (WRITE, 'w'), (MKNOD, 'm')];
        let access: String =
            letters.iter().filter(|(bit, _)| self.access & bit != 0).map(|(_, letter)| letter).collect();
        let kinds: &[char] = match self.kind {
            // The kernel's `a` ignores numbers and accesses.
            Kind::All => &['b', 'c'],
            Kind::Block => &['b'],
            Kind::Character => &['c'],
        };
        kinds
            .iter()
            .map(|kind| format!("{kind} {}:{} {access}", number(self.major), number(self.minor)))
            .collect()
    }
}

/// A container's rules, with what precedes and follows them in every container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rules(Vec<Rule>);

impl Rules {
    /// Nothing is allowed but what the rules and the defaults allow.
    pub(super) fn of(rules: &[LinuxDeviceCgroup]) -> Result<Self> {
        let everything = Rule { allow: false, kind: Kind::All, major: None, minor: None, access: EVERY };
        let mut all = vec![everything];
        for rule in rules {
            let rule = Rule::of(rule)?;
            if rule.is_for_all() {
                all.clear();
            }
            if rule.access != 0 {
                all.push(rule);
            }
        }
        if !matches!(all.as_slice(), [only] if only.is_for_all() && only.allow) {
            all.extend(DEFAULT.map(|(kind, major, minor, access)| Rule {
                allow: true,
                kind,
                major,
                minor,
                access,
            }));
        }
        Ok(Self(all))
    }

    fn allows_all(&self) -> bool {
        matches!(self.0.as_slice(), [only] if only.is_for_all() && only.allow)
    }

    fn program(&self) -> Vec<Instruction> {
        let mut program = vec![
            Instruction::load_word(2, 1, 0),
            Instruction::copy(3, 2),
            Instruction::and(2, 0xffff),
            Instruction::shift_right(3, 16),
            Instruction::load_word(4, 1, 4),
            Instruction::load_word(5, 1, 8),
        ];
        for rule in self.0.iter().rev() {
            program.extend(rule_instructions(rule));
        }
        program.extend([Instruction::set(0, 0), Instruction::exit()]);
        program
    }
}

fn rule_instructions(rule: &Rule) -> Vec<Instruction> {
    let body = if rule.allow {
        vec![
            Instruction::and(3, !rule.access & EVERY),
            Instruction::jump_unless_equal(3, 0, 2),
            Instruction::set(0, 1),
            Instruction::exit(),
        ]
    } else {
        vec![
            Instruction::copy(1, 3),
            Instruction::and(1, rule.access),
            Instruction::jump_if_equal(1, 0, 2),
            Instruction::set(0, 0),
            Instruction::exit(),
        ]
    };
    let kind = match rule.kind {
        Kind::All => None,
        Kind::Block => Some(1),
        Kind::Character => Some(2),
    };
    let tests = [(2u8, kind), (4, rule.major), (5, rule.minor)];
    let mut tests: Vec<(u8, u32)> =
        tests.iter().filter_map(|(register, value)| Some((*register, (*value)?))).collect();
    let mut instructions = Vec::new();
    while let Some((register, value)) = tests.pop() {
        // Skips the body and the tests written after this one, which were popped before.
        let skip = i16::try_from(body.len() + instructions.len()).unwrap_or(i16::MAX);
        instructions.insert(0, Instruction::jump_unless_equal(register, value.cast_signed(), skip));
    }
    instructions.extend(body);
    instructions
}

/// Put the rules in force for a new cgroup.
pub(super) fn apply(rules: &Rules, location: &Location) -> Result<()> {
    if location.unified {
        // A new cgroup is bound by its parents' programs alone.
        if rules.allows_all() {
            return Ok(());
        }
        let path = location
            .controller("devices")
            .ok_or_else(|| Error::Unsupported("cgroup has no directory".to_owned()))?;
        let directory = files::open_directory(path)?;
        let failed = |source| Error::Kernel {
            call: format!("attach the device filter to {}", path.display()),
            source,
        };
        let program = bpf::load_device_program(&rules.program()).map_err(failed)?;
        return bpf::attach_device_program(&directory, &program).map_err(failed);
    }
    let Some(path) = location.controller("devices") else {
        return Err(Error::Unsupported(
            "the devices controller is not mounted; mount it so that devices can be kept apart".to_owned(),
        ));
    };
    for rule in &rules.0 {
        let file = path.join(if rule.allow { "devices.allow" } else { "devices.deny" });
        rule.lines().iter().try_for_each(|line| files::write(&file, line))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(json: &str) -> Result<Rules> {
        Rules::of(&serde_json::from_str::<Vec<LinuxDeviceCgroup>>(json).unwrap())
    }

    /// Run a device program as the kernel does.
    fn allowed(rules: &Rules, kind: u64, device: (u64, u64), access: i32) -> bool {
        let program = rules.program();
        let context = [(u64::try_from(access).unwrap() << 16) | kind, device.0, device.1];
        let mut registers = [0u64; 11];
        let mut at = 0i64;
        loop {
            let one = program[usize::try_from(at).unwrap()];
            let (to, from) = (usize::from(one.registers & 15), usize::from(one.registers >> 4));
            let immediate = u64::from(one.immediate.cast_unsigned());
            at += 1;
            match one.code {
                0x61 => registers[to] = context[usize::try_from(one.offset / 4).unwrap()],
                0xbc => registers[to] = registers[from],
                0xb4 => registers[to] = immediate,
                0x54 => registers[to] &= immediate,
                0x74 => registers[to] >>= immediate,
                0x56 => at += if registers[to] == immediate { 0 } else { i64::from(one.offset) },
                0x16 => at += if registers[to] == immediate { i64::from(one.offset) } else { 0 },
                0x95 => return registers[0] == 1,
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    #[test]
    fn without_rules_the_defaults_alone_are_allowed() {
        let rules = rules("[]").unwrap();
        assert!(allowed(&rules, 2, (1, 3), READ | WRITE));
        assert!(allowed(&rules, 2, (136, 7), READ));
        assert!(allowed(&rules, 1, (8, 0), MKNOD));
        assert!(!allowed(&rules, 1, (8, 0), READ));
        assert!(!allowed(&rules, 2, (1, 1), READ), "/dev/mem");
        assert!(!allowed(&rules, 1, (1, 3), READ), "a block device of a default's number");
    }

    #[test]
    fn the_last_rule_that_speaks_of_an_access_decides() {
        let rules = rules(
            r#"[{"allow":false,"access":"rwm"},{"allow":true,"type":"b","major":8,"access":"rw"},
                {"allow":false,"type":"b","major":8,"minor":1,"access":"w"}]"#,
        )
        .unwrap();
        assert!(allowed(&rules, 1, (8, 0), READ | WRITE));
        assert!(allowed(&rules, 1, (8, 1), READ));
        assert!(!allowed(&rules, 1, (8, 1), READ | WRITE));
        assert!(allowed(&rules, 1, (8, 0), READ | MKNOD), "mknod by the default, read by the rule");
        assert!(!allowed(&rules, 1, (9, 0), READ));
    }

    #[test]
    fn privileged_needs_no_program() {
        let rules = rules(r#"[{"allow":false,"access":"rwm"},{"allow":true,"access":"rwm"}]"#).unwrap();
        assert!(rules.allows_all());
        assert_eq!(rules.0.iter().flat_map(Rule::lines).collect::<Vec<_>>(), ["a"]);
    }

    #[test]
    fn version_1_lines_name_numbers_and_accesses() {
        let rules = rules(r#"[{"allow":true,"major":10,"minor":229,"access":"rw"}]"#).unwrap();
        let lines: Vec<String> = rules.0.iter().flat_map(Rule::lines).collect();
        assert_eq!(lines[..4], ["a", "b 10:229 rw", "c 10:229 rw", "c *:* m"].map(str::to_owned));
    }

    #[test]
    fn senseless_rules_are_refused() {
        for json in [
            r#"[{"allow":true,"type":"p"}]"#,
            r#"[{"allow":true,"type":"c","major":-5}]"#,
            r#"[{"allow":true,"type":"c","minor":4294967296}]"#,
            r#"[{"allow":true,"access":"rx"}]"#,
        ] {
            assert!(rules(json).is_err(), "{json}");
        }
    }
}

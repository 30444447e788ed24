//! Classic BPF written from its end, so that the target of every jump is known when the jump is written.
//!
//! Conditional jumps reach 255 instructions; beyond that an unconditional one is put in between.

use crate::{Error, Result};

/// `BPF_MAXINSNS`.
const MAXIMUM: usize = 4096;

const LOAD_WORD: u16 = 0x20;
const JUMP: u16 = 0x05;
const AND: u16 = 0x54;
const RETURN: u16 = 0x06;

/// A comparison of the accumulator with a constant.
#[derive(Clone, Copy, Debug)]
pub(super) enum Test {
    Equal,
    Greater,
    GreaterOrEqual,
}

impl Test {
    fn code(self) -> u16 {
        match self {
            Self::Equal => 0x15,
            Self::Greater => 0x25,
            Self::GreaterOrEqual => 0x35,
        }
    }
}

/// `struct sock_filter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Instruction {
    pub(super) code: u16,
    pub(super) on_true: u8,
    pub(super) on_false: u8,
    pub(super) value: u32,
}

/// A place in the program, counted from its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Label(usize);

/// A program under construction; its last instruction was written first.
#[derive(Debug, Default)]
pub(super) struct Program {
    reversed: Vec<Instruction>,
    answers: Vec<(u32, Label)>,
}

impl Program {
    fn push(&mut self, instruction: Instruction) -> Label {
        self.reversed.push(instruction);
        Label(self.reversed.len() - 1)
    }

    /// How many instructions an instruction written next would have to skip to get to a place.
    fn distance(&self, target: Label) -> usize {
        self.reversed.len().saturating_sub(target.0 + 1)
    }

    /// A place that answers with this value; one written before is used again when it is near.
    pub(super) fn answer(&mut self, value: u32) -> Label {
        let known = self.answers.iter().find(|(answer, _)| *answer == value).map(|(_, label)| *label);
        if let Some(label) = known.filter(|label| self.distance(*label) < 200) {
            return label;
        }
        let label = self.push(Instruction { code: RETURN, on_true: 0, on_false: 0, value });
        self.answers.retain(|(answer, _)| *answer != value);
        self.answers.push((value, label));
        label
    }

    /// Load a word of `struct seccomp_data`; what was written last comes next.
    pub(super) fn load(&mut self, offset: u32) -> Label {
        self.push(Instruction { code: LOAD_WORD, on_true: 0, on_false: 0, value: offset })
    }

    /// Clear the accumulator's other bits.
    pub(super) fn and(&mut self, mask: u32) -> Label {
        self.push(Instruction { code: AND, on_true: 0, on_false: 0, value: mask })
    }

    /// Go on at a place, wherever it is; nothing is written when it comes next anyway.
    pub(super) fn jump(&mut self, target: Label) -> Label {
        match u32::try_from(self.distance(target)) {
            Ok(0) | Err(_) => target,
            Ok(value) => self.push(Instruction { code: JUMP, on_true: 0, on_false: 0, value }),
        }
    }

    /// Compare and go to one of two places.
    pub(super) fn branch(&mut self, test: Test, value: u32, on_true: Label, on_false: Label) -> Label {
        let on_true = self.near(on_true);
        let on_false = self.near(on_false);
        // A trampoline written for the second may have pushed the first out of reach by one.
        let on_true = self.near(on_true);
        let skip = |label| u8::try_from(self.distance(label)).unwrap_or(u8::MAX);
        let (yes, no) = (skip(on_true), skip(on_false));
        self.push(Instruction { code: test.code(), on_true: yes, on_false: no, value })
    }

    /// A place within reach, with room for the trampoline of the other branch.
    fn near(&mut self, target: Label) -> Label {
        if self.distance(target) < 250 { target } else { self.jump(target) }
    }

    /// The finished program in its order, as the bytes the kernel reads.
    pub(super) fn finish(mut self) -> Result<Vec<u8>> {
        if self.reversed.len() > MAXIMUM {
            return Err(Error::Invalid(format!(
                "seccomp profile compiles to {} instructions, the kernel takes {MAXIMUM}; use fewer argument rules",
                self.reversed.len()
            )));
        }
        self.reversed.reverse();
        let mut bytes = Vec::with_capacity(self.reversed.len() * 8);
        for instruction in &self.reversed {
            bytes.extend_from_slice(&instruction.code.to_ne_bytes());
            bytes.extend_from_slice(&[instruction.on_true, instruction.on_false]);
            bytes.extend_from_slice(&instruction.value.to_ne_bytes());
        }
        Ok(bytes)
    }
}

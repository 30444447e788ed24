//! Lists of processors and memory nodes as the kernel writes them (`0-3,7`), and those that are available to a pod.

use crate::runtime::Shared;
use crate::{Error, Result, SandboxId};
use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// A list of numbers, such as `0-3,7`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Numbers {
    /// First and last of each range, in order and apart from each other.
    ranges: Vec<(u32, u32)>,
}

impl Numbers {
    /// The first number here that another list does not have.
    #[must_use]
    pub fn first_beyond(&self, other: &Self) -> Option<u32> {
        self.ranges.iter().find_map(|(first, last)| {
            match other.ranges.iter().find(|(low, high)| (low..=high).contains(&first)) {
                None => Some(*first),
                // The number after one of the other's ranges is in none of them: its ranges are apart.
                Some((_, high)) => (high < last).then(|| high + 1),
            }
        })
    }
}

impl FromStr for Numbers {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = || Error::Invalid(format!("{text:?} is not a list of numbers such as 0-3,7"));
        let number = |digits: &str| match digits.trim() {
            digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse::<u32>().ok(),
            _ => None,
        };
        let range = |part: &str| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            Some((number(first)?, number(last)?)).filter(|(first, last)| first <= last)
        };
        let mut ranges = text.split(',').map(range).collect::<Option<Vec<_>>>().ok_or_else(bad)?;
        ranges.sort_unstable();
        let mut merged: Vec<(u32, u32)> = Vec::new();
        for (first, last) in ranges {
            match merged.last_mut() {
                Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
                _ => merged.push((first, last)),
            }
        }
        Ok(Self { ranges: merged })
    }
}

impl fmt::Display for Numbers {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (first, last)) in self.ranges.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            match first == last {
                true => write!(formatter, "{comma}{first}")?,
                false => write!(formatter, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

/// The kinds of resources that a cpuset binds containers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// Processors.
    Cpus,
    /// Memory nodes.
    Mems,
}

impl Bound {
    /// The control files of a cgroup that list them, of version 2 and of version 1.
    fn files(self) -> [&'static str; 2] {
        match self {
            Self::Cpus => ["cpuset.cpus.effective", "cpuset.cpus"],
            Self::Mems => ["cpuset.mems.effective", "cpuset.mems"],
        }
    }

    /// The file that lists them for the whole node.
    fn online(self) -> &'static Path {
        Path::new(match self {
            Self::Cpus => "/sys/devices/system/cpu/online",
            Self::Mems => "/sys/devices/system/node/online",
        })
    }
}

impl Shared {
    /// Returns the processors or memory nodes available to the containers of a pod: those of its cgroup, or those of
    /// the node when the cgroup's files are absent or empty.
    pub(crate) fn numbers(&self, id: &SandboxId, bound: Bound) -> Result<Numbers> {
        let record = self.pod(id)?.record();
        let cgroup = record.cgroup.as_ref().and_then(|cgroup| cgroup.controller("cpuset"));
        let files = cgroup.into_iter().flat_map(|cgroup| bound.files().map(|name| cgroup.join(name)));
        for path in files.chain([bound.online().to_owned()]) {
            if let Some(text) = read(&path)? {
                return text.parse();
            }
        }
        // A kernel without NUMA support lists no memory nodes and has one, number 0.
        Ok(Numbers { ranges: vec![(0, 0)] })
    }
}

/// The contents of a file; none where it is absent or empty.
fn read(path: &PathBuf) -> Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Io { action: "read", path: path.clone(), source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(text: &str) -> Numbers {
        text.parse().unwrap()
    }

    #[test]
    fn a_list_is_read_in_any_order_and_written_in_the_kernel_s() {
        for (text, written) in [
            ("0", "0"),
            ("7,0-3", "0-3,7"),
            ("0-1,2,4-5,3", "0-5"),
            ("0-4294967295,3", "0-4294967295"),
            (" 1 - 2 , 0", "0-2"),
        ] {
            assert_eq!(numbers(text).to_string(), written, "{text}");
        }
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for text in
            ["", ",", "0,", "1-", "-1", "3-1", "a", "0-1-2", "+1", "4294967296", "0:1", "0-3:2/4", "0\n1"]
        {
            assert!(text.parse::<Numbers>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_first_number_beyond_is_found() {
        for (wanted, there, beyond) in [
            ("0-1", "0-1", None),
            ("1", "0-3", None),
            ("0-3", "0-1", Some(2)),
            ("0,5", "0-3", Some(5)),
            ("0-6", "0-3,5-7", Some(4)),
            ("0-4294967295", "0-4294967295", None),
        ] {
            assert_eq!(numbers(wanted).first_beyond(&numbers(there)), beyond, "{wanted} of {there}");
        }
    }
}

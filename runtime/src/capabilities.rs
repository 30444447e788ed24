//! Capabilities: names, bit masks, and the rules by which a request becomes the five sets of a process.
//!
//! A set is a bit mask in the kernel's numbering. What a container may be given is bounded by what the daemon itself
//! holds, so a node that lacks a capability says so instead of failing at exec.

use crate::{Error, Result};
use oci_spec::runtime::{Capability as SpecCapability, LinuxCapabilities};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;

/// Names without `CAP_`, at the place of their number (`linux/capability.h`).
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// The capabilities that a container has unless its request changes them.
const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// The capabilities that a pod's monitor needs for its own work: namespaces and mounts (`SYS_ADMIN`, `SYS_CHROOT`),
/// files and devices of a root (`CHOWN`, `DAC_OVERRIDE`, `FOWNER`, `FSETID`, `MKNOD`), becoming a container's user
/// (`SETUID`, `SETGID`, `SETPCAP`, `SETFCAP` for id maps), its kernel parameters and loopback link (`NET_ADMIN`), its
/// limits (`SYS_RESOURCE`), signals (`KILL`) and the namespaces of its children (`SYS_PTRACE`).
const MONITOR: [&str; 15] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_ADMIN",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_ADMIN",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_RESOURCE",
];

/// A set of capabilities, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CapabilitySet(u64);

impl CapabilitySet {
    /// No capability.
    pub const EMPTY: Self = Self(0);

    /// Every capability this program knows by name.
    pub fn known() -> Self {
        Self((1 << NAMES.len()) - 1)
    }

    /// The fourteen that container runtimes grant by default.
    pub fn default_set() -> Self {
        DEFAULT.iter().filter_map(|name| bit(name)).fold(Self::EMPTY, |set, bit| Self(set.0 | bit))
    }

    /// The set that a pod's monitor needs for its own work.
    pub(crate) fn of_monitor() -> Self {
        MONITOR.iter().filter_map(|name| bit(name)).fold(Self::EMPTY, |set, bit| Self(set.0 | bit))
    }

    /// The set with exactly these bits.
    pub fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The bits.
    pub fn bits(self) -> u64 {
        self.0
    }

    /// The set of one capability, by its name with or without `CAP_`, in either case.
    pub fn named(name: &str) -> Result<Self> {
        bit(name).map(Self).ok_or_else(|| {
            Error::Invalid(format!("capability {name:?} is not known; use a name such as NET_ADMIN"))
        })
    }

    /// Whether a capability is in the set; false for an unknown name.
    pub fn has(self, name: &str) -> bool {
        bit(name).is_some_and(|bit| self.0 & bit != 0)
    }

    /// The union of both sets.
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The difference: capabilities of this set that the other lacks.
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The intersection of both sets.
    pub fn within(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether the set has no capability.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Names in the form `CAP_CHOWN`, by number.
    pub fn names(self) -> Vec<String> {
        NAMES
            .iter()
            .enumerate()
            .filter(|(number, _)| self.0 & (1 << number) != 0)
            .map(|(_, name)| format!("CAP_{name}"))
            .collect()
    }

    /// The capabilities that this process can grant: those in both its bounding and its permitted set that the kernel
    /// supports (`cap_last_cap`) and this program knows.
    pub fn available() -> Result<Self> {
        let status = read("/proc/self/status")?;
        let last = read("/proc/sys/kernel/cap_last_cap")?;
        Self::from_status(&status, &last)
    }

    fn from_status(status: &str, last: &str) -> Result<Self> {
        let malformed = || {
            Error::Unsupported("/proc/self/status tells no capabilities; mount a complete /proc".to_owned())
        };
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).ok_or_else(malformed)?;
            u64::from_str_radix(line.trim(), 16).map_err(|_| malformed())
        };
        let last: u32 = last.trim().parse().map_err(|_| malformed())?;
        let supported = 1u64.checked_shl(last.saturating_add(1)).map_or(u64::MAX, |end| end.wrapping_sub(1));
        Ok(Self(field("CapBnd:")? & field("CapPrm:")? & supported & Self::known().0))
    }
}

impl fmt::Display for CapabilitySet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.names().join(", "))
    }
}

fn bit(name: &str) -> Option<u64> {
    let upper = name.to_ascii_uppercase();
    let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
    NAMES.iter().position(|known| *known == short).map(|number| 1 << number)
}

fn read(path: &str) -> Result<String> {
    std::fs::read_to_string(path).map_err(|source| Error::Io {
        action: "read",
        path: PathBuf::from(path),
        source,
    })
}

/// The capabilities that a CRI security context asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CapabilityRequest {
    /// Names to add to the default set; `ALL` adds every one.
    pub add: Vec<String>,
    /// Names to take away; `ALL` takes every one that `add` does not name.
    pub drop: Vec<String>,
    /// Names that a user other than root keeps over exec.
    pub ambient: Vec<String>,
    /// Whether to start from every capability that the node can grant; `ALL` in `drop` is then ignored.
    pub privileged: bool,
}

/// The five sets of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// The set against which the kernel checks a privileged operation.
    pub effective: CapabilitySet,
    /// The limit of the effective set.
    pub permitted: CapabilitySet,
    /// The limit of the capabilities that exec can gain from a file's permitted set.
    pub bounding: CapabilitySet,
    /// The capabilities that exec keeps where the file's inheritable set has them too. A request
    /// sets only those of `ambient` here, which the kernel demands to be inheritable.
    pub inheritable: CapabilitySet,
    /// The capabilities that a user other than root keeps over exec.
    pub ambient: CapabilitySet,
}

impl Capabilities {
    /// The default set, as far as this node can give it.
    pub fn default_for(available: CapabilitySet) -> Self {
        Self::of(CapabilitySet::default_set().within(available), CapabilitySet::EMPTY)
    }

    /// Resolves a request to the five sets. A capability added by name that the node can't grant is an error; a
    /// capability of the default set, or of `ALL`, that it can't grant is left out.
    pub fn resolve(request: &CapabilityRequest, available: CapabilitySet) -> Result<Self> {
        let add = Names::parse(&request.add)?;
        let drop = Names::parse(&request.drop)?;
        let ambient = Names::parse(&request.ambient)?;
        if ambient.all {
            return Err(Error::Invalid(
                "ambient capabilities must be named one by one; ALL is not accepted".to_owned(),
            ));
        }
        let asked = add.named.with(ambient.named);
        let absent = asked.without(available);
        if !absent.is_empty() {
            return Err(Error::Unsupported(format!(
                "this node can't grant {absent}: the daemon itself lacks it"
            )));
        }
        let start = if request.privileged || add.all {
            available
        } else {
            CapabilitySet::default_set().within(available)
        };
        let kept = if drop.all && !request.privileged { CapabilitySet::EMPTY } else { start };
        let granted = kept.with(add.named).with(ambient.named).without(drop.named);
        Ok(Self::of(granted, ambient.named.within(granted)))
    }

    fn of(granted: CapabilitySet, ambient: CapabilitySet) -> Self {
        Self { effective: granted, permitted: granted, bounding: granted, inheritable: ambient, ambient }
    }

    /// The sets of an OCI document as they are.
    pub(crate) fn of_spec(spec: &LinuxCapabilities) -> Result<Self> {
        Ok(Self {
            effective: from_spec_set(spec.effective().as_ref())?,
            permitted: from_spec_set(spec.permitted().as_ref())?,
            bounding: from_spec_set(spec.bounding().as_ref())?,
            inheritable: from_spec_set(spec.inheritable().as_ref())?,
            ambient: from_spec_set(spec.ambient().as_ref())?,
        })
    }

    /// The sets of an OCI document, refusing ones the kernel would refuse.
    pub fn from_spec(spec: &LinuxCapabilities, available: CapabilitySet) -> Result<Self> {
        let sets = Self::of_spec(spec)?;
        let all = sets.effective.with(sets.permitted).with(sets.bounding).with(sets.inheritable);
        let absent = all.without(available);
        if !absent.is_empty() {
            return Err(Error::Unsupported(format!(
                "this node can't grant {absent}: the daemon itself lacks it"
            )));
        }
        let unpermitted = sets.effective.without(sets.permitted);
        if !unpermitted.is_empty() {
            return Err(Error::Invalid(format!(
                "effective capabilities {unpermitted} are not permitted ones"
            )));
        }
        let lost = sets.ambient.without(sets.permitted.within(sets.inheritable));
        if !lost.is_empty() {
            return Err(Error::Invalid(format!(
                "ambient capabilities {lost} must be both permitted and inheritable"
            )));
        }
        Ok(sets)
    }

    /// The union of the five sets.
    pub(crate) fn all(&self) -> CapabilitySet {
        self.effective.with(self.permitted).with(self.bounding).with(self.inheritable).with(self.ambient)
    }

    /// The sets as an OCI document has them.
    pub fn to_spec(&self) -> LinuxCapabilities {
        let mut spec = LinuxCapabilities::default();
        spec.set_effective(Some(to_spec_set(self.effective)));
        spec.set_permitted(Some(to_spec_set(self.permitted)));
        spec.set_bounding(Some(to_spec_set(self.bounding)));
        spec.set_inheritable(Some(to_spec_set(self.inheritable)));
        spec.set_ambient(Some(to_spec_set(self.ambient)));
        spec
    }
}

fn from_spec_set(set: Option<&oci_spec::runtime::Capabilities>) -> Result<CapabilitySet> {
    set.into_iter()
        .flatten()
        .try_fold(CapabilitySet::EMPTY, |bits, one| Ok(bits.with(CapabilitySet::named(&one.to_string())?)))
}

fn to_spec_set(set: CapabilitySet) -> oci_spec::runtime::Capabilities {
    NAMES.iter().filter(|name| set.has(name)).filter_map(|name| name.parse::<SpecCapability>().ok()).collect()
}

/// A list of names, `ALL` apart.
struct Names {
    all: bool,
    named: CapabilitySet,
}

impl Names {
    fn parse(names: &[String]) -> Result<Self> {
        let mut parsed = Self { all: false, named: CapabilitySet::EMPTY };
        for name in names {
            if name.eq_ignore_ascii_case("ALL") || name.eq_ignore_ascii_case("CAP_ALL") {
                parsed.all = true;
            } else {
                parsed.named = parsed.named.with(CapabilitySet::named(name)?);
            }
        }
        Ok(parsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(add: &[&str], drop: &[&str], ambient: &[&str], privileged: bool) -> Result<Capabilities> {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let request =
            CapabilityRequest { add: owned(add), drop: owned(drop), ambient: owned(ambient), privileged };
        Capabilities::resolve(&request, CapabilitySet::known())
    }

    #[test]
    fn nothing_asked_is_the_default_set_and_nothing_inheritable() {
        let sets = resolve(&[], &[], &[], false).unwrap();
        assert_eq!(sets.effective.bits(), 0x0000_0000_a804_25fb);
        assert_eq!(sets.bounding, sets.effective);
        assert_eq!(sets.inheritable, CapabilitySet::EMPTY);
        assert_eq!(sets.ambient, CapabilitySet::EMPTY);
    }

    #[test]
    fn dropping_all_leaves_what_is_added_by_name() {
        let sets = resolve(&["net_bind_service", "CAP_CHOWN"], &["ALL"], &[], false).unwrap();
        assert_eq!(sets.permitted.names(), ["CAP_CHOWN", "CAP_NET_BIND_SERVICE"]);
        assert_eq!(resolve(&["ALL"], &["all"], &[], false).unwrap().permitted, CapabilitySet::EMPTY);
    }

    #[test]
    fn adding_all_can_be_narrowed_by_name() {
        let sets = resolve(&["ALL"], &["SYS_ADMIN"], &[], false).unwrap();
        assert!(!sets.bounding.has("SYS_ADMIN"));
        assert!(sets.bounding.has("SYS_TIME"));
    }

    #[test]
    fn ambient_capabilities_are_in_every_set() {
        let sets = resolve(&[], &["ALL"], &["NET_ADMIN"], false).unwrap();
        for set in [sets.effective, sets.permitted, sets.bounding, sets.inheritable, sets.ambient] {
            assert_eq!(set.names(), ["CAP_NET_ADMIN"]);
        }
    }

    #[test]
    fn privileged_has_all_that_the_node_has() {
        assert_eq!(resolve(&[], &["ALL"], &[], true).unwrap().effective, CapabilitySet::known());
    }

    #[test]
    fn an_unknown_or_unavailable_name_is_refused_by_name() {
        assert!(resolve(&["SYS_ADMN"], &[], &[], false).unwrap_err().to_string().contains("SYS_ADMN"));
        let request =
            CapabilityRequest { add: vec!["SYS_RESOURCE".to_owned()], ..CapabilityRequest::default() };
        let available = CapabilitySet::known().without(CapabilitySet::named("SYS_RESOURCE").unwrap());
        let error = Capabilities::resolve(&request, available).unwrap_err();
        assert!(error.to_string().contains("CAP_SYS_RESOURCE"), "{error}");
    }

    #[test]
    fn the_kernels_last_capability_bounds_the_set() {
        let status = "Name:\tx\nCapPrm:\tffffffffffffffff\nCapBnd:\t000001fffffeffff\n";
        let set = CapabilitySet::from_status(status, "37\n").unwrap();
        assert!(!set.has("BPF") && set.has("AUDIT_READ") && !set.has("SYS_MODULE"));
        assert!(CapabilitySet::from_status("CapPrm: zz\n", "40").is_err());
        assert!(CapabilitySet::from_status(status, "4294967295").is_ok());
    }

    #[test]
    fn a_document_is_read_back_as_written() {
        let sets = resolve(&["ALL"], &[], &["NET_RAW"], false).unwrap();
        assert_eq!(Capabilities::from_spec(&sets.to_spec(), CapabilitySet::known()).unwrap(), sets);
        let bad = Capabilities { ambient: CapabilitySet::named("BPF").unwrap(), ..Capabilities::default() };
        assert!(Capabilities::from_spec(&bad.to_spec(), CapabilitySet::known()).is_err());
    }
}

//! From OCI resources to the values of control files, checked before anything is written.

use super::files::{self, is_gone};
use super::hierarchy::Location;
use crate::{Error, Result};
use oci_spec::runtime::{LinuxCpu, LinuxMemory, LinuxResources};
use std::path::Path;

/// Controllers whose files `unified` may write; `cgroup.` itself is not among them.
const UNIFIED: [&str; 8] = ["cpu", "cpuset", "hugetlb", "io", "memory", "misc", "pids", "rdma"];
const DEFAULT_PERIOD: u64 = 100_000;

/// A value for a control file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    controller: &'static str,
    file: String,
    value: String,
    /// The consequence when the node does not have the file.
    absence: Absence,
}

/// The consequence when a control file does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Absence {
    /// An error: the setting can't be applied.
    Refused,
    /// None: a node without the file behaves as if the value were set.
    Same,
    /// A warning on a node without the controller, which goes without the limit; an error on a node that has the
    /// controller.
    Tolerated,
}

/// Settings in the order they are written.
struct Plan {
    unified: bool,
    settings: Vec<Setting>,
}

impl Plan {
    /// Add a setting by its file on version 1 and on version 2.
    fn put(&mut self, legacy: &str, unified: &str, value: &str) {
        self.set(if self.unified { unified } else { legacy }, &value, false);
    }

    fn set(&mut self, file: &str, value: &impl ToString, optional: bool) {
        self.set_unless(file, value, if optional { Absence::Same } else { Absence::Refused });
    }

    fn set_unless(&mut self, file: &str, value: &impl ToString, absence: Absence) {
        let prefix = file.split('.').next().unwrap_or_default();
        let known = UNIFIED.iter().find(|name| **name == prefix).copied().unwrap_or_default();
        self.settings.push(Setting {
            controller: known,
            file: file.to_owned(),
            value: value.to_string(),
            absence,
        });
    }

    /// A limit in which a negative number is no limit.
    fn limit(&self, value: i64) -> String {
        match value {
            -1 if self.unified => "max".to_owned(),
            value => value.to_string(),
        }
    }

    fn version_1_only(&self, what: &str) -> Result<()> {
        if self.unified {
            return Err(Error::Unsupported(format!(
                "{what} exists on cgroup version 1 only; leave it out on this node"
            )));
        }
        Ok(())
    }
}

/// Translates OCI resources to the settings to write, in their order, on version 1 or (`unified`) on version 2.
///
/// # Errors
/// When the resources are invalid, or ask for a setting that this version does not have.
pub(super) fn plan(resources: &LinuxResources, unified: bool) -> Result<Vec<Setting>> {
    let mut plan = Plan { unified, settings: Vec::new() };
    refuse_unsupported(resources)?;
    if let Some(memory) = resources.memory() {
        set_memory(&mut plan, memory)?;
    }
    if let Some(cpu) = resources.cpu() {
        set_cpu(&mut plan, cpu)?;
    }
    if let Some(limit) = resources.pids().map(|pids| pids.limit()) {
        let value = if limit > 0 { limit.to_string() } else { "max".to_owned() };
        if limit < -1 {
            return Err(Error::Invalid(format!("pids limit {limit} is negative; use -1 for no limit")));
        }
        plan.set("pids.max", &value, limit <= 0);
    }
    for huge in resources.hugepage_limits().iter().flatten() {
        set_huge_pages(&mut plan, huge.page_size(), huge.limit())?;
    }
    set_unified(&mut plan, resources)?;
    Ok(plan.settings)
}

fn refuse_unsupported(resources: &LinuxResources) -> Result<()> {
    let asked = [
        ("blockIO", resources.block_io().as_ref().is_some_and(|io| *io != Default::default())),
        ("network", resources.network().as_ref().is_some_and(|network| *network != Default::default())),
        ("rdma", resources.rdma().as_ref().is_some_and(|rdma| !rdma.is_empty())),
    ];
    match asked.iter().find(|(_, asked)| *asked) {
        Some((name, _)) => Err(Error::Unsupported(format!("resource {name} is not supported; leave it out"))),
        None => Ok(()),
    }
}

fn set_memory(plan: &mut Plan, memory: &LinuxMemory) -> Result<()> {
    let limit = bytes("memory limit", memory.limit())?;
    let swap = bytes("memory and swap limit", memory.swap())?;
    if let Some(value) = limit {
        let value = plan.limit(value);
        plan.put("memory.limit_in_bytes", "memory.max", &value);
    }
    if let Some(total) = swap {
        set_swap(plan, limit, total)?;
    }
    if let Some(value) = bytes("memory reservation", memory.reservation())? {
        let value = plan.limit(value);
        plan.put("memory.soft_limit_in_bytes", "memory.low", &value);
    }
    for (name, value) in [("kernel", memory.kernel()), ("kernelTCP", memory.kernel_tcp())] {
        if value.is_some_and(|value| value > 0) {
            return Err(Error::Unsupported(format!(
                "memory limit {name} is deprecated and not supported; leave it out"
            )));
        }
    }
    if let Some(swappiness) = memory.swappiness() {
        plan.version_1_only("memory swappiness")?;
        if swappiness > 100 {
            return Err(Error::Invalid(format!("memory swappiness {swappiness} is not within 0 to 100")));
        }
        plan.set("memory.swappiness", &swappiness, false);
    }
    if memory.disable_oom_killer() == Some(true) {
        plan.version_1_only("disableOOMKiller")?;
        plan.set("memory.oom_control", &1, false);
    }
    Ok(())
}

/// OCI counts memory and swap together, version 2 swap alone. Without a swap controller there is no swap to limit.
fn set_swap(plan: &mut Plan, limit: Option<i64>, total: i64) -> Result<()> {
    match (limit, total) {
        (_, -1) => {
            let value = plan.limit(-1);
            plan.settings.push(swap_setting(plan.unified, value, true));
        }
        (Some(limit), total) if limit >= 0 && total >= limit => {
            let value = if plan.unified { total.saturating_sub(limit) } else { total };
            plan.settings.push(swap_setting(plan.unified, value.to_string(), total == limit));
        }
        (Some(limit), total) if limit >= 0 => {
            return Err(Error::Invalid(format!(
                "memory and swap limit {total} is less than the memory limit {limit}"
            )));
        }
        _ => return Err(Error::Invalid(format!("memory and swap limit {total} needs a memory limit"))),
    }
    Ok(())
}

fn swap_setting(unified: bool, value: String, optional: bool) -> Setting {
    let file = if unified { "memory.swap.max" } else { "memory.memsw.limit_in_bytes" };
    let absence = if optional { Absence::Same } else { Absence::Refused };
    Setting { controller: "memory", file: file.to_owned(), value, absence }
}

/// A number of bytes that was asked for: 0 is nothing asked, -1 no limit.
fn bytes(name: &str, value: Option<i64>) -> Result<Option<i64>> {
    match value {
        Some(value) if value < -1 => {
            Err(Error::Invalid(format!("{name} {value} is negative; use -1 for no limit")))
        }
        value => Ok(value.filter(|value| *value != 0)),
    }
}

fn set_cpu(plan: &mut Plan, cpu: &LinuxCpu) -> Result<()> {
    if cpu.realtime_period().is_some_and(|value| value > 0)
        || cpu.realtime_runtime().is_some_and(|value| value > 0)
    {
        return Err(Error::Unsupported("real-time cpu limits are not supported; leave them out".to_owned()));
    }
    if let Some(idle) = cpu.idle() {
        if !(0..=1).contains(&idle) {
            return Err(Error::Invalid(format!("cpu idle {idle} must be 0 or 1")));
        }
        plan.set("cpu.idle", &idle, idle == 0);
    }
    // A cgroup that is idle has no weight to set.
    if let Some(shares) = cpu.shares().filter(|shares| *shares != 0 && cpu.idle() != Some(1)) {
        if plan.unified {
            plan.set("cpu.weight", &weight(shares), false)
        } else {
            plan.set("cpu.shares", &shares, false)
        }
    }
    set_quota(plan, cpu)?;
    for (file, list) in [("cpuset.cpus", cpu.cpus()), ("cpuset.mems", cpu.mems())] {
        if let Some(list) = list.as_deref().map(str::trim).filter(|list| !list.is_empty()) {
            if !list.bytes().all(|byte| byte.is_ascii_digit() || b",-:/ ".contains(&byte)) {
                return Err(Error::Invalid(format!(
                    "{file} {list:?} is not a list of numbers such as 0-3,7"
                )));
            }
            plan.set(file, &list, false);
        }
    }
    Ok(())
}

fn set_quota(plan: &mut Plan, cpu: &LinuxCpu) -> Result<()> {
    let quota = cpu.quota().filter(|quota| *quota != 0);
    let period = cpu.period().filter(|period| *period != 0);
    if let Some(quota) = quota.filter(|quota| *quota < -1) {
        return Err(Error::Invalid(format!("cpu quota {quota} is negative; use -1 for no limit")));
    }
    if let Some(period) = period.filter(|period| !(1_000..=1_000_000).contains(period)) {
        return Err(Error::Invalid(format!(
            "cpu period {period} is not within 1000 to 1000000 microseconds"
        )));
    }
    if plan.unified {
        if quota.is_some() || period.is_some() {
            let quota = quota.map_or_else(|| "max".to_owned(), |quota| plan.limit(quota));
            plan.set("cpu.max", &format!("{quota} {}", period.unwrap_or(DEFAULT_PERIOD)), false);
        }
    } else {
        if let Some(period) = period {
            plan.set("cpu.cfs_period_us", &period, false);
        }
        if let Some(quota) = quota {
            plan.set("cpu.cfs_quota_us", &quota, quota == -1);
        }
    }
    if let Some(burst) = cpu.burst() {
        let file = if plan.unified { "cpu.max.burst" } else { "cpu.cfs_burst_us" };
        plan.set(file, &burst, burst == 0);
    }
    Ok(())
}

/// The weight for shares, by the formula that OCI runtimes agree on: 2 is 1, 1024 is 100, 262144 is 10000.
fn weight(shares: u64) -> u32 {
    let shares = u32::try_from(shares.clamp(2, 262_144)).unwrap_or(262_144);
    let log = f64::from(shares).log2();
    let exponent = log * log / 612.0 + 125.0 * log / 612.0 - 7.0 / 34.0;
    let (mut low, mut high) = (1u32, 10_000u32);
    while low < high {
        let middle = low.midpoint(high);
        if f64::from(middle).log10() >= exponent - 1e-9 {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    low
}

fn set_huge_pages(plan: &mut Plan, size: &str, limit: i64) -> Result<()> {
    let digits = size.trim_end_matches(['K', 'M', 'G', 'B']);
    if digits.is_empty() || digits.len() == size.len() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Error::Invalid(format!("huge page size {size:?} is not a size such as 2MB")));
    }
    if limit < 0 {
        return Err(Error::Invalid(format!("huge page limit {limit} for {size} is negative")));
    }
    let file = if plan.unified { "max" } else { "limit_in_bytes" };
    // Where huge pages can't be limited, kubelet still sends a limit of zero for each size.
    let absence = if limit == 0 { Absence::Same } else { Absence::Tolerated };
    plan.set_unless(&format!("hugetlb.{size}.{file}"), &limit, absence);
    plan.set(&format!("hugetlb.{size}.rsvd.{file}"), &limit, true);
    Ok(())
}

fn set_unified(plan: &mut Plan, resources: &LinuxResources) -> Result<()> {
    let Some(entries) = resources.unified().as_ref().filter(|entries| !entries.is_empty()) else {
        return Ok(());
    };
    if !plan.unified {
        return Err(Error::Unsupported(
            "unified resources need cgroup version 2; this node has version 1".to_owned(),
        ));
    }
    let mut entries: Vec<_> = entries.iter().collect();
    entries.sort();
    for (file, value) in entries {
        let plain = file.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        let known =
            file.split_once('.').is_some_and(|(name, rest)| UNIFIED.contains(&name) && !rest.is_empty());
        if !plain || !known {
            return Err(Error::Invalid(format!(
                "unified resource {file:?} is no file of a controller, such as memory.high"
            )));
        }
        plan.set(file, &value, false);
    }
    Ok(())
}

/// Write settings to a cgroup.
pub(super) fn write(settings: &[Setting], location: &Location) -> Result<()> {
    let mut postponed = Vec::new();
    for setting in settings {
        let Some(path) = location.controller(setting.controller) else {
            absent(setting, Path::new(setting.controller), location)?;
            continue;
        };
        let path = path.join(&setting.file);
        match files::write_raw(&path, &setting.value) {
            Err(error) if is_gone(&error) => absent(setting, &path, location)?,
            // The value of each file of such a pair is bounded by the other's: write this one after the other.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) && is_paired(&setting.file) => {
                postponed.push((setting, path))
            }
            result => result.map_err(|source| files::rejected(&path, &setting.value, source))?,
        }
    }
    postponed.iter().try_for_each(|(setting, path)| files::write(path, &setting.value))
}

fn is_paired(file: &str) -> bool {
    matches!(file, "memory.limit_in_bytes" | "cpu.cfs_period_us")
}

fn absent(setting: &Setting, path: &Path, location: &Location) -> Result<()> {
    let Setting { controller, file, value, absence } = setting;
    match absence {
        Absence::Same => Ok(()),
        Absence::Tolerated if !has_controller(location, controller) => {
            let cgroup = location.directories.first().map(|directory| directory.path.display().to_string());
            tracing::warn!(cgroup, "{file} is not set to {value}: the node has no {controller} controller");
            Ok(())
        }
        Absence::Refused | Absence::Tolerated => Err(Error::Unsupported(format!(
            "{file} can't be set to {value}: {} does not exist on this node",
            path.display()
        ))),
    }
}

/// Whether a controller is there for a cgroup.
fn has_controller(location: &Location, name: &str) -> bool {
    let Some(path) = location.controller(name) else { return false };
    let listed = |text: String| text.split_whitespace().any(|one| one == name);
    !location.unified || files::read(&path.join("cgroup.controllers")).is_ok_and(listed)
}

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;

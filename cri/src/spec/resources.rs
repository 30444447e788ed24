//! Limits.

use oci_spec::runtime::{
    Linux, LinuxCpu, LinuxHugepageLimit, LinuxHugepageLimitBuilder, LinuxMemory, LinuxResources, Process,
    Spec,
};
use slipway_proto::runtime::v1 as cri;
use slipway_runtime::{Bound, Numbers, SandboxId};

use crate::error::{Error, Result};
use crate::node::Node;

const AT: &str = "config.linux.resources";

pub(super) fn fill(spec: &mut Spec, config: &cri::ContainerConfig) -> Result<()> {
    let Some(wanted) = config.linux.as_ref().and_then(|linux| linux.resources.as_ref()) else {
        return Ok(());
    };
    let adjustment = i32::try_from(wanted.oom_score_adj).ok().filter(|value| (-1000..=1000).contains(value));
    let adjustment = adjustment.ok_or_else(|| {
        let reason = format!("{} is not between -1000 and 1000", wanted.oom_score_adj);
        Error::invalid(format!("{AT}.oom_score_adj"), reason)
    })?;
    let process = spec.process_mut().get_or_insert_with(Process::default);
    process.set_oom_score_adj(Some(adjustment));
    let linux = spec.linux_mut().get_or_insert_with(Linux::default);
    let resources = linux.resources_mut().get_or_insert_with(LinuxResources::default);
    resources.set_cpu(Some(cpu(wanted)?));
    resources.set_memory(Some(memory(wanted)));
    let hugepages = hugepages(&wanted.hugepage_limits)?;
    if !hugepages.is_empty() {
        resources.set_hugepage_limits(Some(hugepages));
    }
    unified(&wanted.unified)?;
    if !wanted.unified.is_empty() {
        resources.set_unified(Some(wanted.unified.clone().into_iter().collect()));
    }
    Ok(())
}

/// 0 and empty mean that nothing is wished.
fn cpu(wanted: &cri::LinuxContainerResources) -> Result<LinuxCpu> {
    let positive = |name: &str, value: i64| {
        let value = u64::try_from(value);
        let value = value.map_err(|_| Error::invalid(format!("{AT}.{name}"), "it is less than 0"))?;
        Ok::<_, Error>(Some(value).filter(|value| *value != 0))
    };
    let mut cpu = LinuxCpu::default();
    cpu.set_shares(positive("cpu_shares", wanted.cpu_shares)?);
    cpu.set_period(positive("cpu_period", wanted.cpu_period)?);
    cpu.set_quota(Some(wanted.cpu_quota).filter(|quota| *quota != 0));
    cpu.set_cpus(Some(wanted.cpuset_cpus.clone()).filter(|set| !set.is_empty()));
    cpu.set_mems(Some(wanted.cpuset_mems.clone()).filter(|set| !set.is_empty()));
    Ok(cpu)
}

/// Refuses processors and memory nodes that are no list, or that the pod does not have.
pub(crate) fn check_sets(node: &Node, pod: &SandboxId, config: &cri::ContainerConfig) -> Result<()> {
    let Some(wanted) = config.linux.as_ref().and_then(|linux| linux.resources.as_ref()) else {
        return Ok(());
    };
    for (name, text, bound) in
        [("cpuset_cpus", &wanted.cpuset_cpus, Bound::Cpus), ("cpuset_mems", &wanted.cpuset_mems, Bound::Mems)]
    {
        if !text.is_empty() {
            check_set(&format!("{AT}.{name}"), text, || node.runtime.numbers(pod, bound))?;
        }
    }
    Ok(())
}

fn check_set<E>(field: &str, text: &str, there: impl FnOnce() -> Result<Numbers, E>) -> Result<()>
where
    Error: From<E>,
{
    let wanted: Numbers =
        text.parse().map_err(|error: slipway_runtime::Error| Error::invalid(field, error.to_string()))?;
    let there = there()?;
    match wanted.first_beyond(&there) {
        Some(beyond) => {
            let reason = format!("{text:?} asks for {beyond}, and its pod can have {there}");
            Err(Error::invalid(field, reason))
        }
        None => Ok(()),
    }
}

/// A limit of memory alone is the limit of memory and swap together: there is no swap beyond it. What a pod may swap on
/// version 2 kubelet says in `unified`, which comes later.
fn memory(wanted: &cri::LinuxContainerResources) -> LinuxMemory {
    let limit = Some(wanted.memory_limit_in_bytes).filter(|limit| *limit != 0);
    let swap = Some(wanted.memory_swap_limit_in_bytes).filter(|limit| *limit != 0);
    let mut memory = LinuxMemory::default();
    memory.set_limit(limit);
    memory.set_swap(swap.or_else(|| limit.filter(|limit| *limit > 0)));
    memory
}

/// kubelet sends a limit of 0 for every size of the node, which the runtime leaves out where huge pages can't be limited.
fn hugepages(limits: &[cri::HugepageLimit]) -> Result<Vec<LinuxHugepageLimit>> {
    limits
        .iter()
        .map(|limit| {
            let bad = |reason: String| Error::invalid(format!("{AT}.hugepage_limits"), reason);
            let bytes =
                i64::try_from(limit.limit).map_err(|_| bad(format!("{} bytes are too many", limit.limit)))?;
            let built = LinuxHugepageLimitBuilder::default().page_size(&limit.page_size).limit(bytes).build();
            built.map_err(|error| bad(error.to_string()))
        })
        .collect()
}

fn unified(files: &std::collections::BTreeMap<String, String>) -> Result<()> {
    match files.keys().find(|name| name.contains('/') || name.starts_with('.') || !name.contains('.')) {
        Some(bad) => {
            Err(Error::invalid(format!("{AT}.unified"), format!("{bad:?} is no file of a controller")))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(resources: cri::LinuxContainerResources) -> Result<Spec> {
        let linux = cri::LinuxContainerConfig { resources: Some(resources), security_context: None };
        let config = cri::ContainerConfig { linux: Some(linux), ..Default::default() };
        let mut spec = Spec::default();
        fill(&mut spec, &config)?;
        Ok(spec)
    }

    #[test]
    fn a_hugepage_limit_of_0_is_a_limit() {
        let limit = cri::HugepageLimit { page_size: "2MB".into(), limit: 0 };
        let spec =
            filled(cri::LinuxContainerResources { hugepage_limits: vec![limit], ..Default::default() });
        let resources = spec.unwrap().linux().clone().unwrap().resources().clone().unwrap();
        let limits = resources.hugepage_limits().clone().unwrap();
        assert_eq!(
            limits.iter().map(|limit| (limit.page_size().as_str(), limit.limit())).collect::<Vec<_>>(),
            [("2MB", 0)]
        );
        assert_eq!(resources.memory().and_then(|memory| memory.limit()), None);
    }

    #[test]
    fn a_limit_of_memory_alone_is_that_of_swap_too() {
        let told = |memory_limit_in_bytes, memory_swap_limit_in_bytes| {
            let wanted = cri::LinuxContainerResources {
                memory_limit_in_bytes,
                memory_swap_limit_in_bytes,
                ..Default::default()
            };
            (memory(&wanted).limit(), memory(&wanted).swap())
        };
        assert_eq!(told(5, 0), (Some(5), Some(5)));
        assert_eq!(told(5, 9), (Some(5), Some(9)));
        assert_eq!(told(5, -1), (Some(5), Some(-1)));
        assert_eq!(told(-1, 0), (Some(-1), None));
        assert_eq!(told(0, 0), (None, None));
    }

    #[test]
    fn a_set_that_is_no_list_or_that_the_pod_does_not_have_is_named() {
        let said = |text: &str| {
            let there = || "0-3".parse();
            check_set::<slipway_runtime::Error>("f", text, there).err().map(|error| error.to_string())
        };
        assert_eq!(said("0-1,3"), None);
        assert_eq!(
            said("2-6").as_deref(),
            Some("field f is invalid: \"2-6\" asks for 4, and its pod can have 0-3")
        );
        assert_eq!(
            said("2-").as_deref(),
            Some("field f is invalid: \"2-\" is not a list of numbers such as 0-3,7")
        );
    }

    #[test]
    fn a_unified_key_stays_in_the_cgroup() {
        for (name, fine) in [("memory.oom.group", true), ("../x.y", false), ("cgroup/procs.x", false)] {
            let unified = [(name.to_owned(), "1".to_owned())].into();
            let outcome = filled(cri::LinuxContainerResources { unified, ..Default::default() });
            assert_eq!(outcome.is_ok(), fine, "{name}");
        }
    }
}

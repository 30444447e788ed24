//! Tests of the settings that OCI resources become, on both cgroup versions.

use super::*;

fn resources(json: &str) -> LinuxResources {
    serde_json::from_str(json).unwrap()
}

fn planned(json: &str, unified: bool) -> Vec<(String, String)> {
    plan(&resources(json), unified).unwrap().into_iter().map(|one| (one.file, one.value)).collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(file, value)| ((*file).to_owned(), (*value).to_owned())).collect()
}

fn refusal(json: &str, unified: bool) -> String {
    plan(&resources(json), unified).unwrap_err().to_string()
}

#[test]
fn version_2_counts_swap_alone() {
    let json = r#"{"memory":{"limit":1000,"swap":1500,"reservation":10}}"#;
    assert_eq!(
        planned(json, true),
        pairs(&[("memory.max", "1000"), ("memory.swap.max", "500"), ("memory.low", "10")])
    );
    let legacy = [
        ("memory.limit_in_bytes", "1000"),
        ("memory.memsw.limit_in_bytes", "1500"),
        ("memory.soft_limit_in_bytes", "10"),
    ];
    assert_eq!(planned(json, false), pairs(&legacy));
    let none = r#"{"memory":{"limit":-1,"swap":-1}}"#;
    assert_eq!(planned(none, true), pairs(&[("memory.max", "max"), ("memory.swap.max", "max")]));
    assert_eq!(
        planned(none, false),
        pairs(&[("memory.limit_in_bytes", "-1"), ("memory.memsw.limit_in_bytes", "-1")])
    );
}

#[test]
fn zero_is_nothing_asked() {
    let json =
        r#"{"memory":{"limit":0,"swap":0},"cpu":{"shares":0,"quota":0,"period":0,"cpus":"","mems":""}}"#;
    assert_eq!(planned(json, true), []);
    assert_eq!(planned(json, false), []);
}

#[test]
fn an_equal_swap_limit_needs_no_swap_controller() {
    let settings = plan(&resources(r#"{"memory":{"limit":8,"swap":8}}"#), true).unwrap();
    assert_eq!(settings.iter().map(|one| one.absence).collect::<Vec<_>>(), [Absence::Refused, Absence::Same]);
    let settings = plan(&resources(r#"{"memory":{"limit":8,"swap":9}}"#), true).unwrap();
    assert!(settings.iter().all(|one| one.absence == Absence::Refused));
}

#[test]
fn shares_become_weights_by_the_common_formula() {
    let expected = [
        (0, 1),
        (2, 1),
        (102, 17),
        (512, 59),
        (1024, 100),
        (2048, 174),
        (262_144, 10_000),
        (u64::MAX, 10_000),
    ];
    for (shares, expected) in expected {
        assert_eq!(weight(shares), expected, "{shares}");
    }
}

#[test]
fn cpu_limits_are_one_file_or_two() {
    let json =
        r#"{"cpu":{"shares":1024,"quota":50000,"period":100000,"cpus":"0-1","mems":"0"},"pids":{"limit":7}}"#;
    let unified = [
        ("cpu.weight", "100"),
        ("cpu.max", "50000 100000"),
        ("cpuset.cpus", "0-1"),
        ("cpuset.mems", "0"),
        ("pids.max", "7"),
    ];
    assert_eq!(planned(json, true), pairs(&unified));
    let legacy = [
        ("cpu.shares", "1024"),
        ("cpu.cfs_period_us", "100000"),
        ("cpu.cfs_quota_us", "50000"),
        ("cpuset.cpus", "0-1"),
        ("cpuset.mems", "0"),
        ("pids.max", "7"),
    ];
    assert_eq!(planned(json, false), pairs(&legacy));
    assert_eq!(planned(r#"{"cpu":{"quota":-1}}"#, true), pairs(&[("cpu.max", "max 100000")]));
}

#[test]
fn impossible_values_are_refused_by_name() {
    for (json, word) in [
        (r#"{"memory":{"limit":-2}}"#, "memory limit -2"),
        (r#"{"memory":{"swap":5}}"#, "needs a memory limit"),
        (r#"{"memory":{"limit":6,"swap":5}}"#, "less than"),
        (r#"{"memory":{"limit":9223372036854775807,"swap":-9223372036854775808}}"#, "negative"),
        (r#"{"memory":{"swappiness":10}}"#, "swappiness"),
        (r#"{"cpu":{"quota":-7}}"#, "quota -7"),
        (r#"{"cpu":{"period":1}}"#, "period 1"),
        (r#"{"cpu":{"cpus":"0\n1"}}"#, "cpuset.cpus"),
        (r#"{"cpu":{"idle":2}}"#, "idle 2"),
        (r#"{"pids":{"limit":-3}}"#, "pids limit"),
        (r#"{"hugepageLimits":[{"pageSize":"../x","limit":1}]}"#, "huge page size"),
        (r#"{"hugepageLimits":[{"pageSize":"2MB","limit":-1}]}"#, "negative"),
        (r#"{"blockIO":{"weight":10}}"#, "blockIO"),
        (r#"{"unified":{"../memory.max":"1"}}"#, "unified"),
        (r#"{"unified":{"cgroup.procs":"1"}}"#, "cgroup.procs"),
        (r#"{"unified":{"memory":"1"}}"#, "unified"),
        (r#"{"unified":{"memory.x/../../y":"1"}}"#, "unified"),
    ] {
        let message = refusal(json, true);
        assert!(message.contains(word), "{message}");
    }
    assert!(refusal(r#"{"unified":{"memory.high":"1"}}"#, false).contains("version 2"));
}

#[test]
fn unified_entries_come_last_and_a_missing_file_is_named() {
    let json = r#"{"memory":{"limit":9},"unified":{"memory.oom.group":"1","memory.max":"7"}}"#;
    let expected = pairs(&[("memory.max", "9"), ("memory.max", "7"), ("memory.oom.group", "1")]);
    assert_eq!(planned(json, true), expected);
    let directory = tempfile::tempdir().unwrap();
    let directories =
        vec![crate::cgroup::Directory { controllers: Vec::new(), path: directory.path().to_owned() }];
    let location = Location { unified: true, directories };
    let error =
        write(&plan(&resources(r#"{"unified":{"memory.high":"1"}}"#), true).unwrap(), &location).unwrap_err();
    assert!(error.to_string().contains("memory.high"), "{error}");
    let zero = plan(&resources(r#"{"hugepageLimits":[{"pageSize":"2MB","limit":0}]}"#), true).unwrap();
    write(&zero, &location).unwrap();
}

#[test]
fn a_limit_of_huge_pages_is_needed_where_there_is_the_controller() {
    let directory = tempfile::tempdir().unwrap();
    let directories =
        vec![crate::cgroup::Directory { controllers: Vec::new(), path: directory.path().to_owned() }];
    let location = Location { unified: true, directories };
    let limit = plan(&resources(r#"{"hugepageLimits":[{"pageSize":"3MB","limit":3}]}"#), true).unwrap();
    write(&limit, &location).unwrap();
    std::fs::write(directory.path().join("cgroup.controllers"), "cpu hugetlb memory\n").unwrap();
    let error = write(&limit, &location).unwrap_err().to_string();
    assert!(error.contains("hugetlb.3MB.max"), "{error}");
}

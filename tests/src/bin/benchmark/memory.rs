//! The memory and CPU time that runtimes take, from /proc.

use crate::life::WORKLOAD;
use crate::subject::Subject;
use crate::table::Section;
use std::fs;

/// Programs that watch over containers.
const SUPERVISORS: [&str; 2] = ["slipway-monitor", "containerd-shim-runc-v2"];

/// A process.
struct Process {
    pid: i32,
    parent: i32,
    command: Vec<String>,
}

/// Kibibytes of a process.
#[derive(Debug, Default, Clone, Copy)]
struct Memory {
    resident: f64,
    proportional: f64,
    private: f64,
}

/// The daemons before their first pod.
pub(crate) fn idle(subjects: &[Subject]) -> Section {
    let mut section = Section::new(subjects, "memory, before the first pod");
    for (place, subject) in subjects.iter().enumerate() {
        section.add(place, ("daemon, resident", "KiB"), of(subject.pid).resident);
    }
    section
}

/// The daemon and what it has for each pod.
pub(crate) fn crowd(subject: &Subject, pods: usize, (place, section): (usize, &mut Section)) {
    section.add(place, ("daemon, resident", "KiB"), of(subject.pid).resident);
    let (watching, beside) = for_pods(subject);
    let count = f64::from(u32::try_from(pods).unwrap_or(u32::MAX));
    let sum = |pids: &[i32], part: fn(Memory) -> f64| pids.iter().map(|pid| part(of(*pid))).sum::<f64>();
    let private = sum(&watching, |memory| memory.private);
    section.add(place, ("a pod's supervisor, private", "KiB"), private / count);
    let all = [watching, beside].concat();
    let proportional = sum(&all, |memory| memory.proportional);
    section.add(place, ("a pod less its workload, PSS", "KiB"), proportional / count);
}

/// Seconds of processor time that the daemon and the supervisors have used.
pub(crate) fn cpu(subject: &Subject) -> f64 {
    let (watching, _) = for_pods(subject);
    watching.into_iter().chain([subject.pid]).map(seconds).sum()
}

/// Supervisors of a runtime, and what runs below them besides the workload.
fn for_pods(subject: &Subject) -> (Vec<i32>, Vec<i32>) {
    let all = processes();
    let ours = |process: &&Process| {
        let program = process.command.first().map(|path| path.rsplit('/').next().unwrap_or(path));
        let known = SUPERVISORS.iter().find(|name| Some(**name) == program);
        known.is_some_and(|name| name.starts_with(&subject.name))
    };
    let watching: Vec<i32> = all.iter().filter(ours).map(|process| process.pid).collect();
    let beside = all.iter().filter(|process| {
        watching.contains(&process.parent) && !process.command.iter().any(|word| word == WORKLOAD)
    });
    let beside = beside.map(|process| process.pid).collect();
    (watching, beside)
}

fn processes() -> Vec<Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(|pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let parent = stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()?;
        let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let words = command.split(|byte| *byte == 0).filter(|word| !word.is_empty());
        let command = words.map(|word| String::from_utf8_lossy(word).into_owned()).collect();
        Some(Process { pid, parent, command })
    })
    .collect()
}

fn of(pid: i32) -> Memory {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let mut memory = Memory::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let (Some(key), Some(value)) = (words.next(), words.next().and_then(|word| word.parse::<f64>().ok()))
        else {
            continue;
        };
        match key {
            "Rss:" => memory.resident = value,
            "Pss:" => memory.proportional = value,
            "Private_Clean:" | "Private_Dirty:" => memory.private += value,
            _ => {}
        }
    }
    memory
}

fn seconds(pid: i32) -> f64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let spent = threads.filter_map(|thread| {
        let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<f64>().ok()
    });
    spent.sum::<f64>() / 1e9
}

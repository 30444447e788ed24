//! The frames of this release and of the one before are kept as data, so that a change of their encoding, with which pods of
//! an earlier release could not be taken up, does not go unnoticed.

#[cfg(test)]
mod kept {
    use slipway_monitor::message::Message;
    use slipway_monitor::plan::{Join, Parameter, Plan, Step};
    use slipway_monitor::protocol::{
        self, Exit, Hierarchy, IdRange, Known, OLDEST, Reply, Request, Start, VERSION,
    };
    use slipway_monitor::wire::{List, Wire};
    use std::collections::BTreeSet;
    use std::fmt::Write as _;

    /// A frame of each version: `<version> <kind> <bytes in hexadecimal digits>`, in the order of [`frames`].
    const KEPT: &str = include_str!("data/frames.txt");

    fn exit() -> Exit {
        Exit { wait_status: 9, oom_kills: 2, started_at: -1, finished_at: i64::MAX, timed_out: true }
    }

    fn requests() -> Vec<Request> {
        let container = || String::from("c1");
        let start = Start {
            container: container(),
            log: true,
            cgroups: 8,
            hierarchy: Hierarchy::UnifiedByHand {},
            stdin: true,
            stdin_once: false,
            terminal: true,
            kill_rest: false,
        };
        let range = |inside| IdRange { inside, outside: 100_000, count: 65_536 };
        let sysctl = protocol::Parameter { name: "net/core/somaxconn".into(), value: "1".into() };
        vec![
            Request::Hello { version: VERSION },
            Request::Descriptors { count: 128 },
            Request::Setup { pod: "pod".into() },
            Request::Namespaces {
                kinds: 0x4c00_0000,
                uids: List(vec![range(0), range(7)]),
                gids: List::default(),
                hostname: "boot-é".into(),
                sysctls: List(vec![sysctl]),
            },
            Request::Start { start },
            Request::Continue { container: container() },
            Request::Exec { container: container(), terminal: true, deadline_ms: u64::MAX },
            Request::Attach { container: container(), streams: 7 },
            Request::Input { bytes: vec![0, 255, 10] },
            Request::Resize { container: String::new(), width: 80, height: 24 },
            Request::Stop { container: container(), signal: 15, grace_ms: 10_000 },
            Request::Signal { container: container(), signal: 1 },
            Request::ReopenLog { container: container() },
            Request::List {},
            Request::Watch {},
            Request::Forget { container: container() },
            Request::Shutdown {},
            Request::Hold { name: "ports 0".into() },
            Request::Keep { permitted: 1 << 40, effective: 3 },
        ]
    }

    fn replies() -> Vec<Reply> {
        let known = |pid, exit| Known { container: "c1".into(), pid, started_at: 5, exit };
        vec![
            Reply::Hello { version: VERSION, pid: 7, pod: "pod".into() },
            Reply::Done {},
            Reply::Started { pid: 8, started_at: 9 },
            Reply::AtSyncPoint { container: "c1".into(), point: 4, pid: 8 },
            Reply::Exited { container: "c1".into(), exit: exit() },
            Reply::Output { stream: 2, bytes: b"ahoy\n".to_vec() },
            Reply::Containers { containers: List(vec![known(8, None), known(0, Some(exit()))]) },
            Reply::StepFailed { step: u32::MAX, what: "clone3".into(), errno: 12 },
            Reply::Refused { why: "no".into() },
        ]
    }

    fn steps() -> Vec<Step> {
        let path = || c"etc/x".to_owned();
        let parameter = |value: Option<&std::ffi::CStr>| Parameter {
            key: c"size".into(),
            value: value.map(std::ffi::CStr::to_owned),
        };
        vec![
            Step::Root { descriptor: 1 },
            Step::MakeDirectory { path: path(), mode: 0o755 },
            Step::MakeFile { path: path(), mode: 0o644 },
            Step::MakeLink { path: path(), target: c"/y".into() },
            Step::MakeDevice { path: path(), mode: 0o20666, device: 259, uid: 1, gid: 2 },
            Step::Mount {
                kind: c"tmpfs".into(),
                target: path(),
                attributes: 6,
                parameters: List(vec![parameter(Some(c"64k")), parameter(None)]),
            },
            Step::Attach { descriptor: 2, target: path() },
            Step::Mask { path: path(), file: 3 },
            Step::ReadOnly { path: path() },
            Step::Sysctl { name: c"kernel/shmmax".into(), value: vec![b'1'] },
            Step::Hostname { name: vec![b'w'] },
            Step::SyncPoint { point: 2 },
            Step::Propagation { flags: 0x4_4000 },
            Step::Pivot {},
            Step::ReadOnlyRoot {},
            Step::Limit { resource: 7, soft: 1024, hard: u64::MAX },
            Step::OomScore { value: -999 },
            Step::Session { terminal: true },
            Step::Umask { mask: 0o022 },
            Step::WorkingDirectory { path: c"/".into() },
            Step::Bounding { set: 0xa80_425fb },
            Step::Identity { uid: 1000, gid: 1000, groups: List(vec![4, 20]) },
            Step::Capabilities { effective: 1, permitted: 2, inheritable: 3, ambient: 4 },
            Step::NoNewPrivileges {},
            Step::Seccomp { program: vec![6, 0, 0, 0, 0, 0, 255, 127] },
            Step::OwnStreams { uid: 1, gid: 2 },
            Step::Loopback {},
            Step::TerminalSize { width: 80, height: 24 },
            Step::SeccompFlags { flags: 2 },
            Step::SendProc {},
        ]
    }

    fn plan() -> Plan {
        Plan {
            clone_flags: 0x2002_0000,
            join: List(vec![Join { descriptor: 0, kind: 0x4000_0000 }]),
            steps: List(steps()),
            pause_at: 5,
            environment: List(vec![c"PATH=/bin".into()]),
            arguments: List(vec![c"sh".into(), c"-c".into()]),
            programs: List(vec![c"/bin/sh".into()]),
        }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    fn bytes(hex: &str) -> Vec<u8> {
        hex.as_bytes()
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    }

    /// Every frame as it is encoded now.
    fn frames() -> String {
        let mut text = String::new();
        for version in OLDEST..=VERSION {
            for request in requests() {
                writeln!(text, "{version} request {}", hex(&request.to_bytes(version))).unwrap();
            }
            for reply in replies() {
                writeln!(text, "{version} reply {}", hex(&reply.to_bytes(version))).unwrap();
            }
            writeln!(text, "{version} plan {}", hex(&plan().encode())).unwrap();
        }
        text
    }

    #[test]
    fn the_frames_of_each_version_are_what_they_were() {
        let now = frames();
        assert!(now == KEPT, "frames have changed: a new encoding needs a new version.\n{now}");
    }

    #[test]
    fn kept_frames_are_decoded_to_what_they_mean() {
        let (mut asked, mut told, mut planned) = (Vec::new(), Vec::new(), 0);
        for line in KEPT.lines() {
            let words: Vec<_> = line.split(' ').collect();
            let [version, kind, frame] = words[..] else { panic!("{line}") };
            let (version, frame) = (version.parse().unwrap(), bytes(frame));
            match kind {
                "request" => asked.push(Request::of_bytes(&frame, version).unwrap()),
                "reply" => told.push(Reply::of_bytes(&frame, version).unwrap()),
                _ => {
                    assert_eq!(Plan::decode(&frame), Ok(plan()));
                    planned += 1;
                }
            }
        }
        assert_eq!(asked, [requests(), requests()].concat());
        assert_eq!(told, [replies(), replies()].concat());
        assert_eq!(planned, 2);
    }

    /// The next number of each kind is refused, so that no variant lacks a frame.
    #[test]
    fn every_variant_has_a_frame() {
        let numbers = |frames: Vec<Vec<u8>>| frames.iter().map(|frame| frame[0]).collect::<BTreeSet<u8>>();
        for version in OLDEST..=VERSION {
            let asked = numbers(requests().iter().map(|one| one.to_bytes(version)).collect());
            let told = numbers(replies().iter().map(|one| one.to_bytes(version)).collect());
            for number in (0..=255).filter(|number| !asked.contains(number)) {
                let refused = Request::of_bytes(&[number], version).unwrap_err();
                assert_eq!(refused.0, "Request", "{number}");
            }
            for number in (0..=255).filter(|number| !told.contains(number)) {
                assert_eq!(Reply::of_bytes(&[number], version).unwrap_err().0, "Reply", "{number}");
            }
        }
        let planned = numbers(steps().iter().map(Wire::encode).collect());
        for number in (0..=255).filter(|number| !planned.contains(number)) {
            assert_eq!(Step::decode(&[number]).unwrap_err().0, "Step", "{number}");
        }
    }

    /// To skip a step or a part of one could leave a process less confined.
    #[test]
    fn a_plan_with_an_unknown_step_or_field_is_refused() {
        let whole = plan().encode();
        assert!(Plan::decode(&[&whole[..], &[0]].concat()).is_err());
        let mut steps = vec![1, 0, 0, 0, 250];
        assert!(List::<Step>::decode(&steps).is_err());
        steps[4] = 14;
        assert_eq!(List::<Step>::decode(&steps), Ok(List(vec![Step::Pivot {}])));
        steps.push(1);
        assert!(List::<Step>::decode(&steps).is_err());
    }

    #[test]
    fn a_torn_or_changed_frame_is_refused_or_another_one_and_nothing_worse() {
        for line in KEPT.lines() {
            let words: Vec<_> = line.split(' ').collect();
            let (version, frame) = (words[0].parse().unwrap(), bytes(words[2]));
            let read = |frame: &[u8]| match words[1] {
                "request" => drop(Request::of_bytes(frame, version)),
                "reply" => drop(Reply::of_bytes(frame, version)),
                _ => drop(Plan::decode(frame)),
            };
            (0..frame.len()).for_each(|end| read(&frame[..end]));
            for at in 0..frame.len() {
                for value in [0, 1, 127, 128, 255] {
                    let mut changed = frame.clone();
                    changed[at] = value;
                    read(&changed);
                }
            }
        }
    }
}

//! The monitor's contract, proved from outside on the built program: what a daemon may rely on when it dies, and what
//! a client that misbehaves can't do. Needs root; says so and passes without.

#[cfg(test)]
mod birth;
#[cfg(test)]
mod client;
#[cfg(test)]
mod descriptors;
#[cfg(test)]
mod places;
#[cfg(test)]
mod plans;
#[cfg(test)]
mod pod;
#[cfg(test)]
mod steps;

#[cfg(test)]
mod proofs {
    use crate::client::Client;
    use crate::places::Proc;
    use crate::pod::{Options, Pod, shell};
    use slipway_monitor::exit_file;
    use slipway_monitor::protocol::{IdRange, NEVER_RAN, Reply, Request, stream};
    use slipway_monitor::wire::List;
    use std::time::{Duration, Instant};

    const NEW_NET: u64 = 0x4000_0000;
    const NEW_UTS: u64 = 0x0400_0000;
    const NEW_IPC: u64 = 0x0800_0000;
    const NEW_USER: u64 = 0x1000_0000;

    fn started(reply: &Reply) -> i32 {
        let Reply::Started { pid, .. } = reply else { panic!("not started: {reply:?}") };
        *pid
    }

    #[test]
    fn an_exit_without_a_daemon_is_known_exactly_and_its_log_is_complete() {
        let Some(pod) = Pod::new() else { return };
        let daemon = pod.connect();
        started(&pod.start(
            &daemon,
            "one",
            &shell("sleep 0.2; echo out; echo error >&2; printf tail; exit 7"),
        ));
        drop(daemon);
        let exit = exit_file::parse("one", &pod.wait_for_file("one.exit")).unwrap();
        assert_eq!((exit.wait_status >> 8, exit.oom_kills, exit.timed_out), (7, 0, false));
        let log = pod.file("one.log");
        let ends: Vec<_> = log.lines().map(|line| line.split_once(' ').unwrap().1).collect();
        assert!(ends.contains(&"stdout F out") && ends.contains(&"stderr F error"), "{log}");
        assert_eq!(*ends.last().unwrap(), "stdout P tail");
        let Reply::Containers { containers } = pod.connect().ask(&Request::List {}) else { panic!() };
        assert_eq!(containers.0[0].exit.as_ref(), Some(&exit));
    }

    #[test]
    fn a_stop_ends_the_container_at_its_deadline_though_its_daemon_died() {
        let Some(pod) = Pod::new() else { return };
        let daemon = pod.connect();
        started(&pod.start(&daemon, "one", &shell("trap '' TERM; echo ready; while :; do sleep 0.05; done")));
        pod.wait_for_text("one.log", "ready");
        let stop = Request::Stop { container: "one".into(), signal: 15, grace_ms: 400 };
        let begun = Instant::now();
        assert_eq!(daemon.ask(&stop), Reply::Done {});
        assert!(pod.file("one.stop").contains("deadline="));
        drop(daemon);
        let exit = exit_file::parse("one", &pod.wait_for_file("one.exit")).unwrap();
        assert!(begun.elapsed() >= Duration::from_millis(400));
        assert_eq!((exit.wait_status & 0x7f, exit.timed_out), (9, true));
    }

    #[test]
    fn a_client_that_never_reads_stops_neither_the_container_nor_the_other_client() {
        let Some(pod) = Pod::new() else { return };
        let (reader, sleeper) = (pod.connect(), pod.connect());
        let attach = Request::Attach { container: "one".into(), streams: stream::STDOUT };
        assert_eq!((reader.ask(&attach), sleeper.ask(&attach)), (Reply::Done {}, Reply::Done {}));
        let daemon = pod.connect();
        let lines = shell(
            "i=0; while [ $i -lt 400 ]; do head -c 16000 /dev/zero; i=$((i+1)); sleep 0.001; done; echo end",
        );
        started(&pod.start(&daemon, "one", &lines));
        let mut read = 0;
        loop {
            match reader.next() {
                Reply::Output { bytes, .. } => read += bytes.len(),
                Reply::Exited { exit, .. } => break assert_eq!(exit.wait_status, 0),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(read, 400 * 16000 + 4);
    }

    #[test]
    fn a_session_ends_with_its_client() {
        let Some(pod) = Pod::new() else { return };
        let daemon = pod.connect();
        let init = started(&pod.start(&daemon, "one", &shell("sleep 1000")));
        let client = pod.connect();
        let pid = started(&pod.exec(&client, ("one", init), "sleep 1000", 0));
        assert!(pod.is_alive(pid));
        drop(client);
        pod.wait_until("the process has ended", || !pod.is_alive(pid));
        assert!(pod.is_alive(init));
        let client = pod.connect();
        started(&pod.exec(&client, ("one", init), "exit 3", 0));
        let Reply::Exited { exit, .. } = client.next() else { panic!() };
        assert_eq!(exit.wait_status >> 8, 3);
        let client = pod.connect();
        started(&pod.exec(&client, ("one", init), "sleep 1000", 100));
        let Reply::Exited { exit, .. } = client.next() else { panic!() };
        assert!(exit.timed_out);
    }

    #[test]
    fn a_start_whose_daemon_dies_at_a_sync_point_leaves_nothing_and_can_be_retried() {
        let Some(pod) = Pod::new() else { return };
        for point in [1, 2, 4] {
            let daemon = pod.connect();
            let options = Options { pause_at: point, ..shell("exit 0") };
            let Reply::AtSyncPoint { pid, point: at, .. } = pod.start(&daemon, "one", &options) else {
                panic!()
            };
            assert_eq!(at, point);
            drop(daemon);
            pod.wait_until("the child has ended", || !pod.is_alive(pid));
            let unknown = || {
                let Reply::Containers { containers } = pod.connect().ask(&Request::List {}) else { panic!() };
                containers.0.is_empty()
            };
            pod.wait_until("the container is unknown", unknown);
            let daemon = pod.connect();
            assert!(matches!(pod.start(&daemon, "one", &options), Reply::AtSyncPoint { .. }));
            let go_on = Request::Continue { container: "one".into() };
            assert_eq!(pod.connect().ask(&go_on), Reply::Done {});
            started(&daemon.next());
            pod.wait_for_file("one.exit");
            assert_eq!(daemon.ask(&Request::Forget { container: "one".into() }), Reply::Done {});
            pod.remove("one.exit");
        }
    }

    #[test]
    fn a_failed_step_is_named_and_the_container_unknown_again() {
        let Some(pod) = Pod::new() else { return };
        let daemon = pod.connect();
        let options = Options { program: "/bin/absent".into(), ..shell("exit 0") };
        let reply = pod.start(&daemon, "one", &options);
        assert!(matches!(&reply, Reply::StepFailed { what, errno: 2, .. } if what == "execve"), "{reply:?}");
        started(&pod.start(&daemon, "one", &shell("exit 0")));
    }

    #[test]
    fn a_client_that_waits_for_a_container_that_never_runs_is_told_so_when_it_is_forgotten() {
        let Some(pod) = Pod::new() else { return };
        let (waiting, other) = (pod.connect(), pod.connect());
        for (client, container) in [(&waiting, "one"), (&other, "two")] {
            let attach = Request::Attach { container: container.into(), streams: stream::STDOUT };
            assert_eq!(client.ask(&attach), Reply::Done {});
        }
        let daemon = pod.connect();
        let options = Options { program: "/bin/absent".into(), ..shell("exit 0") };
        assert!(matches!(pod.start(&daemon, "one", &options), Reply::StepFailed { .. }));
        assert_eq!(daemon.ask(&Request::Forget { container: "one".into() }), Reply::Done {});
        let Reply::Exited { container, exit } = waiting.next() else { panic!() };
        assert_eq!((container.as_str(), exit.wait_status >> 8), ("one", NEVER_RAN));
        started(&pod.start(&daemon, "two", &shell("exit 0")));
        let Reply::Exited { exit, .. } = other.next() else { panic!() };
        assert_eq!(exit.wait_status, 0);
    }

    /// Starts a script in a user namespace with its own network.
    fn start_in_user_namespace(pod: &Pod, script: &str) -> Reply {
        let daemon = pod.connect();
        let map = || List(vec![IdRange { inside: 0, outside: 300_000, count: 65_536 }]);
        let (uids, gids) = (map(), map());
        let (kinds, hostname) = (NEW_USER | NEW_NET | NEW_UTS | NEW_IPC, "inside".into());
        daemon.send(&Request::Namespaces { kinds, uids, gids, hostname, sysctls: List(vec![]) });
        let (reply, namespaces) = daemon.receive();
        assert_eq!((&reply, namespaces.len()), (&Reply::Done {}, 4));
        pod.give_root_to(300_000);
        // The order of bits, and the one to join: the user namespace first.
        pod.start(&daemon, "one", &Options { namespaces: Some(namespaces), ..shell(script) })
    }

    #[test]
    fn a_user_namespace_has_its_own_proc_and_sysfs_and_a_root_it_can_write_though_the_daemons_proc_is_covered()
     {
        for proc in [Proc::Fresh, Proc::FreshBesideCovered] {
            let Some(pod) = Pod::with(proc) else { return };
            let script = "set -e; echo x > /made; hostname; echo 1 > /proc/sys/net/ipv4/ip_forward; \
                          cat /proc/sys/net/ipv4/ip_forward; ls /sys/class/net; id -u; echo again > /dev/stdout";
            started(&start_in_user_namespace(&pod, script));
            let exit = exit_file::parse("one", &pod.wait_for_file("one.exit")).unwrap();
            let log = pod.file("one.log");
            assert_eq!(exit.wait_status, 0, "{log}");
            for line in ["F inside", "F 1", "F lo", "F 0", "F again"] {
                assert!(log.lines().any(|found| found.ends_with(line)), "{line}: {log}");
            }
            assert_eq!(pod.owner_of("made"), 300_000);
        }
    }

    /// Why there is a small mount namespace: the kernel lets a user namespace mount a proc only where one is seen whole.
    #[test]
    fn a_user_namespace_has_no_proc_where_its_monitor_sees_the_daemons_covered_one() {
        let Some(pod) = Pod::with(Proc::Covered) else { return };
        let reply = start_in_user_namespace(&pod, "exit 0");
        assert!(matches!(&reply, Reply::StepFailed { errno: 1, .. }), "{reply:?}");
        started(&pod.start(&pod.connect(), "two", &shell("exit 0")));
    }

    /// A full disk once cost the exit file for good, and with the monitor's end the status itself.
    #[test]
    fn an_exit_file_that_can_not_be_written_is_told_and_written_again() {
        let Some(pod) = Pod::new() else { return };
        let daemon = pod.connect();
        assert_eq!(daemon.ask(&Request::Watch {}), Reply::Done {});
        pod.obstruct("one.exit");
        started(&pod.start(&daemon, "one", &shell("exit 5")));
        let Reply::Exited { exit, .. } = daemon.next() else { panic!() };
        assert_eq!((exit.wait_status >> 8, pod.file("one.exit").as_str()), (5, ""));
        pod.give_way("one.exit");
        assert_eq!(exit_file::parse("one", &pod.wait_for_file("one.exit")), Some(exit));
    }

    #[test]
    fn a_kill_for_memory_is_known_after_its_cgroup_is_gone() {
        let Some(pod) = Pod::new() else { return };
        let Some(cgroup) = pod.memory_cgroup(16 << 20) else { return };
        let daemon = pod.connect();
        let options = Options { cgroup: Some(cgroup), ..shell("exec tail -c 1000000000 /dev/zero") };
        started(&pod.start(&daemon, "one", &options));
        let exit = exit_file::parse("one", &pod.wait_for_file("one.exit")).unwrap();
        pod.remove_cgroups();
        assert_eq!(exit.wait_status & 0x7f, 9);
        assert!(exit.oom_kills > 0);
        assert_eq!(exit_file::parse("one", &pod.file("one.exit")), Some(exit));
    }

    #[test]
    fn what_the_monitor_holds_outlives_the_daemon_until_it_is_let_go() {
        let Some(pod) = Pod::new() else { return };
        let (ours, theirs) = rustix::pipe::pipe().unwrap();
        let hold = Request::Hold { name: "ports".into() };
        pod.connect().send_with(&[theirs], &hold);
        let daemon = pod.connect();
        assert!(matches!(daemon.ask(&Request::List {}), Reply::Containers { .. }));
        rustix::io::ioctl_fionbio(&ours, true).unwrap();
        let mut byte = [0; 1];
        assert_eq!(rustix::io::read(&ours, &mut byte), Err(rustix::io::Errno::AGAIN));
        assert_eq!(daemon.ask(&hold), Reply::Done {});
        assert_eq!(rustix::io::read(&ours, &mut byte), Ok(0));
    }

    #[test]
    fn what_a_client_sends_in_bits_never_ends_the_monitor() {
        let Some(pod) = Pod::new() else { return };
        for bytes in [&[0_u8][..], &[250, 1, 2], &[5, 255, 255, 255, 255], &[11, 1, 0, 0, 0, 65]] {
            let client = pod.connect();
            client.send_bytes(bytes);
            assert!(matches!(client.next(), Reply::Refused { .. }));
        }
        let client: Client = pod.connect();
        assert!(matches!(client.ask(&Request::Hello { version: 1 }), Reply::Hello { .. }));
    }
}

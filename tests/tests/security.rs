//! The confinement of containers: capabilities, filters, hidden paths, devices, namespaces, and hostile images.

use serde_json::{Value, json};
use slipway_tests::{Node, Output, Pod, probe};
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

const STATUS: &str =
    "grep -E '^(Cap(Inh|Prm|Eff|Bnd|Amb)|NoNewPrivs|Seccomp):' /proc/self/status | tr -d '\\t\\n'";
const DEFAULT: &str = "00000000a80425fb";
const NONE: &str = "0000000000000000";

fn context(more: &Value) -> Value {
    json!({"linux": {"security_context": more}})
}

/// The output of [`STATUS`]: inheritable, permitted and effective, bounding, ambient, `no_new_privs`, seccomp.
fn privileges(sets: [&str; 4], deny: u8, seccomp: u8) -> String {
    let [inheritable, held, bounding, ambient] = sets;
    format!(
        "CapInh:{inheritable}CapPrm:{held}CapEff:{held}CapBnd:{bounding}CapAmb:{ambient}NoNewPrivs:{deny}Seccomp:{seccomp}"
    )
}

#[test]
fn a_default_container_has_the_usual_mounts_devices_and_confinement() {
    let node = Node::start();
    probe::build(&node, "busybox:1", "");
    let pod = Pod::start(&node, "web", json!({}));
    let id = pod.run("main", "exec sleep 1000", json!({}));
    let expected = privileges([NONE, DEFAULT, DEFAULT, NONE], 0, 0);
    assert_eq!(pod.exec(&id, STATUS), expected);
    assert_eq!(pod.exec(&id, &STATUS.replace("self", "1")), expected);

    check_mounts_and_devices(&pod, &id);
    check_hidden_paths(&pod, &id);
    // Lists of the request stand in place of the default's; what is absent is nothing to hide.
    let lists =
        json!({"masked_paths": ["/etc/group", "/root", "/no/such"], "readonly_paths": ["/tmp", "/no/such"]});
    let script = "wc -c </etc/group; ls -A /root; (echo x >/root/x || echo x >/tmp/x) 2>/dev/null || echo fixed; \
        probe write /proc/sys/kernel/hostname; [ ! -e /proc/keys ] || wc -c </proc/keys >/dev/null; echo seen";
    assert_eq!(pod.says("lists", script, context(&lists)), "0\nfixed\nok\nseen\n");
    // Nodes of any number can be made, but those of the host's devices can't be opened.
    assert_eq!(pod.exec(&id, "mknod /tmp/mem c 1 1 && mknod /tmp/sda b 8 0 && mknod /tmp/null c 1 3"), "");
    let opened = pod.exec(&id, "for d in mem sda null; do probe write /tmp/$d; done");
    assert_eq!(opened, "EPERM\nEPERM\nok");
    // Nothing of the daemon's or the monitor's is open in it.
    assert_eq!(
        pod.exec(&id, "ls /proc/1/fd | tr '\\n' ' '; ls /proc/self/fd | tr '\\n' ' '"),
        "0 1 2 0 1 2 3"
    );
}

fn check_mounts_and_devices(pod: &Pod<'_>, id: &str) {
    let mounts = pod.exec(id, "cut -d' ' -f2-4 /proc/self/mounts");
    for line in [
        "/proc proc rw,nosuid,nodev,noexec,relatime",
        "/dev tmpfs rw,nosuid,size=65536k,mode=755",
        "/dev/pts devpts rw,nosuid,noexec,relatime,gid=5,mode=620,ptmxmode=666",
        "/dev/mqueue mqueue rw,nosuid,nodev,noexec,relatime",
        "/dev/shm tmpfs rw,nosuid,nodev,noexec,relatime,size=65536k",
        "/sys sysfs ro,nosuid,nodev,noexec,relatime",
    ] {
        assert!(mounts.lines().any(|mount| mount.starts_with(line)), "{line}:\n{mounts}");
    }
    assert!(
        mounts.lines().any(|mount| mount.starts_with("/sys/fs/cgroup") && mount.contains(" ro,")),
        "{mounts}"
    );

    let devices = pod.exec(
        id,
        "cd /dev; for d in null zero full random urandom tty; do stat -c '%n %F %t:%T %a %u' $d; done",
    );
    let expected = [
        ("null", "1:3"),
        ("zero", "1:5"),
        ("full", "1:7"),
        ("random", "1:8"),
        ("urandom", "1:9"),
        ("tty", "5:0"),
    ];
    let expected: Vec<_> =
        expected.map(|(name, number)| format!("{name} character special file {number} 666 0")).to_vec();
    assert_eq!(devices, expected.join("\n"));
    assert_eq!(
        pod.exec(id, "cd /dev; for l in fd stdin stdout stderr ptmx; do readlink $l; done; ls | wc -l"),
        "/proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\npts/ptmx\n14"
    );
}

fn check_hidden_paths(pod: &Pod<'_>, id: &str) {
    for hidden in ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/interrupts"] {
        assert_eq!(pod.exec(id, &format!("[ ! -e {hidden} ] || cat {hidden}")), "", "{hidden}");
    }
    for hidden in ["/proc/acpi", "/proc/scsi", "/sys/devices/virtual/powercap"] {
        assert_eq!(pod.exec(id, &format!("[ ! -e {hidden} ] || ls -A {hidden}")), "", "{hidden}");
    }
    for fixed in ["/proc/sys/kernel/hostname", "/proc/sysrq-trigger", "/sys/kernel/uevent_helper"] {
        let said = pod.exec(id, &format!("[ ! -e {fixed} ] || probe write {fixed}"));
        assert!(["EROFS", ""].contains(&said.as_str()), "{fixed}: {said}");
    }
}

#[test]
fn capabilities_are_added_dropped_and_made_ambient_for_start_and_exec() {
    let node = Node::start();
    node.build("busybox:1", "");
    let pod = Pod::start(&node, "web", json!({}));
    let user = json!({"value": 1000});
    let every = field("CapBnd");
    for (number, (wish, sets)) in [
        (json!({"capabilities": {"drop_capabilities": ["ALL"]}}), [NONE, NONE, NONE, NONE]),
        (
            json!({"capabilities": {"add_capabilities": ["NET_ADMIN"], "drop_capabilities": ["cap_chown", "KILL"]}}),
            [NONE, "00000000a80435da", "00000000a80435da", NONE],
        ),
        (
            json!({"capabilities": {"add_capabilities": ["CHOWN"], "drop_capabilities": ["ALL"]}}),
            [NONE, "0000000000000001", "0000000000000001", NONE],
        ),
        (json!({"capabilities": {"add_capabilities": ["ALL"]}}), [NONE, &every, &every, NONE]),
        (json!({"run_as_user": user}), [NONE, NONE, DEFAULT, NONE]),
        (
            json!({"run_as_user": user, "capabilities": {"add_ambient_capabilities": ["NET_BIND_SERVICE"]}}),
            ["0000000000000400", "0000000000000400", DEFAULT, "0000000000000400"],
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let id = pod.run(&format!("c{number}"), "exec sleep 1000", context(&wish));
        let expected = privileges(sets, 0, 0);
        assert_eq!(pod.exec(&id, &STATUS.replace("self", "1")), expected, "start, {wish}");
        assert_eq!(pod.exec(&id, STATUS), expected, "exec, {wish}");
    }
    let error = pod.refuses("fly", "true", context(&json!({"capabilities": {"add_capabilities": ["FLY"]}})));
    assert!(error.contains("FLY") && error.contains("capabilities"), "{error}");
}

/// A line of this process's own status.
fn field(name: &str) -> String {
    let status = fs::read_to_string("/proc/self/status").expect("a status");
    let line = status.lines().find(|line| line.starts_with(name)).expect("such a line");
    line.split_whitespace().nth(1).expect("a value").to_owned()
}

#[test]
fn filters_are_the_default_s_a_file_s_or_none() {
    let node = Node::start();
    probe::build(&node, "busybox:1", "");
    let pod = Pod::start(&node, "web", json!({}));
    let calls = format!(
        "{STATUS} | grep -o 'NoNew.*'; for c in alg vsock userns keyctl inet; do probe $c; done; mkdir /x 2>&1; :"
    );
    let said = |name: &str, wish: &Value| pod.says(name, &calls, context(wish)).replace('\n', " ");
    let default = "NoNewPrivs:0Seccomp:2 EPERM EPERM EPERM EPERM ok ";
    assert_eq!(said("default", &json!({"seccomp": {"profile_type": 0}})), default);
    assert_eq!(said("old", &json!({"seccomp_profile_path": "runtime/default"})), default);
    let denied = default.replace("Privs:0", "Privs:1");
    assert_eq!(said("denied", &json!({"no_new_privs": true, "seccomp": {"profile_type": 0}})), denied);
    let free = said("free", &json!({"seccomp": {"profile_type": 1}}));
    assert!(free.starts_with("NoNewPrivs:0Seccomp:0 ") && free.ends_with(" ok ok "), "{free}");
    assert!(!free.contains("EPERM"), "{free}");

    let profile = node.path("profile.json");
    let text = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}]});
    fs::write(&profile, text.to_string()).expect("a profile");
    let local = |path: &Path| json!({"seccomp": {"profile_type": 2, "localhost_ref": path}});
    let own = said("own", &local(&profile));
    assert!(own.contains("Seccomp:2") && own.contains("not supported"), "{own}");
    fs::write(node.path("broken.json"), "{").expect("a profile");
    for name in ["absent.json", "broken.json"] {
        let error = pod.refuses("bad", "true", context(&local(&node.path(name))));
        assert!(error.contains(name), "{error}");
    }
    assert!(pod.refuses("loose", "true", context(&local(Path::new("../x")))).contains("../x"));
}

#[test]
fn a_privileged_container_has_all_that_the_daemon_has() {
    let node = Node::start();
    probe::build(&node, "busybox:1", "");
    let pod = Pod::start(&node, "web", json!({}));
    let id = pod.run("main", "exec sleep 1000", context(&json!({"privileged": true})));
    let all = field("CapBnd");
    assert_eq!(pod.exec(&id, STATUS), privileges([NONE, &all, &all, NONE], 0, 0));
    let mounts = pod.exec(&id, "cut -d' ' -f2-4 /proc/self/mounts");
    assert!(!mounts.contains("/proc/"), "{mounts}");
    assert!(mounts.contains("/sys sysfs rw") && !mounts.contains(" ro,"), "{mounts}");
    assert_eq!(
        pod.exec(&id, "probe write /proc/sys/kernel/hostname; mknod /tmp/kmsg c 1 11; probe write /tmp/kmsg"),
        "ok\nok"
    );
    let devices =
        Output::of(std::process::Command::new("find").args(["/dev", "-maxdepth", "1", "-type", "c,b"]));
    let inside = pod.exec(&id, "ls /dev");
    for device in devices.ok().lines().filter_map(|path| path.strip_prefix("/dev/")) {
        let kept = ["console", "ptmx"].contains(&device);
        assert!(kept || inside.lines().any(|name| name == device), "{device}:\n{inside}");
    }
}

#[test]
fn a_device_of_the_request_is_there_and_may_be_used_as_asked() {
    let node = Node::start();
    probe::build(&node, "busybox:1", "");
    let pod = Pod::start(&node, "web", json!({}));
    let device = |host: &str, inside: &str, access: &str| {
        // The kernel's log is read with a capability of its own.
        json!({"devices": [{"host_path": host, "container_path": inside, "permissions": access}],
            "linux": {"security_context": {"capabilities": {"add_capabilities": ["SYSLOG"]}}}})
    };
    let script = "stat -c '%F %t:%T' /dev/log0; probe write /dev/log0; cat /dev/null </dev/log0 && echo read";
    assert_eq!(
        pod.says("rw", script, device("/dev/kmsg", "/dev/log0", "rw")),
        "character special file 1:b\nok\nread\n"
    );
    let said = pod.says("r", script, device("/dev/kmsg", "/dev/log0", "r"));
    assert_eq!(said, "character special file 1:b\nEPERM\nread\n");
    for (host, access, named) in [
        ("/dev/no-such", "rw", "/dev/no-such"),
        ("/etc/passwd", "r", "/etc/passwd"),
        ("/dev/kmsg", "rx", "rx"),
    ] {
        let error = pod.refuses("bad", "true", device(host, "/dev/x", access));
        assert!(error.contains(named) && error.contains("devices[0]"), "{error}");
    }
}

/// This process's namespace of a kind: that of the daemon, which the test has started.
fn own(kind: &str) -> String {
    fs::read_link(format!("/proc/self/ns/{kind}")).expect("a namespace").display().to_string()
}

#[test]
fn a_pod_has_namespaces_of_its_own_but_for_those_that_are_the_host_s() {
    let node = Node::start();
    node.build("busybox:1", "");
    let script = "for n in net ipc pid uts mnt cgroup; do readlink /proc/self/ns/$n; done";
    let shared = |options: &Value| {
        let wish = json!({"linux": {"security_context": {"namespace_options": options}}});
        let name = format!("p{}{}{}", options["network"], options["ipc"], options["pid"]);
        let pod = Pod::start(&node, &name, wish.clone());
        let said = pod.says(&name, script, wish);
        let kinds =
            ["net", "ipc", "pid", "uts", "mnt", "cgroup"].into_iter().zip(said.lines().map(str::to_owned));
        kinds.filter(|(kind, found)| own(kind) == *found).map(|(kind, _)| kind).collect::<Vec<_>>()
    };
    assert_eq!(shared(&json!({"network": 2, "ipc": 0, "pid": 1})), ["net"]);
    assert_eq!(shared(&json!({"network": 2, "ipc": 2, "pid": 2})), ["net", "ipc", "pid"]);
    assert!(shared(&json!({"network": 0, "ipc": 0, "pid": 0})).is_empty());
}

#[test]
fn on_the_host_s_process_ids_the_end_of_the_first_process_ends_the_rest() {
    let node = Node::start();
    node.build("busybox:1", "");
    let host = json!({"linux": {"security_context": {"namespace_options": {"network": 2, "pid": 2}}}});
    let pod = Pod::start(&node, "web", host.clone());
    let id = pod.run("main", "(trap '' TERM HUP; while :; do sleep 0.2; done) & echo $!; exit 3", host);
    assert_eq!(node.exited(&id)["exitCode"], 3);
    let pid = node.crictl(&["logs", &id]).ok().to_owned();
    assert!(!Path::new("/proc").join(&pid).exists(), "{pid} lives on");
}

#[test]
fn kernel_parameters_of_the_pod_are_set_and_those_of_the_node_refused() {
    let node = Node::start();
    node.build("busybox:1", "");
    let sysctls = |network: i32, ipc: i32, sysctls: Value| {
        let options = json!({"network": network, "ipc": ipc, "pid": 1});
        json!({"linux": {"sysctls": sysctls, "security_context": {"namespace_options": options}}})
    };
    let fine = json!({"net.ipv4.ip_unprivileged_port_start": "1000", "kernel.shm_rmid_forced": "1", "net/ipv4/ip_forward": "1"});
    let pod = Pod::start(&node, "web", sysctls(0, 0, fine));
    let values =
        "cd /proc/sys; cat net/ipv4/ip_unprivileged_port_start kernel/shm_rmid_forced net/ipv4/ip_forward";
    assert_eq!(pod.says("main", values, json!({})), "1000\n1\n1\n");
    for (number, (network, ipc, name, value)) in [
        (0, 0, "kernel.core_pattern", "|/evil"),
        (0, 0, "vm.overcommit_memory", "1"),
        (0, 0, "net/../kernel/core_pattern", "x"),
        (0, 0, "net.ipv4.no_such_thing", "1"),
        (0, 0, "net.ipv4.ip_forward", "many"),
        (2, 0, "net.ipv4.ip_forward", "1"),
        (2, 2, "kernel.shm_rmid_forced", "1"),
    ]
    .into_iter()
    .enumerate()
    {
        let file = node.pod_file(&format!("bad{number}"), sysctls(network, ipc, json!({name: value})));
        let refused = node.crictl(&["runp", &file]);
        let last = name.rsplit(['.', '/']).next().expect("a name");
        assert!(refused.error().contains(last), "{name}: {refused:#?}");
    }
    assert_eq!(node.crictl(&["pods", "-q"]).ok().lines().count(), 1);
}

#[test]
fn an_image_s_links_never_lead_to_the_host() {
    let node = Node::start();
    let host = node.path("host");
    for name in ["dev", "etc", "deck", "volume", "sys"] {
        fs::create_dir_all(host.join(name)).expect("a directory of the host");
    }
    fs::write(host.join("etc/hosts"), "host's own").expect("a file of the host");
    let before = listing(&host);
    probe::build_from(&node, "busybox:1", |context| {
        slipway_tests::busybox::context(context, "");
        let root = context.join("root");
        let up = Path::new("../../../../../..").join(host.strip_prefix("/").expect("an absolute path"));
        symlink(up.join("dev"), root.join("dev")).expect("a link");
        symlink(host.join("etc/hosts"), root.join("etc/hosts")).expect("a link");
        symlink(up.join("etc/resolv.conf"), root.join("etc/resolv.conf")).expect("a link");
        symlink(host.join("deck"), root.join("deck")).expect("a link");
        symlink(host.join("volume"), root.join("volume")).expect("a link");
        fs::write(
            context.join("Dockerfile"),
            "FROM scratch\nCOPY root/ /\nWORKDIR /\nVOLUME /volume /../../../escape\nENTRYPOINT [\"/bin/busybox\", \"sh\", \"-c\"]\n",
        )
        .expect("a Dockerfile");
    });
    let pod = Pod::start(&node, "web", json!({}));
    let script = "b=/bin/busybox; $b mkdir -p /deck/made; $b touch /deck/made/x /volume/x /escape/x; echo x >/dev/null;
        $b stat -c %F /dev/null; $b grep -c own /etc/hosts; $b wc -l </etc/resolv.conf >/dev/null && echo resolv";
    let wish = json!({"command": [], "args": [script], "working_dir": "/deck/deep",
        "mounts": [{"host_path": "/etc/hostname", "container_path": "/deck/name"}]});
    assert_eq!(pod.says("main", "", wish), "character special file\n0\nresolv\n");
    assert_eq!(listing(&host), before);
    assert_eq!(fs::read_to_string(host.join("etc/hosts")).expect("the file"), "host's own");

    // The mounts that hide parts of /proc and /sys must not be led elsewhere.
    for (number, name) in ["proc", "sys"].into_iter().enumerate() {
        let image = format!("linked:{number}");
        probe::build_from(&node, &image, |context| {
            slipway_tests::busybox::context(context, "");
            symlink("/elsewhere", context.join("root").join(name)).expect("a link");
            fs::write(context.join("Dockerfile"), "FROM scratch\nCOPY root/ /\n").expect("a Dockerfile");
        });
        let mut pod = Pod::start(&node, &format!("linked{number}"), json!({}));
        pod.image = image;
        let error = pod.refuses("main", "", json!({"command": ["/bin/busybox", "true"]}));
        assert!(error.contains(&format!("/{name}")) && error.contains("/elsewhere"), "{error}");
    }
}

/// Each path below a directory with its type, length and time.
fn listing(directory: &Path) -> String {
    let mut find = std::process::Command::new("find");
    Output::of(find.arg(directory).args(["-printf", "%p %y %s %T@\\n"])).ok().to_owned()
}

#[test]
fn a_container_that_runs_its_own_runtime_gains_nothing() {
    let node = Node::start();
    probe::build(
        &node,
        "busybox:1",
        "RUN printf '#!/proc/self/exe\\n' >/evil && chmod 755 /evil && ln -s /proc/self/exe /self\n",
    );
    let shared = json!({"linux": {"security_context": {"namespace_options": {"pid": 0}}}});
    let pod = Pod::start(&node, "web", shared);
    for (name, program) in [("script", "/evil"), ("link", "/self"), ("direct", "/proc/self/exe")] {
        // Whether it starts is the kernel's business; that it does nothing is ours.
        let created = pod.create(name, "", json!({"command": [program, "setup"]})).ok().to_owned();
        if node.crictl(&["start", &created]).status == 0 {
            assert_ne!(node.exited(&created)["exitCode"], 0, "{program}");
        }
    }
    let before = fs::metadata(node.path("lib/pause")).expect("the pod's first program");
    let id = pod.run("main", "exec sleep 1000", json!({}));
    let said =
        pod.exec(&id, "probe write /proc/1/exe; probe write /proc/1/root/pause; tr -d '\\0' </proc/1/comm");
    assert!(said.ends_with("pause") && !said.contains("ok"), "{said}");
    let after = fs::metadata(node.path("lib/pause")).expect("the pod's first program");
    assert_eq!(
        (before.ino(), before.mtime_nsec(), before.len()),
        (after.ino(), after.mtime_nsec(), after.len())
    );
    assert_eq!(pod.exec(&id, "echo well"), "well");
}

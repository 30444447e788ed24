//! Between clone and exec a child works for the runtime, with its descriptors. An image, a container or a client chooses
//! the path of the program that ends this: it must not lead through one of them, by any route.

use slipway_runtime::spec::Privilege;
use slipway_runtime::{ContainerId, ContainerPid, ContainerRequest, Exec, PidMode, SandboxId};
use slipway_tests::{Embedded, Node, compiler};
use std::fmt::Write as _;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt};
use std::path::{Path, PathBuf};

const NUMBERS: std::ops::RangeInclusive<u32> = 3..=64;
const RAN: &str = "the host's program ran";

/// A program outside of every container, and paths that would lead to it if descriptor N were open on a directory.
struct Host {
    directory: PathBuf,
    before: Vec<(PathBuf, u64, i64, u32, Vec<u8>)>,
}

impl Host {
    fn new(directory: PathBuf) -> Self {
        fs::create_dir_all(&directory).expect("a directory of the host");
        let source = format!("#include <stdio.h>\nint main(void) {{ puts(\"{RAN}\"); return 0; }}\n");
        compiler::compile(&source, &directory.join("program"), &["-static"]);
        let before = snapshot(&directory);
        Self { directory, before }
    }

    /// The directory, through a descriptor.
    fn through(&self, number: u32) -> String {
        format!("/proc/self/fd/{number}/../../../../../../../../..{}", self.directory.display())
    }

    /// Search paths of which each element leads there, or to a file of the image whose interpreter does.
    fn search_paths(&self) -> [(&'static str, String); 3] {
        let join = |of: &dyn Fn(u32) -> String| NUMBERS.map(of).collect::<Vec<_>>().join(":");
        [
            ("path", join(&|number| self.through(number))),
            ("script", join(&|number| format!("/scripts/{number}"))),
            ("interpreter", join(&|number| format!("/binaries/{number}"))),
        ]
    }

    /// Fills an image's root with the scripts and binaries of [`Self::search_paths`].
    fn fill(&self, root: &Path) {
        const ROOM: usize = 240;
        let binary = self.directory.with_file_name("interpreted");
        let hole = "/".repeat(ROOM);
        compiler::compile(
            "int main(void) { return 0; }",
            &binary,
            &[&format!("-Wl,--dynamic-linker={hole}")],
        );
        let binary = fs::read(&binary).expect("the binary");
        let at = binary.windows(ROOM).position(|bytes| bytes == hole.as_bytes()).expect("its interpreter");
        for number in NUMBERS {
            let mut interpreter = format!("{}/program", self.through(number)).into_bytes();
            let script = [b"#!", interpreter.as_slice(), b"\n"].concat();
            interpreter.resize(ROOM, 0);
            let mut patched = binary.clone();
            patched[at..at + ROOM].copy_from_slice(&interpreter);
            for (kind, bytes) in [("scripts", script), ("binaries", patched)] {
                let path = root.join(kind).join(number.to_string()).join("program");
                fs::create_dir_all(path.parent().expect("a parent")).expect("a directory of the image");
                fs::write(&path, bytes).expect("a file of the image");
                fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("its mode");
            }
        }
    }

    #[track_caller]
    fn is_untouched(&self, after: &str) {
        assert_eq!(snapshot(&self.directory), self.before, "changed after {after}");
    }
}

fn snapshot(directory: &Path) -> Vec<(PathBuf, u64, i64, u32, Vec<u8>)> {
    let entries = fs::read_dir(directory).expect("the host's directory");
    let mut all: Vec<_> = entries
        .map(|entry| {
            let path = entry.expect("an entry").path();
            let stat = fs::metadata(&path).expect("its status");
            (path.clone(), stat.ino(), stat.ctime_nsec(), stat.mode(), fs::read(&path).expect("its bytes"))
        })
        .collect();
    all.sort();
    all
}

fn with_search_path(mut request: ContainerRequest, path: &str) -> ContainerRequest {
    let mut process = request.spec.process().clone().expect("a process");
    process.set_env(Some(vec![format!("PATH={path}")]));
    request.spec.set_process(Some(process));
    request
}

const PODS: [(&str, PidMode, bool, Privilege); 4] = [
    ("confined", PidMode::Container, false, Privilege::Confined),
    ("privileged", PidMode::Container, false, Privilege::Privileged),
    ("shared", PidMode::Pod, false, Privilege::Confined),
    ("mapped", PidMode::Container, true, Privilege::Confined),
];

/// A program called `/proc/self/fd/6/../../../bin/x` ran with the container's identity, but from the host: exec resolves
/// its path before it closes what is closed on exec, and the child still held the monitor's descriptors.
#[test]
fn a_program_s_path_never_leads_through_a_descriptor_of_the_runtime() {
    let bed = Embedded::start(301);
    let host = Host::new(bed.path("host"));
    host.fill(&bed.image());
    for (name, pid, mapped, privilege) in PODS {
        let pod = bed.pod(name, pid, mapped);
        for (kind, path) in host.search_paths() {
            let tried = format!("{name}, {kind}");
            let request = bed.request_with(&pod, &format!("{kind}-start"), &["program"], privilege);
            if let Ok(id) = bed.run(with_search_path(request, &path)) {
                panic!("{tried}: it started: {:?}", bed.ended(&id));
            }
            let long = ["/bin/busybox", "sleep", "1000"];
            let request = bed.request_with(&pod, &format!("{kind}-exec"), &long, privilege);
            let id = bed.run(with_search_path(request, &path)).expect("a container");
            let executed = bed.exec(&id, &["program"]);
            assert!(executed.is_err(), "{tried}, exec: {executed:?}");
            let said = at_terminal(&bed, &id, "program");
            assert!(said.is_err(), "{tried}, exec with a terminal: {said:?}");
            // The same route is open to a program that is there.
            assert_eq!(bed.exec(&id, &["/bin/echo", "well"]).expect("an exec").stdout, b"well\n");
            host.is_untouched(&tried);
        }
        bed.runtime.remove_sandbox(&pod).expect("the sandbox goes");
    }
}

fn at_terminal(bed: &Embedded, id: &ContainerId, program: &str) -> Result<String, String> {
    let exec = Exec { argv: vec![program.into()], tty: true, ..Exec::default() };
    let mut session = bed.runtime.exec(id, &exec).map_err(|error| error.to_string())?;
    let mut said = Vec::new();
    // A terminal whose last process has ended gives EIO.
    let _ = fs::File::from(session.terminal.take().expect("a terminal")).read_to_end(&mut said);
    Ok(String::from_utf8_lossy(&said).into_owned())
}

/// The same door by a relative path: a working directory on the far side of a descriptor.
#[test]
fn a_working_directory_never_lies_behind_a_descriptor_of_the_runtime() {
    let bed = Embedded::start(302);
    let host = Host::new(bed.path("host"));
    for (name, pid, mapped, privilege) in PODS {
        let pod = bed.pod(name, pid, mapped);
        let id =
            bed.run(bed.request_with(&pod, "main", &["/bin/sleep", "1000"], privilege)).expect("a container");
        for number in NUMBERS {
            let cwd = host.through(number);
            let argv = vec!["./program".to_owned()];
            let exec = Exec { argv, cwd: Some(cwd.clone()), ..Exec::default() };
            assert!(bed.runtime.exec(&id, &exec).is_err(), "{name}, exec in {cwd}");
            let mut request = bed.request_with(
                &pod,
                &format!("n{number}"),
                &["/bin/sh", "-c", "echo x >program"],
                privilege,
            );
            let mut process = request.spec.process().clone().expect("a process");
            process.set_cwd(cwd.clone().into());
            request.spec.set_process(Some(process));
            if let Ok(id) = bed.run(request) {
                // The path has been made within the container.
                let _ = bed.ended(&id);
            }
            host.is_untouched(&cwd);
        }
        bed.runtime.remove_sandbox(&pod).expect("the sandbox goes");
    }
}

/// And by a build: RUN is a start, with an image that the Dockerfile writes.
#[test]
fn a_run_step_s_path_never_leads_through_a_descriptor_of_the_runtime() {
    let node = Node::start();
    node.build("busybox:1", "");
    let host = Host::new(node.path("host"));
    let context = tempfile::tempdir_in(node.path("")).expect("a build context");
    host.fill(&context.path().join("root"));
    for (kind, path) in host.search_paths() {
        let mut dockerfile = String::from("FROM busybox:1\nCOPY root/ /\n");
        writeln!(dockerfile, "ENV PATH={path}\nRUN [\"program\"]").expect("a string");
        fs::write(context.path().join("Dockerfile"), dockerfile).expect("a Dockerfile");
        let built = node.slipway(&["build", &context.path().display().to_string()]);
        assert!(built.status != 0 && !format!("{built:?}").contains(RAN), "{kind}: {built:#?}");
        host.is_untouched(kind);
    }
}

/// `st_dev` and `st_ino` of the host's own /dev/null. Where no node can be made a container has that one by a read-only
/// mount, and it is nothing to take.
fn host_null(mapped: bool) -> [String; 2] {
    let stat = fs::metadata("/dev/null").expect("/dev/null");
    if mapped { ["0".into(), "0".into()] } else { [stat.dev().to_string(), stat.ino().to_string()] }
}

/// A container that takes descriptors of every process which appears beside it, until it is removed.
fn thief(bed: &Embedded, pod: &SandboxId, mapped: bool) -> ContainerId {
    let mut request = bed.request(pod, "thief", &[]);
    let [device, inode] = host_null(mapped);
    let mut process = request.spec.process().clone().expect("a process");
    process.set_args(Some(["/bin/spy", "steal", &device, &inode].map(String::from).to_vec()));
    let mut sets = process.capabilities().clone().expect("capabilities");
    let with_ptrace = |set: &Option<std::collections::HashSet<_>>| {
        let mut set = set.clone().unwrap_or_default();
        set.insert("SYS_PTRACE".parse().expect("a capability"));
        Some(set)
    };
    sets.set_bounding(with_ptrace(sets.bounding()));
    sets.set_permitted(with_ptrace(sets.permitted()));
    sets.set_effective(with_ptrace(sets.effective()));
    process.set_capabilities(Some(sets));
    request.spec.set_process(Some(process));
    let name = request.id.as_str().to_owned();
    let id = bed.run(request).expect("the thief starts");
    slipway_tests::wait("the thief", || bed.log(&name).contains("lies in wait"));
    id
}

/// Stops the thief: how many processes it has met, and its reports.
fn taken(bed: &Embedded, id: &ContainerId) -> (u32, Vec<String>) {
    // It may end with the thief, whose namespace this is.
    let _ = bed.exec(id, &["/bin/spy", "mkdir", "/enough"]).expect("an exec");
    let (_, log) = bed.ended(id);
    let count = log.lines().find_map(|line| line.strip_prefix("met ")).expect("its count");
    let taken = log.lines().filter(|line| line.starts_with("took ")).map(str::to_owned).collect();
    (count.parse().expect("a number"), taken)
}

/// A container with SYS_PTRACE took descriptors of the daemon and the monitor from the child of each exec, by
/// pidfd_getfd(2), and could make it do anything while it was not confined yet.
#[test]
fn a_container_that_may_trace_finds_nothing_to_take_in_an_exec() {
    let bed = Embedded::start(303);
    for (name, user_namespace) in [("plain", false), ("mapped", true)] {
        let pod = bed.pod(name, PidMode::Container, user_namespace);
        let id = thief(&bed, &pod, user_namespace);
        for _ in 0..200 {
            // It may be killed by who traces it.
            let _ = bed.exec(&id, &["/bin/spy"]);
        }
        let (met, taken) = taken(&bed, &id);
        assert!(met > 20, "it has met {met} processes only");
        assert!(taken.is_empty(), "{name}: {taken:#?}");
        bed.runtime.remove_sandbox(&pod).expect("the sandbox goes");
    }
}

/// The same beside the starts of other containers, where a pod shares its process ids.
#[test]
fn a_container_that_may_trace_finds_nothing_to_take_in_a_start_beside_it() {
    let bed = Embedded::start(304);
    for (name, user_namespace) in [("plain", false), ("mapped", true)] {
        let pod = bed.pod(name, PidMode::Pod, user_namespace);
        let id = thief(&bed, &pod, user_namespace);
        for number in 0..50 {
            let request = bed.request(&pod, &format!("c{number}"), &["/bin/spy"]);
            if let Ok(id) = bed.run(request) {
                let _ = bed.ended(&id);
            }
        }
        let (met, taken) = taken(&bed, &id);
        assert!(met > 10, "it has met {met} processes only");
        assert!(taken.is_empty(), "{name}: {taken:#?}");
        bed.runtime.remove_sandbox(&pod).expect("the sandbox goes");
    }
}

/// Its proc can't be mounted by a process that is not in the namespace, and one that is in it must not be able to mount.
#[test]
fn a_container_beside_others_has_a_proc_of_their_processes_with_its_own_limits_on_it() {
    let bed = Embedded::start(305);
    for (name, mapped) in [("plain", false), ("mapped", true)] {
        let script = "cat /proc/1/comm /proc/self/comm; readlink /proc/self/ns/pid; readlink /proc/1/exe; \
            busybox ps | busybox grep -c '[s]leep 77'; echo 1 >/proc/sys/kernel/hostname; cat /proc/keys; \
            busybox grep ' /proc ' /proc/mounts";
        let look = |pod: &SandboxId, container: &str, pid: ContainerPid| {
            let mut request = bed.request(pod, container, &["/bin/sh", "-c", script]);
            request.pid = pid;
            let id = bed.run(request).expect("a container");
            bed.ended(&id).1
        };
        let check = |said: &str, first: &str| {
            let lines: Vec<_> = said.lines().collect();
            assert_eq!(lines[..2], [first, "cat"], "{name}: {said}");
            assert!(said.contains("\n1\n") && said.contains("Read-only file system"), "{name}: {said}");
            assert!(said.contains(" /proc proc rw,nosuid,nodev,noexec,relatime"), "{name}: {said}");
        };
        let sleep = ["/bin/sleep", "77"];
        let pod = bed.pod(&format!("shared-{name}"), PidMode::Pod, mapped);
        let _ = bed.run(bed.request(&pod, &format!("sleep-{name}"), &sleep)).expect("a container");
        check(&look(&pod, &format!("look-{name}"), ContainerPid::OfPod), "pause");
        let pod = bed.pod(&format!("own-{name}"), PidMode::Container, mapped);
        let target = bed.run(bed.request(&pod, &format!("target-{name}"), &sleep)).expect("a container");
        check(&look(&pod, &format!("debug-{name}"), ContainerPid::Target(target)), "sleep");
    }
}

//! The process of a container: who it is, what it is given, and how it ends.

use serde_json::{Value, json};
use slipway_proto::runtime::v1::runtime_service_client::RuntimeServiceClient;
use slipway_tests::{Node, Pod, grpc, wait};

/// Ids by `id`, groups in order, and the home directory.
const WHO: &str = "echo $(id -u):$(id -g) $(id -G | tr ' ' '\\n' | sort -n | tr '\\n' ' ')$HOME";

fn user(status: &Value) -> String {
    let linux = &status["user"]["linux"];
    let groups = linux["supplementalGroups"].as_array().cloned().unwrap_or_default();
    let groups: Vec<String> = groups.iter().map(|group| group.as_str().expect("an id").to_owned()).collect();
    let id = |name: &str| linux[name].as_str().unwrap_or("0").to_owned();
    format!("{}:{} {}", id("uid"), id("gid"), groups.join(" "))
}

fn context(more: &Value) -> Value {
    json!({"linux": {"security_context": more}})
}

#[test]
fn the_image_s_user_is_honoured_in_all_its_forms() {
    let node = Node::start();
    node.build("busybox:1", "");
    let mut pod = Pod::start(&node, "web", json!({}));
    let forms = [
        ("1000", "1000:1000 1000 1001 /home"),
        ("sailor", "1000:1000 1000 1001 /home"),
        ("1000:0", "1000:0 0 1001 /home"),
        ("sailor:crew", "1000:1001 1001 /home"),
        ("7777", "7777:0 0 /"),
        ("7777:8888", "7777:8888 8888 /"),
    ];
    for (number, (form, expected)) in forms.iter().enumerate() {
        pod.image = format!("user:{number}");
        node.build(&pod.image, &format!("USER {form}\n"));
        let id = pod.run(&format!("user{number}"), WHO, json!({}));
        let status = node.exited(&id);
        assert_eq!(node.crictl(&["logs", &id]).ok(), *expected, "USER {form}");
        assert!(expected.starts_with(&user(&status)), "USER {form}: {status:#}");
    }
    // A line of /etc/passwd with such a name must not stand for it.
    let line = "RUN echo 4294967296:x:0:0::/: >>/etc/passwd && echo 99999999999:x:0: >>/etc/group\n";
    for (number, bad) in
        ["4294967296", "2147483648", "1000:99999999999", "stowaway", "sailor:stowaway"].iter().enumerate()
    {
        pod.image = format!("bad-user:{number}");
        node.build(&pod.image, &format!("{line}USER {bad}\n"));
        let error = pod.refuses(&format!("bad{number}"), WHO, json!({}));
        assert!(error.contains(bad), "USER {bad}: {error}");
    }
}

#[test]
fn the_request_s_user_and_groups_are_honoured_and_told_also_by_the_next_daemon() {
    let mut node = Node::start();
    node.build("busybox:1", "");
    let mut kept = Vec::new();
    {
        let pod = Pod::start(&node, "web", json!({}));
        let wishes = [
            (json!({"run_as_user": {"value": 1000}}), "1000:1000 1000 1001 /home"),
            (json!({"run_as_username": "sailor", "supplemental_groups": [5]}), "1000:1000 5 1000 1001 /home"),
            (
                json!({"run_as_user": {"value": 1000}, "run_as_group": {"value": 3000},
                    "supplemental_groups": [4000, 3000]}),
                "1000:3000 1001 3000 4000 /home",
            ),
            (
                json!({"run_as_user": {"value": 1000}, "run_as_group": {"value": 3000},
                    "supplemental_groups": [4000], "supplemental_groups_policy": 1}),
                "1000:3000 3000 4000 /home",
            ),
        ];
        for (number, (wish, expected)) in wishes.iter().enumerate() {
            let script = format!("{WHO}; exec sleep 1000");
            let id = pod.run(&format!("c{number}"), &script, context(wish));
            let found = pod.exec(&id, WHO);
            assert_eq!(found, *expected, "{wish}");
            assert!(expected.starts_with(&user(&node.status(&id))), "{wish}: {:#}", node.status(&id));
            let user = user(&node.status(&id));
            kept.push((id, user));
        }
        let groups = |value: Value| pod.refuses("alone", WHO, context(&value));
        assert!(groups(json!({"run_as_group": {"value": 3000}})).contains("run_as_group"));
        assert!(groups(json!({"run_as_user": {"value": 4_294_967_296_i64}})).contains("run_as_user"));
        assert!(groups(json!({"run_as_user": {"value": 2_147_483_648_i64}})).contains("2147483648"));
        assert!(groups(json!({"run_as_user": {"value": -1}})).contains("run_as_user"));
        assert!(groups(json!({"run_as_username": "1000:"})).contains("1000:"));
    }
    node.kill();
    node.launch();
    for (id, expected) in kept {
        assert_eq!(user(&node.status(&id)), expected);
    }
}

#[test]
fn hostile_user_files_are_refused_or_empty() {
    let node = Node::start();
    node.build("busybox:1", "");
    let mut pod = Pod::start(&node, "web", json!({}));
    for (number, (line, named)) in [
        ("RUN rm /etc/passwd && mkfifo /etc/passwd", Some("/etc/passwd")),
        ("RUN rm /etc/group && mkdir /etc/group", Some("/etc/group")),
        ("RUN rm /etc/passwd && mknod /etc/passwd c 1 5", Some("/etc/passwd")),
        ("RUN dd if=/dev/zero of=/etc/passwd bs=1M count=5", Some("/etc/passwd")),
        // In the container's root there is no such file: the host's own is never read.
        ("RUN rm /etc/passwd && ln -s /../../../dev/zero /etc/passwd", None),
        ("RUN rm /etc/group && ln -s /proc/1/environ /etc/group", None),
    ]
    .into_iter()
    .enumerate()
    {
        pod.image = format!("hostile:{number}");
        node.build(&pod.image, &format!("{line}\nUSER 1000\n"));
        let name = format!("hostile{number}");
        match named {
            Some(path) => {
                let error = pod.refuses(&name, WHO, json!({}));
                assert!(error.contains(path), "{line}: {error}");
            }
            None => {
                // By the kernel's word: a program that looks names up would read that file without end.
                let said = pod.says(&name, "grep ^Uid: /proc/self/status", json!({}));
                assert!(said.starts_with("Uid:\t1000\t"), "{line}: {said}");
            }
        }
    }
    // The user was resolved at the start: later changes to these files by the container stop no exec.
    pod.image = "busybox:1".into();
    let id = pod.run(
        "late",
        "rm /etc/passwd /etc/group; mkfifo /etc/passwd /etc/group; echo ready; exec sleep 1000",
        json!({}),
    );
    wait("the container is ready", || node.crictl(&["logs", &id]).stdout.contains("ready"));
    assert_eq!(pod.exec(&id, "echo well"), "well");
}

#[test]
fn arguments_environment_and_directory_come_from_the_image_unless_the_request_has_its_own() {
    let node = Node::start();
    node.build("busybox:1", "");
    let lines = "ENV SHIP=sloop PORT=north\nWORKDIR /hold\nRUN ln -s hold /deck && ln -s /nowhere/yet /gone\n\
                 ENTRYPOINT [\"echo\", \"entry\"]\nCMD [\"command\"]\n";
    node.build("args:1", lines);
    let mut pod = Pod::start(&node, "web", json!({"hostname": "quay"}));
    pod.image = "args:1".into();
    let arguments = |name: &str, command: Value, args: Value| {
        pod.says(name, "", json!({"command": command, "args": args})).trim_end().to_owned()
    };
    assert_eq!(arguments("image", json!([]), json!([])), "entry command");
    assert_eq!(arguments("args", json!([]), json!(["own"])), "entry own");
    assert_eq!(arguments("command", json!(["echo", "only"]), json!([])), "only");
    assert_eq!(arguments("both", json!(["echo"]), json!(["x", "y"])), "x y");

    let script = "echo $SHIP $PORT $HOSTNAME $HOME $TERM $PWD $PATH";
    assert_eq!(pod.says("env", script, json!({})), "sloop north quay /root /hold /bin\n");
    let envs = json!([{"key": "PORT", "value": encoded("south")}, {"key": "HOME", "value": encoded("/x")}]);
    let own = json!({"envs": envs, "working_dir": "/made/for/it"});
    assert_eq!(pod.says("own", script, own), "sloop south quay /x /made/for/it /bin\n");
    let directory = |name: &str, path: &str| pod.says(name, "pwd -P", json!({"working_dir": path}));
    assert_eq!(directory("linked", "/deck"), "/hold\n");
    assert_eq!(directory("dangling", "/gone/away"), "/nowhere/yet/away\n");
    for (name, path) in [("fd", "/proc/self/fd/3"), ("fd7", "/proc/self/fd/7/../.."), ("file", "/bin/sh")] {
        let error = pod.refuses(name, "pwd -P", json!({"working_dir": path}));
        assert!(error.contains(path.trim_end_matches("/../..")), "{path}: {error}");
    }
    assert!(pod.refuses("relative", "pwd", json!({"working_dir": "hold"})).contains("hold"));
}

/// A value of the request as crictl reads it.
fn encoded(text: &str) -> String {
    text.to_owned()
}

#[tokio::test]
async fn a_variable_s_value_is_bytes() {
    use slipway_proto::runtime::v1 as cri;
    let node = Node::start();
    node.build("busybox:1", "");
    let pod = Pod::start(&node, "web", json!({}));
    let mut client = RuntimeServiceClient::new(grpc::channel(&node).await);
    let script = "printf %s \"$A$B\" | od -An -tx1; exec sleep 1000";
    let value = |key: &str, value: &[u8]| cri::KeyValue { key: key.into(), value: value.to_vec() };
    let request = cri::CreateContainerRequest {
        pod_sandbox_id: pod.id.clone(),
        config: Some(cri::ContainerConfig {
            metadata: Some(cri::ContainerMetadata { name: "bytes".into(), attempt: 0 }),
            image: Some(cri::ImageSpec { image: "busybox:1".into(), ..Default::default() }),
            command: ["sh", "-c", script].map(String::from).to_vec(),
            envs: vec![value("A", b"text"), value("A", b"\xff\x01="), value("B", b"\xfe"), value("B", b"b")],
            ..Default::default()
        }),
        sandbox_config: None,
    };
    let id = client.create_container(request).await.expect("a container").into_inner().container_id;
    let _ = node.crictl(&["start", &id]).ok();
    assert_eq!(pod.exec(&id, "printf %s \"$A$B\" | od -An -tx1"), "ff 01 3d 62");
}

#[test]
fn an_end_is_told_by_its_code_and_a_failed_start_by_its_program() {
    let node = Node::start();
    node.build(
        "busybox:1",
        "RUN echo text >/plain && printf '#!/no/such/shell\\n' >/script && chmod 755 /script\n",
    );
    let pod =
        Pod::start(&node, "web", json!({"linux": {"security_context": {"namespace_options": {"pid": 0}}}}));
    for (name, script, code, reason) in [
        ("fine", "exit 0", 0, "Completed"),
        ("three", "exit 3", 3, "Error"),
        ("killed", "kill -9 $$", 137, "Error"),
        ("hung", "kill -HUP $$", 129, "Error"),
    ] {
        let status = node.exited(&pod.run(name, script, json!({})));
        assert_eq!(
            (status["exitCode"].as_i64(), status["reason"].as_str()),
            (Some(code), Some(reason)),
            "{name}"
        );
    }
    for (name, program, why) in [
        ("absent", "/no/such/program", "No such file"),
        ("unfound", "nosuchprogram", "No such file"),
        ("plain", "/plain", "ermission denied"),
        ("folder", "/etc", "ermission denied"),
        ("script", "/script", "No such file"),
    ] {
        let error = pod.refuses(name, "", json!({"command": [program]}));
        assert!(error.contains(program) && error.contains(why), "{program}: {error}");
    }
    let id = pod.run("main", "exec sleep 1000", json!({}));
    let missing = node.crictl(&["exec", "-s", &id, "nosuchprogram"]);
    assert!(missing.error().contains("nosuchprogram"), "{missing:#?}");
}

#[test]
fn a_stop_sends_the_image_s_signal_or_the_request_s() {
    let node = Node::start();
    node.build("busybox:1", "STOPSIGNAL SIGUSR1\n");
    let pod = Pod::start(&node, "web", json!({}));
    let script = "trap 'echo usr1; exit 5' USR1; trap 'echo usr2; exit 6' USR2; echo ready; while :; do sleep 0.05; done";
    let image = pod.run("image", script, json!({}));
    let request = pod.run("request", script, json!({"stop_signal": 30}));
    for (id, code) in [(&image, 5), (&request, 6)] {
        wait("the container is ready", || node.crictl(&["logs", id]).stdout.contains("ready"));
        let _ = node.crictl(&["stop", "-t", "30", id]).ok();
        let status = node.exited(id);
        assert_eq!(status["exitCode"], code, "{status:#}");
    }
    assert_eq!(node.status(&image)["stopSignal"], "SIGUSR1");
    assert_eq!(node.status(&request)["stopSignal"], "SIGUSR2");
}

#[test]
fn open_files_are_limited_as_status_says() {
    let node = Node::start();
    node.build("busybox:1", "");
    let status = node.crictl(&["info"]).json();
    let text = status.to_string();
    let hard = text.split("openFiles").nth(1).expect("info tells openFiles");
    let hard: String =
        hard.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
    let pod = Pod::start(&node, "web", json!({}));
    let id = pod.run("main", "exec sleep 1000", json!({}));
    let limits = pod
        .exec(&id, "grep '^Max open files' /proc/1/limits /proc/self/limits | tr -s ' ' | cut -d' ' -f4,5");
    assert_eq!(limits, format!("1024 {hard}\n1024 {hard}"));
    assert!(hard.parse::<u64>().expect("a number") <= 524_288);
}

#[test]
fn containers_share_process_ids_where_the_pod_or_they_say_so() {
    let node = Node::start();
    node.build("busybox:1", "");
    let mode =
        |pid: i32| json!({"linux": {"security_context": {"namespace_options": {"network": 2, "pid": pid}}}});
    let own = Pod::start(&node, "own", mode(1));
    let first = own.run("first", "sleep 1001 & exec sleep 1000", json!({}));
    let second = own.run("second", "exec sleep 1002", json!({}));
    assert_eq!(own.exec(&first, "cat /proc/1/cmdline | tr '\\0' ' '"), "sleep 1000");
    assert!(!own.exec(&second, "ps -o args").contains("sleep 1000"));
    // A debugger's container sees those of its target, and ends without harm to them.
    let options = json!({"network": 2, "pid": 3, "target_id": first});
    let debugger = own.run("debugger", "ps -o args; exit 4", context(&json!({"namespace_options": options})));
    assert_eq!(node.exited(&debugger)["exitCode"], 4);
    let seen = node.crictl(&["logs", &debugger]).stdout;
    assert!(
        seen.contains("sleep 1000") && seen.contains("sleep 1001") && !seen.contains("sleep 1002"),
        "{seen}"
    );
    assert_eq!(node.status(&first)["state"], "CONTAINER_RUNNING");
    let _ = node.crictl(&["stop", "-t", "0", &second]).ok();
    let gone = own.refuses(
        "late",
        "true",
        context(&json!({"namespace_options": {"network": 2, "pid": 3, "target_id": second}})),
    );
    assert!(gone.contains(&second), "{gone}");
    for (options, field) in [
        (json!({"network": 2, "pid": 3}), "target_id"),
        (json!({"network": 2, "pid": 1, "target_id": first}), "target_id"),
        (json!({"network": 2, "pid": 2}), "namespace_options.pid"),
        (json!({"network": 0, "pid": 1}), "namespace_options.network"),
    ] {
        let error = own.refuses("odd", "true", context(&json!({"namespace_options": options})));
        assert!(error.contains(field), "{options}: {error}");
    }

    let shared = Pod::start(&node, "shared", mode(0));
    let first = shared.run("a", "echo $$; sleep 1001 & exec sleep 1000", json!({}));
    let second = shared.run("b", "exec sleep 1002", json!({}));
    let seen = shared.exec(&second, "ps -o args");
    assert!(seen.contains("sleep 1000") && seen.contains("sleep 1002"), "{seen}");
    let alone =
        shared.run("c", "exec sleep 1003", context(&json!({"namespace_options": {"network": 2, "pid": 1}})));
    assert_eq!(shared.exec(&alone, "cat /proc/1/cmdline | tr '\\0' ' '"), "sleep 1003");
    // The end of a container's first process ends the rest of it, and nothing of the others'.
    let pid = node.crictl(&["logs", &first]).ok().to_owned();
    let _ = shared.exec(&second, &format!("kill -9 {pid}"));
    assert_eq!(node.exited(&first)["exitCode"], 137);
    wait("the rest has been killed", || !shared.exec(&second, "ps -o args").contains("sleep 1001"));
    let seen = shared.exec(&second, "ps -o args");
    assert!(!seen.contains("sleep 1001") && seen.contains("sleep 1002"), "{seen}");
}

#[test]
fn a_terminal_is_standard_streams_and_console() {
    let node = Node::start();
    node.build("busybox:1", "");
    let pod = Pod::start(&node, "web", json!({}));
    let script =
        "tty; echo $TERM; stat -c %F /dev/console; echo by console >/dev/console; ls /proc/self/fd | wc -l";
    let said = pod.says("tty", script, json!({"tty": true}));
    assert_eq!(
        said.replace('\r', ""),
        "/dev/pts/0\nxterm\ncharacter special file\nby console\n4\n",
        "a terminal's lines end with a return"
    );
    assert!(pod.says("plain", "ls /dev; tty; true", json!({})).contains("not a tty"));
    assert!(!pod.says("plain2", "ls /dev", json!({})).contains("console"));
}

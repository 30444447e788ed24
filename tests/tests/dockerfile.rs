//! The image that a Dockerfile makes: instruction by instruction, from outside. What a step sees is asserted by
//! the step itself (a RUN that fails fails the build); what the image says, by its configuration and by running it.

use serde_json::{Value, json};
use slipway_tests::build::{Context, built, failed, run};
use slipway_tests::{Node, Registry};

/// The image's `config` as the registry would serve it.
fn config(node: &Node, image: &str) -> Value {
    let id = node.crictl(&["inspecti", "-q", image]).json()["status"]["id"].clone();
    let hex = id.as_str().expect("an id").trim_start_matches("sha256:").to_owned();
    let blob = std::fs::read(node.path("lib/blobs/sha256").join(hex)).expect("the configuration's blob");
    serde_json::from_slice::<Value>(&blob).expect("JSON")["config"].clone()
}

#[test]
fn each_setting_is_in_the_image() {
    let node = Node::start();
    node.build("busybox:1", "");
    let context = Context::new(
        "FROM busybox:1\n\
         ARG VERSION=1.2\n\
         ENV A=one B=\"two words\" C=a\\ b\n\
         ENV OLD the old form\n\
         ENV A=new D=$A E=${none:-fallback} F=${A:+set} G=\\$A H='$A' I=\"${VERSION}\"\n\
         LABEL one=1 \"two\"=\"a b\" three=$A\n\
         MAINTAINER Ahab\n\
         EXPOSE 80 53/udp 8000-8002/tcp\n\
         VOLUME /data [\"x\"]\n\
         VOLUME [\"/json one\"]\n\
         USER sailor:crew\n\
         WORKDIR /deep\n\
         WORKDIR er/still\n\
         WORKDIR ${OLD:+env}\n\
         STOPSIGNAL SIGINT\n\
         SHELL [\"/bin/sh\", \"-e\", \"-c\"]\n\
         HEALTHCHECK --interval=30s --timeout=1m --retries=3 CMD wget -q localhost\n\
         ONBUILD RUN touch /triggered\n\
         ENTRYPOINT [\"echo\", \"in\"]\n\
         CMD tell $A\n",
    );
    let _ = built(&node, &context, &["-t", "set:1"]);
    let config = config(&node, "set:1");
    let env = json!([
        "PATH=/bin",
        "A=new",
        "B=two words",
        "C=a b",
        "OLD=the old form",
        "D=one",
        "E=fallback",
        "F=set",
        "G=$A",
        "H=$A",
        "I=1.2"
    ]);
    assert_eq!(config["Env"], env, "one instruction sees the values from before it: {config:#}");
    assert_eq!(config["Labels"], json!({"one": "1", "two": "a b", "three": "new"}));
    let ports = config["ExposedPorts"].as_object().expect("ports").keys().cloned().collect::<Vec<_>>();
    assert_eq!(ports, ["53/udp", "80/tcp", "8000/tcp", "8001/tcp", "8002/tcp"]);
    assert!(config["Volumes"].get("/data").is_some() && config["Volumes"].get("/json one").is_some());
    assert_eq!(
        (&config["User"], &config["WorkingDir"]),
        (&json!("sailor:crew"), &json!("/deep/er/still/env"))
    );
    assert_eq!(config["StopSignal"], "SIGINT");
    assert_eq!(config["Shell"], json!(["/bin/sh", "-e", "-c"]));
    let check = json!({"Test": ["CMD-SHELL", "wget -q localhost"], "Interval": 30_000_000_000_u64, "Timeout": 60_000_000_000_u64, "Retries": 3});
    assert_eq!(config["Healthcheck"], check);
    assert_eq!(config["OnBuild"], json!(["RUN touch /triggered"]));
    assert_eq!(config["Entrypoint"], json!(["echo", "in"]));
    assert_eq!(
        config["Cmd"],
        json!(["/bin/sh", "-e", "-c", "tell $A"]),
        "CMD is not expanded, and has its shell"
    );
}

#[test]
fn what_docker_adds_to_an_image_is_inherited_and_triggers_run_once() {
    let node = Node::start();
    node.build("busybox:1", "");
    let base = Context::new(
        "FROM busybox:1\nSHELL [\"/bin/sh\", \"-xc\"]\nHEALTHCHECK NONE\nONBUILD COPY note /note\nONBUILD ENV FROM_TRIGGER=yes\nCMD [\"base\"]\n",
    );
    let _ = built(&node, &base, &["-t", "base:1"]);
    let child = Context::new(
        "FROM base:1\nRUN test -f /note && test $FROM_TRIGGER = yes\nRUN echo traced\nENTRYPOINT [\"cat\"]\n",
    )
    .file("note", "hi");
    let output = built(&node, &child, &["-t", "child:1"]);
    assert!(output.stderr.contains("onbuild 2/2] COPY note /note"), "{output:#?}");
    assert!(output.stderr.contains("+ echo traced"), "the base's SHELL is in force: {output:#?}");
    let config = config(&node, "child:1");
    assert_eq!((&config["OnBuild"], &config["Cmd"]), (&Value::Null, &Value::Null), "{config:#}");
    assert_eq!(config["Healthcheck"], json!({"Test": ["NONE"]}));
    assert_eq!(config["Shell"], json!(["/bin/sh", "-xc"]));
    assert!(config["Env"].as_array().expect("env").contains(&json!("FROM_TRIGGER=yes")));
    let grandchild = Context::new("FROM child:1\nRUN test -f /note\n");
    let _ = built(&node, &grandchild, &["-t", "grandchild:1"]);
}

#[test]
fn a_run_is_confined_and_knows_nothing_of_the_daemon() {
    let node = Node::start();
    node.build("busybox:1", "");
    let context = Context::new(
        "FROM busybox:1\n\
         ARG GIVEN\n\
         ENV SET=yes\n\
         RUN test \"$(grep CapInh /proc/self/status | tr -d '[:space:]')\" = CapInh:0000000000000000\n\
         RUN test \"$(grep CapEff /proc/self/status | cut -f2)\" = 00000000a80425fb\n\
         RUN test $(grep Seccomp: /proc/self/status | cut -f2) = 2\n\
         RUN env && test -z \"$(env | grep -vE '^(GIVEN|HOME|PATH|PWD|OLDPWD|SET|SHLVL|HOSTNAME|_)=')\"\n\
         RUN test \"$GIVEN-$SET-$HOME-$(pwd)-$(id -u)\" = \"arg-yes-/root-/-0\"\n\
         WORKDIR /work\n\
         RUN test \"$(pwd)\" = /work && test \"$(stat -c %u:%g:%a .)\" = 0:0:755\n\
         USER sailor\n\
         RUN test \"$(id -un):$(id -gn)\" = sailor:sailor && test $HOME = /home\n\
         WORKDIR /mine\n\
         RUN touch here && test \"$(stat -c %u .)\" = 1000\n\
         USER 1234:1001\n\
         RUN test \"$(id -u):$(id -g)\" = 1234:1001\n\
         USER root\n\
         RUN [\"/bin/sh\", \"-c\", \"test $0 = exec-form\", \"exec-form\"]\n\
         RUN [\"test\", \"$SET\", \"=\", \"$\" \"SET\"] || true\n\
         RUN ip -o link | grep -q lo && grep -q . /etc/resolv.conf || true\n\
         RUN mkdir -p /data && echo kept >/data/f\n\
         VOLUME /data\n\
         RUN test \"$(cat /data/f)\" = kept\n\
         RUN test ! -e /proc/1/root/var/tmp/.tmp && ! mount -t tmpfs x /tmp 2>/dev/null\n\
         RUN printf 'no end' && printf 'to this' >&2\n",
    );
    let output = built(&node, &context, &["-t", "run:1", "--build-arg", "GIVEN=arg"]);
    assert!(output.stderr.contains("no end") && output.stderr.contains("to this"), "{output:#?}");
    assert_eq!(run(&node, "run:1", &["cat", "/data/f"]), "kept");
}

#[test]
fn arguments_have_scopes_defaults_and_a_warning_for_what_nobody_asks_for() {
    let node = Node::start();
    node.build("busybox:1", "");
    node.build("busybox:2", "ENV WHICH=two\n");
    let context = Context::new(
        "ARG TAG=1\n\
         ARG WHOLE=busybox:$TAG\n\
         FROM $WHOLE\n\
         RUN test -z \"$TAG\"\n\
         ARG TAG\n\
         ARG OWN=default OTHER=$OWN-more\n\
         ARG EMPTY\n\
         ENV WON=env\n\
         ARG WON=arg\n\
         RUN test \"$TAG $OWN $OTHER [$EMPTY] $WON\" = \"$WANTED\" || test -z \"$WANTED\"\n\
         ARG WANTED\n\
         RUN test \"$WHICH/$TAG $OWN $OTHER [$EMPTY] $WON\" = \"$WANTED\"\n\
         ARG TARGETARCH\n\
         RUN test -n \"$TARGETARCH\"\n",
    );
    let _ = built(&node, &context, &["--build-arg", "WANTED=/1 default default-more [] arg"]);
    let arguments =
        ["--build-arg", "TAG=2", "--build-arg", "OWN=o", "--build-arg", "EMPTY=e", "--build-arg", "TYPO=x"];
    let wanted = ["--build-arg", "WANTED=two/2 o o-more [e] arg"];
    let output = built(&node, &context, &[&arguments[..], &wanted].concat());
    assert!(output.stderr.contains("build argument TYPO is used by no ARG"), "{output:#?}");
    let environment =
        Context::new("FROM busybox:1\nARG HTTP_PROXY_NOT\nARG FROM_ENV\nRUN test \"$FROM_ENV\" = outside\n");
    let mut command = node.command();
    command.env("FROM_ENV", "outside").args(["build", "--build-arg", "FROM_ENV", &environment.path()]);
    assert_eq!(slipway_tests::Output::of(&mut command).status, 0, "{}", node.log());
}

#[test]
fn stages_are_built_where_they_are_needed_and_found_by_name_number_and_image() {
    let node = Node::start();
    node.build("busybox:1", "");
    let registry = Registry::start();
    let remote = registry.name("fleet/remote:1");
    let pushed = Context::new("FROM busybox:1\nRUN echo far >/far\n");
    let _ = built(&node, &pushed, &["-t", &remote]);
    let _ = node.slipway(&["push", &remote]).ok();
    let _ = node.crictl(&["rmi", &remote]).ok();
    let context = Context::new(&format!(
        "FROM busybox:1 AS First\n\
         RUN echo one >/one\n\
         FROM busybox:1 AS broken\n\
         RUN exit 9\n\
         FROM first AS second\n\
         RUN cat /one >/two && echo -second >>/two\n\
         FROM {remote}\n\
         COPY --from=FIRST /one /from-name\n\
         COPY --from=2 /two /from-number\n\
         COPY --from=busybox:1 /etc/passwd /from-image\n\
         RUN test -f /far && test \"$(cat /from-name)\" = one && grep -q second /from-number && grep -q sailor /from-image\n\
         FROM scratch AS empty\n\
         COPY --from=first /one /\n",
    ));
    let output = built(&node, &context, &["-t", "last:1", "--target", "3"]);
    assert!(!output.stderr.contains("exit 9"), "{output:#?}");
    let output = built(&node, &context, &["-t", "empty:1"]);
    assert!(output.stderr.contains("[empty 2/2] COPY --from=first /one /"), "{output:#?}");
    assert!(failed(&node, &context, &["--target", "broken"]).contains("line 4: RUN exit 9"));
    assert!(failed(&node, &context, &["--target", "absent"]).contains("no stage absent"));
    let absent = Context::new(&format!("FROM {}\n", registry.name("fleet/absent:1")));
    assert!(failed(&node, &absent, &[]).contains("fleet/absent"));
}

#[test]
fn mistakes_are_told_in_one_line_with_the_line_of_the_dockerfile() {
    let node = Node::start();
    node.build("busybox:1", "");
    for (text, says) in [
        ("FROM busybox:1\n\nRUN exit 3\n", "Dockerfile line 3: RUN exit 3"),
        ("FROM busybox:1\nRUN absent-program\n", "exit code 127"),
        ("FROM busybox:1\nRUN [\"/absent\"]\n", "/absent"),
        ("FROM busybox:1\nUSER nemo\nRUN id\n", "nemo"),
        ("FROM busybox:1\nCOPY absent /x\n", "line 2: COPY absent /x: absent is not in the build context"),
        ("FROM busybox:1\nCOPY ../../etc/passwd /x\n", "../../etc/passwd is not in the build context"),
        ("FROM busybox:1\nCOPY --chown=nemo f /x\n", "nemo"),
        ("FROM busybox:1\nCOPY --chmod=999 f /x\n", "--chmod=999"),
        ("FROM busybox:1\nCOPY f f /x\n", "write /x/ with a / at its end"),
        ("FROM busybox:1\nCOPY f /bin/busybox/x\n", "busybox"),
        ("FROM busybox:1 AS one\nCOPY --from=later /x /x\nFROM one AS later\n", "line 2"),
        ("FROM busybox:1\nRUN --mount=type=cache,target=/c true\n", "line 2: RUN --mount"),
        ("FROM busybox:1\nADD https://example.com/x /x\n", "line 2: ADD https://example.com/x"),
        ("FROM busybox:1\nENV\n", "line 2: ENV"),
        ("FROM busybox:1\nEXPOSE eighty\n", "line 2"),
        ("FROM busybox:1\nCOPPY f /x\n", "line 2: COPPY is no instruction: did you mean COPY?"),
        ("FROM busybox:1\nRUN <<EOF\ntrue\n", "line 2: <<EOF is not closed"),
        ("FROM --platform=linux/s390x busybox:1\n", "line 1: --platform=linux/s390x"),
        ("FROM busybox:UPPER/x\n", "line 1"),
        ("# escape=x\nFROM busybox:1\n", "line 1: escape=x"),
        ("RUN true\n", "line 1: RUN stands before the first FROM"),
        ("", "has no FROM"),
    ] {
        let context = Context::new(text).file("f", "f");
        let said = failed(&node, &context, &["-t", "bad:1"]);
        assert!(said.contains(says), "{text:?}: {said}");
    }
    assert!(node.crictl(&["inspecti", "bad:1"]).error().contains("bad:1"));
    let context = Context::new("FROM busybox:1\n");
    std::fs::write(std::path::Path::new(&context.path()).join("Dockerfile"), b"FROM busybox:1\nRUN \xff\n")
        .expect("bytes");
    assert!(failed(&node, &context, &[]).contains("line 2"));
}

#[test]
fn the_dockerfile_may_be_anywhere_and_look_like_anything() {
    let node = Node::start();
    node.build("busybox:1", "");
    let odd = "\u{feff}# syntax=docker/dockerfile:1\r\n# escape=`\r\nfrom busybox:1\r\n# a comment\r\nrun echo a && `\r\n\r\n# inside\r\n    echo 'b\\n' >/b\r\n\r\nCMD [\"cat\", \"/b\"]";
    let context = Context::new("FROM absent:1\n").file("other/Odd.dockerfile", odd);
    let _ =
        built(&node, &context, &["-t", "odd:1", "-f", &format!("{}/other/Odd.dockerfile", context.path())]);
    assert_eq!(run(&node, "odd:1", &[]), "b\\n");
    let _ = built(&node, &context, &["-t", "odd:2", "-f", "other/Odd.dockerfile"]);
    let outside = node.path("Outside");
    std::fs::write(&outside, "FROM busybox:1\nCOPY other /other\n").expect("a Dockerfile");
    let _ = built(
        &node,
        &context,
        &["-t", "odd:3", "-t", "harbour.example/odd:4", "-f", &outside.display().to_string()],
    );
    assert_eq!(run(&node, "harbour.example/odd:4", &["ls", "/other"]), "Odd.dockerfile");
    assert!(failed(&node, &context, &["-f", "absent"]).contains("absent"));
    let mut child = node
        .command()
        .args(["build", "-q", "-t", "odd:5", "-f", "-", &context.path()])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("slipway starts");
    std::io::Write::write_all(&mut child.stdin.take().expect("its input"), b"FROM busybox:1\nENV A=b\n")
        .expect("a Dockerfile is sent");
    let output = child.wait_with_output().expect("slipway ends");
    let (said, told) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.starts_with("sha256:") && told.is_empty(), "{output:?}");
}

#[test]
fn heredocs_are_scripts_and_files() {
    let node = Node::start();
    node.build("busybox:1", "");
    let context = Context::new(
        "FROM busybox:1\n\
         ENV NAME=world\n\
         RUN <<EOF\n\
         set -e\n\
         echo \"hello $NAME\" >/script\n\
         # not a comment of the Dockerfile\n\
         \n\
         echo done >>/script\n\
         EOF\n\
         RUN cat <<'A' >/a && cat <<-B >/b\n\
         $NAME\n\
         A\n\
         \t\tindented\n\
         \tB\n\
         COPY <<one.conf <<\"two.conf\" f /etc/conf.d/\n\
         it's \"$NAME\"\n\
         one.conf\n\
         $NAME\n\
         two.conf\n\
         COPY --chmod=755 --chown=sailor <<-EOF /run.sh\n\
         \t#!/bin/sh\n\
         \techo ran as \\$0\n\
         \tEOF\n\
         RUN test \"$(cat /script)\" = \"$(printf 'hello world\\ndone')\"\n\
         RUN test \"$(cat /a) $(cat /b)\" = '$NAME indented'\n\
         RUN test \"$(cat /etc/conf.d/one.conf)\" = \"it's \\\"world\\\"\" && test \"$(cat /etc/conf.d/two.conf)\" = '$NAME'\n\
         RUN test \"$(stat -c %U:%a /run.sh /etc/conf.d/one.conf | tr '\\n' ' ')\" = 'sailor:755 root:644 '\n\
         RUN test \"$(/run.sh)\" = 'ran as /run.sh' && ls /etc/conf.d/f\n",
    )
    .file("f", "f");
    let _ = built(&node, &context, &["-t", "here:1"]);
    let again = built(&node, &context, &["-t", "here:1"]);
    assert_eq!(again.stderr.matches(" CACHED").count(), 10, "{again:#?}");
}

//! Builds from outside: what COPY and ADD copy, the layer cache, progress, and the image in a pod.

use std::collections::BTreeSet;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use slipway_tests::Node;
use slipway_tests::build::{Context, built, failed, run};
use slipway_tests::tree::tree;

fn tool(program: &str, arguments: &[&str]) -> bool {
    Command::new(program)
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|s| s.success())
}

/// Files that are more than their bytes; whether they can have attributes.
fn special_files(context: &Context) -> bool {
    let mode = |name: &str, mode: u32| {
        std::fs::set_permissions(context.join(name), std::fs::Permissions::from_mode(mode)).expect("a mode");
    };
    std::fs::hard_link(context.join("tree/hard1"), context.join("tree/hard2")).expect("a hard link");
    symlink("plain", context.join("tree/link")).expect("a link");
    symlink("/etc/passwd", context.join("tree/out")).expect("a link");
    assert!(tool("mkfifo", &[&context.join("tree/pipe").display().to_string()]));
    let sparse = std::fs::File::options().write(true).open(context.join("tree/sparse")).expect("a file");
    std::os::unix::fs::FileExt::write_at(&sparse, b"end", (64 << 20) - 3).expect("the end of a sparse file");
    mode("tree/plain", 0o640);
    mode("tree/tool", 0o4755);
    mode("tree/sub", 0o700);
    let attribute = rustix::fs::setxattr(
        context.join("tree/plain"),
        "user.note",
        b"kept",
        rustix::fs::XattrFlags::empty(),
    );
    for (name, time) in [("tree/plain", "@1000000000"), ("tree/sub", "@1000000001")] {
        assert!(tool("touch", &["-d", time, &context.join(name).display().to_string()]));
    }
    attribute.is_ok()
}

#[test]
fn a_copy_keeps_what_the_source_is() {
    let node = Node::start();
    node.build("busybox:1", "");
    let context = Context::new(
        "FROM busybox:1\n\
         COPY tree /tree\n\
         COPY --chown=sailor:crew --chmod=u=rwX,go= tree/plain /owned/plain\n\
         COPY --chown=55 --chmod=4711 tree/plain /numbers\n\
         COPY tree/link /followed\n\
         RUN test $(stat -c %a:%u:%g:%Y /tree/plain) = 640:0:0:1000000000\n\
         RUN test $(stat -c %a /tree/tool) = 4755\n\
         RUN test $(stat -c %a:%Y /tree/sub) = 700:1000000001\n\
         RUN test $(stat -c %i /tree/hard1) = $(stat -c %i /tree/hard2) && test $(stat -c %h /tree/hard1) = 2\n\
         RUN test \"$(readlink /tree/link)\" = plain && test \"$(readlink /tree/out)\" = /etc/passwd\n\
         RUN test -p /tree/pipe\n\
         RUN test $(stat -c %s /tree/sparse) = 67108864 && test $(stat -c %b /tree/sparse) -lt 1000\n\
         RUN test \"$(tail -c 3 /tree/sparse)\" = end\n\
         RUN test $(stat -c %U:%G:%a /owned/plain) = sailor:crew:600 && test $(stat -c %U:%a /owned) = sailor:755\n\
         RUN test $(stat -c %u:%g:%a /numbers) = 55:55:4711\n\
         RUN test -f /followed && test ! -L /followed && test \"$(cat /followed)\" = plain\n\
         FROM scratch\n\
         COPY --from=0 /tree /tree\n",
    )
    .file("tree/plain", "plain")
    .file("tree/tool", "tool")
    .file("tree/hard1", "hard")
    .file("tree/sub/f", "f")
    .file("tree/sparse", "");
    let attributes = special_files(&context);
    let _ = built(&node, &context, &["-t", "kept:1"]);
    let id = node.crictl(&["inspecti", "kept:1"]).json()["info"]["layers"][0].clone();
    let layer = node
        .path("lib/layers")
        .join(id.as_str().expect("a layer").trim_start_matches("sha256:"))
        .join("fs/tree");
    let plain = std::fs::metadata(layer.join("plain")).expect("the copied file");
    assert_eq!((plain.mode() & 0o7777, plain.mtime()), (0o640, 1_000_000_000));
    let identity = |name: &str| std::fs::metadata(layer.join(name)).expect("a copied file").ino();
    assert_eq!(identity("hard1"), identity("hard2"));
    let mut value = [0_u8; 16];
    if attributes {
        let length =
            rustix::fs::getxattr(layer.join("plain"), "user.note", &mut value).expect("its attribute");
        assert_eq!(&value[..length], b"kept");
    }
}

#[test]
fn a_socket_in_a_context_is_left_out_with_a_warning() {
    // Whoever had the socket of an editor or an agent in a context could not build at all.
    let node = Node::start();
    let context = Context::new("FROM scratch\nCOPY . /x/\n").file("plain", "plain").file("d/plain", "plain");
    let bind = |name: &str| std::os::unix::net::UnixListener::bind(context.join(name)).expect("a socket");
    let _sockets = [bind("d/one"), bind("two")];
    let output = built(&node, &context, &["-t", "sockets:1"]);
    let warning = "warning: line 2: d/one and 1 more: sockets are left out";
    assert!(output.stderr.contains(warning), "{output:#?}");
    let id = node.crictl(&["inspecti", "sockets:1"]).json()["info"]["layers"][0].clone();
    let id = id.as_str().expect("a layer").trim_start_matches("sha256:").to_owned();
    let layer = node.path("lib/layers").join(id).join("fs/x");
    assert!(layer.join("d/plain").exists() && !layer.join("d/one").exists() && !layer.join("two").exists());
}

#[test]
fn a_copy_goes_where_its_destination_says() {
    let node = Node::start();
    node.build("busybox:1", "");
    let context = Context::new(
        "FROM busybox:1\n\
         RUN mkdir /real /taken && ln -s /real /link && ln -s ../../../.. /taken/up\n\
         WORKDIR /work\n\
         COPY one /file\n\
         COPY one /new/\n\
         COPY one /taken\n\
         COPY one relative\n\
         COPY one .\n\
         COPY one two dir/\n\
         COPY dir /contents\n\
         COPY dir/ /contents2/\n\
         COPY d* /flat/\n\
         COPY [\"with blank\", \"/with blank/\"]\n\
         COPY *.t?t [x-z].c /globs/\n\
         COPY no*thing /nothing/\n\
         COPY one /link/through\n\
         COPY one /taken/up/etc/inside\n\
         COPY /one ./two /../../absolute/\n\
         COPY dir /taken/\n\
         ENV TARGET=/by/variable\n\
         COPY ${TARGET:+one} $TARGET\n",
    )
    .file("one", "1")
    .file("two", "2")
    .file("dir/a", "a")
    .file("dir/sub/b", "b")
    .file("with blank", "w")
    .file("n.txt", "t")
    .file("x.c", "x")
    .file("q.c", "q");
    let output = built(&node, &context, &["-t", "places:1"]);
    assert!(output.stderr.contains("no*thing matches nothing"), "{output:#?}");
    let places = "file new/one taken/one work/relative work/one work/dir/one work/dir/two contents/a contents/sub/b contents2/sub/b flat/a flat/sub/b 'with blank/with blank' globs/n.txt globs/x.c real/through etc/inside absolute/one absolute/two taken/a by/variable";
    let script = format!(
        "cd / && ls -d {places} >/dev/null && test ! -e globs/q.c && test ! -e nothing && test ! -e flat/dir && test -L link"
    );
    assert_eq!(run(&node, "places:1", &["sh", "-c", &script]), "");
}

#[test]
fn what_is_ignored_or_outside_is_not_there() {
    let node = Node::start();
    node.build("busybox:1", "");
    let context = Context::new("FROM busybox:1\nCOPY . /all/\nCOPY docs /docs/\n")
        .file(".dockerignore", "# comment\n\n*.log\n**/*.tmp\ndocs\n!docs/keep.md\n/secret\nDockerfile\n.dockerignore\n[ab]?.c\n")
        .file("keep", "k")
        .file("a.log", "l")
        .file("sub/a.log", "l")
        .file("sub/deep/x.tmp", "t")
        .file("docs/lost.md", "l")
        .file("docs/keep.md", "k")
        .file("secret/key", "s")
        .file("a1.c", "c")
        .file("c1.c", "c");
    symlink("../../../../etc/hostname", context.join("escape")).expect("a link");
    let _ = built(&node, &context, &["-t", "ignored:1"]);
    let found = run(&node, "ignored:1", &["sh", "-c", "cd /all && find . | sort | tr '\\n' ' ' && ls /docs"]);
    assert_eq!(found, ". ./c1.c ./docs ./docs/keep.md ./escape ./keep ./sub ./sub/a.log ./sub/deep keep.md");
    for (line, name) in [
        ("COPY secret /x", "secret"),
        ("COPY a.log /x", "a.log"),
        ("COPY escape /x", "escape"),
        ("COPY ../x /x", "../x"),
    ] {
        context.write("Own", &format!("FROM busybox:1\n{line}\n"));
        let said = failed(&node, &context, &["-f", "Own"]);
        assert!(said.contains(&format!("{name} is not in the build context")), "{said}");
    }
    context.write("Own.dockerignore", "keep\n");
    context.write("Own", "FROM busybox:1\nCOPY . /all\nRUN test ! -e /all/keep && test -e /all/a.log\n");
    let _ = built(&node, &context, &["-f", "Own"]);
    context.write("Own.dockerignore", "x\n[bad\n");
    assert!(failed(&node, &context, &["-f", "Own"]).contains("Own.dockerignore line 2"));
}

/// The rules beside a Dockerfile that lies outside of the context were not used: secrets that they keep out came into the
/// image.
#[test]
fn a_dockerfile_from_elsewhere_brings_the_dockerignore_beside_it() {
    let node = Node::start();
    node.build("busybox:1", "");
    let context = Context::new("").file(".dockerignore", "plain\n").file("plain", "p").file("secret", "s");
    let elsewhere = Context::new("").file("Own", "FROM busybox:1\nCOPY . /all/\nCMD ls /all\n");
    let file = elsewhere.join("Own").display().to_string();
    let copied = || {
        let _ = built(&node, &context, &["-t", "elsewhere:1", "-f", &file]);
        run(&node, "elsewhere:1", &[])
    };
    assert_eq!(copied(), "Dockerfile\nsecret");
    elsewhere.write("Own.dockerignore", "secret\nDockerfile\n");
    assert_eq!(copied(), "plain");
    // Empty rules are rules: the context's own don't count.
    elsewhere.write("Own.dockerignore", "");
    assert_eq!(copied(), "Dockerfile\nplain\nsecret");
    elsewhere.write("Own.dockerignore", "x\n[bad\n");
    let said = failed(&node, &context, &["-f", &file]);
    assert!(said.contains("the Dockerfile's own .dockerignore line 2"), "{said}");
}

#[test]
fn archives_are_unpacked_by_add_alone() {
    let node = Node::start();
    node.build("busybox:1", "");
    let context = Context::new(
        "FROM busybox:1\n\
         ADD a.tar /plain\n\
         ADD b.data one /mixed/\n\
         COPY a.tar /copied/\n\
         ADD fake.tar.gz /fake/\n\
         RUN test \"$(cat /plain/dir/f)\" = f && test $(stat -c %u:%a /plain/dir/f) = 1234:640 && test -L /plain/dir/l\n\
         RUN test \"$(cat /mixed/dir/f /mixed/one)\" = f1 && test -f /copied/a.tar && test -f /fake/fake.tar.gz\n",
    )
    .file("src/dir/f", "f")
    .file("one", "1")
    .file("fake.tar.gz", "no archive at all");
    symlink("f", context.join("src/dir/l")).expect("a link");
    std::fs::set_permissions(context.join("src/dir/f"), std::fs::Permissions::from_mode(0o640))
        .expect("a mode");
    let src = context.join("src").display().to_string();
    let pack = |flag: &str, name: &str| {
        let target = context.join(name).display().to_string();
        assert!(tool(
            "tar",
            &[flag, &target, "--owner=1234", "--group=1234", "--numeric-owner", "-C", &src, "dir"]
        ));
    };
    pack("-cf", "a.tar");
    pack("-czf", "b.data");
    let _ = built(&node, &context, &["-t", "added:1"]);
    assert_eq!(built(&node, &context, &["-t", "added:1"]).stderr.matches(" CACHED").count(), 7);
    std::fs::write(context.join("x.tar"), b"BZh91AY&SY").expect("a file");
    context.write("Dockerfile", "FROM busybox:1\nADD x.tar /x\n");
    assert!(failed(&node, &context, &[]).contains("x.tar is compressed by bzip2"));
}

#[test]
fn the_cache_is_right() {
    let node = Node::start();
    node.build("base:1", "");
    let context =
        Context::new("FROM base:1\nCOPY d /d\nARG USED\nRUN echo $USED >/used\nRUN echo last >/last\n")
            .file("d/a", "a")
            .file("d/b", "b");
    let cached = |flags: &[&str]| {
        let output = built(&node, &context, &[&["-t", "cache:1"], flags].concat());
        let id = output.stdout.trim().to_owned();
        (output.stderr.matches(" CACHED").count(), id)
    };
    let (first, id) = cached(&[]);
    assert_eq!(first, 1, "the base is here, nothing else");
    assert_eq!(cached(&[]), (4, id.clone()), "the same input is the same image");
    assert!(tool("touch", &["-d", "@1", &context.join("d/a").display().to_string()]));
    assert_eq!(cached(&[]), (4, id.clone()), "times are no content");
    context.write("unrelated", "x");
    assert_eq!(cached(&[]).0, 4);
    assert_eq!(cached(&["--build-arg", "USED=x"]).0, 2, "the ARG counts from where it stands");
    assert_eq!(cached(&["--build-arg", "USED=x"]).0, 4);
    assert_eq!(cached(&["--no-cache"]).0, 1);
    context.write("d/a", "changed");
    assert_eq!(cached(&[]).0, 1);
    context.write("d/a", "a");
    assert_eq!(cached(&[]).0, 4, "what was built before is still known");
    std::fs::set_permissions(context.join("d/b"), std::fs::Permissions::from_mode(0o600)).expect("a mode");
    assert_eq!(cached(&[]).0, 1, "a mode is content");
    node.build("base:1", "RUN echo other >/other\n");
    assert_eq!(cached(&[]).0, 1, "another base is another start");
}

#[test]
fn progress_is_told_like_dockers_plain_output_and_the_id_is_the_data() {
    let node = Node::start();
    node.build("busybox:1", "");
    let context = Context::new("FROM busybox:1 AS one\nRUN echo out && echo err >&2\nFROM one\nCOPY f /\n")
        .file("f", "f");
    let output = built(&node, &context, &["-t", "told:1", "-t", "told:2"]);
    let lines: Vec<&str> = output.stderr.lines().collect();
    for line in [
        "#1 [internal] load build definition from Dockerfile",
        "#2 [one 1/2] FROM busybox:1 AS one",
        "#2 CACHED",
        "#3 [one 2/2] RUN echo out && echo err >&2",
        "#4 [stage-1 2/2] COPY f /",
    ] {
        assert!(lines.contains(&line), "{line}: {output:#?}");
    }
    for text in [" out", " err"] {
        assert!(lines.iter().any(|line| line.starts_with("#3 ") && line.ends_with(text)), "{output:#?}");
    }
    assert!(lines.iter().any(|line| line.starts_with("#4 DONE ")), "{output:#?}");
    assert!(output.stderr.contains("naming to docker.io/library/told:2"), "{output:#?}");
    assert!(output.stdout.starts_with("sha256:") && output.stdout.lines().count() == 1, "{output:#?}");
    let id = |name: &str| node.crictl(&["inspecti", name]).json()["status"]["id"].clone();
    assert_eq!((id("told:1"), id("told:2")), (json!(output.stdout.trim()), json!(output.stdout.trim())));
    context
        .write("Dockerfile", "FROM busybox:1\nRUN head -c 3000000 /dev/zero | tr '\\0' x | fold -w 1000\n");
    let long = built(&node, &context, &[]);
    assert_eq!(long.stderr.lines().filter(|line| line.ends_with(&"x".repeat(1000))).count(), 3000);
}

#[test]
fn a_pod_uses_the_image_at_once() {
    let node = Node::start();
    node.build("busybox:1", "RUN echo built >/built\n");
    let pod = node.pod("web", json!({}));
    let container = node.container(&pod, "web", "main", "cat /built");
    assert_eq!(node.exited(&container)["exitCode"], 0);
    assert_eq!(node.crictl(&["logs", &container]).ok(), "built");
}

/// The paths in each layer of an image, the lowest layer first.
fn layers(node: &Node, image: &str) -> Vec<(PathBuf, BTreeSet<String>)> {
    let id = node.crictl(&["inspecti", "-q", image]).json()["status"]["id"].clone();
    let blob = node.path("lib/blobs/sha256").join(&id.as_str().expect("an id")["sha256:".len()..]);
    let config: Value = serde_json::from_slice(&std::fs::read(blob).expect("a configuration")).expect("JSON");
    let layer = |id: &Value| {
        let files =
            node.path("lib/layers").join(&id.as_str().expect("a diff id")["sha256:".len()..]).join("fs");
        let mut names = BTreeSet::new();
        for entry in tree(&files) {
            names.insert(entry.split(' ').next().expect("a name").to_owned());
        }
        (files, names)
    };
    config["rootfs"]["diff_ids"].as_array().expect("layers").iter().map(layer).collect()
}

#[test]
fn a_layer_has_what_its_command_did_and_nothing_that_was_mounted_for_it() {
    let node = Node::start();
    node.build("busybox:1", "");
    let context = Context::new(
        "FROM busybox:1\n\
         COPY etc/ /etc/\n\
         RUN test -e /etc/hosts && test -e /run/net/resolv.conf && test -d /proc/self && test -c /dev/null\n\
         RUN chmod 600 /etc/passwd && ! rm -f /etc/hosts\n\
         RUN touch /etc/hosts.allow && mkdir -p /run/own && echo more >>/etc/hosts && echo more >/etc/resolv.conf\n\
         RUN rm /etc/resolv.conf\n\
         WORKDIR /work\n\
         RUN rmdir /work\n\
         RUN test \"$(pwd)\" = /work\n\
         RUN touch here\n",
    );
    std::fs::create_dir(context.join("etc")).expect("a directory");
    symlink("../run/net/resolv.conf", context.join("etc/resolv.conf")).expect("a link");
    let _ = built(&node, &context, &["-t", "run:1"]);
    let layers = layers(&node, "run:1");
    let mounted = ["proc", "dev", "sys", "etc/hosts", "etc/hostname", "run/net"].map(str::to_owned);
    for (files, names) in &layers {
        assert!(mounted.iter().all(|name| !names.contains(name)), "{files:?}: {names:?}");
    }
    let expected: [&[&str]; 9] = [
        &["etc", "etc/resolv.conf"],
        &[],
        &["etc", "etc/passwd"],
        &["etc", "etc/hosts.allow", "run", "run/own"],
        &["etc", "etc/resolv.conf"],
        &["work"],
        &["work"],
        &[],
        &["work", "work/here"],
    ];
    let (_, steps) = layers.split_at(layers.len() - expected.len());
    for ((files, names), expected) in steps.iter().zip(expected) {
        assert_eq!(*names, expected.iter().map(|name| (*name).to_owned()).collect(), "{files:?}");
    }
    let changed = |step: usize| {
        let etc = std::fs::metadata(steps[step].0.join("etc")).expect("it is there");
        (etc.mtime(), etc.mtime_nsec())
    };
    assert_eq!(changed(0), changed(2), "what is mounted for a command changes no directory");
    assert_ne!(changed(2), changed(3), "a command does");
}

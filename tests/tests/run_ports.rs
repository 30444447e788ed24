//! The ports that `slipway run` publishes, and its mounts.

use slipway_tests::sockets::{Server, ask_tcp, ask_udp};
use slipway_tests::{Need, Node, World, lacks};
use std::time::{Duration, Instant};

const SERVER: &str = "mkdir -p /www; cp /data/page /www/index.html; exec httpd -f -p 80 -h /www";

/// The page of a web server, which may still be on its way up.
fn page(world: &World, host: &str, port: u16) -> String {
    let deadline = Instant::now() + Duration::from_secs(20);
    let url = format!("http://{host}:{port}/");
    loop {
        let output = slipway_tests::netns::sh(world.outside.path(), &format!("curl -sf -m 5 {url}"));
        if output.status == 0 || Instant::now() > deadline {
            return output.stdout.trim().to_owned();
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn published_ports_of_every_form_lead_to_the_container_and_ps_shows_them() {
    if lacks("published_ports_of_every_form_lead_to_the_container_and_ps_shows_them", &[Need::Nat]) {
        return;
    }
    let world = World::new();
    let node = Node::inside(world.node.path(), &["10.95.0.0/24"], "");
    node.build("busybox:1", "");
    let data = node.path("data");
    std::fs::create_dir(&data).expect("a directory to mount");
    std::fs::write(data.join("page"), "afloat\n").expect("a page");
    let by_address = format!("{}:8081:80", World::NODE[0]);
    let mount = format!("{}:/data:ro", data.display());
    let mut arguments = vec!["run", "-d", "--name", "web", "-v", &mount];
    for port in ["8080:80", &by_address, "5353:53/udp", "443"] {
        arguments.extend(["-p", port]);
    }
    arguments.extend(["busybox:1", "sh", "-c", SERVER]);
    let _ = node.slipway(&arguments).ok();
    let ps = node.slipway(&["ps"]).ok().to_owned();
    for shown in ["8080->80/tcp", &format!("{}:8081->80/tcp", World::NODE[0]), "5353->53/udp"] {
        assert!(ps.contains(shown), "{shown}: {ps}");
    }
    let ports = node.slipway(&["ps", "-o", "json"]).json();
    let pod = ports["containers"][0]["podId"].as_str().expect("the pod").to_owned();
    let ports = ports["containers"][0]["ports"].as_array().expect("ports").clone();
    let free = ports.iter().find(|port| port["containerPort"] == 443).expect("the port without a number");
    let free = u16::try_from(free["hostPort"].as_u64().expect("a number")).expect("a port");
    assert_eq!(page(&world, World::NODE[0], 8080), "afloat", "{}", node.log());
    assert_eq!(page(&world, World::NODE[0], 8081), "afloat");
    let netns = node.path(format!("run/netns/{pod}"));
    let (_secure, _names) = (Server::tcp(&netns, 443, "secure"), Server::udp(&netns, 53, "names"));
    let outside = World::OUTSIDE[0];
    let answer = ask_tcp(world.outside.path(), (World::NODE[0], free)).expect("the free port");
    assert_eq!(answer, format!("secure {outside}"));
    let answer = ask_udp(world.outside.path(), (World::NODE[0], 5353)).expect("the UDP port");
    assert_eq!(answer, format!("names {outside}"));
    let refused = node.slipway(&["run", "-d", "-p", "8080:80", "busybox:1", "true"]);
    assert!(refused.status == 125 && refused.stderr.contains("8080/tcp"), "{refused:#?}");
    assert!(node.slipway(&["exec", "web", "sh", "-c", "echo x >/data/y"]).status != 0, "it is read-only");
    let _ = node.slipway(&["rm", "-f", "web"]).ok();
    // The port that the container had published is free again.
    let again = node.slipway(&["run", "--rm", "-p", "8080:80", "busybox:1", "echo", "ashore"]);
    assert_eq!(again.ok(), "ashore");
}

#[test]
fn a_mounted_directory_is_shared_both_ways_and_an_absent_one_is_made() {
    let world = World::new();
    let node = Node::inside(world.node.path(), &["10.95.0.0/24"], "");
    node.build("busybox:1", "");
    let data = node.path("data");
    std::fs::create_dir(&data).expect("a directory to mount");
    std::fs::write(data.join("in"), "from the node").expect("a file");
    let mount = format!("{}:/data", data.display());
    let script = "cat /data/in; echo from the container >/data/out";
    let ran = node.slipway(&["run", "--rm", "-v", &mount, "busybox:1", "sh", "-c", script]);
    assert_eq!(ran.ok(), "from the node");
    assert_eq!(std::fs::read_to_string(data.join("out")).expect("a file"), "from the container\n");
    let absent = format!("{}:/data", node.path("absent").display());
    let ran = node.slipway(&["run", "--rm", "-v", &absent, "busybox:1", "touch", "/data/made"]);
    assert_eq!(ran.ok(), "");
    assert!(node.path("absent/made").exists());
    assert_eq!(node.slipway(&["ps", "-a", "-q"]).ok(), "");
    node.await_addresses(0);
}

//! Host ports of pods: who may have one, who keeps it, and what becomes of it. Each test has network namespaces of its
//! own for the node and for the outside.

use slipway_tests::bridge::{at, tcp, udp};
use slipway_tests::netns::within;
use slipway_tests::sockets::{Server, ask_tcp, tell, udp_client};
use slipway_tests::{Need, Node, World, lacks, wait};
use std::io::ErrorKind;
use std::net::TcpListener;

const BOTH: [&str; 2] = ["10.91.0.0/24", "fd91::/64"];

/// How many veth pairs, host ports and network namespaces there are.
fn left(world: &World, node: &Node) -> (usize, usize, usize) {
    let links = world.node.sh("ip -o link");
    let rules = world.node.sh(&format!("nft list table inet {}", node.table()));
    let elements = rules.lines().filter(|line| line.contains(" : ") && !line.contains("type ")).count();
    let names = std::fs::read_dir(node.path("run/netns")).expect("the namespaces are listed");
    (links.matches(" slw").count(), elements, names.count())
}

#[test]
fn a_port_in_use_is_refused_by_its_number_and_its_holder_and_nothing_is_left() {
    if lacks("a_port_in_use_is_refused_by_its_number_and_its_holder_and_nothing_is_left", &[Need::Nat]) {
        return;
    }
    let world = World::new();
    let node = Node::inside(world.node.path(), &BOTH, "");
    let first = node.bridge_pod("first", &[tcp(8080, 80)]);
    let before = left(&world, &node);
    let listener = within(world.node.path(), || TcpListener::bind("0.0.0.0:8090")).expect("a port to take");
    let by_program = node.refused_pod("second", &[udp(53, 53), tcp(8090, 80)]);
    let holder = format!("process {}", std::process::id());
    assert!(by_program.contains("8090/tcp") && by_program.contains(&holder), "{by_program}");
    let by_pod = node.refused_pod("third", &[tcp(8081, 81), tcp(8080, 80)]);
    assert!(by_pod.contains("8080/tcp") && by_pod.contains(&first.id), "{by_pod}");
    node.await_addresses(2);
    assert_eq!(left(&world, &node), before);
    assert_eq!(node.crictl(&["pods", "-q"]).ok(), first.id);
    // The other ports of the refused pods are free again, as is the same number of another protocol.
    drop(listener);
    let _ = node.bridge_pod("fourth", &[udp(53, 53), tcp(8090, 80), tcp(8081, 81), udp(8080, 80)]);
}

#[test]
fn two_addresses_of_the_node_can_have_one_port_each_but_not_one_and_all() {
    if lacks("two_addresses_of_the_node_can_have_one_port_each_but_not_one_and_all", &[Need::Nat]) {
        return;
    }
    let world = World::new();
    let node = Node::inside(world.node.path(), &BOTH, "");
    let here = node.bridge_pod("here", &[at("127.0.0.1", tcp(8080, 80))]);
    let there = node.bridge_pod("there", &[at(World::NODE[0], tcp(8080, 80))]);
    let (_here, _there) = (Server::tcp(&here.netns, 80, "here"), Server::tcp(&there.netns, 80, "there"));
    let refused = node.refused_pod("everywhere", &[tcp(8080, 80)]);
    assert!(refused.contains("8080/tcp") && refused.contains("pod "), "{refused}");
    let own = world.node.path();
    assert!(ask_tcp(own, ("127.0.0.1", 8080)).expect("127.0.0.1").starts_with("here "));
    assert!(ask_tcp(own, (World::NODE[0], 8080)).expect("the node's address").starts_with("there "));
}

#[test]
fn a_port_of_no_address_of_the_node_or_of_no_family_of_the_pod_is_refused() {
    if lacks("a_port_of_no_address_of_the_node_or_of_no_family_of_the_pod_is_refused", &[Need::Nat]) {
        return;
    }
    let world = World::new();
    let node = Node::inside(world.node.path(), &["10.91.0.0/24"], "");
    let stranger = node.refused_pod("one", &[at("203.0.113.7", tcp(8080, 80))]);
    assert!(stranger.contains("203.0.113.7:8080") && stranger.contains("InvalidArgument"), "{stranger}");
    let family = node.refused_pod("two", &[at("::1", tcp(8080, 80))]);
    assert!(family.contains("8080/tcp") && family.contains("::1"), "{family}");
    node.await_addresses(0);
}

#[test]
fn a_port_is_kept_by_the_monitor_while_the_pod_lives_and_the_daemon_is_dead() {
    if lacks("a_port_is_kept_by_the_monitor_while_the_pod_lives_and_the_daemon_is_dead", &[Need::Nat]) {
        return;
    }
    let world = World::new();
    let mut node = Node::inside(world.node.path(), &BOTH, "");
    let pod = node.bridge_pod("one", &[tcp(8080, 80), udp(8080, 80)]);
    let bind = || {
        within(world.node.path(), || {
            let tcp = ["0.0.0.0:8080", "[::]:8080"].map(|any| TcpListener::bind(any).map(drop));
            let udp = std::net::UdpSocket::bind("0.0.0.0:8080").map(drop);
            tcp.into_iter().chain([udp]).map(|bound| bound.map_err(|error| error.kind())).collect::<Vec<_>>()
        })
    };
    let taken = vec![Err(ErrorKind::AddrInUse); 3];
    assert_eq!(bind(), taken);
    node.kill();
    assert_eq!(bind(), taken);
    node.launch();
    assert_eq!(bind(), taken);
    let _ = node.crictl(&["stopp", &pod.id]).ok();
    assert_eq!(bind(), vec![Ok(()); 3]);
}

#[test]
fn traffic_goes_on_while_the_daemon_is_dead_and_the_rules_are_right_after_its_restart() {
    if lacks(
        "traffic_goes_on_while_the_daemon_is_dead_and_the_rules_are_right_after_its_restart",
        &[Need::Nat],
    ) {
        return;
    }
    let world = World::new();
    let mut node = Node::inside(world.node.path(), &BOTH, "");
    let one = node.bridge_pod("one", &[tcp(8080, 80)]);
    let _server = Server::tcp(&one.netns, 80, "one");
    let reached = |port| ask_tcp(world.outside.path(), (World::NODE[0], port)).expect("a host port");
    assert_eq!(reached(8080), "one 192.0.2.2");
    let rules = || {
        let rules = world.node.sh(&format!("nft list table inet {}", node.table()));
        let mut lines: Vec<_> = rules.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let before = rules();
    node.kill();
    assert_eq!(reached(8080), "one 192.0.2.2");
    node.launch();
    assert_eq!(reached(8080), "one 192.0.2.2");
    let rules = world.node.sh(&format!("nft list table inet {}", node.table()));
    let mut after: Vec<_> = rules.lines().map(str::to_owned).collect();
    after.sort();
    assert_eq!(after, before);
    assert!(!node.log().contains("made anew"), "nobody changed the table: {}", node.log());
    let two = node.bridge_pod("two", &[tcp(8081, 80)]);
    assert_ne!(two.addresses, one.addresses);
    let _other = Server::tcp(&two.netns, 80, "two");
    assert_eq!(reached(8081), "two 192.0.2.2");
    node.remove_pod(&one.id);
    let refused = ask_tcp(world.outside.path(), (World::NODE[0], 8080)).expect_err("the port is closed");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{refused}");
    assert_eq!(reached(8081), "two 192.0.2.2");
}

/// A UDP flow is remembered for as long as the client goes on sending: it went on to the address of a pod that was gone.
#[test]
fn a_udp_flow_moves_to_the_pod_that_takes_over_its_port() {
    if lacks("a_udp_flow_moves_to_the_pod_that_takes_over_its_port", &[Need::Nat]) {
        return;
    }
    let world = World::new();
    let node = Node::inside(world.node.path(), &BOTH, "");
    // The link's index and the like, so that the clients' first packets are not lost.
    let _warm = node.bridge_pod("warm", &[]);
    for target in World::NODE {
        let client = udp_client(world.outside.path(), (target, 5353)).expect("a way to the node");
        client.send(b"too early").expect("a packet");
        for name in ["first", "second"] {
            let pod = node.bridge_pod(name, &[udp(5353, 53)]);
            let server = Server::udp(&pod.netns, 53, name);
            // A late answer of the pod before may still come first.
            wait(&format!("an answer of {name} from {target}"), || {
                tell(&client).is_ok_and(|answer| answer.starts_with(name))
            });
            drop(server);
            node.remove_pod(&pod.id);
        }
    }
}

/// A pod's second teardown closed its port again, which by then led to the pod that had taken the port over.
#[test]
fn the_removal_of_a_stopped_pod_leaves_its_port_to_the_one_that_took_it_over() {
    if lacks("the_removal_of_a_stopped_pod_leaves_its_port_to_the_one_that_took_it_over", &[Need::Nat]) {
        return;
    }
    let world = World::new();
    let node = Node::inside(world.node.path(), &BOTH, "");
    for round in 0..3 {
        let old = node.bridge_pod(&format!("old-{round}"), &[tcp(8080, 80)]);
        let _ = node.crictl(&["stopp", &old.id]).ok();
        let new = node.bridge_pod(&format!("new-{round}"), &[tcp(8080, 80)]);
        let _ = node.crictl(&["rmp", &old.id]).ok();
        let _server = Server::tcp(&new.netns, 80, "new");
        assert_eq!(ask_tcp(world.outside.path(), (World::NODE[0], 8080)).expect("the port"), "new 192.0.2.2");
        node.remove_pod(&new.id);
    }
}

#[test]
fn a_pod_can_have_very_many_ports() {
    if lacks("a_pod_can_have_very_many_ports", &[Need::Nat]) {
        return;
    }
    let world = World::new();
    let node = Node::inside(world.node.path(), &BOTH, "");
    let ports: Vec<_> = (0..600).map(|port| tcp(20_000 + port, 80)).collect();
    let pod = node.bridge_pod("one", &ports);
    let _server = Server::tcp(&pod.netns, 80, "one");
    for port in [20_000, 20_399, 20_400, 20_599] {
        for target in World::NODE {
            let answer = ask_tcp(world.outside.path(), (target, port)).expect("a host port");
            assert!(answer.starts_with("one "), "{answer}");
        }
    }
    node.remove_pod(&pod.id);
    let bound = within(world.node.path(), || TcpListener::bind("0.0.0.0:20599").map(drop));
    assert!(bound.is_ok(), "{bound:?}");
}

#[test]
fn sctp_ports_are_served_or_refused_for_what_the_kernel_lacks() {
    if lacks("sctp_ports_are_served_or_refused_for_what_the_kernel_lacks", &[Need::Nat]) {
        return;
    }
    let world = World::new();
    let node = Node::inside(world.node.path(), &BOTH, "");
    let mapping = serde_json::json!({"protocol": 2, "host_port": 3868, "container_port": 3868});
    // A socket loads the kernel's module, where there is one.
    let (family, kind) = (rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM);
    let offered = rustix::net::socket(family, kind, Some(rustix::net::ipproto::SCTP)).is_ok();
    if offered {
        let pod = node.bridge_pod("one", std::slice::from_ref(&mapping));
        let map = world.node.sh(&format!("nft list map inet {} any4", node.table()));
        assert!(map.contains("sctp . 3868"), "{map}");
        assert!(node.refused_pod("two", &[mapping]).contains(&pod.id));
    } else {
        let refused = node.refused_pod("one", &[mapping]);
        assert!(refused.contains("3868/sctp") && refused.contains("no sctp"), "{refused}");
        node.await_addresses(0);
    }
}

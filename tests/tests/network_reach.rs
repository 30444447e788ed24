//! The built-in bridge: who reaches whom. Each test has network namespaces of its own for the node and for the outside.

use slipway_tests::bridge::{at, tcp, udp};
use slipway_tests::sockets::{Server, ask_tcp, ask_udp, udp_client};
use slipway_tests::{Need, Node, World, lacks};
use std::io::ErrorKind;

const BOTH: [&str; 2] = ["10.90.0.0/24", "fd90::/64"];

#[test]
fn a_pod_has_an_address_of_each_family_and_pods_reach_each_other_and_the_node() {
    let world = World::new();
    let node = Node::inside(world.node.path(), &BOTH, "");
    let (one, two) = (node.bridge_pod("one", &[]), node.bridge_pod("two", &[]));
    assert_eq!(one.addresses.len(), 2, "{:?}", one.addresses);
    assert!(one.addresses[0].starts_with("10.90.0."), "{:?}", one.addresses);
    assert!(one.addresses[1].starts_with("fd90::"), "{:?}", one.addresses);
    let _server = Server::tcp(&two.netns, 80, "two");
    let _node_server = Server::tcp(world.node.path(), 80, "node");
    for (family, gateway) in ["10.90.0.1", "fd90::1"].into_iter().enumerate() {
        let seen = ask_tcp(&one.netns, (&two.addresses[family], 80)).expect("a pod reaches a pod");
        assert_eq!(seen, format!("two {}", one.addresses[family]));
        let seen = ask_tcp(world.node.path(), (&two.addresses[family], 80)).expect("the node reaches a pod");
        assert_eq!(seen, format!("two {gateway}"));
        let seen = ask_tcp(&one.netns, (gateway, 80)).expect("a pod reaches its gateway");
        assert_eq!(seen, format!("node {}", one.addresses[family]));
        let seen = ask_tcp(&one.netns, (World::NODE[family], 80)).expect("a pod reaches the node's address");
        assert_eq!(seen, format!("node {}", one.addresses[family]));
    }
}

#[test]
fn a_pods_packets_are_no_larger_than_the_nodes_link_takes() {
    let world = World::new();
    let _ = world.node.sh("ip link set uplink mtu 1380");
    let node = Node::inside(world.node.path(), &BOTH, "");
    let pod = node.bridge_pod("one", &[]);
    for (netns, link) in [(pod.netns.as_path(), "eth0"), (world.node.path(), &node.bridge())] {
        let shown = slipway_tests::netns::sh(netns, &format!("ip -o link show {link}"));
        assert!(shown.ok().contains("mtu 1380"), "{shown:#?}");
    }
}

#[test]
fn a_pod_reaches_the_outside_as_the_node() {
    if lacks("a_pod_reaches_the_outside_as_the_node", &[Need::Nat]) {
        return;
    }
    let world = World::new();
    let node = Node::inside(world.node.path(), &BOTH, "");
    let pod = node.bridge_pod("one", &[]);
    let _tcp = Server::tcp(world.outside.path(), 80, "out");
    let _udp = Server::udp(world.outside.path(), 53, "out");
    for (there, here) in World::OUTSIDE.into_iter().zip(World::NODE) {
        let expected = format!("out {here}");
        assert_eq!(ask_tcp(&pod.netns, (there, 80)).expect("TCP to the outside"), expected);
        assert_eq!(ask_udp(&pod.netns, (there, 53)).expect("UDP to the outside"), expected);
    }
}

#[test]
fn a_host_port_is_reached_from_everywhere() {
    if lacks("a_host_port_is_reached_from_everywhere", &[Need::Nat]) {
        return;
    }
    for bridged in ["0", "1"] {
        reach_a_host_port(bridged);
    }
}

/// `bridged` says whether packets that a bridge hands on pass iptables' and nftables' hooks too, as a node of Kubernetes
/// has it.
fn reach_a_host_port(bridged: &str) {
    let world = World::new();
    let settings =
        "/proc/sys/net/bridge/bridge-nf-call-iptables /proc/sys/net/bridge/bridge-nf-call-ip6tables";
    let set = format!("for s in {settings}; do [ ! -e $s ] || echo {bridged} >$s; done");
    let _ = world.node.sh(&set);
    let node = Node::inside(world.node.path(), &BOTH, "");
    let ports = [tcp(8080, 80), tcp(8443, 443), udp(5353, 53)];
    let (served, other) = (node.bridge_pod("served", &ports), node.bridge_pod("other", &[]));
    let _web = Server::tcp(&served.netns, 80, "web");
    let _secure = Server::tcp(&served.netns, 443, "secure");
    let _names = Server::udp(&served.netns, 53, "names");
    let places = [
        ("the node", world.node.path()),
        ("the outside", world.outside.path()),
        ("the pod itself", &served.netns),
        ("another pod", &other.netns),
    ];
    for (place, netns) in places {
        for target in World::NODE {
            let check = |port, word: &str, answer: std::io::Result<String>| {
                let answer = answer.unwrap_or_else(|error| format!("{error}"));
                assert!(answer.starts_with(word), "{place} to {target}, port {port}: {answer}");
            };
            check(8080, "web ", ask_tcp(netns, (target, 8080)));
            check(8443, "secure ", ask_tcp(netns, (target, 8443)));
            check(5353, "names ", ask_udp(netns, (target, 5353)));
        }
    }
    let own = world.node.path();
    assert!(ask_tcp(own, ("127.0.0.1", 8080)).expect("127.0.0.1 by TCP").starts_with("web "));
    assert!(ask_udp(own, ("127.0.0.1", 5353)).expect("127.0.0.1 by UDP").starts_with("names "));
    // A client from outside of the node is seen with its own address.
    assert_eq!(ask_tcp(world.outside.path(), (World::NODE[0], 8080)).expect("TCP"), "web 192.0.2.2");
    assert_eq!(ask_tcp(world.outside.path(), (World::NODE[1], 8080)).expect("TCP"), "web 2001:db8::2");
}

#[test]
fn a_host_port_of_one_address_is_reached_by_that_address_alone() {
    if lacks("a_host_port_of_one_address_is_reached_by_that_address_alone", &[Need::Nat]) {
        return;
    }
    let world = World::new();
    let node = Node::inside(world.node.path(), &BOTH, "");
    let ports = [
        at("127.0.0.1", tcp(8080, 80)),
        at(World::NODE[0], tcp(8081, 80)),
        at(World::NODE[1], tcp(8082, 80)),
        at("0.0.0.0", tcp(8083, 80)),
    ];
    let pod = node.bridge_pod("served", &ports);
    let _web = Server::tcp(&pod.netns, 80, "web");
    let reached = |port| {
        let targets = [
            (world.node.path(), "127.0.0.1"),
            (world.node.path(), World::NODE[0]),
            (world.outside.path(), World::NODE[0]),
            (world.outside.path(), World::NODE[1]),
        ];
        targets.map(|(netns, target)| match ask_tcp(netns, (target, port)) {
            Ok(answer) => answer.starts_with("web "),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{target} {port}: {error}");
                false
            }
        })
    };
    assert_eq!(reached(8080), [true, false, false, false]);
    assert_eq!(reached(8081), [false, true, true, false]);
    assert_eq!(reached(8082), [false, false, false, true]);
    assert_eq!(reached(8083), [true, true, true, false]);
}

#[test]
fn a_port_mapping_without_a_host_port_maps_nothing() {
    if lacks("a_port_mapping_without_a_host_port_maps_nothing", &[Need::Nat]) {
        return;
    }
    let world = World::new();
    let node = Node::inside(world.node.path(), &BOTH, "");
    let one = node.bridge_pod("one", &[tcp(0, 80), tcp(8080, 81)]);
    let _web = Server::tcp(&one.netns, 80, "web");
    let rules = world.node.sh(&format!("nft list map inet {} any4", node.table()));
    assert_eq!(rules.matches(" : ").count(), 2, "the type and one element: {rules}");
    let refused = ask_tcp(world.outside.path(), (World::NODE[0], 80)).expect_err("no host port 80");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{refused}");
    assert!(ask_tcp(&one.netns, (&one.addresses[0], 80)).is_ok(), "{}", one.id);
}

/// CVE-2020-8558: what listens on the node's 127.0.0.1 alone was reached by its neighbours, since `route_localnet`
/// lets packets for 127/8 in from the bridge.
#[test]
fn a_packet_for_127_0_0_1_from_a_pod_or_the_outside_is_dropped() {
    if lacks("a_packet_for_127_0_0_1_from_a_pod_or_the_outside_is_dropped", &[Need::Nat]) {
        return;
    }
    let world = World::new();
    let node = Node::inside(world.node.path(), &BOTH, "");
    let pod = node.bridge_pod("one", &[]);
    let bridge = node.bridge();
    let setting = format!("cat /proc/sys/net/ipv4/conf/{bridge}/route_localnet");
    assert_eq!(world.node.sh(&setting), "1");
    let hostile = |netns: &std::path::Path, link: &str, gateway: &str| {
        let script = format!(
            "ip address del 127.0.0.1/8 dev lo; echo 1 >/proc/sys/net/ipv4/conf/{link}/route_localnet; \
             ip route add 127.0.0.1/32 via {gateway} dev {link}"
        );
        assert_eq!(slipway_tests::netns::sh(netns, &script).ok(), "");
    };
    hostile(&pod.netns, "eth0", "10.90.0.1");
    hostile(world.outside.path(), "uplink", World::NODE[0]);
    let _ = world.node.sh("echo 1 >/proc/sys/net/ipv4/conf/uplink/route_localnet");
    let victim = slipway_tests::netns::within(world.node.path(), || {
        std::net::UdpSocket::bind("0.0.0.0:4000").expect("the victim's port")
    });
    victim.set_read_timeout(Some(std::time::Duration::from_secs(10))).expect("a time-out");
    let strikes = |netns: &std::path::Path, gateway: &str| {
        let strike = udp_client(netns, ("127.0.0.1", 4000)).expect("a way to 127.0.0.1");
        strike.send(b"strike").expect("a packet");
        // The one that may come takes the same way later: when it is there, the other has been dropped.
        let fair = udp_client(netns, (gateway, 4000)).expect("a way to the node");
        fair.send(b"fair").expect("a packet");
        let mut bytes = [0; 16];
        let length = victim.recv(&mut bytes).expect("a packet arrives");
        let first = String::from_utf8_lossy(&bytes[..length]).into_owned();
        if first == "strike" {
            victim.recv(&mut bytes).expect("the fair one follows");
        }
        first == "strike"
    };
    assert!(!strikes(&pod.netns, "10.90.0.1"), "a pod reached 127.0.0.1");
    assert!(!strikes(world.outside.path(), World::NODE[0]), "the outside reached 127.0.0.1");
    // Without the guard it is the rule that is missing, not the attack.
    let _ = world.node.sh(&format!("nft flush chain inet {} guard", node.table()));
    assert!(strikes(&pod.netns, "10.90.0.1"), "the attack of this test is none");
    // The next pod brings the guard back.
    let _ = node.bridge_pod("two", &[]);
    assert!(!strikes(&pod.netns, "10.90.0.1"), "the guard was not mended: {}", node.log());
}

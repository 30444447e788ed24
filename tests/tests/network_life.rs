//! The parts of the bridge's network, from its beginning to its end: addresses, links, rules; and interference by others.

use slipway_tests::bridge::tcp;
use slipway_tests::fault::{Moment, Strace};
use slipway_tests::sockets::{Server, ask_tcp};
use slipway_tests::{Need, Node, World, lacks, netns, wait};
use std::collections::BTreeSet;

const BOTH: [&str; 2] = ["10.92.0.0/24", "fd92::/64"];

#[test]
fn a_full_subnet_is_said_and_an_address_comes_back_with_its_pod() {
    let world = World::new();
    let mut node = Node::inside(world.node.path(), &["10.92.0.0/29"], "");
    let pods: Vec<_> = (0..5).map(|index| node.bridge_pod(&format!("pod-{index}"), &[])).collect();
    let given: BTreeSet<_> = pods.iter().flat_map(|pod| pod.addresses.clone()).collect();
    assert_eq!(given.len(), 5, "{given:?}");
    let full = node.refused_pod("more", &[]);
    assert!(full.contains("10.92.0.0/29") && full.contains("ResourceExhausted"), "{full}");
    assert_eq!(node.crictl(&["pods", "-q"]).ok().lines().count(), 5);
    assert_eq!(world.node.sh("ip -o link").matches(" slw").count(), 5);
    node.kill();
    node.launch();
    assert!(node.refused_pod("more", &[]).contains("no free address"));
    let freed = pods[2].addresses.clone();
    node.remove_pod(&pods[2].id);
    node.await_addresses(4);
    assert_eq!(node.bridge_pod("more", &[]).addresses, freed);
}

#[test]
fn twenty_pods_at_once_have_addresses_and_ports_of_their_own() {
    if lacks("twenty_pods_at_once_have_addresses_and_ports_of_their_own", &[Need::Nat]) {
        return;
    }
    let world = World::new();
    let node = Node::inside(world.node.path(), &BOTH, "");
    let at_once = |work: &(dyn Fn(u16) + Sync)| {
        std::thread::scope(|scope| {
            for index in 0..20 {
                scope.spawn(move || work(index));
            }
        });
    };
    at_once(&|index| {
        let pod = node.bridge_pod(&format!("pod-{index}"), &[tcp(9000 + index, 80)]);
        let word = format!("pod-{index}");
        let _server = Server::tcp(&pod.netns, 80, &word);
        for target in World::NODE {
            let answer = ask_tcp(world.outside.path(), (target, 9000 + index)).expect("a host port");
            assert!(answer.starts_with(&format!("{word} ")), "{answer}");
        }
    });
    node.await_addresses(40);
    assert!(!node.log().contains("made anew"), "nobody changed the table: {}", node.log());
    let ids = node.crictl(&["pods", "-q"]).ok().lines().map(str::to_owned).collect::<Vec<_>>();
    at_once(&|index| node.remove_pod(&ids[usize::from(index)]));
    node.await_addresses(0);
    assert_eq!(world.node.sh("ip -o link").matches(" slw").count(), 0);
    let rules = world.node.sh(&format!("nft list table inet {}", node.table()));
    assert!(!rules.contains("elements"), "{rules}");
}

#[test]
fn a_new_bridge_waits_for_no_address_to_be_confirmed() {
    let world = World::new();
    let node = Node::inside(world.node.path(), &BOTH, "");
    let _pod = node.bridge_pod("first", &[]);
    let addresses = world.node.sh(&format!("ip -6 address show dev {}", node.bridge()));
    assert!(addresses.contains("inet6 fe80::") && addresses.contains("inet6 fd92::1"), "{addresses}");
    assert!(!addresses.contains("tentative"), "{addresses}");
}

#[test]
fn a_stopped_pod_has_given_everything_back() {
    if lacks("a_stopped_pod_has_given_everything_back", &[Need::Nat]) {
        return;
    }
    let world = World::new();
    let node = Node::inside(world.node.path(), &BOTH, "");
    let pod = node.bridge_pod("one", &[tcp(8080, 80)]);
    let _ = node.crictl(&["stopp", &pod.id]).ok();
    assert!(!pod.netns.exists(), "{}", pod.netns.display());
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("the mounts");
    assert!(!mounts.contains(&pod.id), "{mounts}");
    let rules = world.node.sh(&format!("nft list table inet {}", node.table()));
    assert!(!rules.contains("elements"), "{rules}");
    node.await_addresses(0);
    assert_eq!(world.node.sh("ip -o link").matches(" slw").count(), 0);
    assert!(node.crictl(&["pods"]).ok().contains("NotReady"));
}

/// With its last pod gone the next daemon had no reason to look at the table, and the port led nowhere until one came.
#[test]
fn a_port_whose_end_a_killed_daemon_has_begun_is_closed_by_the_next() {
    if lacks("a_port_whose_end_a_killed_daemon_has_begun_is_closed_by_the_next", &[Need::Nat]) {
        return;
    }
    let world = World::new();
    let mut node = Node::inside(world.node.path(), &BOTH, "");
    let pod = node.bridge_pod("one", &[tcp(8080, 80)]);
    let rules = world.node.sh(&format!("nft list table inet {}", node.table()));
    assert!(rules.contains("elements"), "{rules}");
    // The first message to the kernel is the one that closes the port: the record has forgotten it by then.
    let strace = Strace::kill_at(node.pid(), &Moment { call: "sendto".into(), nth: 1 });
    let _ = node.crictl(&["stopp", &pod.id]);
    wait("the daemon's death", || node.has_died());
    drop(strace);
    node.launch();
    let list = format!("nft list table inet {}", node.table());
    wait("the port's end", || !world.node.sh(&list).contains("elements"));
    node.remove_pod(&pod.id);
}

#[test]
fn a_bridge_name_that_another_link_has_is_refused_and_the_network_is_not_ready() {
    let world = World::new();
    let node = Node::inside(world.node.path(), &BOTH, "");
    assert!(node.network_ready().0);
    let bridge = node.bridge();
    let _ = world.node.sh(&format!("ip link add {bridge} type veth peer name other"));
    let refused = node.refused_pod("one", &[]);
    assert!(refused.contains(&bridge) && refused.contains("not a bridge"), "{refused}");
    let (ready, reason, message) = node.network_ready();
    assert!(!ready && reason == "NetworkPluginNotReady" && message.contains(&bridge), "{reason}: {message}");
    // A build is not given the host's network for want of a bridge.
    let context = tempfile::tempdir().expect("a context");
    slipway_tests::busybox::context(context.path(), "");
    let built = node.slipway(&["build", "-t", "x:1", &context.path().display().to_string()]);
    assert!(built.error().contains("not a bridge"), "{built:#?}");
    let _ = world.node.sh(&format!("ip link del {bridge}"));
    assert!(node.network_ready().0);
    let _ = node.bridge_pod("one", &[]);
}

/// Wherever the daemon was killed in the making of pods, what is on the node afterwards is what its pods have.
#[test]
fn pods_that_a_killed_daemon_was_making_leave_nothing() {
    if lacks("pods_that_a_killed_daemon_was_making_leave_nothing", &[Need::Nat]) {
        return;
    }
    let world = World::new();
    let mut node = Node::inside(world.node.path(), &BOTH, "");
    let _warm = node.bridge_pod("warm", &[tcp(7000, 80)]);
    for round in 0..6_u16 {
        let files: Vec<_> = (0..3)
            .map(|index| {
                let port = 8000 + round * 10 + index;
                node.bridge_pod_file(&format!("pod-{round}-{index}"), &[tcp(port, 80)])
            })
            .collect();
        std::thread::scope(|scope| {
            let asked: Vec<_> =
                files.iter().map(|file| scope.spawn(|| node.crictl(&["runp", file]).status)).collect();
            // Whatever moment this is, what follows must hold.
            std::thread::sleep(std::time::Duration::from_millis(u64::from(round) * 60));
            let killed = rustix::process::Pid::from_raw(i32::try_from(node.pid()).expect("a process id"));
            let killed = killed.expect("a process");
            rustix::process::kill_process(killed, rustix::process::Signal::KILL).expect("it is killed");
            drop(asked);
        });
        node.kill();
        node.launch();
        let pods = node.crictl(&["pods", "-q"]).ok().lines().count();
        node.await_addresses(pods * 2);
        let links = world.node.sh("ip -o link").matches(" slw").count();
        let rules = world.node.sh(&format!("nft list table inet {}", node.table()));
        let elements = rules.matches("tcp . ").count();
        let names = std::fs::read_dir(node.path("run/netns")).expect("the namespaces are listed").count();
        assert_eq!((links, elements, names), (pods, pods * 2, pods), "round {round}: {rules}");
    }
}

#[test]
fn a_subnet_that_the_node_is_in_is_refused() {
    let world = World::new();
    let node = Node::inside(world.node.path(), &["192.0.0.0/16"], "");
    let refused = node.refused_pod("one", &[]);
    assert!(refused.contains("192.0.0.0/16") && refused.contains("192.0.2.1/24"), "{refused}");
    assert!(!node.network_ready().0);
    node.await_addresses(0);
}

#[test]
fn a_table_of_someone_else_is_left_alone() {
    if lacks("a_table_of_someone_else_is_left_alone", &[Need::Nat]) {
        return;
    }
    let world = World::new();
    let node = Node::inside(world.node.path(), &BOTH, "");
    let table = node.table();
    let _ = world
        .node
        .sh(&format!("nft 'add table inet {table} {{ comment \"mine\"; }}; add chain inet {table} c'"));
    let refused = node.refused_pod("one", &[]);
    assert!(refused.contains(&table) && refused.contains("mine"), "{refused}");
    let (ready, _, message) = node.network_ready();
    assert!(!ready && message.contains(&table), "{message}");
    assert!(world.node.sh(&format!("nft list table inet {table}")).contains("chain c"));
    let _ = world.node.sh(&format!("nft delete table inet {table}"));
    let _ = node.bridge_pod("one", &[tcp(8080, 80)]);
}

#[test]
fn flushed_rules_are_made_anew_by_status_by_the_next_pod_and_by_a_restart() {
    if lacks("flushed_rules_are_made_anew_by_status_by_the_next_pod_and_by_a_restart", &[Need::Nat]) {
        return;
    }
    let world = World::new();
    let mut node = Node::inside(world.node.path(), &BOTH, "");
    let pod = node.bridge_pod("one", &[tcp(8080, 80)]);
    let _server = Server::tcp(&pod.netns, 80, "one");
    let refused = || {
        let error = ask_tcp(world.outside.path(), (World::NODE[0], 8080)).expect_err("no rules");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "{error}");
    };
    let reached = || {
        let answer = ask_tcp(world.outside.path(), (World::NODE[0], 8080));
        assert_eq!(answer.unwrap_or_else(|error| error.to_string()), "one 192.0.2.2");
    };
    reached();
    let _ = world.node.sh("nft flush ruleset");
    refused();
    assert!(node.network_ready().0);
    reached();
    assert!(node.log().contains("removed or changed"), "it is reported: {}", node.log());
    let _ = world.node.sh(&format!("nft flush map inet {} any4", node.table()));
    refused();
    let _ = node.bridge_pod("two", &[]);
    reached();
    node.kill();
    let _ = world.node.sh("nft flush ruleset");
    refused();
    node.launch();
    // Its socket is there before it has looked at what it finds; it answers afterwards.
    assert!(node.network_ready().0);
    reached();
    assert_eq!(node.log().matches("removed or changed").count(), 3, "each is reported: {}", node.log());
    // Rules of others are none of our business.
    let _ = world.node.sh("nft add table inet other");
    assert!(node.network_ready().0);
    reached();
}

#[test]
fn a_bridge_that_was_removed_is_made_anew_with_the_pods_on_it() {
    let world = World::new();
    let node = Node::inside(world.node.path(), &BOTH, "");
    let one = node.bridge_pod("one", &[]);
    let _ = world.node.sh(&format!("ip link del {}", node.bridge()));
    let two = node.bridge_pod("two", &[]);
    let _server = Server::tcp(&one.netns, 80, "one");
    for family in [0, 1] {
        for netns in [&two.netns, world.node.path()] {
            let answer = ask_tcp(netns, (&one.addresses[family], 80));
            let answer = answer.unwrap_or_else(|error| error.to_string());
            assert!(answer.starts_with("one "), "{answer}: {}", node.log());
        }
    }
}

/// A daemon that was killed between making the bridge and giving it its addresses left one that no pod could use.
#[test]
fn a_bridge_that_was_left_half_made_is_finished() {
    let world = World::new();
    let node = Node::inside(world.node.path(), &BOTH, "");
    let _ = world.node.sh(&format!("ip link add {} type bridge", node.bridge()));
    let one = node.bridge_pod("one", &[]);
    let _server = Server::tcp(&one.netns, 80, "one");
    for (address, gateway) in one.addresses.iter().zip(["10.92.0.1", "fd92::1"]) {
        assert_eq!(ask_tcp(world.node.path(), (address, 80)).expect("a pod"), format!("one {gateway}"));
    }
    let _ = world.node.sh(&format!("ip link set {} down", node.bridge()));
    let two = node.bridge_pod("two", &[]);
    assert_eq!(
        ask_tcp(&two.netns, (&one.addresses[0], 80)).expect("a pod"),
        format!("one {}", two.addresses[0])
    );
}

/// A rule in place of another was taken for it, since rules were only counted.
#[test]
fn a_rule_that_was_replaced_is_made_anew() {
    if lacks("a_rule_that_was_replaced_is_made_anew", &[Need::Nat]) {
        return;
    }
    let world = World::new();
    let mut node = Node::inside(world.node.path(), &BOTH, "");
    let pod = node.bridge_pod("one", &[tcp(8080, 80)]);
    let _server = Server::tcp(&pod.netns, 80, "one");
    let table = node.table();
    let rules = || world.node.sh(&format!("nft -n list table inet {table}"));
    let whole = rules();
    for daemon_lives in [true, false] {
        for chain in ["guard", "prerouting", "output", "postrouting"] {
            if !daemon_lives {
                node.kill();
            }
            let listed = world.node.sh(&format!("nft -a list chain inet {table} {chain}"));
            let handle = listed
                .lines()
                .rev()
                .find_map(|line| line.split(" # handle ").nth(1).filter(|_| line.starts_with("\t\t")));
            let handle = handle.expect("a rule");
            let _ = world
                .node
                .sh(&format!("nft replace rule inet {table} {chain} handle {handle} counter accept"));
            assert_ne!(rules(), whole);
            if !daemon_lives {
                node.launch();
            }
            assert!(node.network_ready().0);
            assert_eq!(rules(), whole, "{chain}");
        }
    }
    let answer = ask_tcp(world.outside.path(), (World::NODE[0], 8080));
    assert_eq!(answer.unwrap_or_else(|error| error.to_string()), "one 192.0.2.2");
    assert_eq!(node.log().matches("removed or changed").count(), 8, "{}", node.log());
    assert!(!node.log().contains("lists other rules"), "{}", node.log());
}

/// A daemon with other subnets left the bridge what its earlier ones had given it: the old gateway stayed the node's, and
/// the node sent what was for the old subnet, which may be anyone's by then, to the bridge. The rules were the old subnets'
/// where there were as many of them.
#[test]
fn after_a_change_of_subnets_the_bridge_has_the_configured_addresses_and_routes_alone() {
    let world = World::new();
    let mut node = Node::inside(world.node.path(), &BOTH, "");
    let first = node.bridge_pod("first", &[]);
    node.remove_pod(&first.id);
    node.await_addresses(0);
    let mut before = BOTH.map(str::to_owned).to_vec();
    for after in [
        &["10.92.0.0/25", "fd92::/80"][..],
        &["10.92.0.0/16", "fd92::/64"],
        &["10.93.0.0/24"],
        &["fd93::/64"],
        &["fd93::/64", "10.94.0.0/24"],
        &["10.95.0.0/24", "fd95::/64"],
    ] {
        node.kill();
        let path = node.path("config.toml");
        let config = std::fs::read_to_string(&path).expect("the configuration is read");
        let list = |subnets: &[String]| serde_json::json!(subnets).to_string();
        let after: Vec<String> = after.iter().map(|&subnet| subnet.to_owned()).collect();
        assert!(config.contains(&list(&before)), "{config}");
        std::fs::write(path, config.replace(&list(&before), &list(&after))).expect("it is written");
        node.launch();
        let pod = node.bridge_pod("next", &[]);
        assert_eq!(addresses(&world, &node), gateways(&after), "{before:?} -> {after:?}");
        let routes = routes(&world, &node);
        assert_eq!(routes, after.iter().cloned().collect(), "{before:?} -> {after:?}");
        if Need::Nat.is_met() {
            let rules = world.node.sh(&format!("nft list table inet {}", node.table()));
            assert!(
                after.iter().all(|subnet| rules.contains(&format!("saddr {subnet} "))),
                "{after:?}: {rules}"
            );
            let gone = before.iter().filter(|subnet| !after.contains(subnet));
            assert!(
                gone.clone().all(|subnet| !rules.contains(&format!("saddr {subnet} "))),
                "{before:?}: {rules}"
            );
        }
        let _server = Server::tcp(&pod.netns, 80, "next");
        for address in &pod.addresses {
            let answer = ask_tcp(world.node.path(), (address, 80)).unwrap_or_else(|error| error.to_string());
            assert!(answer.starts_with("next "), "{answer}");
        }
        node.remove_pod(&pod.id);
        node.await_addresses(0);
        before = after;
    }
    // A subnet of the node's own is refused as it is where there is no bridge yet.
    node.kill();
    let path = node.path("config.toml");
    let config = std::fs::read_to_string(&path).expect("the configuration is read");
    let own = config.replace("10.95.0.0/24", "192.0.2.0/24");
    std::fs::write(path, own).expect("it is written");
    node.launch();
    let refused = node.refused_pod("overlap", &[]);
    assert!(refused.contains("192.0.2.0/24") && refused.contains("overlaps"), "{refused}");
}

/// The bridge's addresses but its link-local one.
fn addresses(world: &World, node: &Node) -> BTreeSet<String> {
    let listed = world.node.sh(&format!("ip -o address show dev {}", node.bridge()));
    let words = listed.lines().filter_map(|line| line.split_whitespace().nth(3));
    words.filter(|address| !address.starts_with("fe80:")).map(str::to_owned).collect()
}

fn gateways(subnets: &[String]) -> BTreeSet<String> {
    let gateway = |subnet: &String| match subnet.split_once("::/") {
        Some((network, prefix)) => format!("{network}::1/{prefix}"),
        None => subnet.replace(".0/", ".1/"),
    };
    subnets.iter().map(gateway).collect()
}

/// The networks that the node reaches by the bridge.
fn routes(world: &World, node: &Node) -> BTreeSet<String> {
    let bridge = node.bridge();
    let listed = world.node.sh(&format!("ip -4 route show dev {bridge}; ip -6 route show dev {bridge}"));
    let words = listed.lines().filter_map(|line| line.split_whitespace().next());
    words
        .filter(|route| !route.starts_with("fe80:") && !route.starts_with("ff00:"))
        .map(str::to_owned)
        .collect()
}

/// CVE-2020-10749: a pod that may send raw packets advertised itself as a router and was given the node's traffic.
#[test]
fn neither_the_bridge_nor_a_pod_takes_router_advertisements() {
    let world = World::new();
    let node = Node::inside(world.node.path(), &BOTH, "");
    let _ = world.node.sh("echo 1 >/proc/sys/net/ipv6/conf/uplink/accept_ra");
    let pod = node.bridge_pod("one", &[]);
    let setting = |netns: &std::path::Path, link: &str| {
        netns::sh(netns, &format!("cat /proc/sys/net/ipv6/conf/{link}/accept_ra")).ok().to_owned()
    };
    assert_eq!(setting(world.node.path(), &node.bridge()), "0");
    assert_eq!(setting(&pod.netns, "eth0"), "0");
    // The node forwards now: without 2 it would lose the routes that its own network advertises.
    assert_eq!(setting(world.node.path(), "uplink"), "2");
}

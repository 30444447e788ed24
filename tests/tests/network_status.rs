//! An obstacle to pods' packets is reported with the command that removes it.

use slipway_proto::runtime::v1 as cri;
use slipway_proto::runtime::v1::runtime_service_client::RuntimeServiceClient;
use slipway_tests::bridge::tcp;
use slipway_tests::sockets::{Server, ask_tcp};
use slipway_tests::{Need, Node, World, lacks};

const BOTH: [&str; 2] = ["10.93.0.0/24", "fd93::/64"];

/// Runs the commands that a message tells to run.
fn mend(world: &World, message: &str) {
    for sentence in message.split("; run: ").skip(1) {
        let command = sentence.split("; the FORWARD chain").next().expect("a command");
        let _ = world.node.sh(command);
    }
}

fn reaches_the_outside(world: &World, netns: &std::path::Path) {
    let _server = Server::tcp(world.outside.path(), 80, "out");
    for (there, here) in World::OUTSIDE.into_iter().zip(World::NODE) {
        assert_eq!(ask_tcp(netns, (there, 80)).expect("the outside"), format!("out {here}"));
    }
}

#[test]
fn a_chain_that_drops_what_is_forwarded_is_named_with_what_mends_it() {
    if lacks("a_chain_that_drops_what_is_forwarded_is_named_with_what_mends_it", &[Need::Nat]) {
        return;
    }
    for rules in [
        "add chain inet fw forward { type filter hook forward priority 0; policy drop; }",
        "add chain inet fw forward { type filter hook forward priority 0; }; \
         add rule inet fw forward iifname lo accept; add rule inet fw forward counter reject",
    ] {
        let world = World::new();
        let node = Node::inside(world.node.path(), &BOTH, "");
        let pod = node.bridge_pod("one", &[]);
        assert_eq!(node.network_ready(), (true, String::new(), String::new()));
        let _ = world.node.sh(&format!("nft 'add table inet fw; {rules}'"));
        // A longer name that begins like the bridge's is another link's.
        let longer = format!("{}9", node.bridge());
        let _ = world.node.sh(&format!("nft insert rule inet fw forward iifname {longer} accept"));
        let (ready, reason, message) = node.network_ready();
        assert!(ready && reason == "ForwardDropped" && message.contains("inet fw forward"), "{message}");
        mend(&world, &message);
        assert_eq!(node.network_ready(), (true, String::new(), String::new()));
        reaches_the_outside(&world, &pod.netns);
    }
}

#[test]
fn a_policy_of_iptables_legacy_is_named_with_what_mends_it() {
    if lacks("a_policy_of_iptables_legacy_is_named_with_what_mends_it", &[Need::Nat, Need::LegacyIptables]) {
        return;
    }
    let world = World::new();
    let node = Node::inside(world.node.path(), &BOTH, "");
    let pod = node.bridge_pod("one", &[]);
    let _ = world.node.sh("iptables-legacy -A FORWARD -i lo -j ACCEPT; ip6tables-legacy -L -n >/dev/null");
    assert_eq!(node.network_ready(), (true, String::new(), String::new()));
    let _ = world.node.sh("iptables-legacy -P FORWARD DROP; ip6tables-legacy -P FORWARD DROP");
    let (ready, reason, message) = node.network_ready();
    assert!(ready && reason == "ForwardDropped", "{reason}: {message}");
    for program in ["iptables-legacy", "ip6tables-legacy"] {
        assert!(message.contains(&format!("{program} -I FORWARD -i {}", node.bridge())), "{message}");
    }
    mend(&world, &message);
    assert_eq!(node.network_ready(), (true, String::new(), String::new()));
    reaches_the_outside(&world, &pod.netns);
}

#[test]
fn forwarding_is_switched_on_and_said_when_someone_switches_it_off() {
    let world = World::new();
    let _ = world
        .node
        .sh("echo 0 >/proc/sys/net/ipv4/ip_forward; echo 0 >/proc/sys/net/ipv6/conf/all/forwarding");
    let node = Node::inside(world.node.path(), &BOTH, "");
    let on = || {
        let read = "cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding";
        world.node.sh(read).replace('\n', "")
    };
    assert_eq!(on(), "00");
    let _ = node.bridge_pod("one", &[]);
    assert_eq!(on(), "11");
    let _ = world.node.sh("echo 0 >/proc/sys/net/ipv4/ip_forward");
    let (_, reason, message) = node.network_ready();
    assert!(message.contains("sysctl -w net.ipv4.ip_forward=1"), "{reason}: {message}");
    let network = || node.crictl(&["info"]).json()["config"]["network"].clone();
    assert_eq!(network()["forwarding"], false);
    let _ = node.bridge_pod("two", &[]);
    assert_eq!(on(), "11");
    assert_eq!(network()["forwarding"], true);
    assert!(!node.network_ready().2.contains("ip_forward"));
}

#[test]
fn without_nftables_pods_reach_each_other_and_a_host_port_is_refused() {
    let world = World::new();
    let node = Node::inside(world.node.path(), &BOTH, "nftables = false\n");
    let (one, two) = (node.bridge_pod("one", &[]), node.bridge_pod("two", &[tcp(0, 80)]));
    let _server = Server::tcp(&two.netns, 80, "two");
    let _node_server = Server::tcp(world.node.path(), 80, "node");
    for (family, gateway) in ["10.93.0.1", "fd93::1"].into_iter().enumerate() {
        let expected = format!("two {}", one.addresses[family]);
        assert_eq!(ask_tcp(&one.netns, (&two.addresses[family], 80)).expect("a pod"), expected);
        let expected = format!("node {}", one.addresses[family]);
        assert_eq!(ask_tcp(&one.netns, (gateway, 80)).expect("the node"), expected);
    }
    let refused = node.refused_pod("three", &[tcp(8080, 80)]);
    assert!(refused.contains("host ports") && refused.contains("nftables"), "{refused}");
    node.await_addresses(4);
    let (ready, reason, message) = node.network_ready();
    assert!(ready && reason == "HostPortsUnavailable" && message.contains("nftables"), "{reason}: {message}");
    // There is no guard then, so that packets for 127/8 are not let in either.
    let setting = format!("cat /proc/sys/net/ipv4/conf/{}/route_localnet", node.bridge());
    assert_eq!(world.node.sh(&setting), "0");
    node.remove_pod(&one.id);
    node.await_addresses(2);
}

/// kubelet tells the runtime which addresses pods have: what is not done is said.
#[tokio::test]
async fn a_pod_cidr_of_kubelets_is_accepted_when_it_is_the_bridges_and_refused_by_name_otherwise() {
    let world = World::new();
    let node = Node::inside(world.node.path(), &BOTH, "");
    let mut client = RuntimeServiceClient::new(slipway_tests::grpc::channel(&node).await);
    let told = |cidr: &str| {
        let network_config = Some(cri::NetworkConfig { pod_cidr: cidr.to_owned() });
        cri::UpdateRuntimeConfigRequest { runtime_config: Some(cri::RuntimeConfig { network_config }) }
    };
    for fine in ["", "10.93.0.0/24", "10.93.0.0/24,fd93::/64", "fd93::/64"] {
        assert!(client.update_runtime_config(told(fine)).await.is_ok(), "{fine}");
    }
    let other = client.update_runtime_config(told("10.244.1.0/24")).await.expect_err("another subnet");
    assert_eq!(other.code(), tonic::Code::FailedPrecondition);
    assert!(
        other.message().contains("10.244.1.0/24") && other.message().contains("network.subnets"),
        "{other}"
    );
    let odd = client.update_runtime_config(told("10.244.1.0")).await.expect_err("no subnet");
    assert_eq!(odd.code(), tonic::Code::InvalidArgument);
}

/// The answer of a kernel without address translation, where there is one.
#[test]
fn a_kernel_without_address_translation_is_named() {
    let world = World::new();
    let node = Node::inside(world.node.path(), &BOTH, "");
    let (ready, reason, message) = node.network_ready();
    assert!(ready, "{reason}: {message}");
    if Need::Nat.is_met() {
        assert_eq!((reason.as_str(), message.as_str()), ("", ""));
        return;
    }
    assert!(reason == "HostPortsUnavailable" && message.contains("the kernel lacks"), "{reason}: {message}");
    let refused = node.refused_pod("one", &[tcp(8080, 80)]);
    assert!(refused.contains("the kernel lacks"), "{refused}");
    let _ = node.bridge_pod("two", &[]);
}

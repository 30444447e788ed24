//! The process that holds a port of the node, for the message that refuses the port: looked up in `/proc` only after
//! the bind has failed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::network::hostport::{Forward, Protocol};

/// The program that listens on the port, `PROCESS (NAME)`, when it can be found. A socket that is bound and does not
/// listen is in no list.
pub(in crate::network) fn process(forward: &Forward) -> Option<String> {
    let files: &[&str] = match forward.protocol {
        Protocol::Tcp => &["tcp", "tcp6"],
        Protocol::Udp => &["udp", "udp6"],
        Protocol::Sctp => return None,
    };
    let inode = files.iter().find_map(|name| {
        let text = std::fs::read_to_string(Path::new("/proc/self/net").join(name)).ok()?;
        text.lines().skip(1).find_map(|line| socket(line, forward))
    })?;
    owner(inode)
}

/// The inode of a line's socket, if it is one that keeps the port.
fn socket(line: &str, forward: &Forward) -> Option<u64> {
    const LISTENING: &str = "0A";
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (address, port) = fields.get(1)?.split_once(':')?;
    let fits = u16::from_str_radix(port, 16).ok()? == forward.port
        && (forward.protocol != Protocol::Tcp || *fields.get(3)? == LISTENING);
    let at = parse(address)?;
    let meets = forward.on.is_none_or(|on| on == at) || at.is_unspecified();
    (fits && meets).then(|| fields.get(9)?.parse().ok()).flatten()
}

/// An address as `/proc/net` has it: groups of four bytes, each a number of this machine.
fn parse(text: &str) -> Option<IpAddr> {
    let word = |index: usize| {
        let digits = text.get(index.checked_mul(8)?..index.checked_add(1)?.checked_mul(8)?)?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
    };
    if text.len() == 8 {
        return Some(Ipv4Addr::from(word(0)?).into());
    }
    let words = [word(0)?, word(1)?, word(2)?, word(3)?];
    let octets: [u8; 16] = words.concat().try_into().ok()?;
    Some(IpAddr::from(Ipv6Addr::from(octets)).to_canonical())
}

fn owner(inode: u64) -> Option<String> {
    let processes = std::fs::read_dir("/proc").ok()?;
    for process in processes.flatten() {
        let Some(id) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let descriptors = std::fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten();
        let holds = |path: &Path| {
            std::fs::metadata(path).is_ok_and(|file| file.ino() == inode)
                && std::fs::read_link(path).is_ok_and(|to| to.to_string_lossy().starts_with("socket:"))
        };
        if descriptors.into_iter().any(|descriptor| holds(&descriptor.path())) {
            let name = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some(format!("process {id} ({})", name.trim()));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_of_this_process_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = std::net::UdpSocket::bind("[::]:0").unwrap();
        let forward = |protocol, port, on: Option<&str>| Forward {
            protocol,
            on: on.map(|on| on.parse().unwrap()),
            port,
            to: "10.88.0.2:80".parse().unwrap(),
        };
        let port = listener.local_addr().unwrap().port();
        let own = format!("process {} ", std::process::id());
        for on in [None, Some("127.0.0.1")] {
            let found = process(&forward(Protocol::Tcp, port, on)).unwrap();
            assert!(found.starts_with(&own), "{found}");
        }
        assert_eq!(process(&forward(Protocol::Tcp, port, Some("127.0.0.2"))), None);
        let port = udp.local_addr().unwrap().port();
        assert!(process(&forward(Protocol::Udp, port, Some("127.0.0.1"))).unwrap().starts_with(&own));
    }

    #[test]
    fn addresses_of_both_families_are_read() {
        let v4 = u32::from_ne_bytes([127, 0, 0, 1]);
        assert_eq!(parse(&format!("{v4:08X}")), Some(Ipv4Addr::LOCALHOST.into()));
        assert_eq!(parse(&"0".repeat(32)), Some(Ipv6Addr::UNSPECIFIED.into()));
        for odd in ["", "7F", "0100007F0", "zz00007F"] {
            assert_eq!(parse(odd), None, "{odd}");
        }
    }
}

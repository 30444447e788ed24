//! Which hosts serve a registry: containerd's `certs.d` layout, `<dir>/<registry>/hosts.toml`, else `_default`.

use std::io::ErrorKind;
use std::net::IpAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use crate::error::{Error, Result};

/// One host to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Host {
    /// `http` or `https`.
    pub(crate) scheme: String,
    /// Host and port.
    pub(crate) authority: String,
    /// The prefix of a repository's path, `/v2` as a rule.
    pub(crate) prefix: String,
    pub(crate) pull: bool,
    pub(crate) resolve: bool,
    pub(crate) push: bool,
    /// The registry that the reference names: credentials are for it alone.
    pub(crate) own: bool,
}

/// The hosts of a registry, in the order to ask them; its own is the last. Of several folders the first that has the
/// registry counts, and one that has the registry goes before any with a default.
pub(crate) fn hosts(domain: &str, folders: &[PathBuf], plain_loopback: bool) -> Result<Vec<Host>> {
    let own = own_host(domain, plain_loopback);
    let names = folder_names(domain);
    let own_names = names.iter().map(PathBuf::as_path);
    let groups = [own_names.collect(), vec![Path::new("_default")]];
    for names in groups {
        for path in folders.iter().flat_map(|folder| names.iter().map(|name| folder.join(name))) {
            let path = path.join("hosts.toml");
            match std::fs::read_to_string(&path) {
                Ok(text) => return parse(&text, &own).map_err(|reason| Error::InvalidHosts { path, reason }),
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
                Err(error) => return Err(Error::io("read", path)(error)),
            }
        }
    }
    Ok(vec![own])
}

fn folder_names(domain: &str) -> Vec<PathBuf> {
    let mut names = Vec::new();
    if let Some((host, port)) = domain.rsplit_once(':') {
        names.push(format!("{host}_{port}_").into());
    }
    names.push(domain.into());
    names
}

fn own_host(domain: &str, plain_loopback: bool) -> Host {
    let authority = if domain == "docker.io" { "registry-1.docker.io" } else { domain };
    let plain = plain_loopback && is_loopback(domain);
    Host {
        scheme: if plain { "http" } else { "https" }.into(),
        authority: authority.into(),
        prefix: "/v2".into(),
        pull: true,
        resolve: true,
        push: true,
        own: true,
    }
}

fn is_loopback(domain: &str) -> bool {
    let host = match domain.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => domain.split(':').next().unwrap_or(domain),
    };
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// A fault in a file, with the bytes where it is.
type Wrong = (Range<usize>, String);

fn parse(text: &str, own: &Host) -> Result<Vec<Host>, String> {
    read(text, own).map_err(|(span, reason)| {
        let before = text.get(..span.start).unwrap_or(text);
        format!("line {}: {reason}", before.matches('\n').count() + 1)
    })
}

fn read(text: &str, own: &Host) -> Result<Vec<Host>, Wrong> {
    let file = DeTable::parse(text)
        .map_err(|error| (error.span().unwrap_or(0..0), error.message().replace('\n', " ")))?;
    let mut hosts = Vec::new();
    let mut server = own.clone();
    for (key, value) in file.get_ref() {
        match (key.get_ref().as_ref(), value.get_ref()) {
            ("server", DeValue::String(url)) => {
                server = address(url, own).map_err(|reason| (value.span(), reason))?;
                // Credentials are the named registry's; another server under its name is the operator's own wish.
                server.own = true;
            }
            ("host", DeValue::Table(table)) => {
                for (url, settings) in table {
                    hosts.push(mirror(url, settings, own)?);
                }
            }
            ("server" | "host", _) => {
                return Err((value.span(), format!("{} is of the wrong kind", key.get_ref())));
            }
            (other, _) => {
                let reason = format!("the key {other} is not supported: only server and host are");
                return Err((key.span(), reason));
            }
        }
    }
    hosts.push(server);
    Ok(hosts)
}

fn mirror(url: &Spanned<DeString<'_>>, settings: &Spanned<DeValue<'_>>, own: &Host) -> Result<Host, Wrong> {
    let name = url.get_ref();
    let mut host = address(name, own).map_err(|reason| (url.span(), reason))?;
    let DeValue::Table(settings) = settings.get_ref() else {
        return Err((settings.span(), format!("host {name} is no table")));
    };
    for (key, value) in settings {
        match (key.get_ref().as_ref(), value.get_ref()) {
            ("capabilities", DeValue::Array(names)) => {
                (host.pull, host.resolve, host.push) = (false, false, false);
                for capability in names {
                    match capability.get_ref() {
                        DeValue::String(word) if word == "pull" => host.pull = true,
                        DeValue::String(word) if word == "resolve" => host.resolve = true,
                        DeValue::String(word) if word == "push" => host.push = true,
                        _ => {
                            let reason = format!("host {name}: a capability is pull, resolve or push");
                            return Err((capability.span(), reason));
                        }
                    }
                }
            }
            ("override_path", DeValue::Boolean(false)) => {}
            ("override_path", DeValue::Boolean(true)) => {
                host.prefix = host.prefix.strip_suffix("/v2").unwrap_or(&host.prefix).to_owned();
            }
            ("capabilities" | "override_path", _) => {
                return Err((value.span(), format!("host {name}: {} is of the wrong kind", key.get_ref())));
            }
            (other, _) => {
                let reason =
                    format!("host {name}: {other} is not supported: only capabilities and override_path are");
                return Err((key.span(), reason));
            }
        }
    }
    Ok(host)
}

fn address(url: &str, own: &Host) -> Result<Host, String> {
    let (scheme, rest) = url.split_once("://").unwrap_or(("https", url));
    if !matches!(scheme, "http" | "https") {
        return Err(format!("{url} is neither http nor https"));
    }
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    if authority.is_empty() || authority.contains(['@', '?', '#']) {
        return Err(format!("{url} names no host"));
    }
    let path = path.trim_end_matches('/');
    Ok(Host {
        scheme: scheme.into(),
        authority: authority.into(),
        prefix: if path.ends_with("/v2") { path.to_owned() } else { format!("{path}/v2") },
        pull: true,
        resolve: true,
        push: true,
        own: authority == own.authority,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Host {
        own_host("docker.io", true)
    }

    #[test]
    fn loopback_is_plain_and_the_rest_is_not() {
        for (domain, scheme) in [
            ("localhost:5000", "http"),
            ("127.0.0.1:5000", "http"),
            ("[::1]:5000", "http"),
            ("quay.io", "https"),
            ("localhost.example.com", "https"),
        ] {
            assert_eq!(own_host(domain, true).scheme, scheme, "{domain}");
            assert_eq!(own_host(domain, false).scheme, "https", "{domain}");
        }
    }

    #[test]
    fn mirrors_come_first_in_their_order_and_get_no_credentials() -> Result<(), String> {
        let text = "server = \"https://registry-1.docker.io\"\n[host.\"http://z.example:5000\"]\n  capabilities = [\"pull\"]\n\
                    [host.\"https://a.example/cache\"]\n";
        let hosts = parse(text, &own())?;
        let names: Vec<&str> = hosts.iter().map(|host| host.authority.as_str()).collect();
        assert_eq!(names, ["z.example:5000", "a.example", "registry-1.docker.io"]);
        assert_eq!(hosts.iter().map(|host| host.own).collect::<Vec<_>>(), [false, false, true]);
        assert_eq!(
            hosts.first().map(|host| (host.pull, host.resolve, host.scheme.as_str())),
            Some((true, false, "http"))
        );
        assert_eq!(hosts.get(1).map(|host| host.prefix.as_str()), Some("/cache/v2"));
        Ok(())
    }

    #[test]
    fn the_first_folder_that_has_a_registry_counts_and_defaults_come_last() {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let put = |folder: &tempfile::TempDir, name: &str, host: &str| {
            std::fs::create_dir(folder.path().join(name)).unwrap();
            let text = format!("[host.\"https://{host}\"]\n");
            std::fs::write(folder.path().join(name).join("hosts.toml"), text).unwrap();
        };
        put(&first, "_default", "first-default");
        put(&first, "both.example", "first-both");
        put(&second, "both.example", "second-both");
        put(&second, "one.example_5000_", "second-one");
        put(&second, "_default", "second-default");
        let folders = [first.path().join("absent"), first.path().into(), second.path().into()];
        for (domain, host) in [
            ("both.example", "first-both"),
            ("one.example:5000", "second-one"),
            ("other.example", "first-default"),
        ] {
            let found = hosts(domain, &folders, true).unwrap();
            assert_eq!(found.first().map(|host| host.authority.as_str()), Some(host), "{domain}");
        }
    }

    #[test]
    fn what_is_not_supported_is_refused_by_name() {
        let wrong = parse("[host.\"https://a\"]\nskip_verify = true\n", &own());
        assert!(wrong.is_err_and(|reason| reason.contains("skip_verify")));
        for (text, words) in [
            ("server = \"ftp://x\"", "line 1: ftp://x is neither"),
            ("\n][", "line 2: "),
            ("server = 5", "line 1: server is of the wrong kind"),
            ("[host.\"https://a\"]\n\ncapabilities = [\"pul\"]", "line 3: host https://a: a capability is"),
            ("[host.\"https://a\"]\ncapabilities = \"pull\"", "line 2: host https://a: capabilities is of"),
            ("[hosts.\"https://a\"]\n", "line 1: the key hosts is not supported"),
        ] {
            let reason = parse(text, &own()).err().unwrap_or_default();
            assert!(reason.starts_with(words), "{reason}");
        }
    }
}

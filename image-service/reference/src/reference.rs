//! Image references, normalised the way Docker does: `busybox` is `docker.io/library/busybox:latest`.
//!
//! ```text
//! reference = [domain "/"] path [":" tag] ["@" digest]
//! ```

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::Digest;
use crate::error::{Error, Result};

const NAME_MAX: usize = 255;
const TAG_MAX: usize = 128;
const DEFAULT_DOMAIN: &str = "docker.io";

/// A normalised reference: it always has a domain, and a tag or a digest or both.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Parses and normalises.
    pub fn parse(text: &str) -> Result<Self> {
        Parts::split(text)
            .and_then(Parts::normalise)
            .map_err(|reason| Error::InvalidReference { reference: text.chars().take(300).collect(), reason })
    }

    /// The registry, with its port if it has one.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The repository within the registry.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The tag; a reference without one has a digest.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The manifest's digest; it decides where both are given.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// Domain and path: the repository's full name.
    pub fn name(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// The shortest form that parses to the same, but for a tag `latest`, which stays.
    pub fn familiar(&self) -> String {
        let full = self.to_string();
        let short = full.strip_prefix("docker.io/").map(|rest| match rest.strip_prefix("library/") {
            Some(name) if !name.contains('/') => name,
            _ => rest,
        });
        short.map_or(full.clone(), str::to_owned)
    }

    /// The same repository by a manifest's digest alone.
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { digest: Some(digest), tag: None, ..self.clone() }
    }

    /// The last part of a manifest's URL at a registry: the digest, or else the tag.
    pub fn selector(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => "latest".to_owned(),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.domain, self.path)?;
        if let Some(tag) = &self.tag {
            write!(formatter, ":{tag}")?;
        }
        match self.digest {
            Some(digest) => write!(formatter, "@{digest}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text)
    }
}

impl Serialize for Reference {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

struct Parts<'a> {
    name: &'a str,
    tag: Option<&'a str>,
    digest: Option<&'a str>,
}

impl<'a> Parts<'a> {
    fn split(text: &'a str) -> Result<Self, &'static str> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (text, None),
        };
        let slash = rest.rfind('/').map_or(0, |at| at + 1);
        let (name, tag) = match rest.rfind(':') {
            Some(colon) if colon >= slash => {
                let (name, tag) = rest.split_at(colon);
                (name, tag.strip_prefix(':'))
            }
            _ => (rest, None),
        };
        if name.is_empty() {
            return Err("it has no name");
        }
        Ok(Self { name, tag, digest })
    }

    fn normalise(self) -> Result<Reference, &'static str> {
        let (domain, path) = match self.name.split_once('/') {
            Some((first, path)) if is_domain(first) => (first, path.to_owned()),
            _ => (DEFAULT_DOMAIN, self.name.to_owned()),
        };
        let domain = if domain == "index.docker.io" { DEFAULT_DOMAIN } else { domain };
        if path.len() == 64 && !path.contains('/') && path.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err("it is an image id, not a name");
        }
        let path =
            if domain == DEFAULT_DOMAIN && !path.contains('/') { format!("library/{path}") } else { path };
        valid_domain(domain)?;
        valid_path(&path)?;
        if domain.len() + 1 + path.len() > NAME_MAX {
            return Err("its name is longer than 255 characters");
        }
        let digest = match self.digest {
            Some(text) => {
                Some(text.parse().map_err(|_| "its digest is not sha256: and 64 hexadecimal digits")?)
            }
            None => None,
        };
        let tag = match (self.tag, digest) {
            (Some(tag), _) => Some(valid_tag(tag)?.to_owned()),
            (None, Some(_)) => None,
            (None, None) => Some("latest".to_owned()),
        };
        Ok(Reference { domain: domain.to_owned(), path, tag, digest })
    }
}

fn is_domain(first: &str) -> bool {
    first == "localhost" || first.contains(['.', ':']) || first.bytes().any(|byte| byte.is_ascii_uppercase())
}

fn valid_domain(domain: &str) -> Result<(), &'static str> {
    const REASON: &str = "its registry is not a host name with an optional port";
    let (host, port) = match domain.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']').ok_or(REASON)?;
            address.parse::<std::net::Ipv6Addr>().map_err(|_| REASON)?;
            ("", port)
        }
        None => domain.split_at(domain.find(':').unwrap_or(domain.len())),
    };
    if !port.is_empty() && port.strip_prefix(':').and_then(|digits| digits.parse::<u16>().ok()).is_none() {
        return Err("its registry's port is not a number up to 65535");
    }
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    if domain.starts_with('[') || host.split('.').all(label) { Ok(()) } else { Err(REASON) }
}

fn valid_path(path: &str) -> Result<(), &'static str> {
    for component in path.split('/') {
        if component.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err("its repository must be lower case");
        }
        if !valid_component(component) {
            return Err(
                "its repository has characters other than a-z, 0-9 and single separators . _ - between them",
            );
        }
    }
    Ok(())
}

/// `[a-z0-9]+ ((\. | _ | __ | -+) [a-z0-9]+)*`
fn valid_component(component: &str) -> bool {
    let plain = |byte: char| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let separators = component.split(plain).filter(|separator| !separator.is_empty());
    component.starts_with(plain)
        && component.ends_with(plain)
        && separators.into_iter().all(|separator| {
            matches!(separator, "." | "_" | "__") || separator.bytes().all(|byte| byte == b'-')
        })
}

fn valid_tag(tag: &str) -> Result<&str, &'static str> {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let mut bytes = tag.bytes();
    let fine = bytes.next().is_some_and(word) && bytes.all(|byte| word(byte) || byte == b'.' || byte == b'-');
    if fine && tag.len() <= TAG_MAX {
        Ok(tag)
    } else {
        Err("its tag is not 1 to 128 of letters, digits, _ . and -")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn short_names_are_completed() -> Result<()> {
        for (text, full) in [
            ("busybox", "docker.io/library/busybox:latest"),
            ("busybox:1.36", "docker.io/library/busybox:1.36"),
            ("me/app", "docker.io/me/app:latest"),
            ("index.docker.io/busybox", "docker.io/library/busybox:latest"),
            ("localhost/app", "localhost/app:latest"),
            ("localhost:5000/a/b__c:x", "localhost:5000/a/b__c:x"),
            ("registry.k8s.io/pause:3.10", "registry.k8s.io/pause:3.10"),
            ("[::1]:5000/app", "[::1]:5000/app:latest"),
        ] {
            assert_eq!(text.parse::<Reference>()?.to_string(), full);
        }
        Ok(())
    }

    #[test]
    fn a_digest_needs_no_tag() -> Result<()> {
        let digest = Digest::of(b"x");
        let by_digest: Reference = format!("busybox@{digest}").parse()?;
        assert_eq!((by_digest.tag(), by_digest.digest()), (None, Some(digest)));
        let both: Reference = format!("busybox:1@{digest}").parse()?;
        assert_eq!(both.to_string(), format!("docker.io/library/busybox:1@{digest}"));
        Ok(())
    }

    #[test]
    fn what_is_no_reference_is_refused() {
        let id = "a".repeat(64);
        let long = format!("a/{}", "b".repeat(300));
        for text in [
            "",
            ":",
            "@",
            "/",
            "a//b",
            "Upper",
            "a/../b",
            "../x",
            "a b",
            "a:",
            "a:-x",
            "a@sha256:12",
            "a@",
            "x..y",
            "-a",
            "a-",
            "a___b",
            "host:port/x",
            "host:99999/x",
            "a.b-/x",
            "[::1/x",
            "a\0b",
            "é",
            &id,
            &long,
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn familiar_drops_what_is_usual() -> Result<()> {
        assert_eq!("docker.io/library/a:1".parse::<Reference>()?.familiar(), "a:1");
        assert_eq!("docker.io/me/a:1".parse::<Reference>()?.familiar(), "me/a:1");
        assert_eq!("quay.io/me/a:1".parse::<Reference>()?.familiar(), "quay.io/me/a:1");
        Ok(())
    }

    proptest! {
        #[test]
        fn any_text_parses_to_a_fixed_point_or_not_at_all(text in "\\PC{0,80}") {
            if let Ok(reference) = text.parse::<Reference>() {
                prop_assert_eq!(reference.to_string().parse::<Reference>().ok(), Some(reference));
            }
        }

        #[test]
        fn plausible_text_parses_to_a_fixed_point(text in "([a-zA-Z0-9.:-]{1,9}/)?[a-z0-9._/-]{1,12}(:[A-Za-z0-9._-]{1,5})?") {
            if let Ok(reference) = text.parse::<Reference>() {
                let again = reference.to_string().parse::<Reference>().ok();
                prop_assert_eq!(again.as_ref(), Some(&reference));
                prop_assert_eq!(reference.familiar().parse::<Reference>().ok(), Some(reference));
            }
        }
    }
}

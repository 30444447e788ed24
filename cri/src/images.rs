//! The CRI's view of the image store.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use slipway_image::{Credentials, Image, ImageId, Reference};
use slipway_proto::runtime::v1 as cri;

use crate::disk::Written;
use crate::error::{Error, Result};
use crate::node::{Node, now};

/// The images that a filter lets through.
pub(crate) fn list(node: &Node, request: cri::ListImagesRequest) -> Result<cri::ListImagesResponse> {
    let wanted = request.filter.and_then(|filter| filter.image).map(|image| image.image).unwrap_or_default();
    if wanted.is_empty() {
        return Ok(cri::ListImagesResponse { images: node.store.images().iter().map(view).collect() });
    }
    let images = found(node.store.resolve(&wanted))?;
    Ok(cri::ListImagesResponse { images: images.iter().map(view).collect() })
}

/// Returns one image; an image that is not in the store is `None` and no error.
pub(crate) fn status(node: &Node, request: cri::ImageStatusRequest) -> Result<cri::ImageStatusResponse> {
    let image = found(node.store.resolve(&name(request.image)?))?;
    let mut info = BTreeMap::new();
    if let Some(image) = image.as_ref().filter(|_| request.verbose) {
        let value = serde_json::json!({ "imageSpec": image.config, "layers": image.layers });
        info.insert("info".to_owned(), value.to_string());
    }
    Ok(cri::ImageStatusResponse { image: image.as_ref().map(view), info })
}

/// Pulls an image. Requests for the same image share one pull, which is cancelled when none of them waits any
/// more.
pub(crate) async fn pull(node: &Node, request: cri::PullImageRequest) -> Result<cri::PullImageResponse> {
    let reference: Reference = name(request.image)?.parse()?;
    let auth = request.auth.unwrap_or_default();
    let meant = is_for(&auth.server_address, reference.domain())?;
    let credentials = if meant { credentials(&auth)? } else { Credentials::Anonymous };
    let pulled = node.store.pull(&reference, &credentials, &|_| {}).await;
    let told = |error| if meant { Error::Image(error) } else { withheld(error, &auth.server_address) };
    let pulled = pulled.map_err(told)?;
    Ok(cri::PullImageResponse { image_ref: pulled.image.id.to_string() })
}

/// Removes an image with all its names. Removal is idempotent: an image that is not in the store is no error.
pub(crate) async fn remove(
    node: &Arc<Node>,
    request: cri::RemoveImageRequest,
) -> Result<cri::RemoveImageResponse> {
    let name = name(request.image)?;
    let store = node.store.clone();
    match node.blocking(move || store.remove(&name)).await {
        Ok(_) | Err(Error::Image(slipway_image::Error::ImageMissing { .. })) => {
            Ok(cri::RemoveImageResponse {})
        }
        Err(error) => Err(error),
    }
}

/// Returns the disk usage, in bytes and inodes, of images and of containers on their file systems.
pub(crate) async fn fs_info(node: &Arc<Node>) -> Result<cri::ImageFsInfoResponse> {
    let store = node.store.clone();
    let usage = node.blocking(move || store.usage()).await?;
    let containers = node.config.root.join("containers");
    let scan = {
        let (node, top) = (node.clone(), containers.clone());
        async move {
            let ending = node.clone();
            node.blocking(move || Written::scan(&top, now(), &|| ending.is_ending())).await
        }
    };
    let written = node.last_scan.or(scan).await?;
    let row = |path: &Path, timestamp, bytes, inodes| cri::FilesystemUsage {
        timestamp,
        fs_id: Some(cri::FilesystemIdentifier { mountpoint: path.display().to_string() }),
        used_bytes: Some(cri::UInt64Value { value: bytes }),
        inodes_used: Some(cri::UInt64Value { value: inodes }),
    };
    Ok(cri::ImageFsInfoResponse {
        image_filesystems: vec![row(&usage.path, now(), usage.bytes, usage.inodes)],
        container_filesystems: vec![row(&containers, written.timestamp, written.bytes, written.inodes)],
    })
}

/// Converts an image to the CRI's message.
pub(crate) fn view(image: &Image) -> cri::Image {
    let user = image.config.config().as_ref().and_then(|config| config.user().clone()).unwrap_or_default();
    let user = user.split(':').next().unwrap_or_default();
    let uid = user.parse().ok().map(|value| cri::Int64Value { value });
    cri::Image {
        id: image.id.to_string(),
        repo_tags: image.tags.iter().map(ToString::to_string).collect(),
        repo_digests: image.digests.clone(),
        size: image.size,
        username: if uid.is_some() { String::new() } else { user.to_owned() },
        uid,
        spec: Some(cri::ImageSpec { image: image.id.to_string(), ..cri::ImageSpec::default() }),
        pinned: image.pinned,
    }
}

/// The image's first tag, or else its first digest; `asked` if it has neither or is not in the store any more.
pub(crate) fn known_as(node: &Node, id: &ImageId, asked: &str) -> String {
    let image = node.store.resolve(&id.to_string()).ok();
    let tag = image.as_ref().and_then(|image| image.tags.first()).map(ToString::to_string);
    tag.or_else(|| image.and_then(|image| image.digests.first().cloned())).unwrap_or_else(|| asked.to_owned())
}

/// The repository and digest by which an image was pulled, `repository@sha256:…`. If the image has several, those
/// of the requested name.
pub(crate) fn pulled_by(image: &Image, asked: Option<&cri::ImageSpec>) -> Option<String> {
    let asked = asked.into_iter().flat_map(|asked| [&asked.image, &asked.user_specified_image]);
    let names: Vec<Reference> = asked.filter_map(|name| name.parse().ok()).collect();
    let exact = |name: &Reference| {
        let whole = name.with_digest(name.digest()?).to_string();
        image.digests.iter().find(|digest| **digest == whole)
    };
    let alike = |name: &Reference| {
        let repository = format!("{}@", name.name());
        image.digests.iter().find(|digest| digest.starts_with(&repository))
    };
    let found = names.iter().find_map(exact).or_else(|| names.iter().find_map(alike));
    found.or_else(|| image.digests.first()).cloned()
}

fn found(outcome: slipway_image::Result<Image>) -> Result<Option<Image>> {
    match outcome {
        Ok(image) => Ok(Some(image)),
        Err(slipway_image::Error::ImageMissing { .. }) => Ok(None),
        Err(error) => Err(Error::Image(error)),
    }
}

/// Returns the image's name of an `ImageSpec`; refuses an empty one and one with a runtime handler.
pub(crate) fn name(image: Option<cri::ImageSpec>) -> Result<String> {
    let image = image.unwrap_or_default();
    if !image.runtime_handler.is_empty() {
        return Err(Error::unsupported("image.runtime_handler"));
    }
    if image.image.is_empty() {
        return Err(Error::invalid("image.image", "it is empty"));
    }
    Ok(image.image)
}

/// Whether credentials for a server are for this registry; credentials without a server are for every registry.
fn is_for(server: &str, registry: &str) -> Result<bool> {
    if server.is_empty() {
        return Ok(true);
    }
    let reason = || format!("{server:?} is no server such as registry.example.com:5000");
    let named = authority(server).ok_or_else(|| Error::invalid("auth.server_address", reason()))?;
    Ok(authority(registry).is_some_and(|registry| registry == named))
}

/// Host and port of an address with or without its scheme and path, as registries are named.
fn authority(address: &str) -> Option<String> {
    let (scheme, rest) = address.split_once("://").unwrap_or(("https", address));
    let authority = rest.split('/').next().unwrap_or_default().to_ascii_lowercase();
    let usual = if scheme.eq_ignore_ascii_case("http") { ":80" } else { ":443" };
    let authority = authority.strip_suffix(usual).unwrap_or(&authority);
    let fine = |letter: char| letter.is_ascii_alphanumeric() || "-._:[]".contains(letter);
    match authority {
        // Docker Hub has three names.
        "index.docker.io" | "registry-1.docker.io" => Some("docker.io".to_owned()),
        other if !other.is_empty() && other.chars().all(fine) => Some(other.to_owned()),
        _ => None,
    }
}

/// Adds to an `Unauthorized` error that the request's credentials were not sent, for they are for another server.
fn withheld(error: slipway_image::Error, server: &str) -> Error {
    Error::Image(error.map_cause(|cause| match cause {
        slipway_image::Error::Unauthorized { host, object, reason } => {
            let reason = format!("{reason}; those of the request are for {server} alone");
            slipway_image::Error::Unauthorized { host, object, reason }
        }
        other => other,
    }))
}

fn credentials(auth: &cri::AuthConfig) -> Result<Credentials> {
    if !auth.registry_token.is_empty() {
        return Ok(Credentials::RegistryToken(auth.registry_token.clone()));
    }
    if !auth.identity_token.is_empty() {
        return Ok(Credentials::IdentityToken(auth.identity_token.clone()));
    }
    if !auth.username.is_empty() {
        let (username, password) = (auth.username.clone(), auth.password.clone());
        return Ok(Credentials::Basic { username, password });
    }
    if auth.auth.is_empty() {
        return Ok(Credentials::Anonymous);
    }
    let decoded = STANDARD.decode(auth.auth.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let text = decoded.ok_or_else(|| Error::invalid("auth.auth", "it is no base64 text"))?;
    let (username, password) =
        text.split_once(':').ok_or_else(|| Error::invalid("auth.auth", "it is no user:password"))?;
    // docker pads a stored password with NULs.
    let password = password.trim_end_matches('\0').to_owned();
    Ok(Credentials::Basic { username: username.to_owned(), password })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_auth_of_docker_is_a_user_and_a_password() {
        let auth = cri::AuthConfig { auth: STANDARD.encode("me:a:b\0\0"), ..cri::AuthConfig::default() };
        let basic = Credentials::Basic { username: "me".into(), password: "a:b".into() };
        assert_eq!(credentials(&auth).unwrap(), basic);
        assert_eq!(credentials(&cri::AuthConfig::default()).unwrap(), Credentials::Anonymous);
        let bad = cri::AuthConfig { auth: "%".into(), ..cri::AuthConfig::default() };
        assert!(credentials(&bad).is_err());
    }

    #[test]
    fn a_server_is_known_by_host_and_port() {
        for (server, registry, fits) in [
            ("", "registry.example.com", true),
            ("registry.example.com", "registry.example.com", true),
            ("https://Registry.example.com/v1/", "registry.example.com", true),
            ("https://registry.example.com:443", "registry.example.com", true),
            ("http://registry.example.com:80/", "registry.example.com", true),
            ("registry.example.com", "registry.example.com:5000", false),
            ("registry.example.com:5000", "registry.example.com:5000", true),
            ("example.com", "registry.example.com", false),
            ("https://index.docker.io/v1/", "docker.io", true),
            ("registry-1.docker.io", "docker.io", true),
            ("https://evil.io/docker.io", "docker.io", false),
            ("[::1]:5000", "[::1]:5000", true),
        ] {
            assert_eq!(is_for(server, registry).unwrap(), fits, "{server} {registry}");
        }
        for bad in ["http://", "/", "https://user@registry.example.com", "a b"] {
            let error = is_for(bad, "a").unwrap_err().to_string();
            assert!(error.contains("auth.server_address"), "{error}");
        }
    }
}

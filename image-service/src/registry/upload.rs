//! Uploads: a blob that is not there yet goes in one piece, then the manifest.

use hyper::Method;
use hyper::header::{self, HeaderName};

use super::auth;
use super::client::{self, Call, Content};
use super::manifest::Descriptor;
use super::session::Session;
use crate::digest::Digest;
use crate::error::{Error, Result};

impl Session {
    /// Whether the repository has a blob.
    pub(crate) async fn has_blob(&self, digest: &Digest) -> Result<bool> {
        let host = self.push_host()?;
        let call = Call::new(Method::HEAD, self.url(host, &format!("blobs/{digest}")));
        match self.send(host, &call, &format!("blob {digest}")).await {
            Ok(_) => Ok(true),
            Err(Error::NotFoundInRegistry { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Takes a blob over from another repository of the registry; says whether it could.
    pub(crate) async fn mount_blob(&self, digest: &Digest, from: &str) -> Result<bool> {
        let host = self.push_host()?;
        let object = format!("blob {digest}");
        let begin = self.url(host, "blobs/uploads/");
        let join = if begin.contains('?') { '&' } else { '?' };
        let from = auth::encode(from);
        let call = Call::new(Method::POST, format!("{begin}{join}mount={digest}&from={from}"))
            .header(header::CONTENT_LENGTH, "0");
        let response = self.send(host, &call, &object).await?;
        if response.status().as_u16() == 201 {
            return Ok(true);
        }
        // It began an upload instead, which is not needed: what can't be called off ends by itself.
        let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
        let own = format!("{}://{}/", host.scheme, host.authority);
        let location = location.and_then(|location| client::resolve(&begin, location).ok());
        if let Some(location) = location.filter(|location| location.starts_with(&own))
            && let Err(error) = self.send(host, &Call::new(Method::DELETE, location), &object).await
        {
            tracing::debug!(%error, "an upload that is not needed is left to the registry");
        }
        Ok(false)
    }

    /// Uploads a blob.
    pub(crate) async fn upload(&self, descriptor: &Descriptor, content: Content) -> Result<()> {
        let host = self.push_host()?;
        let object = format!("blob {}", descriptor.digest);
        let begin = self.url(host, "blobs/uploads/");
        let call = Call::new(Method::POST, begin.clone()).header(header::CONTENT_LENGTH, "0");
        let response = self.send(host, &call, &object).await?;
        let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
        let location = location.ok_or_else(|| "it does not say where to upload".to_owned());
        let location = location.and_then(|location| client::resolve(&begin, location));
        let location = location.map_err(|reason| self.unavailable(host, &object, reason))?;
        if !location.starts_with(&format!("{}://{}/", host.scheme, host.authority)) {
            // The registry's credentials go with the upload, so it has to be the registry that gets it.
            let reason = "it wants the upload at another host".into();
            return Err(self.unavailable(host, &object, reason));
        }
        let join = if location.contains('?') { '&' } else { '?' };
        let call = Call::new(Method::PUT, format!("{location}{join}digest={}", descriptor.digest))
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .header(header::CONTENT_LENGTH, descriptor.size.to_string())
            .content(content);
        self.send(host, &call, &object).await.map(drop)
    }

    /// Uploads a manifest under a tag or its digest.
    pub(crate) async fn upload_manifest(
        &self,
        selector: &str,
        media_type: &str,
        bytes: Vec<u8>,
    ) -> Result<Digest> {
        let host = self.push_host()?;
        let digest = Digest::of(&bytes);
        let call = Call::new(Method::PUT, self.url(host, &format!("manifests/{selector}")))
            .header(header::CONTENT_TYPE, media_type)
            .content(Content::Bytes(bytes.into()));
        let object = format!("manifest {selector}");
        let response = self.send(host, &call, &object).await?;
        let said = response.headers().get(HeaderName::from_static("docker-content-digest"));
        match said.and_then(|value| value.to_str().ok()).and_then(|text| text.parse::<Digest>().ok()) {
            Some(actual) if actual != digest => {
                Err(Error::DigestMismatch { object, expected: digest, actual })
            }
            _ => Ok(digest),
        }
    }
}

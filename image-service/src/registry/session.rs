//! A conversation with a registry about one repository: authenticated, retried, and from its mirrors where it has some.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderName};
use hyper::{Method, Response};
use serde::Deserialize;
use slipway_reference::Reference;

use super::auth::{self, Challenge};
use super::client::{Broken, Call, Content, Transport};
use super::hosts::{self, Host};
use super::manifest::{ACCEPT, DOCUMENT_MAX, Descriptor};
use crate::config::StoreConfig;
use crate::credentials::Credentials;
use crate::digest::Digest;
use crate::error::{Error, Result};

mod fetch;

pub(crate) use fetch::{Chunk, Fetched};

const TRIES: u32 = 5;
const FIRST_DELAY: Duration = Duration::from_millis(150);
const LONGEST_DELAY: Duration = Duration::from_secs(10);

/// The rights that a session asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Pull,
    Push,
}

/// A session.
#[derive(Debug)]
pub(crate) struct Session {
    transport: Transport,
    hosts: Vec<Host>,
    credentials: Credentials,
    domain: String,
    repository: String,
    access: Access,
    /// The authorization that each host was last shown.
    authorizations: Mutex<HashMap<String, String>>,
    /// Mirrors that could not be reached or fell silent: they are not asked again.
    down: Mutex<HashSet<String>>,
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

impl Session {
    pub(crate) fn new(
        reference: &Reference,
        credentials: &Credentials,
        access: Access,
        config: &StoreConfig,
    ) -> Result<Self> {
        Ok(Self {
            transport: Transport::new(config.registry_silence),
            hosts: hosts::hosts(reference.domain(), &config.hosts_dirs, config.plain_http_loopback)?,
            credentials: credentials.clone(),
            domain: reference.domain().to_owned(),
            repository: reference.path().to_owned(),
            access,
            authorizations: Mutex::new(HashMap::new()),
            down: Mutex::new(HashSet::new()),
        })
    }

    /// The hosts to push to: the first that takes pushes.
    pub(super) fn push_host(&self) -> Result<&Host> {
        self.hosts.iter().find(|host| host.push).ok_or_else(|| Error::RegistryUnavailable {
            host: self.domain.clone(),
            object: self.repository.clone(),
            reason: "its configuration names no host with the capability push".into(),
        })
    }

    fn down(&self) -> MutexGuard<'_, HashSet<String>> {
        self.down.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks a mirror no more in this session; the registry itself has no substitute.
    fn mark_down(&self, host: &Host) {
        if !host.own {
            self.down().insert(host.authority.clone());
        }
    }

    /// Whether a host whose answer broke off is asked for it again after so many tries. A mirror that fell silent is not,
    /// nor for anything else: the next host may have it, and the other layers don't wait for this one.
    fn asks_again(&self, host: &Host, broken: &Broken, tried: u32) -> bool {
        if !host.own && matches!(broken, Broken::Silent(_)) {
            self.mark_down(host);
            return false;
        }
        tried < TRIES
    }

    /// The hosts that are fit for something and not known to be down, in their order.
    fn fitting(&self, fits: impl Fn(&Host) -> bool) -> Vec<&Host> {
        let down = self.down();
        self.hosts.iter().filter(|host| fits(host) && !down.contains(&host.authority)).collect()
    }

    /// A URL below the repository.
    pub(super) fn url(&self, host: &Host, rest: &str) -> String {
        let Host { scheme, authority, prefix, own, .. } = host;
        let mirrored = if *own { String::new() } else { format!("?ns={}", auth::encode(&self.domain)) };
        format!("{scheme}://{authority}{prefix}/{}/{rest}{mirrored}", self.repository)
    }

    /// Sends a request until it is answered for good: busy, failing and cut connections are tried again, but for a
    /// mirror's: the next host may have it.
    pub(super) async fn send(&self, host: &Host, call: &Call, object: &str) -> Result<Response<Incoming>> {
        let mut challenged = false;
        let mut tried = 0;
        let tries = if host.own { TRIES } else { 1 };
        loop {
            let shown = self.shown(host);
            let outcome = self.transport.send(call, shown.as_deref()).await;
            let (reason, wait) = match outcome {
                Ok(response) if response.status().is_success() => return Ok(response),
                Ok(response) if response.status().as_u16() == 401 && !challenged => {
                    challenged = true;
                    self.answer(host, response, object).await?;
                    continue;
                }
                Ok(response) => self.refusal(host, response, object).await?,
                Err(reason) => {
                    self.mark_down(host);
                    (reason, None)
                }
            };
            tried += 1;
            if tried >= tries {
                let times = if tries == 1 { "once".into() } else { format!("{tries} times") };
                let reason = format!("{reason} (tried {times}); check the registry and the network");
                return Err(self.unavailable(host, object, reason));
            }
            tokio::time::sleep(wait.unwrap_or(FIRST_DELAY * 2_u32.pow(tried - 1)).min(LONGEST_DELAY)).await;
        }
    }

    pub(super) fn unavailable(&self, host: &Host, object: &str, reason: String) -> Error {
        Error::RegistryUnavailable { host: host.authority.clone(), object: object.to_owned(), reason }
    }

    /// The meaning of an answer that is no success: an error for good, or why and when to try again.
    async fn refusal(
        &self,
        host: &Host,
        mut response: Response<Incoming>,
        object: &str,
    ) -> Result<(String, Option<Duration>)> {
        let status = response.status().as_u16();
        let retry_after = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
        let wait = retry_after.and_then(|seconds| seconds.parse().ok()).map(Duration::from_secs);
        let said = self.transport.whole(response.body_mut(), 64 << 10).await.ok().flatten();
        let said = said.map(|body| message(&body)).unwrap_or_default();
        let (authority, object) = (host.authority.clone(), object.to_owned());
        match status {
            401 | 403 => {
                let reason =
                    format!("it answers {status}{said}: check the user, the password and their rights");
                Err(Error::Unauthorized { host: authority, object, reason })
            }
            404 => Err(Error::NotFoundInRegistry { host: authority, object }),
            416 => {
                let reason = "the registry has not as many bytes of it as its manifest says".into();
                Err(Error::ManifestRejected { object, reason })
            }
            429 => Ok((format!("it answers 429, too many requests{said}"), wait)),
            408 | 500.. => Ok((format!("it answers {status}{said}"), wait)),
            other => Err(Error::RegistryUnavailable {
                host: authority,
                object,
                reason: format!("it answers {other}{said}"),
            }),
        }
    }

    fn shown(&self, host: &Host) -> Option<String> {
        let shown = self.authorizations.lock().unwrap_or_else(PoisonError::into_inner);
        match (&self.credentials, shown.get(&host.authority)) {
            (_, Some(shown)) => Some(shown.clone()),
            (Credentials::RegistryToken(token), None) if host.own => Some(format!("Bearer {token}")),
            _ => None,
        }
    }

    /// Answers a challenge; the next request shows the result.
    async fn answer(&self, host: &Host, response: Response<Incoming>, object: &str) -> Result<()> {
        let none = Credentials::Anonymous;
        let credentials = if host.own { &self.credentials } else { &none };
        let refused = |reason: &str| Error::Unauthorized {
            host: host.authority.clone(),
            object: object.to_owned(),
            reason: reason.to_owned(),
        };
        let headers = response.headers().get_all(header::WWW_AUTHENTICATE);
        let challenges: Vec<Challenge> =
            headers.iter().filter_map(|value| value.to_str().ok()).filter_map(auth::parse).collect();
        drop(response);
        let challenge =
            challenges.iter().find(|one| matches!(one, Challenge::Bearer { .. })).or(challenges.first());
        let shown = match (challenge, credentials) {
            (None, _) => return Err(refused("it answers 401 and does not say how to log in")),
            (Some(_), Credentials::RegistryToken(_)) => {
                return Err(refused("it does not take the given token: log in again"));
            }
            (Some(Challenge::Basic), Credentials::Basic { username, password }) => {
                auth::basic(username, password)
            }
            (Some(Challenge::Basic), _) => {
                return Err(refused("it wants a user and a password: give credentials"));
            }
            (Some(Challenge::Bearer { realm, service, scope }), credentials) => {
                let call =
                    self.token_call((host, realm), (service.as_deref(), scope.as_deref()), credentials);
                let token = self.token(call.map_err(|reason| refused(&reason))?, credentials).await;
                format!("Bearer {}", token.map_err(|reason| refused(&reason))?)
            }
        };
        let mut authorizations = self.authorizations.lock().unwrap_or_else(PoisonError::into_inner);
        authorizations.insert(host.authority.clone(), shown);
        Ok(())
    }

    fn token_call(
        &self,
        (host, realm): (&Host, &str),
        (service, scope): (Option<&str>, Option<&str>),
        credentials: &Credentials,
    ) -> Result<Call, String> {
        let plain = realm.starts_with("http://") && host.scheme == "http";
        if !plain && !realm.starts_with("https://") {
            return Err("it asks to log in at an address that is not https".into());
        }
        let rights = if self.access == Access::Push { "pull,push" } else { "pull" };
        let scope = match scope {
            Some(scope) if !scope.is_empty() => scope.to_owned(),
            _ => format!("repository:{}:{rights}", self.repository),
        };
        let mut query = format!("scope={}", auth::encode(&scope));
        if let Some(service) = service {
            query = format!("service={}&{query}", auth::encode(service));
        }
        if let Credentials::IdentityToken(token) = credentials {
            let form = format!(
                "grant_type=refresh_token&client_id=slipway&refresh_token={}&{query}",
                auth::encode(token)
            );
            return Ok(Call::new(Method::POST, realm.to_owned())
                .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                .content(Content::Bytes(form.into())));
        }
        let join = if realm.contains('?') { '&' } else { '?' };
        Ok(Call::new(Method::GET, format!("{realm}{join}{query}")))
    }

    async fn token(&self, call: Call, credentials: &Credentials) -> Result<String, String> {
        let shown = match credentials {
            Credentials::Basic { username, password } => Some(auth::basic(username, password)),
            _ => None,
        };
        let sent = self.transport.send(&call, shown.as_deref()).await;
        let mut response = sent.map_err(|reason| format!("its token service does not answer: {reason}"))?;
        let status = response.status();
        if !status.is_success() {
            let answer = format!("its token service answers {}", status.as_u16());
            return Err(format!("{answer}: check the user and the password"));
        }
        let bytes = self.transport.whole(response.body_mut(), 1 << 20).await;
        let bytes = bytes.map_err(|broken| format!("its token service breaks off: {broken}"))?;
        let token: Option<Token> = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let token =
            token.and_then(|token| token.token.or(token.access_token)).filter(|token| !token.is_empty());
        token.ok_or_else(|| "its token service gave no token".into())
    }
}

/// The message in an error's body, as one short line.
fn message(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Errors {
        errors: Vec<One>,
    }
    #[derive(Deserialize)]
    struct One {
        message: String,
    }
    let errors: Option<Errors> = serde_json::from_slice(body).ok();
    let first = errors.and_then(|errors| errors.errors.into_iter().next()).map(|one| one.message);
    let line: String =
        first.unwrap_or_default().chars().filter(|character| !character.is_control()).take(200).collect();
    if line.is_empty() { line } else { format!(" ({line})") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_becomes_one_short_line() {
        assert_eq!(message(br#"{"errors":[{"code":"X","message":"not\nnow"}]}"#), " (notnow)");
        assert_eq!(message(b"<html>"), "");
    }
}

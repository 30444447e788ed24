//! Debian's docker-registry on a free loopback port, with its own storage, ended with the test.

use crate::authority::Authority;
use crate::tokens::{ISSUER, SERVICE, Tokens};
pub use crate::tokens::{PASSWORD, USER};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A running registry.
#[derive(Debug)]
pub struct Registry {
    child: Child,
    address: SocketAddr,
    directory: TempDir,
}

impl Registry {
    /// A registry that anyone may use.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start() -> Self {
        Self::with("", "")
    }

    /// A registry that asks for [`USER`] and [`PASSWORD`].
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn with_password() -> Self {
        Self::with("auth: {htpasswd: {realm: harbour, path: PASSWORDS}}\n", "")
    }

    /// A registry that speaks TLS with the authority's certificate.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn with_tls(authority: &Authority) -> Self {
        let (certificate, key) = (authority.server(), authority.key());
        Self::with("", &format!(", tls: {{certificate: {}, key: {}}}", certificate.display(), key.display()))
    }

    /// A registry that asks for tokens of this service.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn with_tokens(tokens: &Tokens) -> Self {
        let (realm, bundle) = (tokens.realm(), tokens.authority().certificate());
        let auth = format!(
            "auth: {{token: {{realm: \"{realm}\", service: \"{SERVICE}\", issuer: {ISSUER}, rootcertbundle: {}}}}}\n",
            bundle.display()
        );
        Self::with(&auth, "")
    }

    fn with(auth: &str, http: &str) -> Self {
        let directory = tempfile::tempdir_in("/var/tmp").expect("a directory for the registry");
        let address = free_port();
        let root = directory.path().display();
        let passwords = directory.path().join("htpasswd");
        if auth.contains("PASSWORDS") {
            let status = Command::new("htpasswd")
                .args(["-Bbc", &passwords.display().to_string(), USER, PASSWORD])
                .stderr(Stdio::null())
                .status();
            assert!(status.is_ok_and(|status| status.success()), "htpasswd failed");
        }
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {root}/blobs}}, delete: {{enabled: true}}}}\nhttp: {{addr: \"{address}\"{http}}}\n{}",
            auth.replace("PASSWORDS", &passwords.display().to_string())
        );
        let file = directory.path().join("config.yml");
        std::fs::write(&file, config).expect("the registry's configuration is written");
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry starts");
        let registry = Self { child, address, directory };
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(address).is_err() {
            assert!(Instant::now() < deadline, "docker-registry does not listen on {address}");
            std::thread::sleep(Duration::from_millis(20));
        }
        registry
    }

    /// A name in this registry.
    #[must_use]
    pub fn name(&self, repository: &str) -> String {
        format!("{}/{repository}", self.address)
    }

    /// Where it keeps its blobs, so that a test can damage them.
    #[must_use]
    pub fn storage(&self) -> std::path::PathBuf {
        self.directory.path().join("blobs")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An address that nothing listens on just now.
///
/// # Panics
/// When loopback has no free port.
#[must_use]
pub fn free_port() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port on loopback");
    listener.local_addr().expect("its address")
}

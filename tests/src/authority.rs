//! A certificate authority of a test's own, by openssl: who trusts its certificate trusts a server on 127.0.0.1.

use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// The authority, with a key and a certificate for a server on loopback.
#[derive(Debug)]
pub struct Authority {
    directory: TempDir,
}

impl Authority {
    /// Makes one.
    ///
    /// # Panics
    /// When openssl is absent or refuses.
    #[must_use]
    pub fn new() -> Self {
        let authority =
            Self { directory: tempfile::tempdir_in("/var/tmp").expect("a directory for the authority") };
        let key = ["-newkey", "rsa:2048", "-nodes", "-keyout"];
        authority.openssl(
            &[
                &["req", "-x509", "-days", "2", "-subj", "/CN=harbour", "-out", "ca.pem"],
                &key[..],
                &["ca.key"],
            ]
            .concat(),
        );
        authority.openssl(
            &[&["req", "-subj", "/CN=127.0.0.1", "-out", "server.csr"], &key[..], &["server.key"]].concat(),
        );
        std::fs::write(authority.path("server.ext"), "subjectAltName=IP:127.0.0.1,DNS:localhost\n")
            .expect("the extensions are written");
        authority.openssl(&[
            "x509",
            "-req",
            "-days",
            "2",
            "-in",
            "server.csr",
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-extfile",
            "server.ext",
            "-out",
            "server.pem",
        ]);
        authority
    }

    /// Its own certificate, which clients are to trust.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.path("ca.pem")
    }

    /// The server's certificate.
    #[must_use]
    pub fn server(&self) -> PathBuf {
        self.path("server.pem")
    }

    /// The server's key.
    #[must_use]
    pub fn key(&self) -> PathBuf {
        self.path("server.key")
    }

    /// Signs by its own key: RSA with SHA-256.
    ///
    /// # Panics
    /// When openssl refuses.
    #[must_use]
    pub fn sign(&self, text: &[u8]) -> Vec<u8> {
        let name = self.path(format!("{:?}.txt", std::thread::current().id()));
        std::fs::write(&name, text).expect("the text is written");
        let output = Command::new("openssl")
            .current_dir(self.directory.path())
            .args(["dgst", "-sha256", "-sign", "ca.key"])
            .arg(name)
            .output()
            .expect("openssl runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.directory.path().join(name)
    }

    fn openssl(&self, arguments: &[&str]) {
        let output = Command::new("openssl").current_dir(self.directory.path()).args(arguments).output();
        let output = output.expect("openssl is installed");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

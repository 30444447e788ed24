//! The output and exit status of a command, with assertions that show all of both.

use std::process::Command;

/// A finished command.
#[derive(Debug)]
pub struct Output {
    /// The command as typed.
    pub command: String,
    /// Its exit status; 128 and the signal when killed.
    pub status: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Output {
    /// Runs a command to its end, with nothing on standard input.
    ///
    /// # Panics
    /// When it can't be started.
    #[must_use]
    pub fn of(command: &mut Command) -> Self {
        use std::os::unix::process::ExitStatusExt as _;
        let typed = format!("{command:?}");
        let output = match command.stdin(std::process::Stdio::null()).output() {
            Ok(output) => output,
            Err(error) => panic!("{typed}: {error}"),
        };
        let status = output.status.code().or_else(|| output.status.signal().map(|signal| 128 + signal));
        Self {
            command: typed,
            status: status.unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The trimmed standard output of a command that must have succeeded.
    ///
    /// # Panics
    /// When it failed.
    #[track_caller]
    #[must_use]
    pub fn ok(&self) -> &str {
        assert_eq!(self.status, 0, "{self:#?}");
        self.stdout.trim()
    }

    /// The error text of a command that must have failed.
    ///
    /// # Panics
    /// When it succeeded.
    #[track_caller]
    #[must_use]
    pub fn error(&self) -> &str {
        assert_ne!(self.status, 0, "{self:#?}");
        self.stderr.trim()
    }

    /// Standard output as JSON, of a command that must have succeeded.
    ///
    /// # Panics
    /// When it failed or printed something else.
    #[track_caller]
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        match serde_json::from_str(self.ok()) {
            Ok(value) => value,
            Err(error) => panic!("{error}: {self:#?}"),
        }
    }
}

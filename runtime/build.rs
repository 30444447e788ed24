//! Builds the monitor, static, and hands its path to the crate, which embeds it.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() -> Result<(), Box<dyn Error>> {
    let manifest = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let target = std::env::var("TARGET")?;
    for watched in ["monitor/src", "monitor/Cargo.toml", "build.rs"] {
        println!("cargo::rerun-if-changed={watched}");
    }
    let directory = out.join("monitor");
    let flags = format!("CARGO_TARGET_{}_RUSTFLAGS", target.to_uppercase().replace('-', "_"));
    let mut cargo = Command::new(std::env::var("CARGO")?);
    cargo
        .current_dir(manifest.join("monitor"))
        .args([
            "build",
            "--package",
            "slipway-monitor",
            "--release",
            "--quiet",
            "--target",
            &target,
            "--target-dir",
        ])
        .arg(&directory)
        .env(flags, "-C target-feature=+crt-static -C relocation-model=static")
        // One a pod: what it takes of memory counts, not how fast it computes.
        .envs([
            ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "s"),
            ("CARGO_PROFILE_RELEASE_LTO", "fat"),
            ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1"),
            ("CARGO_PROFILE_RELEASE_PANIC", "abort"),
            ("CARGO_PROFILE_RELEASE_STRIP", "symbols"),
        ])
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("CLIPPY_ARGS");
    if !cargo.status()?.success() {
        return Err("the monitor does not build".into());
    }
    let program = directory.join(&target).join("release").join("slipway-monitor");
    println!("cargo::rustc-env=SLIPWAY_MONITOR={}", program.display());
    copy_beside_programs(&program, &out);
    Ok(())
}

/// Puts a copy where the other programs land, for people who look for three; the daemon runs what it embeds.
fn copy_beside_programs(program: &Path, out: &Path) {
    let Some(profile) = out.ancestors().nth(3) else { return };
    let copied = profile.join("slipway-monitor.new");
    if std::fs::copy(program, &copied)
        .and_then(|_| std::fs::rename(&copied, profile.join("slipway-monitor")))
        .is_err()
    {
        println!("cargo::warning=no copy of slipway-monitor in {}", profile.display());
    }
}

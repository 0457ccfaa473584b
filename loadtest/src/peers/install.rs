//! What has to be on the machine for a server, and how it gets there.

use anyhow::{Context as _, bail};
use std::path::Path;
use std::process::{Command, Stdio};

/// Sees that Debian packages are installed; installs what is missing if it may, saying so. Debian starts servers as
/// a `service`, which nobody has asked for: it is kept off.
pub(crate) fn packages(
    why: &str,
    names: &[&str],
    service: Option<&str>,
    may_install: bool,
) -> anyhow::Result<()> {
    let missing: Vec<&str> = names.iter().copied().filter(|name| version_of(name).is_none()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    if !may_install {
        bail!(
            "{why} needs {list}; on Debian: apt-get install --no-install-recommends {list}, or run with --install"
        );
    }
    eprintln!("Installing {list} with apt: {why}.");
    let unit = service.filter(|_| Path::new("/run/systemd/system").exists());
    if let Some(unit) = unit {
        as_root(&["systemctl", "mask", "--runtime", unit])?;
    }
    let apt = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq"];
    let installed = as_root(&[&apt[..], &["update"]].concat()).and_then(|()| {
        as_root(&[&apt[..], &["install", "-y", "--no-install-recommends"], missing.as_slice()].concat())
    });
    if let Some(unit) = unit {
        as_root(&["systemctl", "unmask", "--runtime", unit])?;
        if installed.is_ok() {
            as_root(&["systemctl", "disable", unit])?;
        }
    }
    installed.with_context(|| format!("install {list} by hand"))
}

fn as_root(command: &[&str]) -> anyhow::Result<()> {
    // Nobody may be there to type a password, so none is asked for.
    let prefix: &[&str] = if rustix::process::geteuid().is_root() { &[] } else { &["sudo", "-n"] };
    let line = [prefix, command].concat();
    let status = Command::new(line[0])
        .args(&line[1..])
        .stdin(Stdio::null())
        .status()
        .with_context(|| line.join(" "))?;
    if !status.success() {
        bail!("`{}` did not succeed", line.join(" "));
    }
    Ok(())
}

/// The version of an installed Debian package.
pub(crate) fn version_of(package: &str) -> Option<String> {
    let output = Command::new("dpkg-query")
        .args(["-W", "-f", "${db:Status-Abbrev}${Version}", package])
        .output()
        .ok()?;
    String::from_utf8(output.stdout).ok()?.strip_prefix("ii ").map(|version| version.trim().to_owned())
}

/// Sees that the packages of a folder's `package-lock.json` are installed in it.
pub(crate) fn npm_packages(why: &str, folder: &Path, may_install: bool) -> anyhow::Result<()> {
    let modified = |name: &str| folder.join(name).metadata().and_then(|it| it.modified()).ok();
    // npm writes the second when it has installed what the first names.
    let (lock, installed) = (modified("package-lock.json"), modified("node_modules/.package-lock.json"));
    if installed.is_some() && installed >= lock {
        return Ok(());
    }
    let place = folder.display();
    if !may_install {
        bail!("{why} needs npm packages: npm ci in {place}, or run with --install");
    }
    eprintln!("Installing npm packages in {place}: {why}.");
    let status = Command::new("npm")
        .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
        .current_dir(folder)
        .stdin(Stdio::null())
        .status()
        .context("npm does not start; on Debian: apt-get install nodejs npm")?;
    if !status.success() {
        bail!("npm ci in {place} did not succeed");
    }
    Ok(())
}

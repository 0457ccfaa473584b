//! Builds the client with npm and prepares it for embedding. Never downloads anything but what package-lock.json
//! names, and writes only to node_modules and cargo's output folder.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};

/// What the client's tools need (`engines` in package.json): 20.19 or a newer 20, or 22.12 and everything after it.
/// Older ones, Debian 12's 18 among them, end in errors that tell nobody anything.
fn is_new_enough(node: (u32, u32)) -> bool {
    matches!(node, (20, 19..) | (22, 12..) | (23.., _))
}

/// Everything that the client's build reads, below this folder.
const SOURCES: [&str; 8] = [
    "src",
    "locales",
    "public",
    "index.html",
    "package.json",
    "package-lock.json",
    "vite.config.ts",
    "tsconfig.json",
];

fn main() {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    for source in SOURCES.iter().filter(|source| root.join(source).exists()) {
        println!("cargo::rerun-if-changed={source}");
    }
    println!("cargo::rerun-if-changed=build.rs");
    check_tools();
    install(&root);
    let dist = out.join("dist");
    let dist_text = dist.to_str().unwrap_or_else(|| stop("the build folder's path is not UTF-8"));
    npm(&root, &["run", "build", "--", "--outDir", dist_text, "--emptyOutDir"], "the client does not build");
    embed(&dist, &out);
}

/// One clear sentence when Node is missing or too old.
fn check_tools() {
    let version = |tool: &str| {
        let output =
            Command::new(tool).arg("--version").output().ok().filter(|output| output.status.success())?;
        String::from_utf8(output.stdout).ok().map(|text| text.trim().to_owned())
    };
    let (node, npm) = (version("node"), version("npm"));
    let numbers = node.as_deref().and_then(|text| {
        let mut parts = text.trim_start_matches('v').split('.').map(|part| part.parse().ok());
        Some((parts.next()??, parts.next()??))
    });
    if numbers.is_some_and(is_new_enough) && npm.is_some() {
        return;
    }
    let found = format!("node: {}, npm: {}", node.as_deref().unwrap_or("—"), npm.as_deref().unwrap_or("—"));
    stop(&format!(
        "Asamblea's web client needs Node.js 20.19 or newer (22.12 or newer of the 22 series) with npm ({found}): on \
         Debian 13 or newer run `sudo apt install nodejs npm`, elsewhere see https://nodejs.org/en/download, then run \
         cargo again. / El cliente web de Asamblea necesita Node.js 20.19 o posterior (22.12 o posterior de la serie \
         22) con npm ({found}): en Debian 13 o posterior ejecuta `sudo apt install nodejs npm`, en otros sistemas mira \
         https://nodejs.org/en/download, y vuelve a ejecutar cargo."
    ));
}

/// `npm ci`, but only when the lock file is not the one that node_modules was made from.
fn install(root: &Path) {
    let stamp = root.join("node_modules/.asamblea-package-lock.json");
    let lock =
        fs::read(root.join("package-lock.json")).unwrap_or_else(|_| stop("web/package-lock.json is missing"));
    if fs::read(&stamp).is_ok_and(|installed| installed == lock) {
        return;
    }
    npm(
        root,
        &["ci", "--no-audit", "--no-fund"],
        "the client's packages cannot be installed (is there a network?)",
    );
    fs::write(stamp, lock).unwrap_or_else(|_| stop("web/node_modules cannot be written"));
}

fn npm(root: &Path, arguments: &[&str], otherwise: &str) {
    let output = Command::new("npm").args(arguments).current_dir(root).output();
    match output {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            eprintln!(
                "{}\n{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
            stop(&format!("{otherwise}: `npm {}` failed in {}", arguments.join(" "), root.display()));
        }
        Err(error) => stop(&format!("{otherwise}: npm does not run: {error}")),
    }
}

/// The code that `memory_serve::load!` includes. Its own `load_directory` would print a line a file and watch the
/// output folder, which changes with every build.
fn embed(dist: &Path, out: &Path) {
    let label = dist.to_string_lossy();
    let assets = memory_serve::assets_to_code(&label, dist, out, true, |_| {});
    fs::write(out.join("memory_serve_assets.rs"), format!("&[(\"default\", {assets})]"))
        .expect("the output folder is writable");
}

fn stop(sentence: &str) -> ! {
    println!("cargo::error={sentence}");
    exit(1)
}

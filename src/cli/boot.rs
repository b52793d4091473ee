//! `enable` and `disable`: a unit of systemd that has `start --all` run at every boot and `stop --all` at every shutdown,
//! since no daemon of ours would.

use super::context::{Context, out};
use super::error::{Failure, Outcome, exit};
use super::flags::{Flags, Parsed, value};
use super::verbs::Verb;
use crate::store::Paths;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Where the operator's units lie (*systemd.unit(5) "Unit File Load Path"*).
const UNITS: &str = "/etc/systemd/system";
/// There when systemd runs the machine (*sd_booted(3)*).
const BOOTED: &str = "/run/systemd/system";
/// What starts the unit.
const TARGET: &str = "multi-user.target.wants";

/// The verbs of this file.
pub(super) static VERBS: &[Verb] = &[
    Verb {
        names: &["enable"],
        usage: "enable [OPTIONS]",
        about: "Start containers at every boot as their restart policies say (installs a unit of systemd)",
        count: (0, 0),
        interspersed: true,
        flags: unit_flags,
        run: enable,
    },
    Verb {
        names: &["disable"],
        usage: "disable [OPTIONS]",
        about: "Start no containers at boot any more (removes the unit of 'enable')",
        count: (0, 0),
        interspersed: true,
        flags: unit_flags,
        run: disable,
    },
];

fn unit_flags(flags: Flags) -> Flags {
    flags.arg(value("unit-dir", "directory", "Directory of the units (default /etc/systemd/system)"))
}

/// Returns the name of the unit of an installation: each root has its own.
fn unit_name(paths: &Paths) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "_.-".contains(c) { c } else { '-' };
    match paths.root.to_string_lossy().trim_start_matches('/') {
        "var/lib/bulkhead" => "bulkhead.service".to_owned(),
        other => format!("bulkhead-{}.service", other.chars().map(plain).collect::<String>()),
    }
}

/// Writes one word of a command line of a unit (*systemd.service(5) "Command lines"*).
fn word(path: &Path) -> String {
    let mut text = String::from("\"");
    for c in path.to_string_lossy().chars() {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            '%' | '$' => text.extend([c, c]),
            c => text.push(c),
        }
    }
    text.push('"');
    text
}

/// Writes the unit: once at boot, and whatever it started is asked to stop when the machine goes down.
fn unit(program: &Path, paths: &Paths, settings: Option<&Path>) -> String {
    let mut text = format!(
        "[Unit]\nDescription=Containers that come back at boot ({})\nWants=network-online.target\n\
         After=network-online.target nftables.service\n\n\
         [Service]\nType=oneshot\nRemainAfterExit=yes\nTimeoutStopSec=90\n",
        paths.root.display().to_string().replace('%', "%%")
    );
    if let Some(settings) = settings {
        let _ = writeln!(text, "Environment=BULKHEAD_CONFIG={}", word(settings));
    }
    // The supervisors leave the unit's control group, so they are asked by name.
    let program = format!("{} --root {} --run {}", word(program), word(&paths.root), word(&paths.run));
    let _ = write!(
        text,
        "ExecStart={program} start --all\nExecStop={program} stop --all\n\n[Install]\nWantedBy=multi-user.target\n"
    );
    text
}

fn directory(parsed: &Parsed) -> Result<PathBuf, Failure> {
    if let Some(directory) = parsed.filled("unit-dir") {
        return Ok(PathBuf::from(directory));
    }
    if Path::new(BOOTED).is_dir() {
        return Ok(PathBuf::from(UNITS));
    }
    Err(Failure::failed("this machine is not run by systemd")
        .hint("have 'bulkhead start --all' run at boot by other means, such as '@reboot' in root's crontab"))
}

fn at(path: &Path) -> impl FnOnce(std::io::Error) -> Failure {
    move |error| Failure::new(exit::FAILED, format!("{}: {error}", path.display()))
}

fn enable(context: &Context<'_>, parsed: Parsed) -> Outcome {
    let directory = directory(&parsed)?;
    let program = std::env::current_exe()?;
    let settings = std::env::var_os("BULKHEAD_CONFIG").map(PathBuf::from);
    let (name, text) = (unit_name(context.paths()), unit(&program, context.paths(), settings.as_deref()));
    let (file, wants) = (directory.join(&name), directory.join(TARGET));
    std::fs::create_dir_all(&wants).map_err(at(&wants))?;
    std::fs::File::create(&file)
        .and_then(|mut file| std::io::Write::write_all(&mut file, text.as_bytes()))
        .map_err(at(&file))?;
    let link = wants.join(&name);
    match std::os::unix::fs::symlink(&file, &link) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(at(&link)(error)),
        _ => {}
    }
    out(format!("{}\n", file.display()))?;
    Ok(0)
}

fn disable(context: &Context<'_>, parsed: Parsed) -> Outcome {
    let directory = directory(&parsed)?;
    let name = unit_name(context.paths());
    for path in [directory.join(TARGET).join(&name), directory.join(&name)] {
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(at(&path)(error)),
            _ => {}
        }
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_names_program_and_places_whatever_is_in_them() {
        let paths = Paths { root: "/srv/50% \"x\"".into(), run: "/run/x".into() };
        let text = unit(Path::new("/opt/my bin/bulkhead"), &paths, Some(Path::new("/etc/b.toml")));
        let line = r#"ExecStart="/opt/my bin/bulkhead" --root "/srv/50%% \"x\"" --run "/run/x" start --all"#;
        assert!(text.lines().any(|found| found == line), "{text}");
        assert!(text.contains("\nEnvironment=BULKHEAD_CONFIG=\"/etc/b.toml\"\n"), "{text}");
        assert_eq!(unit_name(&paths), "bulkhead-srv-50---x-.service");
        assert_eq!(unit_name(&Paths { root: "/var/lib/bulkhead".into(), run: "/r".into() }), "bulkhead.service");
    }
}

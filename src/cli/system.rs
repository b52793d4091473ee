//! `version` and `info`.

use super::context::{Context, out};
use super::error::Outcome;
use super::flags::{Flag, Flags, Parsed, switch, value};
use super::format::bad_template;
use super::table::align;
use super::template::{Missing, Options, Template};
use super::verbs::Verb;
use crate::image::Images;
use crate::security::features::{HostFeatures, report};
use crate::shim::Status;
use serde_json::{Value, json};

/// The verbs of this file.
pub(super) static VERBS: &[Verb] = &[
    Verb {
        names: &["version"],
        usage: "version [OPTIONS]",
        about: "Show the bulkhead version information",
        count: (0, 0),
        interspersed: true,
        flags: |flags| flags.arg(format_flag()),
        run: version,
    },
    Verb {
        names: &["info", "system info"],
        usage: "info [OPTIONS]",
        about: "Display system-wide information",
        count: (0, 0),
        interspersed: true,
        flags: info_flags,
        run: info,
    },
];

const fn format_flag() -> Flag {
    value("format", "string", "Format output: 'json' or a Go template").short('f')
}

fn info_flags(flags: Flags) -> Flags {
    flags.arg(format_flag()).arg(switch("security", "Show each layer of hardening and its state on this kernel"))
}

/// Version of the Engine API whose words and shapes are followed.
const API: &str = "1.50";

fn version_object() -> Value {
    let system = rustix::system::uname();
    let text = |part: &std::ffi::CStr| part.to_string_lossy().into_owned();
    let arch = match text(system.machine()).as_str() {
        "x86_64" => "amd64".to_owned(),
        "aarch64" => "arm64".to_owned(),
        other => other.to_owned(),
    };
    let half = json!({
        "Version": env!("CARGO_PKG_VERSION"),
        "ApiVersion": API,
        "Os": "linux",
        "Arch": arch,
        "KernelVersion": text(system.release()),
    });
    json!({"Client": half, "Server": half})
}

fn print_object(object: &Value, format: &str) -> Outcome {
    let text = match format {
        "json" => object.to_string(),
        source => {
            let template = Template::parse(source).map_err(|error| bad_template(&error))?;
            template.render(object, Options::plain(Missing::Key)).map_err(|error| bad_template(&error))?
        }
    };
    out(text + "\n")?;
    Ok(0)
}

fn version(_: &Context<'_>, parsed: Parsed) -> Outcome {
    let object = version_object();
    if let Some(format) = parsed.filled("format") {
        return print_object(&object, &format);
    }
    let mut text = String::new();
    for (title, key, api) in [
        ("Client: bulkhead", "Client", "API version"),
        ("Server: bulkhead (no daemon: the same program)", "Server", "API version"),
    ] {
        let half = &object[key];
        let word = |field: &str| half[field].as_str().unwrap_or_default().to_owned();
        text.push_str(&format!(
            "{title}\n Version:           {}\n {api}:       {}\n OS/Arch:           {}/{}\n Kernel Version:    {}\n\n",
            word("Version"),
            word("ApiVersion"),
            word("Os"),
            word("Arch"),
            word("KernelVersion"),
        ));
    }
    out(text.trim_end().to_owned() + "\n")?;
    Ok(0)
}

fn info(context: &Context<'_>, parsed: Parsed) -> Outcome {
    let features = HostFeatures::probe();
    let lines = report(&features);
    if parsed.switch("security")? {
        if let Some(format) = parsed.filled("format") {
            let list: Vec<Value> = lines
                .iter()
                .map(|line| json!({"Name": line.name, "State": line.state.as_str(), "Detail": line.detail}))
                .collect();
            return print_object(&json!({"Kernel": features.release, "Layers": list}), &format);
        }
        let mut table = "LAYER\tSTATE\tDETAIL\n".to_owned();
        for line in &lines {
            table.push_str(&format!("{}\t{}\t{}\n", line.name, line.state.as_str(), line.detail));
        }
        out(align(&table))?;
        return Ok(0);
    }
    let engine = context.engine()?;
    let containers = engine.list()?;
    let count =
        |wanted: fn(Status) -> bool| containers.iter().filter(|container| wanted(container.state.status)).count();
    let running = count(|status| matches!(status, Status::Running | Status::Restarting));
    let paused = count(|status| status == Status::Paused);
    let images = Images::open(&engine.paths)?.list()?.len();
    let security: Vec<String> =
        lines.iter().map(|line| format!("name={},state={}", line.name, line.state.as_str())).collect();
    let object = json!({
        "Containers": containers.len(),
        "ContainersRunning": running,
        "ContainersPaused": paused,
        "ContainersStopped": containers.len() - running - paused,
        "Images": images,
        "Driver": "overlay2",
        "LoggingDriver": "json-file",
        "CgroupVersion": features.cgroups.v2.as_ref().filter(|_| features.cgroups.v1.is_empty()).map_or("1", |_| "2"),
        "KernelVersion": features.release,
        "OSType": "linux",
        "ServerVersion": env!("CARGO_PKG_VERSION"),
        "DockerRootDir": engine.paths.root.display().to_string(),
        "RunDir": engine.paths.run.display().to_string(),
        "SecurityOptions": security,
        "NCPU": std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
    });
    if let Some(format) = parsed.filled("format") {
        return print_object(&object, &format);
    }
    let mut text = format!(
        "Containers: {}\n Running: {running}\n Paused: {paused}\n Stopped: {}\nImages: {images}\nVersion: {}\nStorage: overlay\n\
         Cgroup Version: {}\nKernel Version: {}\nRoot Dir: {}\nRun Dir: {}\nSecurity:\n",
        containers.len(),
        containers.len() - running - paused,
        env!("CARGO_PKG_VERSION"),
        object["CgroupVersion"].as_str().unwrap_or_default(),
        features.release,
        engine.paths.root.display(),
        engine.paths.run.display(),
    );
    for line in lines {
        text.push_str(&format!(" {}: {}\n", line.name, line.state.as_str()));
    }
    out(text)?;
    Ok(0)
}

//! Verbs about containers.

mod create_flags;
mod exec;
#[cfg(any(test, fuzzing))]
pub(super) mod fuzz;
mod lifecycle;
mod list;
mod logs;
mod mounts;
mod ports;
mod relay;
mod rm;
mod run;
mod show;
mod values;

#[cfg(test)]
mod show_tests;
#[cfg(test)]
mod tests;

pub(super) use lifecycle::{confirmed, prune_flags};
pub(super) use list::{inspect_flags, inspect_kinds};
pub(super) use mounts::parse_volume;
pub(super) use ports::protocol_name;
pub(super) use run::code_byte;
pub(super) use show::status_word;
pub(super) use values::{parse_add_host, parse_label, parse_network, parse_pair};

use super::verbs::{ANY, Verb, verb};

/// The verbs of this directory.
pub(super) static VERBS: &[Verb] = &[
    Verb {
        interspersed: false,
        ..verb(
            &["run", "container run"],
            "run [OPTIONS] IMAGE [COMMAND] [ARG...]",
            "Create and run a new container from an image",
            (1, ANY),
            run::run_flags,
            run::run,
        )
    },
    Verb {
        interspersed: false,
        ..verb(
            &["create", "container create"],
            "create [OPTIONS] IMAGE [COMMAND] [ARG...]",
            "Create a new container",
            (1, ANY),
            create_flags::create_flags,
            run::create,
        )
    },
    Verb {
        interspersed: false,
        ..verb(
            &["exec", "container exec"],
            "exec [OPTIONS] CONTAINER COMMAND [ARG...]",
            "Execute a command in a running container",
            (2, ANY),
            exec::flags,
            exec::exec,
        )
    },
    verb(
        &["start", "container start"],
        "start [OPTIONS] CONTAINER [CONTAINER...] | start --all",
        "Start one or more stopped containers",
        (0, ANY),
        run::start_flags,
        run::start,
    ),
    verb(
        &["attach", "container attach"],
        "attach [OPTIONS] CONTAINER",
        "Attach local standard input, output, and error streams to a running container",
        (1, 1),
        run::attach_verb_flags,
        run::attach,
    ),
    verb(
        &["stop", "container stop"],
        "stop [OPTIONS] CONTAINER [CONTAINER...] | stop --all",
        "Stop one or more running containers",
        (0, ANY),
        lifecycle::stop_verb_flags,
        lifecycle::stop,
    ),
    verb(
        &["restart", "container restart"],
        "restart [OPTIONS] CONTAINER [CONTAINER...]",
        "Restart one or more containers",
        (1, ANY),
        lifecycle::stop_flags,
        lifecycle::restart,
    ),
    verb(
        &["kill", "container kill"],
        "kill [OPTIONS] CONTAINER [CONTAINER...]",
        "Kill one or more running containers",
        (1, ANY),
        lifecycle::kill_flags,
        lifecycle::kill,
    ),
    verb(
        &["rm", "container rm", "container remove"],
        "rm [OPTIONS] CONTAINER [CONTAINER...]",
        "Remove one or more containers",
        (1, ANY),
        rm::flags,
        rm::rm,
    ),
    verb(
        &["pause", "container pause"],
        "pause CONTAINER [CONTAINER...]",
        "Pause all processes within one or more containers",
        (1, ANY),
        |flags| flags,
        lifecycle::pause,
    ),
    verb(
        &["unpause", "container unpause"],
        "unpause CONTAINER [CONTAINER...]",
        "Unpause all processes within one or more containers",
        (1, ANY),
        |flags| flags,
        lifecycle::unpause,
    ),
    verb(
        &["wait", "container wait"],
        "wait CONTAINER [CONTAINER...]",
        "Block until one or more containers stop, then print their exit codes",
        (1, ANY),
        |flags| flags,
        lifecycle::wait,
    ),
    verb(
        &["rename", "container rename"],
        "rename CONTAINER NEW_NAME",
        "Rename a container",
        (2, 2),
        |flags| flags,
        lifecycle::rename,
    ),
    verb(
        &["container prune"],
        "container prune [OPTIONS]",
        "Remove all stopped containers",
        (0, 0),
        lifecycle::container_prune_flags,
        lifecycle::prune,
    ),
    verb(
        &["ps", "container ls", "container list", "container ps"],
        "ps [OPTIONS]",
        "List containers",
        (0, 0),
        list::ps_flags,
        list::ps,
    ),
    verb(
        &["logs", "container logs"],
        "logs [OPTIONS] CONTAINER",
        "Fetch the logs of a container",
        (1, 1),
        logs::flags,
        logs::logs,
    ),
    verb(
        &["inspect"],
        "inspect [OPTIONS] NAME|ID [NAME|ID...]",
        "Return low-level information on objects",
        (1, ANY),
        list::inspect_flags,
        list::inspect,
    ),
    verb(
        &["container inspect"],
        "container inspect [OPTIONS] CONTAINER [CONTAINER...]",
        "Display detailed information on one or more containers",
        (1, ANY),
        list::inspect_flags,
        list::inspect_container,
    ),
    verb(
        &["port", "container port"],
        "port CONTAINER [PRIVATE_PORT[/PROTO]]",
        "List port mappings or a specific mapping for the container",
        (1, 2),
        |flags| flags,
        list::port,
    ),
];

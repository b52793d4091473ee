//! Use cases: containers, images, volumes, networks, exec, logs, build steps. Prints nothing; both doors (`cli`,
//! later `api`) and both workloads (`build`, `compose`) come through here.

pub mod ranges;
pub mod record;
pub mod request;
mod names;
mod undo;

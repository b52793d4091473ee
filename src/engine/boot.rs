//! What ends with the machine and comes back after a boot: there is no daemon, so `stop --all` and `start --all` ask, and
//! `enable` has them asked.

use super::record::Container;
use super::{Engine, EngineError};
use crate::shim::{RestartPolicy, State, Status};

impl Engine {
    /// Returns the containers that run, newest first, so that what was made to be joined ends last.
    ///
    /// # Errors
    /// When a record cannot be read.
    pub fn running(&self) -> Result<Vec<Container>, EngineError> {
        let mut running = self.list()?;
        running.retain(|container| container.state.status.is_live());
        Ok(running)
    }

    /// Returns the containers that their restart policies want running and that do not run, oldest first, so that
    /// whatever a container was made to join stands before it.
    ///
    /// # Errors
    /// When a record cannot be read.
    pub fn due(&self) -> Result<Vec<Container>, EngineError> {
        let mut due = self.list()?;
        due.retain(|container| is_due(container.record.restart, &container.state));
        due.reverse();
        Ok(due)
    }
}

/// Tells whether a container is to be started at boot (*docker run reference "Restart policies (--restart)"*): `always`
/// even if it was stopped by hand, `unless-stopped` only if not, `on-failure` never, and none that never ran.
fn is_due(policy: RestartPolicy, state: &State) -> bool {
    let wanted = match policy {
        RestartPolicy::No | RestartPolicy::OnFailure(_) => false,
        RestartPolicy::Always => true,
        RestartPolicy::UnlessStopped => !state.stopped_by_user,
    };
    wanted && matches!(state.status, Status::Exited | Status::Dead)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_decide_what_a_boot_starts() {
        use RestartPolicy::{Always, No, OnFailure, UnlessStopped};
        for (policy, status, stopped_by_user, due) in [
            (Always, Status::Exited, false, true),
            (Always, Status::Exited, true, true),
            (Always, Status::Created, false, false),
            (Always, Status::Running, false, false),
            (UnlessStopped, Status::Exited, false, true),
            (UnlessStopped, Status::Exited, true, false),
            (OnFailure(0), Status::Exited, false, false),
            (No, Status::Exited, false, false),
        ] {
            let state = State { status, stopped_by_user, ..State::created() };
            assert_eq!(is_due(policy, &state), due, "{policy:?} {status:?} {stopped_by_user}");
        }
    }
}

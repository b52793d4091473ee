//! Taking back: what the journal of an owner says was done, and entries of those that have ended.

use super::super::draft::{Draft, Inverse, Operation, Owner};
use super::super::error::{Cause, NetworkError};
use super::super::firewall::Element;
use super::super::journal::{self, Entry, Journal};
use super::super::{ipam, route};
use super::{Executor, FORWARDING, LinkEnd, set_kernel_value};
use crate::sys::fault::{self, Point};

impl Executor<'_> {
    /// Takes back everything the journal says was done for an owner, and forgets it; twice is fine.
    ///
    /// # Errors
    /// The first error; what failed stays in the journal.
    pub(in crate::network) fn undo(&mut self, owner: &Owner, links: LinkEnd) -> Result<(), NetworkError> {
        let Some(journal) = Journal::read(self.paths, owner)? else {
            // Whoever was killed while writing it has done nothing yet.
            journal::sweep(self.paths);
            return Ok(());
        };
        let mut first = None;
        let elements: Vec<Element> = journal
            .entries
            .iter()
            .filter(|entry| entry.inverse == Inverse::Entries)
            .flat_map(|entry| entry.operation.elements())
            .collect();
        if let Err(source) = self.firewall.remove(&elements) {
            let operation = format!("remove entries from nftables table {}", self.installation.table);
            first = Some(NetworkError::Apply { operation, source: source.into() });
        }
        for Entry { operation, inverse } in journal.entries.iter().rev() {
            if let Err(source) = self.take_back(owner, operation, inverse, links) {
                first = first
                    .or_else(|| Some(NetworkError::Apply { operation: format!("take back: {operation}"), source }));
            }
        }
        match first {
            Some(error) => Err(error),
            None => {
                fault::cut(Point::NetworkUndone);
                Journal::remove(self.paths, owner)
            }
        }
    }

    fn take_back(
        &mut self,
        owner: &Owner,
        operation: &Operation,
        inverse: &Inverse,
        links: LinkEnd,
    ) -> Result<(), Cause> {
        fault::fail(Point::NetworkUndo)?;
        match (inverse, operation, owner) {
            (Inverse::Release, Operation::Reserve { network, address }, Owner::Container(id)) => {
                Ok(ipam::release(self.paths, network, *address, id)?)
            }
            (Inverse::Forwarding { previous }, ..) => Ok(set_kernel_value(FORWARDING, previous)?),
            (Inverse::Link, ..) => {
                let Some(name) = operation.link() else {
                    return Ok(());
                };
                let end = match links {
                    LinkEnd::Removed => route::delete_link(&mut self.route, name),
                    LinkEnd::Down => route::set_up(&mut self.route, name, false),
                };
                match end {
                    Err(error) if error.is_absent() => Ok(()),
                    other => Ok(other?),
                }
            }
            _ => Ok(()),
        }
    }

    /// Removes entries for the draft's published ports that belong to others. We hold the ports' sockets, so those have
    /// ended and are only not cleaned up yet; their journals forget the entries, which are ours from now on.
    pub(super) fn take_over(&mut self, draft: &Draft) -> Result<(), NetworkError> {
        let place = |operation: &Operation| match operation {
            Operation::Publish { address, protocol, port, .. } => Some((*address, *protocol, *port)),
            _ => None,
        };
        let wanted: Vec<_> = draft.operations().iter().filter_map(place).collect();
        for journal in Journal::all(self.paths)? {
            if journal.owner == *draft.owner() {
                continue;
            }
            let stale = |entry: &Entry| place(&entry.operation).is_some_and(|place| wanted.contains(&place));
            let (gone, kept): (Vec<Entry>, Vec<Entry>) = journal.entries.into_iter().partition(stale);
            if gone.is_empty() {
                continue;
            }
            let elements: Vec<Element> = gone.iter().flat_map(|entry| entry.operation.elements()).collect();
            self.firewall.remove(&elements).map_err(|source| NetworkError::Apply {
                operation: format!("remove entries of {:?} that has ended", journal.owner),
                source: source.into(),
            })?;
            Journal::new(journal.owner, kept).write(self.paths)?;
        }
        Ok(())
    }
}

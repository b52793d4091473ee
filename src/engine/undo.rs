//! Roll-back of creations that take several steps.

/// Undo actions, run in reverse order when dropped unless the work was kept.
#[derive(Default)]
pub(super) struct Undo<'a> {
    actions: Vec<Box<dyn FnOnce() + 'a>>,
}

impl<'a> Undo<'a> {
    /// Starts with nothing to undo.
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Remembers how to undo the step that has just been done; the action reports nothing and never fails.
    pub(super) fn push(&mut self, action: impl FnOnce() + 'a) {
        self.actions.push(Box::new(action));
    }

    /// Keeps the work: nothing will be undone.
    pub(super) fn keep(mut self) {
        self.actions.clear();
    }
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        while let Some(action) = self.actions.pop() {
            action();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    #[test]
    fn work_is_undone_in_reverse_unless_kept() {
        let seen = RefCell::new(Vec::new());
        let mut undo = Undo::new();
        undo.push(|| seen.borrow_mut().push(1));
        undo.push(|| seen.borrow_mut().push(2));
        drop(undo);
        assert_eq!(*seen.borrow(), [2, 1]);
        let mut undo = Undo::new();
        undo.push(|| seen.borrow_mut().push(3));
        undo.keep();
        assert_eq!(*seen.borrow(), [2, 1]);
    }
}

//! Named points at which a test lets the program die or lets a call fail: `BULKHEAD_FAULT=POINT[:N][:kill|nospace|io]`.
//!
//! Only builds with debug assertions have any of it; in what is shipped [`cut`] and [`fail`] are empty. The N-th pass
//! through a point counts, whichever process of the command makes it: the counts lie in memory that all its forks share.
#![allow(unsafe_code)]

use std::io;

macro_rules! points {
    ($($(#[doc = $doc:literal])+ $kind:ident $name:ident = $text:literal;)+) => {
        /// A place in the program where a fault can be had.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Point { $($(#[doc = $doc])+ $name,)+ }

        impl Point {
            /// All of them: tests walk through this table, so a new point is tested by being here.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// Returns its name in `BULKHEAD_FAULT`.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }

            /// Tells whether a call can fail there; at the others one can only die.
            pub const fn can_fail(self) -> bool {
                match self { $(Self::$name => points!(@$kind),)+ }
            }
        }
    };
    (@fail) => { true };
    (@cut) => { false };
}

points! {
    /// A record's temporary file is to be made.
    fail RecordWrite = "record.write";
    /// A record's temporary file is complete and has not taken the record's place.
    fail RecordReplace = "record.replace";
    /// A record is in place; its directory may not be on the disk yet.
    cut RecordReplaced = "record.replaced";
    /// A record is to be removed.
    fail RecordRemove = "record.remove";
    /// A name is to be taken.
    fail NameTake = "name.take";
    /// A name has been taken.
    cut NameTaken = "name.taken";
    /// A lease has been written and is not visible.
    fail LeaseTake = "lease.take";
    /// A lease is held.
    cut LeaseTaken = "lease.taken";
    /// A lease is to be given back.
    cut LeaseGive = "lease.give";
    /// A directory for work on layers has been made and has no lock yet.
    fail IngestMade = "ingest.made";
    /// A directory for work on layers is held.
    cut IngestHeld = "ingest.held";
    /// The unpacking process is to take an entry of an archive.
    fail UnpackEntry = "unpack.entry";
    /// The inflating process passes bytes on.
    fail Inflate = "unpack.inflate";
    /// The unpacking process has ended; its report has not been acted upon.
    fail Unpacked = "unpack.report";
    /// A layer is complete beside its place.
    fail LayerPut = "layer.put";
    /// A layer is in place and no image names it.
    cut LayerInPlace = "layer.in-place";
    /// An unused layer has been taken out of sight.
    cut LayerTaken = "layer.taken";
    /// A writable snapshot's directory exists without a record.
    fail SnapshotMade = "snapshot.made";
    /// A writable snapshot is complete.
    cut SnapshotReady = "snapshot.ready";
    /// A tree is to be removed.
    fail TreeRemove = "tree.remove";
    /// A container's directory has been made.
    fail ContainerMade = "container.made";
    /// A container has its record.
    cut ContainerCreated = "container.created";
    /// A volume's directories exist without a record.
    fail VolumeMade = "volume.made";
    /// A volume is to be taken out of its place.
    fail VolumeRemove = "volume.remove";
    /// A removed volume's files are still there.
    cut VolumeGone = "volume.gone";
    /// A volume is to be filled from the image.
    fail VolumeFill = "volume.fill";
    /// A range of user ids has been taken.
    cut RangeTaken = "range.taken";
    /// A container's run directory has been made.
    fail RunMade = "run.made";
    /// A shim is to be ordered.
    fail ShimOrder = "shim.order";
    /// A shim has its order and nothing else.
    cut ShimSeeded = "shim.seeded";
    /// A shim has its plan and its lock.
    fail ShimLocked = "shim.locked";
    /// A shim has opened the streams and the log.
    fail ShimStreams = "shim.streams";
    /// A shim has begun the launch.
    cut ShimBegun = "shim.begun";
    /// A shim was told to proceed.
    cut ShimProceeds = "shim.proceeds";
    /// A shim listens; the program does not run.
    fail ShimListens = "shim.listens";
    /// The program runs and no state says so.
    cut ShimRunning = "shim.running";
    /// The state says that the program runs and nobody was told.
    cut ShimStarted = "shim.started";
    /// The first process has been reaped.
    cut ShimReaped = "shim.reaped";
    /// The state says that the container has ended.
    cut ShimEnded = "shim.ended";
    /// A shim has given its lock back.
    cut ShimReleased = "shim.released";
    /// Control groups are to be made.
    fail GroupsMake = "groups.make";
    /// Control groups have been made.
    fail GroupsMade = "groups.made";
    /// The mounter has been made.
    fail MounterMade = "mounter.made";
    /// The mounter may act; it has no mounts yet.
    fail MounterTree = "mounter.tree";
    /// The mounter has attached the root.
    fail MounterRoot = "mounter.root";
    /// The mounter has made the keeper and has not said so.
    cut MounterKeeper = "mounter.keeper";
    /// The mounter is to pivot.
    fail MounterPivot = "mounter.pivot";
    /// The keeper is in its domain.
    fail KeeperDomain = "keeper.domain";
    /// The keeper has made the first process and has not said so.
    cut KeeperMade = "keeper.made";
    /// The first process is to join its control groups.
    fail InitJoin = "init.join";
    /// The first process is about to give up its rights.
    fail InitRights = "init.rights";
    /// The engine has a prepared shim.
    fail StartPrepared = "start.prepared";
    /// The container is attached to its network.
    fail StartAttached = "start.attached";
    /// The shim has said that the program runs.
    cut StartDone = "start.done";
    /// An address has been taken and does not name its owner.
    fail AddressTaken = "network.address";
    /// The journal says what is going to be done.
    cut JournalWritten = "network.journal";
    /// An operation on links is to be done.
    fail LinkOperation = "network.operation";
    /// What is done inside the container's network is to be done.
    fail NetworkInside = "network.inside";
    /// Firewall entries are to be laid.
    fail FirewallAdd = "network.firewall";
    /// The endpoint stands.
    cut NetworkDone = "network.done";
    /// Something of an endpoint is to be taken back.
    fail NetworkUndo = "network.undo";
    /// An endpoint is taken back and its journal still there.
    cut NetworkUndone = "network.undone";
    /// A removed container has given back network and ids.
    cut RemoveReleased = "remove.released";
    /// A removed container's tree is gone.
    cut RemoveTree = "remove.tree";
    /// A removed container's name is free.
    cut RemoveName = "remove.name";
    /// A removed container's record is gone.
    fail RemoveRecord = "remove.record";
    /// A cache of build steps has a directory that is not in place.
    fail CacheMade = "cache.made";
    /// A cache of build steps has been filled and is not in place.
    fail CacheFilled = "cache.filled";
    /// A cache of build steps is out of its place and still there.
    cut CacheGone = "cache.gone";
    /// A blob of a cache that is given out is whole and not in its place.
    fail CacheBlob = "cache.blob";
    /// A cache that is given out has all its blobs, and its index is the one before.
    fail CacheComplete = "cache.complete";
    /// A cache that is given out is in its place, and what the one before had is still there.
    cut CacheReplaced = "cache.replaced";
    /// A build step's tree exists.
    cut StepPrepared = "step.prepared";
    /// A build step's command has ended.
    fail StepRan = "step.ran";
    /// A build step's layer is in the store.
    cut StepCommitted = "step.committed";
}

/// What happens at a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The process dies at once, as by `kill -9`.
    Kill,
    /// The call fails with ENOSPC.
    NoSpace,
    /// The call fails with EIO.
    Io,
}

/// A fault that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where.
    pub point: Point,
    /// On which pass, from 1.
    pub nth: u32,
    /// What.
    pub action: Action,
}

impl Fault {
    /// Parses `POINT[:N][:kill|nospace|io]`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        let name = parts.next()?;
        let point = *Point::ALL.iter().find(|point| point.name() == name)?;
        let mut fault = Self { point, nth: 1, action: Action::Kill };
        for part in parts {
            match part {
                "kill" => fault.action = Action::Kill,
                "nospace" => fault.action = Action::NoSpace,
                "io" => fault.action = Action::Io,
                number => fault.nth = number.parse().ok().filter(|nth| *nth > 0)?,
            }
        }
        (fault.action == Action::Kill || point.can_fail()).then_some(fault)
    }
}

/// Passes a point where one can only die.
#[inline(always)]
pub fn cut(point: Point) {
    #[cfg(debug_assertions)]
    let _ = armed::pass(point);
    #[cfg(not(debug_assertions))]
    let _ = point;
}

/// Passes a point where a call can fail.
///
/// # Errors
/// ENOSPC or EIO, when a test asked for it.
#[inline(always)]
pub fn fail(point: Point) -> io::Result<()> {
    #[cfg(debug_assertions)]
    return armed::pass(point);
    #[cfg(not(debug_assertions))]
    {
        let _ = point;
        Ok(())
    }
}

#[cfg(debug_assertions)]
pub use armed::arm;

#[cfg(debug_assertions)]
mod armed {
    use super::{Action, Fault, Point};
    use std::fs::File;
    use std::io;
    use std::os::fd::AsRawFd;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    type Counts = [AtomicU32; Point::ALL.len()];

    static ARMED: OnceLock<(Option<Fault>, &'static Counts)> = OnceLock::new();

    /// Begins to count the passes, and plans a fault. With `counts`, the numbers (32 bits, in the order of
    /// [`Point::ALL`]) can be read in that file.
    ///
    /// # Errors
    /// When there is no shared memory.
    pub fn arm(fault: Option<Fault>, counts: Option<&File>) -> io::Result<()> {
        let length = size_of::<Counts>();
        if let Some(file) = counts {
            file.set_len(length as u64)?;
        }
        let (flags, fd) = counts.map_or((libc::MAP_ANONYMOUS, -1), |file| (0, file.as_raw_fd()));
        // SAFETY: a new mapping at a place of the kernel's choice touches no memory of ours.
        let place = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | flags,
                fd,
                0,
            )
        };
        if place == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the mapping is `length` zeroed or counted bytes, page-aligned, never unmapped, and only ever used as
        // these atomic numbers, by every process that has it.
        let counts = unsafe { &*place.cast::<Counts>() };
        let _ = ARMED.set((fault, counts));
        Ok(())
    }

    pub(super) fn pass(point: Point) -> io::Result<()> {
        let Some((fault, counts)) = ARMED.get() else { return Ok(()) };
        let passes = counts[point as usize].fetch_add(1, Ordering::Relaxed) + 1;
        let Some(fault) = fault.filter(|fault| fault.point == point && fault.nth == passes) else { return Ok(()) };
        match fault.action {
            Action::Kill => die(),
            Action::NoSpace => Err(io::Error::from_raw_os_error(libc::ENOSPC)),
            Action::Io => Err(io::Error::from_raw_os_error(libc::EIO)),
        }
    }

    fn die() -> ! {
        // SAFETY: kill(2) takes numbers only.
        unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
        // The first process of a pid namespace cannot kill itself, and a filter may forbid the call.
        // SAFETY: _exit(2) does not return and touches no memory of ours.
        unsafe { libc::_exit(137) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_spelled_by_point_pass_and_action() {
        let fault = |point, nth, action| Some(Fault { point, nth, action });
        for (text, expected) in [
            ("record.write", fault(Point::RecordWrite, 1, Action::Kill)),
            ("record.write:3", fault(Point::RecordWrite, 3, Action::Kill)),
            ("record.write:nospace", fault(Point::RecordWrite, 1, Action::NoSpace)),
            ("record.write:2:io", fault(Point::RecordWrite, 2, Action::Io)),
            ("name.taken:io", None),
            ("record.write:0", None),
            ("record.writes", None),
            ("", None),
        ] {
            assert_eq!(Fault::parse(text), expected, "{text}");
        }
        for point in Point::ALL {
            assert_eq!(Fault::parse(point.name()).map(|fault| fault.point), Some(*point));
        }
    }

    #[test]
    fn nothing_happens_unarmed() {
        for point in Point::ALL {
            cut(*point);
            assert!(fail(*point).is_ok());
        }
    }
}

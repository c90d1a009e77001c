//! Opening a log: verify all of it, mend the two things a crash may leave, hand it to a writer.
//!
//! **Invariant:** nothing is written before everything was verified, and only two faults are
//! mended: an unfinished last write is cut, an unfinished switch to a new segment is finished.

use std::collections::VecDeque;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::Path;
use std::sync::Arc;

use super::effect::Effects;
use super::format::{self, Carry, Item, Salt, Spot};
use super::prepare::{Preparer, write_zeroes};
use super::queue::{Queue, State};
use super::segment::{PREPARED_NAME, Segment};
use super::survey::{Survey, Surveyed, survey};
use super::tail::Tail;
use super::writer::{Active, Counts, Older, Writer, begin_segment, create_beside};
use super::{Options, Stats};
use crate::error::{Fault, Repair, StoreError};
use crate::files::{File, Files, read_exact_at};

/// Opens or makes the log in `dir`. The writer must then be run on a thread.
pub(super) fn open(
    dir: &Path,
    files: Arc<dyn Files>,
    options: &Options,
) -> Result<(Arc<Queue>, Writer), StoreError> {
    files.create_dir_all(dir).map_err(|error| StoreError::io("create", dir, error))?;
    let mut survey = survey(dir, &*files)?;
    refuse_damage(&survey.faults)?;
    let surveyed = std::mem::take(&mut survey.segments);
    let closed = surveyed.last().is_some_and(|last| last.closed);
    let cut_bytes = surveyed.last().map_or(0, |last| last.dirty_end - last.end);
    let (older, active) = match surveyed.is_empty() {
        true => (VecDeque::new(), make(dir, &*files, options)?),
        false => mend(dir, &*files, options, surveyed)?,
    };
    let prepared = dir.join(PREPARED_NAME);
    remove_leftover(&*files, &prepared)?;
    let preparer = Preparer::start(files.clone(), prepared)
        .map_err(|error| StoreError::io("start the preparing thread of", dir, error))?;
    let Survey { marks, index, .. } = survey;
    let tail = Tail::new(options.cache_bytes);
    let state = State::new(marks.clone(), index, tail, Stats { cut_bytes, ..Stats::default() });
    let queue = Arc::new(Queue::new(state, options.queue_len));
    let writer = Writer {
        dir: dir.to_path_buf(),
        files,
        options: options.clone(),
        queue: queue.clone(),
        older,
        active,
        marks,
        closed,
        preparer,
        buffer: Vec::new(),
        effects: Effects::default(),
        evicted: Vec::new(),
        counts: Counts::default(),
    };
    writer.count(&mut queue.lock().stats);
    Ok((queue, writer))
}

fn refuse_damage(faults: &[Fault]) -> Result<(), StoreError> {
    let mut damage = faults.iter().filter(|fault| !fault.repair.is_automatic());
    match damage.next() {
        None => Ok(()),
        Some(first) => {
            Err(StoreError::Corrupt { fault: Box::new(first.clone()), more: damage.count() })
        }
    }
}

fn remove_leftover(files: &dyn Files, path: &Path) -> Result<(), StoreError> {
    match files.remove(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(StoreError::io("remove", path, error))
        }
        _ => Ok(()),
    }
}

/// Makes the first segment of a new log, zeroes included, so that its first appends are fast.
fn make(dir: &Path, files: &dyn Files, options: &Options) -> Result<Active, StoreError> {
    let refuse = |error| StoreError::io("make a log in", dir, error);
    let log_id = options.log_id.unwrap_or_else(|| RandomState::new().build_hasher().finish());
    let file = create_beside(files, &dir.join(PREPARED_NAME)).map_err(refuse)?;
    let bytes_max = options.segment_bytes_first;
    write_zeroes(&*file, 0, bytes_max).map_err(refuse)?;
    let salt = Salt { log_id, sequence: 1 };
    let begun = begin_segment(files, dir, file, salt, Carry::default()).map_err(refuse)?;
    if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        files.sync_dir(parent).map_err(|error| StoreError::io("sync", parent, error))?;
    }
    Ok(Active { bytes_max, ..begun })
}

/// Finishes what a crash left and makes all that was found durable.
fn mend(
    dir: &Path,
    files: &dyn Files,
    options: &Options,
    mut surveyed: Vec<Surveyed>,
) -> Result<(VecDeque<Older>, Active), StoreError> {
    let (bytes_min, bytes_max) = (options.segment_bytes_first, options.segment_bytes);
    let Some(last) = surveyed.pop() else {
        return Err(StoreError::corrupt(dir, 0, "no segment to continue", Repair::Rejoin));
    };
    let last_path = &last.segment.path;
    let refuse = |error| StoreError::io("mend the end of", last_path, error);
    let file = files.open(last_path).map_err(refuse)?;
    settle(&*file, &last).map_err(refuse)?;
    // The process that renamed the last segment may have died before it synced the name.
    files.sync_dir(dir).map_err(|error| StoreError::io("sync", dir, error))?;
    // Only then: a seal says that the next segment is there for good. Even one that is there may
    // be in memory only, as long as nothing was written behind the new segment's head.
    if let Some(before) = surveyed.last().filter(|_| last.records == 1) {
        finish_roll(files, before)?;
    }
    let active = Active {
        segment: Arc::new(Segment {
            path: last.segment.path.clone(),
            file,
            salt: last.segment.salt,
        }),
        end: last.end,
        bytes_max: last.file_bytes.clamp(bytes_min, bytes_max),
        released: 0,
        is_fresh: last.records == 1,
    };
    let older = surveyed.into_iter().map(|one| Older { bytes: one.end, segment: one.segment });
    Ok((older.collect(), active))
}

/// Writes the seal that may still be missing when the next segment has been made.
fn finish_roll(files: &dyn Files, before: &Surveyed) -> Result<(), StoreError> {
    let path = &before.segment.path;
    let refuse = |error| StoreError::io("seal", path, error);
    let file = files.open(path).map_err(refuse)?;
    write_zeroes(&*file, before.end, before.dirty_end).map_err(refuse)?;
    let at = u32::try_from(before.end).unwrap_or(u32::MAX);
    let salt = before.segment.salt;
    let mut seal = Vec::new();
    let spot = Spot { salt, offset: at, write_start: at };
    format::encode(&mut seal, spot, &Item::Sealed(salt.sequence + 1));
    file.write_all_at(&seal, before.end).map_err(refuse)?;
    file.sync_data().map_err(refuse)
}

/// Cuts an unfinished write, and makes the last finished one durable.
///
/// What was read may exist only in the page cache: the process before may have died before its
/// sync, or its sync may have failed, after which the kernel takes the pages for clean and never
/// writes them. So the bytes of the last write are written again; everything before them was
/// synced with success, or the write would never have begun.
fn settle(file: &dyn File, last: &Surveyed) -> std::io::Result<()> {
    if last.dirty_end > last.end {
        let (path, bytes) = (last.segment.path.display(), last.dirty_end - last.end);
        tracing::warn!(%path, bytes, "cutting an unfinished write off the log's end");
        write_zeroes(file, last.end, last.dirty_end)?;
    }
    let bytes = usize::try_from(last.end - last.write_start).map_err(std::io::Error::other)?;
    let mut content = vec![0; bytes];
    read_exact_at(file, &mut content, last.write_start)?;
    file.write_all_at(&content, last.write_start)?;
    file.sync_data()
}

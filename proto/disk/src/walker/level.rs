//! One directory of a walk: its descriptor, which may be closed for a while, and how far its entries are visited.

use std::collections::BinaryHeap;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{Dir, FileType, ResolveFlags, SeekFrom};
use rustix::io::Errno;

use super::open_below;

/// The memory that the names of one directory take at most, with [`OVERHEAD`] for each.
const BATCH_LIMIT: usize = 16 << 20;
/// The memory that a name takes besides its bytes.
const OVERHEAD: usize = 48;

/// A name and what it is.
pub(super) type Found = (Box<[u8]>, FileType);

/// A directory of a walk.
#[derive(Debug)]
pub(super) struct Level {
    /// Absent while the level is closed, or when it was lost.
    stream: Option<Dir>,
    device: u64,
    inode: u64,
    /// The position after the last entry that was visited, in the order of the directory.
    position: i64,
    /// Where the directory's path ends in the path of the walk.
    pub(super) end: usize,
    /// The next names in sorted order, the last one first, and the memory that they take.
    sorted: Vec<Found>,
    held: usize,
    /// Whether nothing comes after what is in `sorted`.
    complete: bool,
    exhausted: bool,
}

impl Level {
    pub(super) fn new(directory: OwnedFd, end: usize) -> Result<Self, Errno> {
        let stat = rustix::fs::fstat(&directory)?;
        Ok(Self {
            stream: Some(Dir::new(directory)?),
            device: stat.st_dev,
            inode: stat.st_ino,
            position: 0,
            end,
            sorted: Vec::new(),
            held: 0,
            complete: false,
            exhausted: false,
        })
    }

    pub(super) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.stream.as_ref().and_then(|stream| stream.fd().ok())
    }

    /// Closes the directory; what is known of it stays.
    pub(super) fn close(&mut self) {
        self.stream = None;
    }

    /// Opens it again from a directory in it. Another one in its place does not count.
    pub(super) fn reopen(&mut self, below: BorrowedFd<'_>) -> Result<(), Errno> {
        let opened = open_below(below, "..".as_ref(), ResolveFlags::NO_XDEV)?;
        let stat = rustix::fs::fstat(&opened)?;
        if (stat.st_dev, stat.st_ino) != (self.device, self.inode) {
            return Err(Errno::STALE);
        }
        rustix::fs::seek(&opened, SeekFrom::Start(self.position.cast_unsigned()))?;
        self.stream = Some(Dir::new(opened)?);
        Ok(())
    }

    /// Nothing more is read here.
    pub(super) fn exhaust(&mut self, names: &mut usize) {
        *names -= self.drop_names();
        self.exhausted = true;
    }

    /// The memory that its names take.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Forgets the names that wait; says what they took.
    pub(super) fn drop_names(&mut self) -> usize {
        self.sorted = Vec::new();
        self.complete = false;
        std::mem::take(&mut self.held)
    }

    /// The next entry as the directory has it.
    pub(super) fn next(&mut self) -> Result<Option<Found>, Errno> {
        let Some(stream) = self.stream.as_mut().filter(|_| !self.exhausted) else { return Ok(None) };
        while let Some(entry) = stream.read() {
            let entry = entry?;
            self.position = entry.offset();
            let name = entry.file_name().to_bytes();
            if !matches!(name, b"." | b"..") {
                return Ok(Some((name.into(), entry.file_type())));
            }
        }
        self.exhausted = true;
        Ok(None)
    }

    /// The next entry in the order of bytes, after the one that was visited last.
    pub(super) fn next_sorted(&mut self, last: &[u8], names: &mut usize) -> Result<Option<Found>, Errno> {
        if self.sorted.is_empty() && !self.complete && !self.exhausted {
            let last = last.strip_prefix(b"/").unwrap_or(last);
            self.collect(last)?;
            *names += self.held;
        }
        let found = self.sorted.pop();
        if let Some((name, _)) = &found {
            let taken = cost(name);
            self.held -= taken;
            *names -= taken;
        }
        Ok(found)
    }

    /// Reads the whole directory and keeps the first names after `last`, as many as may be held.
    fn collect(&mut self, last: &[u8]) -> Result<(), Errno> {
        let Some(stream) = self.stream.as_mut() else { return Ok(()) };
        stream.rewind();
        // The greatest is on top.
        let mut heap: BinaryHeap<ByName> = BinaryHeap::new();
        let mut held = 0;
        let mut complete = true;
        while let Some(entry) = stream.read() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") || name <= last {
                continue;
            }
            if !complete && heap.peek().is_some_and(|greatest| name > &*greatest.0.0) {
                continue;
            }
            held += cost(name);
            heap.push(ByName((name.into(), entry.file_type())));
            while held > BATCH_LIMIT && heap.len() > 1 {
                complete = false;
                held -= heap.pop().map_or(0, |dropped| cost(&dropped.0.0));
            }
        }
        self.sorted = heap.into_sorted_vec().into_iter().rev().map(|found| found.0).collect();
        (self.held, self.complete) = (held, complete);
        Ok(())
    }
}

fn cost(name: &[u8]) -> usize {
    name.len() + OVERHEAD
}

/// Compared by its name alone.
struct ByName(Found);

impl Ord for ByName {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.0.cmp(&other.0.0)
    }
}

impl PartialOrd for ByName {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for ByName {
    fn eq(&self, other: &Self) -> bool {
        self.0.0 == other.0.0
    }
}

impl Eq for ByName {}

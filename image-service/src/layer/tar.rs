//! A tar stream, entry by entry: ustar, GNU long names, PAX. Strict where readers could disagree. Every byte that is no
//! file's data goes to the skeleton as it is read.

use std::io::{self, Read};

use super::Failure;
use super::skeleton::SkeletonWriter;

mod block;
mod entry;
mod header;
mod names;
mod pax;
mod sparse;

use self::block::broken;
pub(crate) use self::block::{BLOCK, padding};
pub(crate) use self::entry::{Entry, Kind};
pub(crate) use self::names::directories;
pub(crate) use self::sparse::{Segment, SparseMap};

/// A PAX or long-name header is never longer.
const META_MAX: u64 = 1 << 20;

/// The limits of a tar.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) entries: u64,
    pub(crate) bytes: u64,
}

/// Reads entries.
pub(crate) struct TarReader<R> {
    input: R,
    skeleton: SkeletonWriter,
    bounds: Bounds,
    entries: u64,
    bytes: u64,
    /// Bytes of holes in sparse files, which count as unpacked though they take no room.
    holes: u64,
    /// Data of the current entry that was not read yet, and the padding after it.
    left: u64,
    padding: usize,
    offset: u64,
}

impl<R: Read> TarReader<R> {
    pub(crate) fn new(input: R, skeleton: SkeletonWriter, bounds: Bounds) -> Self {
        Self { input, skeleton, bounds, entries: 0, bytes: 0, holes: 0, left: 0, padding: 0, offset: 0 }
    }

    /// The skeleton, for what only the writer of the files knows.
    pub(crate) fn skeleton(&mut self) -> &mut SkeletonWriter {
        &mut self.skeleton
    }

    /// The next entry, or none at the end; what follows the end marker has then been read too.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>, Failure> {
        self.finish_entry()?;
        let mut meta = pax::Meta::default();
        loop {
            let Some(block) = self.block(true)? else {
                return if meta.is_empty() { Ok(None) } else { Err(broken("it ends within an entry")) };
            };
            if block.iter().all(|byte| *byte == 0) {
                self.end(&meta)?;
                return Ok(None);
            }
            let header = header::Header::parse(&block)?;
            self.count_entry()?;
            match header.kind {
                b'x' => meta.local = pax::parse(&self.meta_data(header.size)?)?,
                b'g' => pax::check_global(&pax::parse(&self.meta_data(header.size)?)?)?,
                b'L' => meta.long_path = Some(pax::long_name(self.meta_data(header.size)?)),
                b'K' => meta.long_link = Some(pax::long_name(self.meta_data(header.size)?)),
                kind => {
                    let old = if kind == b'S' { Some(self.old_gnu_map(&block)?) } else { None };
                    let mut entry = meta.complete(header)?;
                    entry.sparse = entry.sparse.or(old);
                    self.left = entry.size;
                    self.padding = padding(entry.size);
                    self.offset = 0;
                    self.place_data(&mut entry)?;
                    return Ok(Some(entry));
                }
            }
        }
    }

    /// The map of a sparse file in the old GNU form, with the blocks that continue it.
    fn old_gnu_map(&mut self, header: &[u8; BLOCK]) -> Result<SparseMap, Failure> {
        let mut map = sparse::old_gnu(header)?;
        while map.continues {
            let block = self.block(false)?.ok_or_else(|| broken("it ends within a sparse file's map"))?;
            map.extend(&block)?;
        }
        Ok(map)
    }

    /// Reads the map of a sparse file that precedes its data (PAX 1.0), and checks that the data fits the map.
    fn place_data(&mut self, entry: &mut Entry) -> Result<(), Failure> {
        let Some(map) = &mut entry.sparse else { return Ok(()) };
        let mut text = map.text();
        while text.wants_more() {
            self.left = self
                .left
                .checked_sub(BLOCK as u64)
                .ok_or_else(|| broken("a sparse file has less data than its map"))?;
            let block = self.block(false)?.ok_or_else(|| broken("it ends within a sparse file's map"))?;
            text.read(&block, map)?;
        }
        entry.size = self.left;
        map.check(entry.size)?;
        self.holes = self.holes.saturating_add(map.size - entry.size);
        self.count_bytes(0)
    }

    /// Copies some of the entry's data; 0 at its end.
    pub(crate) fn data(&mut self, buffer: &mut [u8]) -> Result<usize, Failure> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let Some(part) = buffer.get_mut(..most).filter(|part| !part.is_empty()) else { return Ok(0) };
        let count = read_some(&mut self.input, part)?;
        if count == 0 {
            return Err(broken("it ends within a file's data"));
        }
        self.left -= count as u64;
        self.offset += count as u64;
        self.count_bytes(count as u64)?;
        Ok(count)
    }

    /// Ends the reading; the skeleton is complete.
    pub(crate) fn finish(self) -> Result<(SkeletonWriter, u64), Failure> {
        Ok((self.skeleton, self.bytes))
    }

    fn finish_entry(&mut self) -> Result<(), Failure> {
        if self.left > 0 {
            return Err(broken("an entry's data was not read"));
        }
        let count = std::mem::take(&mut self.padding);
        let mut block = [0_u8; BLOCK];
        if let Some(part) = block.get_mut(..count).filter(|part| !part.is_empty()) {
            self.fill(part)?;
            self.skeleton.raw(part)?;
        }
        Ok(())
    }

    /// Reads the second zero block and whatever follows.
    fn end(&mut self, meta: &pax::Meta) -> Result<(), Failure> {
        if !meta.is_empty() {
            return Err(broken("a PAX or long-name header has no entry"));
        }
        match self.block(true)? {
            Some(block) if block.iter().any(|byte| *byte != 0) => {
                return Err(broken("a zero block is followed by data"));
            }
            Some(_) => {}
            None => return Ok(()),
        }
        let mut buffer = vec![0_u8; 64 << 10];
        loop {
            let count = read_some(&mut self.input, &mut buffer)?;
            let Some(part) = buffer.get(..count).filter(|part| !part.is_empty()) else { return Ok(()) };
            self.count_bytes(count as u64)?;
            self.skeleton.raw(part)?;
        }
    }

    fn meta_data(&mut self, size: u64) -> Result<Vec<u8>, Failure> {
        if size > META_MAX {
            return Err(broken(&format!("a PAX or long-name header of {size} bytes, more than {META_MAX}")));
        }
        let size = usize::try_from(size).map_err(|_| broken("a header's size"))?;
        let mut data = vec![0_u8; size + padding(size as u64)];
        self.fill(&mut data)?;
        self.skeleton.raw(&data)?;
        data.truncate(size);
        Ok(data)
    }

    /// One header block; none at a clean end of the stream.
    fn block(&mut self, end_allowed: bool) -> Result<Option<[u8; BLOCK]>, Failure> {
        let mut block = [0_u8; BLOCK];
        let first = read_some(&mut self.input, &mut block)?;
        if first == 0 && end_allowed {
            return Ok(None);
        }
        self.count_bytes(first as u64)?;
        if let Some(rest) = block.get_mut(first..) {
            self.fill(rest)?;
        }
        self.skeleton.raw(&block)?;
        Ok(Some(block))
    }

    fn fill(&mut self, mut buffer: &mut [u8]) -> Result<(), Failure> {
        self.count_bytes(buffer.len() as u64)?;
        while !buffer.is_empty() {
            let count = read_some(&mut self.input, buffer)?;
            if count == 0 {
                return Err(broken("it ends within an entry"));
            }
            buffer = buffer.get_mut(count..).unwrap_or_default();
        }
        Ok(())
    }

    fn count_bytes(&mut self, count: u64) -> Result<(), Failure> {
        self.bytes = self.bytes.saturating_add(count);
        if self.bytes.saturating_add(self.holes) > self.bounds.bytes {
            let most = self.bounds.bytes;
            return Err(broken(&format!("it unpacks to more than {most} bytes, the configured limit")));
        }
        Ok(())
    }

    fn count_entry(&mut self) -> Result<(), Failure> {
        self.entries += 1;
        if self.entries > self.bounds.entries {
            let most = self.bounds.entries;
            return Err(broken(&format!("it has more than {most} entries, the configured limit")));
        }
        Ok(())
    }
}

fn read_some(input: &mut impl Read, buffer: &mut [u8]) -> Result<usize, Failure> {
    loop {
        match input.read(buffer) {
            Ok(count) => return Ok(count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Failure::Rejected(format!("its data can't be decompressed: {error}"))),
        }
    }
}

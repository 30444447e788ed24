//! Tars made by hand, block by block: what no honest tool writes, and what several honest tools write differently.

/// The bytes of a tar in the making.
#[derive(Clone, Debug, Default)]
pub struct Tarball(Vec<u8>);

/// The fields of an entry's header that tests choose; the rest of the block has usual values.
#[derive(Clone, Copy, Debug)]
pub struct Header<'a> {
    /// The name, at most 100 bytes.
    pub name: &'a [u8],
    /// The type flag.
    pub kind: u8,
    /// The link's target, at most 100 bytes.
    pub link: &'a [u8],
    /// Mode bits.
    pub mode: u32,
    /// The size that is claimed.
    pub size: u64,
    /// Major and minor number.
    pub device: (u32, u32),
}

impl<'a> Header<'a> {
    /// A header of a name and a type.
    #[must_use]
    pub fn new(name: &'a str, kind: u8) -> Self {
        let mode = if kind == b'5' { 0o755 } else { 0o644 };
        Self { name: name.as_bytes(), kind, link: b"", mode, size: 0, device: (0, 0) }
    }

    /// Its block, with a right checksum.
    ///
    /// # Panics
    /// When a name is too long for a header.
    #[must_use]
    pub fn block(&self) -> [u8; 512] {
        let mut block = [0_u8; 512];
        let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        assert!(self.name.len() <= 100 && self.link.len() <= 100, "a long name needs an entry of its own");
        put(0, self.name);
        put(100, format!("{:07o}", self.mode).as_bytes());
        put(108, b"0000000\x000000000");
        if self.size < 1 << 33 {
            put(124, format!("{:011o}", self.size).as_bytes());
        } else {
            put(124, &[0x80, 0, 0, 0]);
            put(128, &self.size.to_be_bytes());
        }
        put(136, format!("{:011o}", 1_000_000_000).as_bytes());
        put(156, &[self.kind]);
        put(157, self.link);
        put(257, b"ustar\x0000");
        put(329, format!("{:07o}", self.device.0).as_bytes());
        put(337, format!("{:07o}", self.device.1).as_bytes());
        put(148, b"        ");
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        block
    }
}

impl Tarball {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes as they are.
    #[must_use]
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// An entry with its data, padded; the header says the data's size.
    #[must_use]
    pub fn entry(self, header: Header<'_>, data: &[u8]) -> Self {
        let header = Header { size: data.len() as u64, ..header };
        let padding = data.len().next_multiple_of(512) - data.len();
        self.raw(&header.block()).raw(data).raw(&vec![0; padding])
    }

    /// A regular file.
    #[must_use]
    pub fn file(self, name: &str, data: &[u8]) -> Self {
        self.entry(Header::new(name, b'0'), data)
    }

    /// A directory.
    #[must_use]
    pub fn directory(self, name: &str) -> Self {
        self.entry(Header::new(name, b'5'), b"")
    }

    /// A symbolic link.
    #[must_use]
    pub fn symlink(self, name: &str, target: &str) -> Self {
        self.entry(Header { link: target.as_bytes(), mode: 0o777, ..Header::new(name, b'2') }, b"")
    }

    /// A hard link.
    #[must_use]
    pub fn hard_link(self, name: &str, target: &str) -> Self {
        self.entry(Header { link: target.as_bytes(), ..Header::new(name, b'1') }, b"")
    }

    /// A device or a pipe.
    #[must_use]
    pub fn node(self, name: &str, kind: u8, device: (u32, u32)) -> Self {
        self.entry(Header { device, ..Header::new(name, kind) }, b"")
    }

    /// A PAX header for the next entry.
    #[must_use]
    pub fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let data: Vec<u8> = records.iter().flat_map(|(key, value)| pax_record(key, value)).collect();
        self.entry(Header::new("pax", b'x'), &data)
    }

    /// The end: two blocks of zeros.
    #[must_use]
    pub fn end(self) -> Vec<u8> {
        self.raw(&[0; 1024]).0
    }

    /// No end at all.
    #[must_use]
    pub fn unfinished(self) -> Vec<u8> {
        self.0
    }
}

/// `length key=value`, the length counting itself.
fn pax_record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length.to_string().len() + rest != length {
        length = length.to_string().len() + rest;
    }
    [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
}

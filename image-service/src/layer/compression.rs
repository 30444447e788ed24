//! Compression by what the bytes say, never by what a media type claims.

use std::io::{self, BufRead, Read, Write};

const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

/// The plain bytes of gzip (any number of members), zstd (any number of frames) or plain input.
pub(crate) fn decoder<'a>(mut input: impl BufRead + Send + 'a) -> io::Result<Box<dyn Read + Send + 'a>> {
    let start = input.fill_buf()?;
    // A first chunk of less than four bytes is no layer: the smallest gzip file has 18.
    if start.starts_with(GZIP) {
        Ok(Box::new(flate2::bufread::MultiGzDecoder::new(input)))
    } else if start.starts_with(ZSTD) || is_skippable(start) {
        Ok(Box::new(zstd::Decoder::with_buffer(input)?))
    } else {
        Ok(Box::new(input))
    }
}

/// Whether a file is a tar, plain or compressed: its first block is a header whose checksum is right.
///
/// # Errors
/// When it can't be read, or is not what its first bytes say.
pub fn is_tar(input: impl Read + Send) -> io::Result<bool> {
    let mut block = Vec::new();
    decoder(io::BufReader::new(input))?.take(512).read_to_end(&mut block)?;
    let (Some(field), 512) = (block.get(148..156), block.len()) else { return Ok(false) };
    let digits = String::from_utf8_lossy(field).trim_matches(['\0', ' ']).to_owned();
    let sum = block
        .iter()
        .enumerate()
        .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u64::from(*byte) });
    Ok(u64::from_str_radix(&digits, 8).is_ok_and(|said| said == sum.sum::<u64>()))
}

/// A zstd stream may begin with a frame that holds no data.
fn is_skippable(start: &[u8]) -> bool {
    matches!(start, [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..])
}

/// A gzip writer whose output depends on its input alone.
pub(crate) fn gzip<W: Write>(output: W) -> flate2::write::GzEncoder<W> {
    flate2::GzBuilder::new().mtime(0).operating_system(255).write(output, flate2::Compression::new(6))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut plain = Vec::new();
        decoder(bytes)?.read_to_end(&mut plain)?;
        Ok(plain)
    }

    #[test]
    fn members_and_frames_follow_each_other() -> io::Result<()> {
        let member = |bytes: &[u8]| -> io::Result<Vec<u8>> {
            let mut encoder = gzip(Vec::new());
            encoder.write_all(bytes)?;
            encoder.finish()
        };
        assert_eq!(decode(&[member(b"one ")?, member(b"two")?].concat())?, b"one two");
        let frame = |bytes: &[u8]| zstd::encode_all(bytes, 1);
        assert_eq!(decode(&[frame(b"one ")?, frame(b"two")?].concat())?, b"one two");
        assert_eq!(decode(b"plain")?, b"plain");
        Ok(())
    }

    #[test]
    fn a_tar_is_known_by_its_first_header() -> io::Result<()> {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_size(1);
        header.set_cksum();
        tar.append_data(&mut header, "a", &b"x"[..])?;
        let tar = tar.into_inner()?;
        assert!(is_tar(&tar[..])? && is_tar(&zstd::encode_all(&tar[..], 1)?[..])?);
        assert!(!is_tar(&b"text"[..])? && !is_tar(&[0_u8; 1024][..])? && !is_tar(&[7_u8; 600][..])?);
        Ok(())
    }

    #[test]
    fn a_cut_stream_is_an_error() -> io::Result<()> {
        let mut encoder = gzip(Vec::new());
        encoder.write_all(&[7; 5000])?;
        let whole = encoder.finish()?;
        assert!(decode(&whole[..whole.len() - 5]).is_err());
        Ok(())
    }
}

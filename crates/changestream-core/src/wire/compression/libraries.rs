//! The libraries behind the features, each in the same two functions.

use super::Compressor;
use crate::wire::WireError;

/// The compressed bytes; none where the compressor is not built in.
pub(super) fn deflate(compressor: Compressor, input: &[u8], zlib_level: Option<i32>) -> Option<Vec<u8>> {
    match compressor {
        Compressor::Snappy => snappy::deflate(input),
        Compressor::Zlib => zlib::deflate(input, zlib_level),
        Compressor::Zstd => zstd::deflate(input),
    }
}

/// Inflates into memory that must be filled exactly.
pub(super) fn inflate(compressor: Compressor, input: &[u8], output: &mut [u8]) -> Result<(), WireError> {
    let filled = match compressor {
        Compressor::Snappy => snappy::inflate(input, output),
        Compressor::Zlib => zlib::inflate(input, output),
        Compressor::Zstd => zstd::inflate(input, output),
    };
    match filled {
        Some(filled) if filled == output.len() => Ok(()),
        Some(_) | None => Err(WireError::Inflated {
            compressor: compressor.as_str(),
        }),
    }
}

#[cfg(feature = "snappy")]
mod snappy {
    pub(super) fn deflate(input: &[u8]) -> Option<Vec<u8>> {
        snap::raw::Encoder::new().compress_vec(input).ok()
    }

    pub(super) fn inflate(input: &[u8], output: &mut [u8]) -> Option<usize> {
        snap::raw::Decoder::new().decompress(input, output).ok()
    }
}

#[cfg(feature = "zlib")]
mod zlib {
    use std::io::Write;

    use flate2::write::ZlibEncoder;
    use flate2::{Compression, Decompress, FlushDecompress, Status};

    pub(super) fn deflate(input: &[u8], level: Option<i32>) -> Option<Vec<u8>> {
        // -1 is the default.
        let level = level.and_then(|level| u32::try_from(level).ok());
        let level = level.map_or_else(Compression::default, |level| Compression::new(level.min(9)));
        let mut encoder = ZlibEncoder::new(Vec::new(), level);
        encoder.write_all(input).ok()?;
        encoder.finish().ok()
    }

    pub(super) fn inflate(input: &[u8], output: &mut [u8]) -> Option<usize> {
        let mut decompress = Decompress::new(true);
        let status = decompress
            .decompress(input, output, FlushDecompress::Finish)
            .ok()?;
        let whole = status == Status::StreamEnd && usize::try_from(decompress.total_in()) == Ok(input.len());
        whole.then(|| usize::try_from(decompress.total_out()).ok())?
    }
}

#[cfg(feature = "zstd")]
mod zstd {
    use ::zstd::{DEFAULT_COMPRESSION_LEVEL, bulk};

    pub(super) fn deflate(input: &[u8]) -> Option<Vec<u8>> {
        bulk::compress(input, DEFAULT_COMPRESSION_LEVEL).ok()
    }

    /// In one go, so that the window, whose size the sender chooses, is the output itself.
    pub(super) fn inflate(input: &[u8], output: &mut [u8]) -> Option<usize> {
        bulk::decompress_to_buffer(input, output).ok()
    }
}

#[cfg(not(feature = "snappy"))]
mod snappy {
    pub(super) fn deflate(_: &[u8]) -> Option<Vec<u8>> {
        None
    }

    pub(super) fn inflate(_: &[u8], _: &mut [u8]) -> Option<usize> {
        None
    }
}

#[cfg(not(feature = "zlib"))]
mod zlib {
    pub(super) fn deflate(_: &[u8], _: Option<i32>) -> Option<Vec<u8>> {
        None
    }

    pub(super) fn inflate(_: &[u8], _: &mut [u8]) -> Option<usize> {
        None
    }
}

#[cfg(not(feature = "zstd"))]
mod zstd {
    pub(super) fn deflate(_: &[u8]) -> Option<Vec<u8>> {
        None
    }

    pub(super) fn inflate(_: &[u8], _: &mut [u8]) -> Option<usize> {
        None
    }
}

//! The libraries behind the features, each in the same two functions.

use super::Compressor;
use crate::wire::WireError;

#[cfg(not(feature = "snappy"))]
use super::absent as snappy;
#[cfg(not(feature = "zlib"))]
use super::absent as zlib;
#[cfg(not(feature = "zstd"))]
use super::absent as zstd;

/// The compressed bytes; none where the compressor is not built in.
pub(super) fn deflate(compressor: Compressor, input: &[u8], zlib_level: Option<i32>) -> Option<Vec<u8>> {
    match compressor {
        Compressor::Snappy => snappy::deflate(input, None),
        Compressor::Zlib => zlib::deflate(input, zlib_level),
        Compressor::Zstd => zstd::deflate(input, None),
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
    pub(super) fn deflate(input: &[u8], _: Option<i32>) -> Option<Vec<u8>> {
        snap::raw::Encoder::new().compress_vec(input).ok()
    }

    pub(super) fn inflate(input: &[u8], output: &mut [u8]) -> Option<usize> {
        snap::raw::Decoder::new().decompress(input, output).ok()
    }
}

#[cfg(feature = "zlib")]
mod zlib {
    use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

    use super::super::pool::Pool;

    pub(super) fn deflate(input: &[u8], level: Option<i32>) -> Option<Vec<u8>> {
        // -1 is the default.
        let level = level.and_then(|level| u32::try_from(level).ok());
        let level = level.map_or_else(Compression::default, |level| Compression::new(level.min(9)));
        let make = || Some((level, Compress::new(level, true)));
        COMPRESS.with(make, |(of_level, compress)| {
            if *of_level != level {
                (*of_level, *compress) = (level, Compress::new(level, true));
            }
            compress.reset();
            let mut output = Vec::with_capacity(input.len() + LONGER);
            loop {
                let rest = input.get(usize::try_from(compress.total_in()).ok()?..)?;
                let status = compress.compress_vec(rest, &mut output, FlushCompress::Finish);
                if status.ok()? == Status::StreamEnd {
                    return Some(output);
                }
                output.reserve(input.len() / 8 + LONGER);
            }
        })?
    }

    pub(super) fn inflate(input: &[u8], output: &mut [u8]) -> Option<usize> {
        let make = || Some(Decompress::new(true));
        DECOMPRESS.with(make, |decompress| {
            decompress.reset(true);
            let status = decompress
                .decompress(input, output, FlushDecompress::Finish)
                .ok()?;
            let whole =
                status == Status::StreamEnd && usize::try_from(decompress.total_in()) == Ok(input.len());
            whole.then(|| usize::try_from(decompress.total_out()).ok())?
        })?
    }

    static COMPRESS: Pool<(Compression, Compress)> = Pool::new();
    static DECOMPRESS: Pool<Decompress> = Pool::new();

    /// What does not compress becomes a little longer.
    const LONGER: usize = 64;
}

#[cfg(feature = "zstd")]
mod zstd {
    use ::zstd::DEFAULT_COMPRESSION_LEVEL;
    use ::zstd::bulk::{Compressor, Decompressor};

    use super::super::pool::Pool;

    pub(super) fn deflate(input: &[u8], _: Option<i32>) -> Option<Vec<u8>> {
        let make = || Compressor::new(DEFAULT_COMPRESSION_LEVEL).ok();
        COMPRESS.with(make, |compressor| compressor.compress(input).ok())?
    }

    /// In one go, so that the window, whose size the sender chooses, is the output itself.
    pub(super) fn inflate(input: &[u8], output: &mut [u8]) -> Option<usize> {
        let make = || Decompressor::new().ok();
        DECOMPRESS.with(make, |decompressor| {
            decompressor.decompress_to_buffer(input, output).ok()
        })?
    }

    static COMPRESS: Pool<Compressor<'static>> = Pool::new();
    static DECOMPRESS: Pool<Decompressor<'static>> = Pool::new();
}

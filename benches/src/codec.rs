//! The codecs themselves, without the client's code around them: for the server, and to know what they take by themselves.

use std::io::{self, Write};

use crate::wire::{self, HEADER};

/// A codec of OP_COMPRESSED.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// snappy.
    Snappy,
    /// zlib.
    Zlib,
    /// zstd.
    Zstd,
}

impl Codec {
    /// The codec of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Snappy, Self::Zlib, Self::Zstd]
            .into_iter()
            .find(|codec| codec.name() == name)
    }

    /// Its name in connection strings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Snappy => "snappy",
            Self::Zlib => "zlib",
            Self::Zstd => "zstd",
        }
    }

    fn id(self) -> u8 {
        match self {
            Self::Snappy => 1,
            Self::Zlib => 2,
            Self::Zstd => 3,
        }
    }

    /// An OP_COMPRESSED of that OP_MSG, with the defaults that servers have.
    ///
    /// # Errors
    /// The codec fails.
    pub fn compress(self, message: &[u8]) -> io::Result<Vec<u8>> {
        let operation = message.get(HEADER..).unwrap_or_default();
        let content = match self {
            Self::Snappy => snap::raw::Encoder::new().compress_vec(operation)?,
            Self::Zlib => {
                let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
                encoder.write_all(operation)?;
                encoder.finish()?
            }
            Self::Zstd => zstd::bulk::compress(operation, zstd::DEFAULT_COMPRESSION_LEVEL)?,
        };
        let mut out = message.get(..HEADER).unwrap_or_default().to_vec();
        out.extend(wire::OP_MSG.to_le_bytes());
        out.extend(i32::try_from(operation.len()).unwrap_or(i32::MAX).to_le_bytes());
        out.push(self.id());
        out.extend(content);
        let len = i32::try_from(out.len()).unwrap_or(i32::MAX);
        out[..4].copy_from_slice(&len.to_le_bytes());
        out[12..16].copy_from_slice(&wire::OP_COMPRESSED.to_le_bytes());
        Ok(out)
    }

    /// What inflates with it.
    ///
    /// # Errors
    /// The codec fails.
    pub fn inflater(self) -> io::Result<Inflater> {
        Ok(match self {
            Self::Snappy => Inflater::Snappy,
            Self::Zlib => Inflater::Zlib(flate2::Decompress::new(true)),
            Self::Zstd => Inflater::Zstd(zstd::bulk::Decompressor::new()?),
        })
    }
}

/// A codec's working memory, set up once.
#[expect(missing_debug_implementations, reason = "zstd's has none")]
pub enum Inflater {
    /// Of snappy: none.
    Snappy,
    /// Of zlib.
    Zlib(flate2::Decompress),
    /// Of zstd.
    Zstd(zstd::bulk::Decompressor<'static>),
}

impl Inflater {
    /// Inflates an OP_COMPRESSED into this memory, as if it had come uncompressed but for its header. The memory grows to the
    /// largest message and stays; the message's length is returned.
    ///
    /// # Errors
    /// It is none, or the codec fails.
    pub fn inflate(&mut self, message: &[u8], out: &mut Vec<u8>) -> io::Result<usize> {
        let (len, content) = (HEADER + wire::len(message, HEADER + 4), message.get(PREFIX..));
        let content = content.ok_or(io::ErrorKind::InvalidData)?;
        if out.len() < len {
            out.resize(len, 0);
        }
        let place = &mut out[HEADER..len];
        let filled = match self {
            Self::Snappy => snap::raw::Decoder::new().decompress(content, place)?,
            Self::Zlib(decompress) => {
                decompress.reset(true);
                decompress.decompress(content, place, flate2::FlushDecompress::Finish)?;
                usize::try_from(decompress.total_out()).unwrap_or(0)
            }
            Self::Zstd(decompressor) => decompressor.decompress_to_buffer(content, place)?,
        };
        if filled + HEADER == len {
            Ok(len)
        } else {
            Err(io::ErrorKind::InvalidData.into())
        }
    }
}

/// The header, originalOpcode, uncompressedSize and compressorId.
const PREFIX: usize = HEADER + 9;

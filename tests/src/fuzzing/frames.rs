//! A stream of bytes and the frames in it.

use bytes::Bytes;
use changestream_core::wire::{FrameReader, WireError};

use super::Choices;

/// However a stream is cut, the frames in it are the same, up to the same error; and what a length claims is not taken
/// in memory before it is known to be legal.
///
/// The first bytes say where to cut and which length is legal, the rest is the stream.
///
/// # Panics
/// It does not hold.
pub fn frames(data: &[u8]) {
    let mut choices = Choices::new(data);
    let max = choices.below(1 << 16) * 4;
    let cuts: Vec<usize> = choices.slice().iter().map(|cut| usize::from(*cut)).collect();
    let stream = choices.rest();
    let whole = read(stream, max, [stream.len()]);
    let cut = read(stream, max, cuts.into_iter().filter(|cut| *cut > 0));
    assert_eq!(cut, whole);
    assert_eq!(read(stream, max, []), whole);
    let read: usize = whole.0.iter().map(Bytes::len).sum();
    assert!(
        stream.starts_with(&whole.0.concat()),
        "frames are parts of the stream"
    );
    assert_eq!(read + whole.1, stream.len(), "nothing is lost");
}

type Outcome = (Vec<Bytes>, usize, Option<WireError>);

/// Reads it in pieces of these sizes; what is left, byte by byte. The frames, how many bytes follow them, and the error.
fn read(stream: &[u8], max: usize, cuts: impl IntoIterator<Item = usize>) -> Outcome {
    let mut reader = FrameReader::new();
    reader.set_max_message_size(max);
    let legal = max.clamp(64 << 10, 128 << 20);
    let mut frames = Vec::new();
    let mut rest = stream;
    let mut cuts = cuts.into_iter();
    while !rest.is_empty() {
        let (mut piece, later) = rest.split_at(cuts.next().unwrap_or(1).min(rest.len()));
        rest = later;
        while !piece.is_empty() {
            let buffer = reader.buffer();
            assert!(
                buffer.len() <= legal.max(stream.len() + 1),
                "{} bytes were taken",
                buffer.len()
            );
            let len = buffer.len().min(piece.len());
            buffer[..len].copy_from_slice(&piece[..len]);
            piece = &piece[len..];
            reader.filled(len);
            loop {
                match reader.next_frame() {
                    Ok(Some(frame)) => frames.push(frame),
                    Ok(None) => break,
                    Err(error) => {
                        let read: usize = frames.iter().map(Bytes::len).sum();
                        return (frames, stream.len() - read, Some(error));
                    }
                }
            }
        }
    }
    (frames, reader.pending(), None)
}

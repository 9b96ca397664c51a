//! Compressed clusters of qcow2. One decoder per thread, reused.

use std::cell::RefCell;
use std::io;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Raw deflate, window 4 KiB.
    Deflate,
    Zstd,
}

thread_local! {
    static DEFLATE: RefCell<Option<flate2::Decompress>> = const { RefCell::new(None) };
    static ZSTD: RefCell<Option<zstd::stream::raw::Decoder<'static>>> = const { RefCell::new(None) };
}

/// Fills `output` from the head of `input`; what follows the compressed stream is ignored.
pub fn decompress(kind: Compression, input: &[u8], output: &mut [u8]) -> io::Result<()> {
    match kind {
        Compression::Deflate => DEFLATE.with_borrow_mut(|decoder| {
            let decoder = decoder.get_or_insert_with(|| flate2::Decompress::new(false));
            decoder.reset(false);
            inflate(decoder, input, output)
        }),
        Compression::Zstd => ZSTD.with_borrow_mut(|slot| {
            let decoder = match slot {
                Some(decoder) => decoder,
                None => {
                    let mut decoder = zstd::stream::raw::Decoder::new()?;
                    // A cluster has at most 2 MiB; a larger window is only a demand for memory.
                    decoder.set_parameter(zstd::zstd_safe::DParameter::WindowLogMax(23))?;
                    slot.insert(decoder)
                }
            };
            unzstd(decoder, input, output)
        }),
    }
}

fn inflate(decoder: &mut flate2::Decompress, input: &[u8], output: &mut [u8]) -> io::Result<()> {
    loop {
        let (read, written) = (decoder.total_in() as usize, decoder.total_out() as usize);
        if written == output.len() {
            return Ok(());
        }
        let status = decoder
            .decompress(&input[read..], &mut output[written..], flate2::FlushDecompress::Finish)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        let progress = decoder.total_in() as usize > read || decoder.total_out() as usize > written;
        let full = decoder.total_out() as usize == output.len();
        if !full && (status == flate2::Status::StreamEnd || !progress) {
            return Err(short(decoder.total_out(), output.len()));
        }
    }
}

fn unzstd(
    decoder: &mut zstd::stream::raw::Decoder<'static>,
    input: &[u8],
    output: &mut [u8],
) -> io::Result<()> {
    use zstd::stream::raw::Operation;
    decoder.reinit()?;
    let (mut read, mut written) = (0, 0);
    while written < output.len() {
        let status = decoder.run_on_buffers(&input[read..], &mut output[written..])?;
        read += status.bytes_read;
        written += status.bytes_written;
        let stalled = status.bytes_read == 0 && status.bytes_written == 0;
        // Several frames may make up a cluster; only a standstill is an end.
        if written < output.len() && (stalled || read == input.len() && status.bytes_written == 0) {
            return Err(short(written as u64, output.len()));
        }
    }
    Ok(())
}

fn short(got: u64, want: usize) -> io::Error {
    let text = format!("compressed cluster ends after {got} of {want} bytes");
    io::Error::new(io::ErrorKind::InvalidData, text)
}

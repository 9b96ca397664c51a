//! XPRESS, LZX and LZMS, one chunk at a time: the codecs of WIM resources and of WOF files.
#![forbid(unsafe_code)]

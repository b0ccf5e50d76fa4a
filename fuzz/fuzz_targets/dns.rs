//! Runs `changestream_tests::fuzzing::dns` on whatever the fuzzer finds.
#![no_main]

use changestream_tests::fuzzing;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzing::dns(data));

//! Runs `changestream_tests::fuzzing::world` on whatever the fuzzer finds.
#![no_main]

use changestream_tests::fuzzing;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzing::world(data));

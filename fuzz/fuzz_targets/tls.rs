#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| corelay_fuzz::tls(data));

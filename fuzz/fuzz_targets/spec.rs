#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mixerflow_fuzz::spec(bytes));
